"""From a differing leaf to the rows that differ: split while it is too large, then read and join."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from consistency.join import Difference, JoinTally, join_rows
from consistency.leaves import LeafResult, digest_leaf
from consistency.oddpartitions import HASHED_ROWS, Partitions
from consistency.oddrows import can_hash_rows, odd_rows
from consistency.plan import Leaf
from consistency.reader import Clock, ReplicaReader
from consistency.reading import Reading, Route
from consistency.ring import Node

READ_ROWS = 50_000
"""A range of no more rows than this is read; a larger one is split and digested first."""
_PARTS = 8


async def differences(
    reader: ReplicaReader,
    reading: Reading,
    route: Route,
    result: LeafResult,
    clock: Clock,
    tally: JoinTally,
    partitions: Partitions,
) -> AsyncGenerator[Difference, None]:
    """Yield the rows of a differing leaf on which its replicas differ.

    A leaf whose digests differ and whose rows are read equal, byte by byte, yields nothing: a hash was
    disturbed, or a write was under way. `tally` counts the rows that were read, `partitions` is what the scan
    knows of the table's. Raises a ReplicaError where a
    replica stops answering; what was yielded before stands.
    """
    pending = [result]
    while pending:
        current = pending.pop()
        nodes = tuple(current.digests)
        if current.odd is not None:
            known = odd_rows(reader, reading, current.leaf, clock, tally, partitions, current.odd)
            async with aclosing(known):
                async for difference in known:
                    yield difference
            continue
        if current.rows <= READ_ROWS or current.leaf.token_range.width == 1 or route is Route.CLIENT:
            # A single partition may hold any number of rows: a join needs no more than a page of each replica.
            hashed = current.rows <= READ_ROWS and can_hash_rows(reading, route) and not current.fell_back
            for piece in current.leaf.token_range.split(math.ceil(current.rows / HASHED_ROWS) if hashed else 1):
                leaf = Leaf(piece, nodes)
                found = (
                    odd_rows(reader, reading, leaf, clock, tally, partitions)
                    if hashed
                    else _read(reader, reading, leaf, nodes, clock, tally)
                )
                async with aclosing(found):
                    async for difference in found:
                        yield difference
            continue
        children = await _split(reader, reading, route, current, nodes, clock)
        differing = [child for child in children if child.differs]
        if len(differing) > _PARTS // 2:
            # Full of differences: another level of digests would only read everything once more.
            async for difference in _read(reader, reading, current.leaf, nodes, clock, tally):
                yield difference
        else:
            pending.extend(reversed(differing))


async def _split(
    reader: ReplicaReader,
    reading: Reading,
    route: Route,
    parent: LeafResult,
    nodes: Sequence[Node],
    clock: Clock,
) -> list[LeafResult]:
    out: list[LeafResult] = []
    for piece in parent.leaf.token_range.split(_PARTS):
        now_s = clock.now_us() // 1_000_000
        child = await digest_leaf(reader, reading, route, Leaf(piece, tuple(nodes)), now_s)
        for error in child.errors.values():
            raise error
        out.append(child)
    return out


async def _read(
    reader: ReplicaReader, reading: Reading, leaf: Leaf, nodes: Sequence[Node], clock: Clock, tally: JoinTally
) -> AsyncGenerator[Difference, None]:
    now_s = clock.now_us() // 1_000_000
    streams = {node: reader.rows(node, reading, leaf.token_range, now_s) for node in nodes}
    try:
        async with aclosing(join_rows(reading, streams, now_s, tally)) as joined:
            async for difference in joined:
                yield difference
    finally:
        for stream in streams.values():
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
