"""From a differing leaf to the rows that differ: split while it is too large, then read and join."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from consistency.checking.leaves import LeafResult, digest_leaf
from consistency.checking.narrow_partitions import HASHED_ROWS, Partitions
from consistency.checking.narrow_rows import can_hash_rows, odd_rows
from consistency.checking.plan import Leaf
from consistency.checking.trees import differing
from consistency.cluster.port import Clock, ReplicaReader
from consistency.errors import ReplicaError, TooMuchToScan
from consistency.model.reading import Reading, Route
from consistency.model.ring import Node
from consistency.rows.merge_join import Difference, JoinTally, join_rows
from consistency.rows.names import RowName

READ_ROWS = 50_000
"""A range of no more rows than this is read; a larger one is split and digested first."""
_PARTS = 8
MOST_REFUSED = 32
"""Partitions of one leaf that are looked for where a server refuses to have them read."""
_MOST_TOLD = 100_000
"""Rows of one leaf that are remembered, so that none is told of twice where the leaf has to be read anew."""


@dataclass(slots=True)
class Descent:
    """What a closer look at one leaf came to, beside the rows that differ.

    `rows` counts those that were read. `refused` are the tokens of partitions that a replica refuses to have read, with
    the reason.
    """

    rows: int = 0
    refused: dict[int, ReplicaError] = field(default_factory=dict)


async def differences(
    reader: ReplicaReader,
    reading: Reading,
    route: Route,
    result: LeafResult,
    clock: Clock,
    descent: Descent,
    partitions: Partitions,
) -> AsyncGenerator[Difference, None]:
    """Yield the rows of a differing leaf on which its replicas differ, each once.

    A leaf whose digests differ and whose rows are read equal, byte by byte, yields nothing: a hash was
    disturbed, or a write was under way. `partitions` is what the scan knows of the table's. What a server refuses to
    have read is split until a partition is left, which is entered in `descent`. Raises a ReplicaError where a
    replica stops answering; what was yielded before stands.
    """
    pending = [result]
    told: set[RowName] = set()
    again = False  # whether some of what is left was read before
    while pending:
        current = pending.pop()
        if _is_large(current, route):
            pending += await _differing(reader, reading, route, current, clock)
            continue
        tally = JoinTally()
        try:
            async with aclosing(_rows_of(reader, reading, route, current, clock, tally, partitions)) as found:
                async for difference in found:
                    if difference.name not in told:
                        if len(told) < _MOST_TOLD:
                            told.add(difference.name)
                        yield difference
        except ReplicaError as error:
            bounded = len(told) < _MOST_TOLD and len(descent.refused) < MOST_REFUSED
            if not (bounded and _refused_for_what_it_holds(error)):
                raise
            if current.leaf.token_range.width == 1:
                descent.refused[current.leaf.token_range.end] = error
            else:
                pending += await _differing(reader, reading, route, current, clock)
            again = True
        else:
            descent.rows += tally.rows
            if not again:
                told.clear()  # what is left holds other rows


def _refused_for_what_it_holds(error: ReplicaError) -> bool:
    """Whether a smaller range may be read: a guardrail, or a row that was not read for a reason of its own."""
    return isinstance(error, TooMuchToScan) or type(error) is ReplicaError


def _is_large(result: LeafResult, route: Route) -> bool:
    """Whether a leaf is split before its rows are read.

    A single partition may hold any number of rows: a join needs no more than a page of each replica.
    """
    large = result.rows > READ_ROWS and result.leaf.token_range.width > 1 and route is Route.SERVER
    return large and result.odd is None and not result.full


async def _differing(
    reader: ReplicaReader, reading: Reading, route: Route, parent: LeafResult, clock: Clock
) -> list[LeafResult]:
    """Return the parts of a leaf that differ, the first last; the leaf itself where most of them do.

    Full of differences, another level of digests would only read everything once more.
    """
    children = await _split(reader, reading, route, parent, tuple(parent.digests), clock)
    unlike = differing(children)
    if _is_large(parent, route) and len(unlike) > _PARTS // 2:
        return [replace(parent, full=True)]
    return unlike[::-1]


async def _rows_of(
    reader: ReplicaReader,
    reading: Reading,
    route: Route,
    current: LeafResult,
    clock: Clock,
    tally: JoinTally,
    partitions: Partitions,
) -> AsyncGenerator[Difference, None]:
    """Yield the differing rows of a leaf that is not split."""
    nodes = tuple(current.digests)
    hashed = current.rows <= READ_ROWS and can_hash_rows(reading, route) and not current.fell_back
    for piece in current.leaf.token_range.split(math.ceil(current.rows / HASHED_ROWS) if hashed else 1):
        leaf = Leaf(piece, nodes)
        if current.odd is not None:
            found = odd_rows(reader, reading, current.leaf, clock, tally, partitions, current.odd)
        elif hashed:
            found = odd_rows(reader, reading, leaf, clock, tally, partitions)
        else:
            found = _read(reader, reading, leaf, nodes, clock, tally)
        async with aclosing(found):
            async for difference in found:
                yield difference
        if current.odd is not None:
            return


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
