"""Lead a check that workers read: hand units out, take in what came of them, have what was lost read again, judge."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from consistency.checking.changes import Changes
from consistency.checking.leaves import LeafResult
from consistency.checking.merged_tables import Lacking
from consistency.checking.observer import Observer, Silent
from consistency.checking.plan import Leaf, estimate_rows
from consistency.checking.preparing import Prepared, prepare
from consistency.checking.reporting import NOT_REACHED
from consistency.checking.run import plenty
from consistency.checking.tasks import CheckOptions
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.settings import GivenOptions
from consistency.cluster.throttle import Politeness
from consistency.cluster.waits import within
from consistency.errors import ReplicaError, ReplicaUnavailable, UsageError
from consistency.ledger.port import Recorder
from consistency.model.reading import Locality
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from consistency.results.findings import Finding, FindingsWriter, finding_of
from consistency.results.report import Report
from consistency.spreading.assembling import Assembling
from consistency.spreading.messages import Order, Unit, UnitRead
from consistency.spreading.planning import CutTable
from consistency.spreading.port import UnitFailed, WorkerLost, Workers

MOST_ATTEMPTS = 6
"""A unit that so many workers were lost with is given up."""
_LAST_LOOK_S = 10.0
_LAST_UNITS_S = 15.0
"""How long an interrupted run waits for what workers have read."""


async def run_spread(
    reader: ClusterReader,
    clock: Clock,
    options: CheckOptions,
    workers: Workers,
    terms: Terms,
    observer: Observer | None = None,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    room: Callable[[], Awaitable[None]] = plenty,
) -> Report:
    """Check the tables in scope by workers; otherwise as `run_check`.

    Raises a ConsistencyError where the workers cannot connect. A worker that is lost later costs nothing but time: what
    it had under way is read again. What nobody could read is unknown.
    """
    if options.sample is not None or options.run_time_s is not None or options.part is not None:
        raise UsageError("workers read whole tables: leave out --sample, --within, --run-time and --part")
    prepared = await prepare(reader, clock, options)
    order = Order.of(prepared, terms.politeness, terms.locality, workers.size, terms.given)
    driver = _Driver(reader, clock, prepared, workers, observer or Silent(), recorder, room)
    try:
        await workers.start(order.as_text(), driver.told)
        return await driver.run(stop or asyncio.Event())
    finally:
        await workers.close()


class Terms:
    """On what terms workers read: the politeness of the whole run, how to prove answers, how options say to connect."""

    def __init__(
        self,
        politeness: Politeness | None = None,
        locality: Locality | None = None,
        given: GivenOptions | None = None,
    ) -> None:
        self.politeness = politeness or Politeness()
        self.locality = locality
        self.given = given or GivenOptions()


class _Driver:
    def __init__(
        self,
        reader: ClusterReader,
        clock: Clock,
        prepared: Prepared,
        workers: Workers,
        observer: Observer,
        recorder: Recorder | None,
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._prepared = prepared
        self._workers = workers
        self._observer = observer
        self._recorder = recorder
        self._room = room
        self._whole = Assembling(prepared, recorder)
        self._cut: dict[str, CutTable] = {}
        self._left: dict[str, int] = {}
        self._again: deque[Unit] = deque()
        self._lost: dict[int, int] = {}
        self._running: dict[asyncio.Task[str], Unit] = {}
        self._settling: dict[int, int] = {}
        self._stopped = False

    async def run(self, stop: asyncio.Event) -> Report:
        """Read everything, or what is reached until `stop` is set."""
        prepared, options = self._prepared, self._prepared.options
        self._observer.scan_started(len(prepared.tasks))
        with FindingsWriter(options.findings, prepared.header) as writer:
            if self._recorder is not None:
                self._recorder.begin(prepared.facts)
            stopping = asyncio.create_task(self._until(stop))
            try:
                await self._read_all(writer)
            finally:
                stopping.cancel()
                for task in self._running:
                    task.cancel()
                await asyncio.gather(stopping, *self._running, return_exceptions=True)
        await self._look_back(_LAST_LOOK_S if self._stopped else None)
        seconds = self._clock.monotonic() - prepared.started
        report = self._whole.report(writer, seconds, self._reader.traces, interrupted=self._stopped)
        for table in report.tables:
            self._observer.table_done(table)
        self._whole.record(report)
        return report

    async def _until(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopped = True
        await self._workers.stop()
        await self._clock.sleep(_LAST_UNITS_S)
        for task in self._running:
            task.cancel()

    async def _read_all(self, writer: FindingsWriter) -> None:
        units = self._units()
        more = True
        while True:
            while more and not self._stopped and len(self._running) < self._workers.at_once:
                unit = self._again.popleft() if self._again else await anext(units, None)
                if unit is None:
                    more = False
                    break
                self._hand_out(unit)
            if not self._running:
                break
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self._take(self._running.pop(task), task, writer)
            more = more or bool(self._again)
        for unit in self._again:
            self._give_up(unit, NOT_REACHED)
        async for unit in units:
            self._give_up(unit, NOT_REACHED)

    async def _units(self) -> AsyncIterator[Unit]:
        """Yield the units of one table after the other; a table is planned when the one before was handed out."""
        number = 0
        scan = self._prepared.options.scan
        for task in self._prepared.tasks:
            table = task.reading.table
            if self._stopped:
                continue  # it was not reached
            try:
                rows = await estimate_rows(self._reader, table, task.arcs)
            except ReplicaError:
                rows = 0
            cut = self._cut[table.full_name] = CutTable(task, rows, scan.leaf_rows)
            units = list(cut.units(self._workers.size, number, scan.max_findings))
            number += len(units)
            self._left[table.full_name] = len(units)
            self._whole.tables[table.full_name].started = self._clock.monotonic()
            self._observer.table_planned(table, cut.plan)
            for unit in units:
                yield unit

    def _hand_out(self, unit: Unit) -> None:
        listed = self._whole.tables[unit.table].listed
        if unit.max_findings is not None:
            most = self._prepared.options.scan.max_findings or 0
            unit = replace(unit, max_findings=max(0, most - listed))
        self._running[asyncio.create_task(self._workers.read(unit.as_text()))] = unit

    async def _take(self, unit: Unit, task: asyncio.Task[str], writer: FindingsWriter) -> None:
        """Take in what came of a unit; one whose worker was lost is read again."""
        self._settling.pop(unit.number, None)
        try:
            came = UnitRead.from_text(task.result())
        except asyncio.CancelledError:
            self._give_up(unit, NOT_REACHED)
        except WorkerLost as error:
            self._lost[unit.number] = self._lost.get(unit.number, 0) + 1
            if self._lost[unit.number] < MOST_ATTEMPTS:
                self._again.append(unit)
            else:
                self._give_up(unit, f"{MOST_ATTEMPTS} workers were lost while they read it: {error}")
        except UnitFailed as error:
            self._give_up(unit, str(error))
        else:
            self._whole.take(unit.table, came)
            self._finish(unit)
            await self._take_findings(unit, came, writer)

    async def _take_findings(self, unit: Unit, came: UnitRead, writer: FindingsWriter) -> None:
        depths = {read.table.full_name: read.depth for read in self._whole.tables[unit.table].reads}
        for line in came.findings:
            found = finding_of(line)
            if isinstance(found, Finding):
                writer.write(found)
                self._whole.count(found)
                self._observer.found(found)
                if self._recorder is not None:
                    self._recorder.found(found, depths[unit.table])
            else:
                writer.write_range(found)
                self._observer.found_range(found)
                if self._recorder is not None:
                    self._recorder.found_range(found, depths[unit.table])
            await self._room()

    def _give_up(self, unit: Unit, why: str) -> None:
        self._whole.tables[unit.table].lacking.append(Lacking(self._cut[unit.table].leaf_arcs_of(unit), why))
        self._finish(unit)

    def _finish(self, unit: Unit) -> None:
        """Forget how a table was cut once none of its units is left."""
        self._left[unit.table] -= 1
        self._whole.tables[unit.table].ended = self._clock.monotonic()
        if not self._left[unit.table]:
            del self._cut[unit.table]

    async def _look_back(self, limit_s: float | None) -> None:
        """Ask once more what the ring and the schema are: what changed under the run is taken back."""
        before = (self._prepared.ring, self._prepared.schema)
        changes = Changes(self._reader, self._clock, before, self._reader.sees_masked)
        changes.begin_look()
        try:
            async with within(limit_s):
                await changes.masks([units.table for units in self._whole.tables.values()])
                await changes.look()
        except asyncio.TimeoutError:
            pass  # then nothing can be believed, and `of_table` says so
        self._whole.void(changes)

    def told(self, news: Mapping[str, Any]) -> None:
        """Hear of a worker's progress, and pass it on."""
        unit = next((unit for unit in self._running.values() if unit.number == news["unit"]), None)
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
