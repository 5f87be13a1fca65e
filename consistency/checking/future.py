"""Rows whose write time lies in the future: no client can overwrite or delete them until that time comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from consistency.checking.leaves import LeafResult
from consistency.cluster.table_reader import TableReader
from consistency.model.layout import token_in
from consistency.model.reading import RawRow, RowState
from consistency.model.servertime import ServerTime
from consistency.rows.names import RowName, named_key


async def written_after(
    table: TableReader, result: LeafResult, when: ServerTime, max_skew_s: float
) -> AsyncGenerator[list[tuple[RowName, RowState]], None]:
    """Yield the rows of a leaf that lie in the future at `when`, by the page, as the first replica read holds them.

    A row on which the replicas differ may come too; whoever takes it asks the others.
    """
    node, reading, layout = next(iter(result.digests)), table.reading, table.reading.layout
    limit_us, now_s = when.future_us(max_skew_s), when.expiry_s
    last_partition: RawRow | None = None
    async with aclosing(table.rows(node, result.leaf.token_range, now_s)) as pages:
        async for page in pages:
            found: list[tuple[RowName, RowState]] = []
            for raw in page:
                token = token_in(raw)
                partition = raw[layout.partition]
                if partition != last_partition:
                    last_partition = partition
                    static = reading.static_state(raw, now_s)
                    if static is not None and (static.newest_us or 0) > limit_us:
                        found.append((RowName(token, named_key(partition), static=True), static))
                state = reading.row_state(raw, now_s)
                if reading.has_row(raw) and (state.newest_us or 0) > limit_us:
                    found.append((RowName(token, named_key(raw[layout.key])), state))
            if found:
                yield found
