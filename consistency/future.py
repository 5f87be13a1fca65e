"""Rows whose write time lies in the future: no client can overwrite or delete them until that time comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from consistency.join import RowName, named_key
from consistency.leaves import LeafResult
from consistency.reader import Clock, ReplicaReader
from consistency.reading import RawRow, Reading, RowState


async def written_after(
    reader: ReplicaReader, reading: Reading, result: LeafResult, limit_us: int, clock: Clock
) -> AsyncGenerator[tuple[RowName, RowState], None]:
    """Yield each row of a leaf with a cell written after `limit_us`, as the first replica that was read holds it.

    A row on which the replicas differ may come too; whoever takes it asks the others.
    """
    node = next(iter(result.digests))
    now_s = clock.now_us() // 1_000_000
    last_partition: RawRow | None = None
    async for page in reader.rows(node, reading, result.leaf.token_range, now_s):
        for raw in page:
            token = int.from_bytes(raw[0] or b"", "big", signed=True)
            partition = raw[reading.partition_slice]
            if partition != last_partition:
                last_partition = partition
                static = reading.static_state(raw, now_s)
                if static is not None and (static.newest_us or 0) > limit_us:
                    yield RowName(token, named_key(partition), static=True), static
            state = reading.row_state(raw, now_s)
            if reading.has_row(raw) and (state.newest_us or 0) > limit_us:
                yield RowName(token, named_key(raw[reading.key_slice])), state
