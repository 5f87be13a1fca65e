"""Count the rows of a range that differ, where they are too many to be listed: joined, judged, and read once more.

As for the rows of one cluster (range_settling.py) a row counts if every replica holds exactly what it held before. But
whether two sides differ is a question of what their copies come to, so rows are joined here, not compared by hashes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from consistency.checking.joined_rows import joined_rows
from consistency.checking.plan import Leaf
from consistency.checking.range_settling import WaitingRows
from consistency.checking.settle import CLOCKS_S, MAX_ROUNDS
from consistency.cluster.table_reader import TableReader
from consistency.comparing.rows import agreed, by_side, compare_row
from consistency.comparing.settling import Rules
from consistency.errors import ReplicaError
from consistency.model.schema import Table
from consistency.model.sides import Side
from consistency.results.pair_findings import PairKind
from consistency.rows.merge_join import Difference, JoinCounts

MOST_WAITING = 100_000
"""Rows that wait for another reading before no further range is read: some 40 MB."""
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class CountedRow:
    """A row that differs: by which kind between the sides, if by any, and which sides disagree with themselves.

    `held` is a hash of what every replica holds of it, of this process; `newest_us` is its newest write time.
    """

    token: int
    kind: PairKind | None
    inner: tuple[Side, ...]
    held: int
    newest_us: int | None


@dataclass(frozen=True)
class CountedRange:
    """The rows of a range that differ for good, and how many could not be judged."""

    table: Table
    leaf: Leaf
    rows: tuple[CountedRow, ...]
    unsettled: int
    read_at: float

    @property
    def kinds(self) -> Counter[PairKind]:
        """How many rows differ between the sides, by kind."""
        return Counter(row.kind for row in self.rows if row.kind is not None)

    @property
    def inner(self) -> Counter[Side]:
        """On how many rows each side disagrees with itself."""
        return Counter(side for row in self.rows for side in row.inner)


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

    async def settle(self, leaf: Leaf) -> None:
        """Count the rows of a leaf that differ; raises a ReplicaError where a replica stops answering."""
        if reason := self._rules.too_few(self._table.reading.table, leaf.token_range.end, leaf.replicas):
            raise ReplicaError(reason)
        async with AsyncExitStack() as held:
            async with self._beginners:  # or all ranges would find room while none has been read yet
                await self._waiting.room()
                now_s = self._table.now_s()
                first = await self._read(leaf, now_s)
                await held.enter_async_context(self._waiting.holding(len(first)))
            settled = await self._settled(leaf, first, now_s)
        if settled.rows or settled.unsettled:
            await self._sink(settled)

    async def _settled(self, leaf: Leaf, seen: dict[int, CountedRow], now_s: int) -> CountedRange:
        clock = self._table.clock
        done: list[CountedRow] = []
        outlived: Counter[int] = Counter()
        read_at = clock.monotonic()
        for _ in range(MAX_ROUNDS):
            if not seen:
                break
            await clock.sleep(max(0.0, read_at + self._window_s - clock.monotonic()))
            young_us = clock.server_time().in_flight_us(CLOCKS_S + 2 * self._window_s)
            now = await self._read(leaf, now_s)
            read_at = clock.monotonic()
            left: dict[int, CountedRow] = {}
            for name, before in seen.items():
                row = now.get(name)
                if row is None:
                    continue
                outlived[name] = outlived[name] + 1 if row.held == before.held else 0
                if outlived[name] >= _windows(row.newest_us, young_us):
                    done.append(row)
                else:
                    left[name] = row
            seen = left
        return CountedRange(self._table.reading.table, leaf, tuple(done), len(seen), read_at)

    async def _read(self, leaf: Leaf, now_s: int) -> dict[int, CountedRow]:
        """Return the rows of a leaf that differ, by a hash of their name."""
        found: dict[int, CountedRow] = {}
        async with self._readers, aclosing(joined_rows(self._table, leaf, JoinCounts(), now_s)) as differences:
            async for difference in differences:
                row = self._judged(difference)
                if row.kind is not None or row.inner:
                    found[hash((difference.name.key, difference.name.static))] = row
        return found

    def _judged(self, difference: Difference) -> CountedRow:
        reading, name = self._table.reading, difference.name
        columns = reading.statics if name.static else reading.regulars
        facts = compare_row(columns, difference.states, self._rules.terms(reading.table)).facts
        sides = by_side(difference.states)
        newest = [s.newest_us for s in difference.states.values() if s is not None and s.newest_us is not None]
        return CountedRow(
            name.token,
            facts[0] if facts else None,
            tuple(side for side, copies in sides.items() if not agreed(copies)),
            hash(tuple(difference.states.values())),
            max(newest, default=None),
        )


def _windows(newest_us: int | None, young_us: int) -> int:
    """Return how many windows a row must outlive, as a row by itself does that one replica has nothing of."""
    if newest_us is None:
        return MAX_ROUNDS - 1
    return 2 if newest_us >= young_us else 1
