"""Lead a run that workers read leaf by leaf: its tables in units, what came of each, and a last look back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from consistency.checking.changes import Changing
from consistency.checking.leaves import LeafResult
from consistency.checking.merged_tables import Lacking
from consistency.checking.observer import Observer
from consistency.checking.plan import Leaf, estimate_rows
from consistency.checking.scan import ScanOptions
from consistency.cluster.port import Clock, ReplicaReader
from consistency.cluster.waits import within
from consistency.errors import ReplicaError, ReplicaUnavailable
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from consistency.results.findings import FindingsWriter
from consistency.spreading.assembling import Assembling
from consistency.spreading.handing import Handing
from consistency.spreading.messages import Order, Unit, UnitRead
from consistency.spreading.planning import CutTable
from consistency.spreading.port import Workers

_LAST_LOOK_S = 10.0

ResultT_co = TypeVar("ResultT_co", covariant=True)


class Spread(Protocol[ResultT_co]):
    """A run that workers read: what is its own, be it of one cluster or of two."""

    @property
    def reader(self) -> ReplicaReader:
        """What the driver itself asks."""

    @property
    def clock(self) -> Clock:
        """The servers' time."""

    @property
    def scan(self) -> ScanOptions:
        """How tables are scanned."""

    @property
    def whole(self) -> Assembling[Any]:
        """What is known of its tables."""

    def order(self, readers: int) -> Order:
        """Return what so many workers are told first."""

    def writer(self) -> FindingsWriter:
        """Begin, and return what writes the findings file."""

    def changes(self) -> Changing:
        """Return what tells whether rings and schemas are what they were when the run was prepared."""

    async def take_findings(self, unit: Unit, came: UnitRead, writer: FindingsWriter) -> None:
        """Take the findings of a unit."""

    def result(self, writer: FindingsWriter, *, interrupted: bool) -> ResultT_co:
        """Return the result of the whole; the findings file is closed."""


async def lead(
    spread: Spread[ResultT_co], workers: Workers, observer: Observer, stop: asyncio.Event | None = None
) -> ResultT_co:
    """Have a run read by workers; they are let go of in the end.

    Raises a ConsistencyError if the workers cannot connect. A worker that is lost later costs nothing but time: what
    it had under way is read again. What nobody could read is unknown.
    """
    begun: list[_Driver] = []

    def told(news: Mapping[str, Any]) -> None:
        for driver in begun:
            driver.told(news)

    try:
        await workers.start(spread.order(workers.size).as_text(), told)
        with spread.writer() as writer:  # nothing is begun before the workers are there
            driver = _Driver(spread, workers, observer, writer)
            begun.append(driver)
            await driver.read_all(stop or asyncio.Event())
        await driver.look_back()
        return spread.result(writer, interrupted=driver.stopped)
    finally:
        await workers.close()


class _Driver:
    def __init__(self, spread: Spread[Any], workers: Workers, observer: Observer, writer: FindingsWriter) -> None:
        self._spread = spread
        self._whole = spread.whole
        self._workers = workers
        self._observer = observer
        self._writer = writer
        self._handing = Handing(workers, spread.clock, self)
        self._cut: dict[str, CutTable] = {}
        self._left: dict[str, int] = {}
        self._settling: dict[int, int] = {}

    @property
    def stopped(self) -> bool:
        """Whether the run was to end early."""
        return self._handing.stopped

    async def read_all(self, stop: asyncio.Event) -> None:
        """Read everything, or what is reached until `stop` is set."""
        self._observer.scan_started(len(self._whole.tables))
        await self._handing.run(stop)

    async def units(self) -> AsyncIterator[Unit]:
        """Yield the units of one table after the other; a table is planned when the one before was handed out."""
        number = 0
        scan, clock = self._spread.scan, self._spread.clock
        for known in self._whole.tables.values():
            task, table = known.task, known.table
            if self.stopped:
                continue  # it was not reached
            try:
                rows = await estimate_rows(self._spread.reader, table, task.arcs)
            except ReplicaError:
                rows = 0
            cut = self._cut[table.full_name] = CutTable(task, rows, scan.leaf_rows)
            units = list(cut.units(self._workers.size, number, scan.max_findings))
            number += len(units)
            self._left[table.full_name] = len(units)
            known.started = clock.monotonic()
            self._observer.table_planned(table, cut.plan)
            for unit in units:
                yield unit

    def fresh(self, unit: Unit) -> Unit:
        """Return a unit that lists no more rows than are left to be listed."""
        self._settling.pop(unit.number, None)
        if unit.max_findings is None:
            return unit
        most = self._spread.scan.max_findings or 0
        return replace(unit, max_findings=max(0, most - self._whole.tables[unit.table].listed))

    async def take(self, unit: Unit, came: str) -> None:
        """Take in what came of a unit."""
        read = UnitRead.from_text(came)
        self._whole.take(unit.table, read)
        self._finish(unit)
        await self._spread.take_findings(unit, read, self._writer)

    def give_up(self, unit: Unit, why: str) -> None:
        """Enter that nobody read a unit."""
        self._whole.tables[unit.table].lacking.append(Lacking(self._cut[unit.table].leaf_arcs_of(unit), why))
        self._finish(unit)

    def _finish(self, unit: Unit) -> None:
        """Forget how a table was cut once none of its units is left."""
        self._settling.pop(unit.number, None)
        self._left[unit.table] -= 1
        self._whole.tables[unit.table].ended = self._spread.clock.monotonic()
        if not self._left[unit.table]:
            del self._cut[unit.table]

    async def look_back(self) -> None:
        """Ask once more what the ring and the schema are: what changed under the run is taken back."""
        limit_s = _LAST_LOOK_S if self.stopped else None
        changes = self._spread.changes()
        changes.begin_look()
        try:
            async with within(limit_s):
                await changes.masks([known.table for known in self._whole.tables.values()])
                await changes.look()
        except asyncio.TimeoutError:
            pass  # then nothing can be believed, and `of_table` says so
        self._whole.void(changes)

    def told(self, news: Mapping[str, Any]) -> None:
        """Hear of a worker's progress, and pass it on."""
        unit = next((unit for unit in self._handing.under_way if unit.number == news["unit"]), None)
        if unit is None or unit.table not in self._cut:
            return  # it was late
        replicas = {leaf.token_range: leaf.replicas for arc in self._cut[unit.table].leaves_of(unit) for leaf in arc}
        for start, end, *held in news["leaves"]:
            token_range = TokenRange(start, end)
            nodes = replicas.get(token_range, ())
            pairs = list(zip(nodes, held, strict=False))
            digests = {node: Digest(rows, b"") for node, rows in pairs if rows is not None}
            errors: dict[Any, ReplicaError] = {
                node: ReplicaUnavailable("a worker could not read it", node) for node, rows in pairs if rows is None
            }
            self._observer.leaf_digested(LeafResult(Leaf(token_range, nodes), 0, digests, errors))
        self._settling[unit.number] = news["settling"]
        self._observer.settling(sum(self._settling.values()))
