"""Begin rows evenly, at most so many a second."""

from __future__ import annotations

import asyncio

from consistency.cluster.port import Clock

DEFAULT_RATE = 2_000.0
_LOOK_EVERY_S = 0.25


class Pace:
    """Spreads the rows; no rate means no wait."""

    def __init__(self, clock: Clock, rate: float | None) -> None:
        self._clock = clock
        self._every_s = 1 / rate if rate else 0.0
        self._next = clock.monotonic()

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait for this row's turn, or until `stop` is set."""
        at = max(self._next, self._clock.monotonic())
        self._next = at + self._every_s
        while not stop.is_set() and (left := at - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(left, _LOOK_EVERY_S))
