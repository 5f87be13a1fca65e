"""Count the rows of a range that differ, where they are too many to be listed: joined, judged, and read once more.

As for the rows of one cluster (range_settling.py) a row counts if every replica holds exactly what it held before. But
whether two sides differ is a question of what their copies come to, so rows are joined here, not compared by hashes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import numpy as np

from consistency.checking.plan import Leaf
from consistency.checking.range_rows import FirstReading
from consistency.checking.range_settling import WaitingRows
from consistency.checking.settle import CLOCKS_S, MAX_ROUNDS
from consistency.cluster.table_reader import TableReader
from consistency.comparing.counted_rows import CountedRows, UnlikeRows
from consistency.comparing.settling import Rules
from consistency.errors import InternalError, ReplicaError
from consistency.model.row_arrays import NO_TIME, Numbers
from consistency.model.schema import Table
from consistency.model.sides import Side
from consistency.results.pair_findings import PairKind

MOST_WAITING = 100_000
"""Rows that wait for another reading before no further range is read: some 5 MB."""
_AT_ONCE = 2


@dataclass(frozen=True, eq=False)
class CountedRange:
    """The rows of a range that differ for good, and how many could not be judged."""

    table: Table
    leaf: Leaf
    rows: CountedRows
    unsettled: int
    read_at: float

    @property
    def kinds(self) -> Counter[PairKind]:
        """How many rows differ between the sides, by kind."""
        return self.rows.by_kind

    @property
    def inner(self) -> Counter[Side]:
        """On how many rows each side disagrees with itself."""
        return self.rows.by_side


class RangeCounter:
    """Counts the rows of one table's ranges, and hands what is settled to a sink."""

    def __init__(
        self, table: TableReader, window_s: float, rules: Rules, sink: Callable[[CountedRange], Awaitable[None]]
    ) -> None:
        self._table = table.full
        self._window_s = window_s
        self._rules = rules
        self._sink = sink
        self._beginners = asyncio.Semaphore(_AT_ONCE)
        self._readers = asyncio.Semaphore(_AT_ONCE)
        self._waiting = WaitingRows(MOST_WAITING)

    @property
    def waiting(self) -> int:
        """Rows that are not judged yet."""
        return self._waiting.count

    @property
    def takes_readings(self) -> bool:
        """Whether it begins with hashes of rows: it does not, as it must know what the rows hold."""
        return False

    async def settle(self, leaf: Leaf, begun: asyncio.Event, read: FirstReading | None = None) -> None:
        """Count the rows of a leaf that differ; raises a ReplicaError if a replica stops answering.

        `begun` is set once it was read for the first time.
        """
        if read is not None:
            raise InternalError("rows of two clusters were to be counted by their hashes")
        if reason := self._rules.too_few(self._table.reading.table, leaf.token_range.end, leaf.replicas):
            raise ReplicaError(reason)
        async with AsyncExitStack() as held:
            async with self._beginners:  # or all ranges would find room while none has been read yet
                await self._waiting.room()
                rows = UnlikeRows(self._table, leaf, self._rules.terms(self._table.reading.table))
                async with self._readers:
                    first = await rows.read()
                await held.enter_async_context(self._waiting.holding(len(first)))
            begun.set()
            settled = await self._settled(leaf, rows, first)
        if len(settled.rows) or settled.unsettled:
            await self._sink(settled)

    async def _settled(self, leaf: Leaf, rows: UnlikeRows, seen: CountedRows) -> CountedRange:
        """Read the leaf after each window, until all of its rows are settled or patience is over."""
        clock = self._table.clock
        done: list[CountedRows] = []
        outlived, read_at = np.zeros(len(seen), np.int64), clock.monotonic()
        for _ in range(MAX_ROUNDS):
            if not len(seen):
                break
            await clock.sleep(max(0.0, read_at + self._window_s - clock.monotonic()))
            young_us = clock.server_time().in_flight_us(CLOCKS_S + 2 * self._window_s)
            async with self._readers:
                now = await rows.read()
            read_at = clock.monotonic()
            known, before = now.known_to(seen)
            now = now.take(known)
            outlived = np.where(now.held == seen.held[before], outlived[before] + 1, 0)
            lasted = outlived >= _windows(now.newest, young_us)
            done.append(now.take(lasted))
            seen, outlived = now.take(~lasted), outlived[~lasted]
        return CountedRange(self._table.reading.table, leaf, CountedRows.joined(done), len(seen), read_at)


def _windows(newest: Numbers, young_us: int) -> Numbers:
    """Return how many windows each row must outlive, as a row by itself does that one replica has nothing of."""
    return np.where(newest == NO_TIME, MAX_ROUNDS - 1, np.where(newest >= young_us, 2, 1))
