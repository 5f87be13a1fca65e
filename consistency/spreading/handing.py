"""Hand units out to workers, take in what came of them, and have what was lost with a worker read again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Generic, Protocol, TypeVar

from consistency.checking.reporting import NOT_REACHED
from consistency.cluster.port import Clock
from consistency.spreading.port import UnitFailed, WorkerLost, Workers

MOST_ATTEMPTS = 6
"""A unit that so many workers were lost with is given up."""
_LAST_UNITS_S = 15.0
"""How long an interrupted run waits for what workers have read."""


class Numbered(Protocol):
    """A unit of any kind."""

    @property
    def number(self) -> int:
        """Its own."""

    def as_text(self) -> str:
        """Return the JSON form."""


UnitT = TypeVar("UnitT", bound=Numbered)


class Takes(Protocol[UnitT]):
    """Whoever has units read: makes them, and takes what came of each."""

    def units(self) -> AsyncIterator[UnitT]:
        """Yield every unit; after an interrupt those that were begun with, so that they are given up."""

    def fresh(self, unit: UnitT) -> UnitT:
        """Return a unit as it is to be handed out now."""

    async def take(self, unit: UnitT, came: str) -> None:
        """Take in what came of a unit."""

    def give_up(self, unit: UnitT, why: str) -> None:
        """Enter that nobody read a unit."""


class Handing(Generic[UnitT]):
    """Hands the units of one run out until each was read or given up."""

    def __init__(self, workers: Workers, clock: Clock, takes: Takes[UnitT]) -> None:
        self._workers = workers
        self._clock = clock
        self._takes = takes
        self._again: deque[UnitT] = deque()
        self._lost: dict[int, int] = {}
        self._running: dict[asyncio.Task[str], UnitT] = {}
        self.stopped = False
        """Whether it was to end early."""

    @property
    def under_way(self) -> Iterable[UnitT]:
        """The units that workers have."""
        return self._running.values()

    async def run(self, stop: asyncio.Event) -> None:
        """Have everything read, or what is reached until `stop` is set."""
        stopping = asyncio.create_task(self._until(stop))
        try:
            await self._read_all()
        finally:
            stopping.cancel()
            for task in self._running:
                task.cancel()
            await asyncio.gather(stopping, *self._running, return_exceptions=True)

    async def _until(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.stopped = True
        await self._workers.stop()
        await self._clock.sleep(_LAST_UNITS_S)
        for task in self._running:
            task.cancel()

    async def _read_all(self) -> None:
        units = self._takes.units()
        more = True
        while True:
            while more and not self.stopped and len(self._running) < self._workers.at_once:
                unit = self._again.popleft() if self._again else await anext(units, None)
                if unit is None:
                    more = False
                    break
                self._hand_out(self._takes.fresh(unit))
            if not self._running:
                break
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self._take(self._running.pop(task), task)
            more = more or bool(self._again)
        for unit in self._again:
            self._takes.give_up(unit, NOT_REACHED)
        async for unit in units:
            self._takes.give_up(unit, NOT_REACHED)

    def _hand_out(self, unit: UnitT) -> None:
        self._running[asyncio.create_task(self._workers.read(unit.as_text()))] = unit

    async def _take(self, unit: UnitT, task: asyncio.Task[str]) -> None:
        """Take in what came of a unit; one whose worker was lost is read again."""
        try:
            came = task.result()
        except asyncio.CancelledError:
            self._takes.give_up(unit, NOT_REACHED)
        except WorkerLost as error:
            self._lost[unit.number] = self._lost.get(unit.number, 0) + 1
            if self._lost[unit.number] < MOST_ATTEMPTS:
                self._again.append(unit)
            else:
                self._takes.give_up(unit, f"{MOST_ATTEMPTS} workers were lost while they read it: {error}")
        except UnitFailed as error:
            self._takes.give_up(unit, str(error))
        else:
            await self._takes.take(unit, came)
