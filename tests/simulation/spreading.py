"""A simulated check by workers: they share the virtual loop with the driver, and some are lost now and then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from consistency.checking.tasks import CheckOptions
from consistency.cluster.settings import GivenOptions
from consistency.comparing.opening import Pair
from consistency.comparing.preparing import CompareOptions
from consistency.results.comparison import Comparison
from consistency.results.pair_findings import Compared
from consistency.results.report import Report
from consistency.spreading.checked import CheckUnits, run_spread
from consistency.spreading.compared import PairPieces, compare_spread
from consistency.spreading.messages import Order, Terms
from consistency.spreading.port import Reads, Told, WorkerLost
from consistency.spreading.reading import UnitReader
from tests.simulation.cases import Checked, Remembering, Watching
from tests.simulation.memory import SimCluster
from tests.simulation.two_clusters import Comparing
from tests.simulation.vclock import SimClock

Prepared = Callable[[Order, Told], Awaitable[Reads]]
"""Prepares what a worker reads units with."""


def checked_by(cluster: SimCluster, clock: SimClock) -> Prepared:
    """Have workers check a cluster."""

    async def prepared(order: Order, told: Told) -> Reads:
        return UnitReader(await CheckUnits.prepared(cluster, clock, order), told)

    return prepared


class SimWorkers:
    """Workers that are coroutines; of the units that they begin a share is lost with the worker."""

    def __init__(self, prepared: Prepared, size: int, lost: float, seed: int) -> None:
        self._prepared = prepared
        self.size = size
        self.at_once = 2 * size
        self._lost = lost
        self._dice = random.Random(seed)
        self._readers: list[Reads] = []
        self._next = 0
        self.said: list[str] = []
        """Everything that went to the workers, and came back."""

    async def start(self, order: str, told: Told) -> None:
        """Prepare each of them."""
        self.said.append(order)
        parsed = Order.from_text(order)
        for _ in range(self.size):
            self._readers.append(await self._prepared(parsed, told))

    async def read(self, unit: str) -> str:
        """Read a unit, or be lost with it: before, in the middle, or when all of it was read."""
        self.said.append(unit)
        self._next += 1
        reader = self._readers[self._next % self.size]
        task = asyncio.create_task(reader.read(unit))
        if self._dice.random() < self._lost:
            await asyncio.wait({task}, timeout=self._dice.choice((0.0, 0.01, 0.5, 100.0)))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise WorkerLost("killed")
        came = await task
        self.said.append(came)
        return came

    async def stop(self) -> None:
        """End early."""
        for reader in self._readers:
            reader.stop.set()

    async def close(self) -> None:
        """Hold nothing."""


def spread(size: int, *, lost: float = 0.0, seed: int = 0) -> Checked:
    """Return a check by so many workers, of whose units a share is lost."""

    async def checked(
        cluster: SimCluster,
        clock: SimClock,
        options: CheckOptions,
        watching: Watching,
        stop: asyncio.Event,
        remembering: Remembering,
    ) -> Report:
        workers = SimWorkers(checked_by(cluster, clock), size, lost, seed)
        return await run_spread(cluster, clock, options, workers, Terms(), watching, stop, remembering)

    return checked


def spread_pair(size: int, *, lost: float = 0.0, seed: int = 0, crews: list[SimWorkers] | None = None) -> Comparing:
    """Return a comparison by so many workers, of whose units a share is lost; they are put into `crews`."""

    async def compared(
        pair: Pair, options: CompareOptions, stop: asyncio.Event, take: Callable[[Compared], None]
    ) -> Comparison:
        async def prepared(order: Order, told: Told) -> Reads:
            return UnitReader(await PairPieces.prepared(pair, order), told)

        workers = SimWorkers(prepared, size, lost, seed)
        if crews is not None:
            crews.append(workers)
        return await compare_spread(pair, options, workers, Terms(target=GivenOptions()), stop=stop, take=take)

    return compared
