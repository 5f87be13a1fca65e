"""Real time."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """The machine's clock, set right by what the servers say: TTLs and skew are judged by their time.

    `offset_us` is the most advanced server's clock minus ours: a cell that a server may already have turned
    into a tombstone must not be taken for live.
    """

    def __init__(self, offset_us: int = 0) -> None:
        self._offset_us = offset_us

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000 + self._offset_us

    def monotonic(self) -> float:
        """Seconds, for measuring."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
