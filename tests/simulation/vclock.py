"""An event loop on which time jumps to the next timer when nothing is ready, so that no test ever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from consistency.model.ring import Node
from consistency.model.servertime import ClockReading, ServerTime

T = TypeVar("T")

EPOCH_S = 1_700_000_000
"""What the wall clock shows when a simulation starts."""


class Stuck(AssertionError):
    """Nothing is ready and no timer is set: whoever still waits, waits for ever."""


class _Jump:
    """Stands where a selector stands in a real loop: instead of waiting it moves the time on."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("the simulation is stuck: a task waits for what nobody will do")
        self._loop.now += timeout
        return []

    def close(self) -> None:
        """Hold nothing."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A deterministic event loop: timers fire one by one in the order of their time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = _Jump(self)
        # Timers further apart than this are separate steps, so that no two replicas answer at once by chance.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        """Expect none: there is no I/O."""

    def _write_to_self(self) -> None:
        """Wake nobody: there are no other threads."""


class SimClock:
    """The port `Clock` on virtual time, as the servers' clocks were read.

    `skew_s` is how far all of it is ahead of the simulation's time, `clocks_s` how far each server's clock is beside
    that, `unsure_s` how exactly they were read.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        skew_s: float = 0.0,
        *,
        clocks_s: Mapping[Node, float] | None = None,
        unsure_s: float = 0.0,
    ) -> None:
        self._loop = loop
        self._skew_s = skew_s
        unsure_us = int(unsure_s * 1e6)
        self.readings = [ClockReading(n, int(s * 1e6), unsure_us) for n, s in (clocks_s or {}).items()]

    def now_us(self) -> int:
        return self.server_time().latest_us

    def server_time(self) -> ServerTime:
        now_us = int((EPOCH_S + self._skew_s + self._loop.now) * 1_000_000)
        bounds = [reading.bounds for reading in self.readings] or [(0, 0)]
        return ServerTime(now_us + min(b for b, _ in bounds), now_us + max(b for _, b in bounds))

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on the loop, cancel what it left running, and close the loop."""
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
