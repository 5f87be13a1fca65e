"""From a differing leaf to the rows that differ: split while it is too large, then read and join."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from consistency.checking.joined_rows import joined_rows
from consistency.checking.leaves import LeafResult, digest_leaf
from consistency.checking.listing import Listing
from consistency.checking.narrow_partitions import HASHED_ROWS, Partitions
from consistency.checking.narrow_rows import differing_rows
from consistency.checking.plan import Leaf
from consistency.checking.range_rows import FirstReadings
from consistency.checking.trees import differing
from consistency.cluster.table_reader import TableReader
from consistency.errors import ReplicaError, TooMuchToScan
from consistency.model.reading import Route
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from consistency.rows.merge_join import Difference, JoinCounts
from consistency.rows.names import RowName

READ_ROWS = 50_000
"""A range of no more rows than this is read; a larger one is split and digested first."""
_PARTS = 8
MOST_COUNTED = 200_000
"""Rows that are counted as arrays at once; those of a larger partition are listed, whatever room there is."""
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
    listing: Listing | None = None,
) -> AsyncGenerator[Difference | Leaf, None]:
    """Yield the rows of a differing leaf on which its replicas differ, each once.

    Where the listing has no room for them it yields the part of the leaf whose rows are to be counted instead.

    A leaf whose digests differ and whose rows are read equal, byte by byte, yields nothing: a hash was
    disturbed, or a write was under way. `partitions` is what the scan knows of the table's. What a server refuses to
    have read is split until a partition is left, which is entered in `descent`. Raises a ReplicaError if a
    replica stops answering; what was yielded before stands.
    """
    pending = [result]
    listing = listing or Listing()
    told: set[RowName] = set()
    counted: list[TokenRange] = []
    again = False  # whether some of what is left was read before
    while pending:
        current = pending.pop()
        # What is read anew was told in part: it is listed, so that no row is both listed and counted.
        room = Listing() if again else listing
        if room.full and current.rows <= MOST_COUNTED:
            for part in _countable_parts(table, current):
                yield part
            continue
        if (parts := await _parts_instead(table, current, room)) is not None:
            pending += parts
            continue
        counts = JoinCounts()
        try:
            async with aclosing(_rows_of(table, current, counts, partitions, room)) as found:
                async for each in found:
                    if _is_news(each, told, counted):
                        yield each
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


def _is_news(found: Difference | Leaf, told: set[RowName], counted: list[TokenRange]) -> bool:
    """Whether something was not told of before; remember it, rows as far as there is room."""
    if isinstance(found, Leaf):
        counted.append(found.token_range)
        return True
    if found.name in told or any(found.name.token in token_range for token_range in counted):
        return False
    if len(told) < _MOST_TOLD:
        told.add(found.name)
    return True


def _refused_for_what_it_holds(error: ReplicaError) -> bool:
    """Whether a smaller range may be read: a guardrail, or a row that was not read for a reason of its own."""
    return isinstance(error, TooMuchToScan) or type(error) is ReplicaError


async def _parts_instead(table: TableReader, result: LeafResult, room: Listing) -> list[LeafResult] | None:
    """Return the parts to look at instead of a leaf that is too large, the first last; None if it is not."""
    if room.full and result.leaf.token_range.width > 1:
        return await _unlike_parts(table, result)  # whatever part of it differs: it is too large to be counted
    return await _differing(table, result) if _is_large(result, table.route) else None


def _is_large(result: LeafResult, route: Route) -> bool:
    """Whether a leaf is split before its rows are read.

    A single partition may hold any number of rows: a join needs no more than a page of each replica.
    """
    large = result.rows > READ_ROWS and result.leaf.token_range.width > 1 and route is Route.SERVER
    return large and result.differing is None and not result.full


async def _differing(table: TableReader, parent: LeafResult) -> list[LeafResult]:
    """Return the parts of a leaf that differ, the first last; the leaf itself if most of them do.

    Full of differences, another level of digests would only read everything once more.
    """
    unlike = await _unlike_parts(table, parent)
    if _is_large(parent, table.route) and len(unlike) > _PARTS // 2:
        return [replace(parent, full=True)]
    return unlike


async def _unlike_parts(table: TableReader, parent: LeafResult) -> list[LeafResult]:
    """Return the parts of a leaf that differ, the first last."""
    return differing(await _split(table, parent, tuple(parent.digests)))[::-1]


async def _rows_of(
    table: TableReader,
    current: LeafResult,
    counts: JoinCounts,
    partitions: Partitions,
    listing: Listing,
) -> AsyncGenerator[Difference | Leaf, None]:
    """Yield the differing rows of a leaf that is not split."""
    nodes = tuple(current.digests)
    known = None if isinstance(current.differing, FirstReadings) else current.differing
    hashed = current.rows <= READ_ROWS and table.hashes_rows and not current.fell_back
    for piece in current.leaf.token_range.split(math.ceil(current.rows / HASHED_ROWS) if hashed else 1):
        leaf = Leaf(piece, nodes)
        if known is not None:
            found = differing_rows(table, current.leaf, counts, partitions, listing, known)
        elif hashed:
            found = differing_rows(table, leaf, counts, partitions, listing)
        else:
            found = _listed(table, leaf, counts, listing if current.rows <= MOST_COUNTED else Listing())
        async with aclosing(found):
            async for difference in found:
                yield difference
        if known is not None:
            return


def _countable_parts(table: TableReader, result: LeafResult) -> Sequence[Leaf]:
    """Cut a leaf into parts that are counted each: small ones, so that one that changes is not read for all."""
    nodes = tuple(result.digests)
    parts = math.ceil(result.rows / (HASHED_ROWS if table.hashes_rows else READ_ROWS))
    return [Leaf(piece, nodes) for piece in result.leaf.token_range.split(parts)]


async def _listed(
    table: TableReader, leaf: Leaf, counts: JoinCounts, listing: Listing
) -> AsyncGenerator[Difference | Leaf, None]:
    """Yield the differing rows of a leaf that is read, then the rest of it where there is no room for more."""
    done = leaf.token_range.start
    async with aclosing(joined_rows(table, leaf, counts, table.now_s())) as found:
        async for difference in found:
            token = difference.name.token
            if token != done and not listing.takes(1):
                yield Leaf(TokenRange(max(done, token - 1), leaf.token_range.end), leaf.replicas)
                return
            done = token
            yield difference


async def _split(table: TableReader, parent: LeafResult, nodes: Sequence[Node]) -> list[LeafResult]:
    out: list[LeafResult] = []
    for piece in parent.leaf.token_range.split(_PARTS):
        child = await digest_leaf(table, Leaf(piece, tuple(nodes)))
        for error in child.errors.values():
            raise error
        out.append(child)
    return out
