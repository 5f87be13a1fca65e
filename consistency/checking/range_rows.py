"""The rows of a range that differ, as arrays: of hashes that the servers make, or of rows that are joined here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import xxhash

from consistency.checking.joined_rows import joined_rows
from consistency.checking.leaves import beyond_the_server
from consistency.checking.plan import Leaf
from consistency.cluster.table_reader import TableReader
from consistency.errors import InternalError, ReplicaError
from consistency.model.reading import Cell, Reading, RowState, each_time
from consistency.model.ring import Node
from consistency.model.row_arrays import NO_TIME, HashedRows, Shown, UnlikeRows, compare
from consistency.rows.merge_join import Difference, JoinCounts


class RangeRows:
    """Reads the rows of a leaf on which its replicas differ: again and again, always in the way of the first time.

    The names of rows are hashes, and each way has its own: rows that were read in two ways have nothing in common.
    All readings are as of one instant, because what is left of a TTL is hashed as well.
    """

    def __init__(self, table: TableReader, leaf: Leaf, now_s: int | None = None) -> None:
        self._table = table
        self._leaf = leaf
        self._now_s = table.now_s() if now_s is None else now_s
        # Two spellings of a key are two hashes, so the rows of a table that can have them are joined.
        self._hashed = table.hashes_rows and not table.reading.table.respelled

    async def first(self) -> UnlikeRows:
        """Read them; raises a ReplicaError if a replica does not answer.

        Where servers hash they need not show what tells kinds apart yet. Rows that they cannot hash, or of which two
        have one name, are joined.
        """
        if self._hashed:
            try:
                replicas = await self._hashes(Shown.ROWS)
            except ReplicaError as error:
                if not beyond_the_server([error]):
                    raise
            else:
                if all(rows.distinct for rows in replicas):
                    return compare(replicas)
            self._hashed = False
        return await self._joined()

    async def again(self) -> UnlikeRows:
        """Read them once more, with what tells kinds apart; raises InternalError if two rows have one name now."""
        if not self._hashed:
            return await self._joined()
        replicas = await self._hashes(Shown.KINDS)
        if not all(rows.distinct for rows in replicas):
            raise InternalError("two rows of one range have one hash; the range cannot be compared")
        return compare(replicas)

    async def hashed(self, *, most: int) -> Sequence[HashedRows]:
        """Read them for the first time where servers hash, all of them; the first replica tells write times too.

        Of a replica that holds more than `most` a page more than that is read.
        """
        first, *others = self._leaf.replicas
        asked = [self._of(first, Shown.AGES, most), *(self._of(node, Shown.ROWS, most) for node in others)]
        return await asyncio.gather(*asked)

    def begun_with(self, replicas: Sequence[HashedRows]) -> FirstReading | None:
        """Return what was read of all replicas as the first reading; None if two rows of one have one name."""
        if not all(rows.distinct for rows in replicas):
            return None
        return FirstReading(self._leaf, self, compare([rows.without_times for rows in replicas]))

    async def _hashes(self, shown: Shown) -> Sequence[HashedRows]:
        return await asyncio.gather(*(self._of(node, shown) for node in self._leaf.replicas))

    async def _of(self, node: Node, shown: Shown, most: int | None = None) -> HashedRows:
        return await self._table.hashed_rows(node, self._leaf.token_range, self._now_s, shown, most=most)

    async def _joined(self) -> UnlikeRows:
        async with aclosing(joined_rows(self._table, self._leaf, JoinCounts(), self._now_s)) as found:
            return _as_arrays(self._table.reading, self._leaf.replicas, [difference async for difference in found])


@dataclass(frozen=True, eq=False)
class FirstReading:
    """What differed in a part of a leaf when it was read for the first time, and what reads that again."""

    leaf: Leaf
    rows: RangeRows
    unlike: UnlikeRows


@dataclass(frozen=True, eq=False)
class FirstReadings:
    """The parts of a leaf in which rows differ, each as it was read first."""

    parts: tuple[FirstReading, ...]

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.parts)


def _as_arrays(reading: Reading, nodes: Sequence[Node], found: Sequence[Difference]) -> UnlikeRows:
    """Return differences as arrays, in the order of their keys' hashes."""
    named = sorted(((_number(_key_bytes(each)), each) for each in found), key=lambda pair: pair[0])
    columns = max(len(reading.regulars), len(reading.statics))
    rows = UnlikeRows(
        np.array([each.name.token for _, each in named], np.int64),
        np.array([key for key, _ in named], np.uint64),
        np.zeros((len(named), len(nodes)), np.bool_),
        np.zeros((len(named), len(nodes), 2), np.uint64),
        np.zeros((len(named), len(nodes)), np.uint64),
        np.zeros((len(named), len(nodes)), np.uint64),
        np.full((len(named), len(nodes), columns), NO_TIME),
    )
    for row, (_, each) in enumerate(named):
        for place, node in enumerate(nodes):
            if (state := each.states[node]) is not None:
                rows.present[row, place] = True
                rows.hashes[row, place] = _hash(state)
                rows.expiries[row, place] = _number(repr([cell.expires for cell in state.cells]).encode())
                rows.ages[row, place] = _number(repr([cell.writetimes for cell in state.cells]).encode())
                rows.times[row, place, : len(state.cells)] = [_newest(cell) for cell in state.cells]
    return rows


def _key_bytes(difference: Difference) -> bytes:
    return repr((difference.name.key, difference.name.static)).encode()


def _number(raw: bytes) -> int:
    return xxhash.xxh3_64_intdigest(raw)


def _hash(state: RowState) -> tuple[int, int]:
    high, low = divmod(xxhash.xxh3_128_intdigest(repr(state).encode()), 2**64)
    return high, low


def _newest(cell: Cell) -> int:
    return max(each_time(cell.writetimes), default=NO_TIME)
