"""When a row is begun: evenly, so many a second and so many at once, until the run is to end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from consistency.cluster.port import Clock
from repair.applying.breaker import Breaker

DEFAULT_RATE = 2_000.0
_LOOK_EVERY_S = 0.25
_MOST_AT_ONCE = 50
_MOST_TOGETHER = 2_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How hard to write, and for how long."""

    rate: float | None = DEFAULT_RATE
    """Rows begun a second; None: as fast as they go."""
    at_once: int = 16
    """Rows under way at once."""
    until: float | None = None
    """`time.monotonic()` after which no more rows are begun."""
    max_deletes: int | None = None
    """How many rows that most replicas hold may vanish; None: what the plan forecasts, and ten more."""


class Pace:
    """Spreads the rows; no rate means no wait."""

    def __init__(self, clock: Clock, rate: float | None) -> None:
        self._clock = clock
        self._every_s = 1 / rate if rate else 0.0
        self._next = clock.monotonic()

    async def wait(self, stop: asyncio.Event, rows: int = 1) -> None:
        """Wait for the turn of a row, or of several that are begun together, or until `stop` is set."""
        at = max(self._next, self._clock.monotonic())
        self._next = at + self._every_s * rows
        while not stop.is_set() and (left := at - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(left, _LOOK_EVERY_S))


@dataclass(frozen=True, slots=True)
class Risk:
    """Whether a row may vanish once it was acted on, and with which others: those of its partition."""

    partition: tuple[str, int]
    may_vanish: bool


class Throttle:
    """Says when each row of a run may be begun."""

    def __init__(self, clock: Clock, options: ApplyOptions, stop: asyncio.Event, breaker: Breaker) -> None:
        self._clock = clock
        self.breaker = breaker
        self._options = options
        self._stop = stop
        self._pace = Pace(clock, options.rate)
        self._gate = asyncio.Semaphore(options.at_once)
        self.interrupted = False
        self.out_of_time = False

    def may_begin(self) -> bool:
        """Whether more rows may be begun; notes why not."""
        until = self._options.until
        self.interrupted |= self._stop.is_set()
        self.out_of_time |= until is not None and self._clock.monotonic() > until
        return not (self.interrupted or self.out_of_time)

    @asynccontextmanager
    async def next(self) -> AsyncIterator[bool]:
        """Wait for a row's turn, and tell whether it may be begun then."""
        async with self._gate:
            await self._pace.wait(self._stop)
            yield self.may_begin()

    async def together(self, rows: int) -> bool:
        """Wait for the turn of rows that are begun together, and tell whether they may be begun then."""
        await self._pace.wait(self._stop, rows)
        return self.may_begin()

    @property
    def many(self) -> int:
        """How many rows of a range may be begun together: a second's."""
        rate = self._options.rate
        return _MOST_TOGETHER if rate is None else max(1, min(_MOST_TOGETHER, int(rate)))

    @property
    def few(self) -> int:
        """How many rows may wait for their turn after they were read: a tenth of a second's."""
        rate = self._options.rate
        return _MOST_AT_ONCE if rate is None else max(1, min(_MOST_AT_ONCE, int(rate / 10)))

    async def groups(self, rows: Sequence[T], risk: Callable[[T], Risk]) -> AsyncIterator[Sequence[T]]:
        """Cut rows into groups of a few, those that may vanish when the breaker lets their partition begin.

        Who acts on them tells the breaker what has ended.
        """
        waiting = deque([list(some) for _, some in groupby(rows, key=lambda row: risk(row).partition)])
        while waiting:
            some: list[T] = []
            while waiting and len(some) < self.few and self._lets_begin(waiting[0], risk):
                some += waiting.popleft()
            for at in range(0, len(some), self.few):
                yield some[at : at + self.few]
            if not some and not await self.breaker.wait():
                return

    def _lets_begin(self, rows: Sequence[T], risk: Callable[[T], Risk]) -> bool:
        may_vanish = sum(risk(row).may_vanish for row in rows)
        if self.breaker.surprised_too_often:
            return False
        return not may_vanish or self.breaker.may_begin(may_vanish)
