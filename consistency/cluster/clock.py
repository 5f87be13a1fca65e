"""Real time: the servers', as far as it can be told from here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from consistency.model.servertime import ClockReading, ServerTime


class SystemClock:
    """The servers' time, counted on from when their clocks were read; this machine's own clock plays no part in it.

    The readings say how far each server's clock is ahead of this machine's monotonic one, so a wall clock that is
    wrong by hours, or set right in the middle of a run, changes nothing. Only if no server told its time is this
    machine's believed.
    """

    def __init__(self, readings: Sequence[ClockReading] = ()) -> None:
        self.readings = tuple(readings)
        here_us = (time.time_ns() - time.monotonic_ns()) // 1000
        bounds = [reading.bounds for reading in self.readings] or [(here_us, here_us)]
        self._earliest_us = min(least for least, _ in bounds)
        self._latest_us = max(most for _, most in bounds)

    def now_us(self) -> int:
        """Microseconds since the epoch, by the most advanced of the servers' clocks."""
        return self.server_time().latest_us

    def server_time(self) -> ServerTime:
        """Return what time it is for the servers."""
        now_us = time.monotonic_ns() // 1000
        return ServerTime(now_us + self._earliest_us, now_us + self._latest_us)

    def monotonic(self) -> float:
        """Seconds, for measuring."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
