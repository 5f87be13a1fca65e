"""From a differing leaf to the rows that differ: split while it is too large, then read and join."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace

from consistency.checking.leaves import LeafResult, digest_leaf
from consistency.checking.narrow_partitions import HASHED_ROWS, Partitions
from consistency.checking.narrow_rows import differing_rows
from consistency.checking.plan import Leaf
from consistency.checking.trees import differing
from consistency.cluster.table_reader import TableReader
from consistency.errors import ReplicaError, TooMuchToScan
from consistency.model.reading import Route
from consistency.model.ring import Node
from consistency.rows.merge_join import Difference, JoinCounts, join_rows
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
    table: TableReader,
    result: LeafResult,
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
        if _is_large(current, table.route):
            pending += await _differing(table, current)
            continue
        counts = JoinCounts()
        try:
            async with aclosing(_rows_of(table, current, counts, partitions)) as found:
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
                pending += await _differing(table, current)
            again = True
        else:
            descent.rows += counts.rows
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
    return large and result.differing is None and not result.full


async def _differing(table: TableReader, parent: LeafResult) -> list[LeafResult]:
    """Return the parts of a leaf that differ, the first last; the leaf itself where most of them do.

    Full of differences, another level of digests would only read everything once more.
    """
    children = await _split(table, parent, tuple(parent.digests))
    unlike = differing(children)
    if _is_large(parent, table.route) and len(unlike) > _PARTS // 2:
        return [replace(parent, full=True)]
    return unlike[::-1]


async def _rows_of(
    table: TableReader,
    current: LeafResult,
    counts: JoinCounts,
    partitions: Partitions,
) -> AsyncGenerator[Difference, None]:
    """Yield the differing rows of a leaf that is not split."""
    nodes = tuple(current.digests)
    hashed = current.rows <= READ_ROWS and table.hashes_rows and not current.fell_back
    for piece in current.leaf.token_range.split(math.ceil(current.rows / HASHED_ROWS) if hashed else 1):
        leaf = Leaf(piece, nodes)
        if current.differing is not None:
            found = differing_rows(table, current.leaf, counts, partitions, current.differing)
        elif hashed:
            found = differing_rows(table, leaf, counts, partitions)
        else:
            found = _read(table, leaf, counts)
        async with aclosing(found):
            async for difference in found:
                yield difference
        if current.differing is not None:
            return


async def _split(table: TableReader, parent: LeafResult, nodes: Sequence[Node]) -> list[LeafResult]:
    out: list[LeafResult] = []
    for piece in parent.leaf.token_range.split(_PARTS):
        child = await digest_leaf(table, Leaf(piece, tuple(nodes)))
        for error in child.errors.values():
            raise error
        out.append(child)
    return out


async def _read(table: TableReader, leaf: Leaf, counts: JoinCounts) -> AsyncGenerator[Difference, None]:
    now_s = table.now_s()
    async with AsyncExitStack() as opened:
        streams = {
            node: await opened.enter_async_context(aclosing(table.rows(node, leaf.token_range, now_s)))
            for node in leaf.replicas
        }
        joined = await opened.enter_async_context(aclosing(join_rows(table.reading, streams, now_s, counts)))
        async for difference in joined:
            yield difference
