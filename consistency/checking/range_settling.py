"""Settle the rows of a whole range: read it again after the window, and count what is as it was.

As for a single row (settle.py): what differed once may be a write in flight. Here hashes of rows are compared, not
rows: a row counts if every replica holds exactly what it held before. One that kept changing cannot be judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from consistency.checking.plan import Leaf
from consistency.checking.range_rows import FirstReading, RangeRows
from consistency.checking.settle import CLOCKS_S, MAX_ROUNDS
from consistency.cluster.table_reader import TableReader
from consistency.model.reading import Reading
from consistency.model.row_arrays import NO_TIME, Numbers, UnlikeRows
from consistency.model.servertime import ServerTime
from consistency.results.strip import one_of_each_cell

MOST_WAITING = 500_000
"""Rows that wait for another reading before no further range is read: some 100 MB."""
_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class SettledRange:
    """The rows of a range that differ for good, and how many could not be judged.

    `when` is the instant by which they are judged; `read_at` when the last reading was over (monotonic seconds).
    """

    reading: Reading
    leaf: Leaf
    rows: tuple[UnlikeRows, ...]
    unsettled: int
    when: ServerTime
    read_at: float

    @property
    def spread_tokens(self) -> list[int]:
        """A token of each cell of a strip in which a row differs."""
        return one_of_each_cell(np.concatenate([rows.tokens for rows in self.rows]))


Sink = Callable[[SettledRange], Awaitable[None]]


class RangeSettling(Protocol):
    """Counts the rows of ranges that differ."""

    @property
    def waiting(self) -> int:
        """Rows that are not judged yet."""

    @property
    def takes_readings(self) -> bool:
        """Whether it begins with hashes of a leaf's rows that were read before, and has room for them."""

    async def settle(self, leaf: Leaf, begun: asyncio.Event, read: FirstReading | None = None) -> None:
        """Count the rows of a leaf that differ; raises a ReplicaError if a replica stops answering.

        `begun` is set once it was read for the first time; `read` is what was read of it already.
        """


class WaitingRows:
    """The rows of ranges that wait for another reading; while they are too many no further range is begun."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self._most = most
        self._fewer = asyncio.Condition()

    async def room(self) -> None:
        """Return once there is room for the rows of another range."""
        async with self._fewer:
            await self._fewer.wait_for(lambda: self.count < self._most)

    @asynccontextmanager
    async def holding(self, rows: int) -> AsyncGenerator[None, None]:
        """Have so many rows wait meanwhile; after an interrupt they still do, and count as not judged."""
        self.count += rows
        try:
            yield
        except Exception:
            await self._done(rows)
            raise
        await self._done(rows)

    async def _done(self, rows: int) -> None:
        async with self._fewer:
            self.count -= rows
            self._fewer.notify_all()


class RangeSettler:
    """Reads the ranges of one table until their rows are settled, and hands them to a sink."""

    def __init__(self, table: TableReader, window_s: float, sink: Sink) -> None:
        self._table = table
        self._window_s = window_s
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
        """Whether it has room for rows that are read already: they wait for none."""
        return self._waiting.count < MOST_WAITING // 2

    async def settle(self, leaf: Leaf, begun: asyncio.Event, read: FirstReading | None = None) -> None:
        """Count the rows of a leaf that differ; raises a ReplicaError if a replica stops answering."""
        async with AsyncExitStack() as held:
            if read is None:
                async with self._beginners:
                    await self._waiting.room()
                    rows = RangeRows(self._table, leaf)
                    first = await rows.first()
                    await held.enter_async_context(self._waiting.holding(len(first)))
            else:
                rows, first = read.rows, read.unlike
                await held.enter_async_context(self._waiting.holding(len(first)))
            begun.set()
            settled = await self._settled(leaf, rows, first)
        if settled.rows or settled.unsettled:
            await self._sink(settled)

    async def _settled(self, leaf: Leaf, rows: RangeRows, seen: UnlikeRows) -> SettledRange:
        """Read the leaf after each window, until all of its rows are settled or patience is over."""
        clock = self._table.clock
        parts: list[UnlikeRows] = []
        outlived, when, read_at = np.zeros(len(seen), np.int64), clock.server_time(), clock.monotonic()
        for _ in range(MAX_ROUNDS):
            if not len(seen):
                break
            await clock.sleep(max(0.0, read_at + self._window_s - clock.monotonic()))
            when = clock.server_time()
            async with self._readers:
                now = await rows.again()
            read_at = clock.monotonic()
            now = now.take(now.known_to(seen))
            places = np.searchsorted(seen.keys, now.keys)
            outlived = np.where(now.same_as(seen), outlived[places] + 1, 0)
            done = outlived >= self._windows_to_outlive(now, when)
            if done.any():
                parts.append(now.take(done))
            seen, outlived = now.take(~done), outlived[~done]
        return SettledRange(self._table.reading, leaf, tuple(parts), len(seen), when, read_at)

    def _windows_to_outlive(self, rows: UnlikeRows, when: ServerTime) -> Numbers:
        """Return how many windows each row must outlive: as a row by itself does that one replica has nothing of."""
        newest = rows.newest
        young = newest >= when.in_flight_us(CLOCKS_S + 2 * self._window_s)
        return np.where(newest == NO_TIME, MAX_ROUNDS - 1, np.where(young, 2, 1))
