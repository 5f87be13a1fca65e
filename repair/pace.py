"""Begin rows evenly, at most so many a second."""

from __future__ import annotations

from consistency.reader import Clock

DEFAULT_RATE = 500.0


class Pace:
    """Spreads the rows; no rate means no wait."""

    def __init__(self, clock: Clock, rate: float | None) -> None:
        self._clock = clock
        self._every_s = 1 / rate if rate else 0.0
        self._next = clock.monotonic()

    async def wait(self) -> None:
        """Wait for this row's turn."""
        at = max(self._next, self._clock.monotonic())
        self._next = at + self._every_s
        if at > self._clock.monotonic():
            await self._clock.sleep(at - self._clock.monotonic())
