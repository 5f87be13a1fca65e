"""A check that is spread over workers: what its driver puts together, and what its workers read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from consistency.checking.changes import Changes
from consistency.checking.listeners import Listeners
from consistency.checking.observer import Observer, Silent
from consistency.checking.preparing import Prepared, prepare
from consistency.checking.reporting import broken_rules, unreadable_tables
from consistency.checking.run import plenty, run_prepared
from consistency.checking.scan import ScanOptions, TableTask
from consistency.checking.tasks import CheckOptions
from consistency.cluster.locality import TracesLeft
from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import UsageError
from consistency.ledger.part_account import PartAccount
from consistency.ledger.parts import PartRecorder
from consistency.ledger.port import Recorder, known_as
from consistency.ledger.table_account import read_json, table_json
from consistency.model.part import Part
from consistency.model.reading import Depth, Route
from consistency.results.findings import Finding, FindingsWriter, finding_of
from consistency.results.report import Report
from consistency.results.unstreamed import Owned
from consistency.spreading.assembling import Assembling, TableUnits
from consistency.spreading.driving import lead
from consistency.spreading.messages import Order, Terms, Unit, UnitRead, Work
from consistency.spreading.planning import prints
from consistency.spreading.port import Workers
from consistency.spreading.reading import Telling


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

    Raises a ConsistencyError if the workers cannot connect. What nobody could read is unknown.
    """
    if options.sample is not None or options.run_time_s is not None or options.part is not None:
        raise UsageError("workers read whole tables: leave out --sample, --within, --run-time and --part")
    prepared = await prepare(reader, clock, options)
    watching = observer or Silent()
    spread = CheckSpread(reader, clock, prepared, terms, watching, recorder, room)
    return await lead(spread, workers, watching, stop)


class CheckSpread:
    """A check as its driver knows it."""

    def __init__(
        self,
        reader: ClusterReader,
        clock: Clock,
        prepared: Prepared,
        terms: Terms,
        observer: Observer,
        recorder: Recorder | None,
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self.reader = reader
        self.clock = clock
        self.scan = prepared.options.scan
        self.whole: Assembling[TableUnits] = Assembling(prepared.tasks, prepared.ring.nodes, prepared.notes, TableUnits)
        self._prepared = prepared
        self._terms = terms
        self._observer = observer
        self._recorder = recorder
        self._room = room
        self._listeners = Listeners(recorder, observer, prepared.ring.tokens)

    def order(self, readers: int) -> Order:
        """Return what so many workers are told first."""
        prepared = self._prepared
        terms, tables = self._terms.divided(readers), prints(prepared.tasks)
        options = check_options_json(prepared.options)
        return Order(Work.CHECK, prepared.run_id, options, terms, readers, prepared.ring.fingerprint, tables)

    def writer(self) -> FindingsWriter:
        """Begin, and return what writes the findings file."""
        writer = FindingsWriter(self._prepared.options.findings, self._prepared.header)
        if self._recorder is not None:
            self._recorder.begin(self._prepared.facts)
        return writer

    def changes(self) -> Changes:
        """Return what tells whether ring and schema are what they were when the check was prepared."""
        return Changes(self.reader, self.clock, self._prepared.snapshot)

    async def take_findings(self, unit: Unit, came: UnitRead, writer: FindingsWriter) -> None:
        """Write, count and record them."""
        known = self.whole.tables[unit.table]
        depth = known.task.reading.depth
        for line in came.findings:
            found = finding_of(line)
            known.listed += isinstance(found, Finding)
            self._listeners.tell(found, depth, writer)
            await self._room()

    def result(self, writer: FindingsWriter, *, interrupted: bool) -> Report:
        """Return the report, and have it recorded."""
        report = self._report(writer, interrupted=interrupted)
        for table in report.tables:
            self._observer.table_done(table)
        self._record(report)
        return report

    def _report(self, writer: FindingsWriter, *, interrupted: bool) -> Report:
        prepared, options, whole = self._prepared, self._prepared.options, self.whole
        read = [units.report() for units in whole.tables.values()]
        owned = Owned({table.full_name: table.rows for table in read if table.depth}, prepared.shares)
        tables = [*prepared.refused, *unreadable_tables(prepared), *read]
        return Report(
            run_id=prepared.run_id,
            cluster=prepared.ring.cluster,
            started_at=prepared.started_at,
            seconds=self.clock.monotonic() - prepared.started,
            tables=tuple(sorted(tables, key=lambda t: (t.keyspace, t.table))),
            violations=broken_rules(prepared, read),
            findings_by_kind={kind.value: count for kind, count in sorted(writer.counts.items())},
            top=self._listeners.top,
            not_checked=prepared.scope.not_checked,
            replicas=tuple(node.name for node in prepared.ring.nodes if node.name in whole.replicas),
            findings_path=str(options.findings) if options.findings and not writer.error else None,
            findings_error=writer.error,
            interrupted=interrupted,
            likely_causes=self._listeners.causes.causes(owned),
            places={node.name: node.dc for node in prepared.ring.nodes},
            notes=tuple(whole.notes),
            traces=whole.traces(self.reader.traces),
            cluster_id=known_as(self._recorder, prepared.ring),
        )

    def _record(self, report: Report) -> None:
        """Write down for later runs what was read."""
        if self._recorder is None:
            return
        by_name = {table.full_name: table for table in report.tables}
        for name, units in self.whole.tables.items():
            for depth in {read.depth for read in units.reads}:
                non_owners = all(read.non_owners for read in units.reads) and not units.lacking
                trees = by_name[name].trees
                self._recorder.table_read(units.table, depth, units.ranges, non_owners=non_owners, trees=trees)
        self._recorder.end(report)


class CheckUnits:
    """A check as its workers know it."""

    def __init__(self, reader: ClusterReader, clock: Clock, prepared: Prepared) -> None:
        self.clock = clock
        self.tasks: Sequence[TableTask] = prepared.tasks
        self.leaf_rows = prepared.options.scan.leaf_rows
        self._reader = reader
        self._prepared = prepared

    @classmethod
    async def prepared(cls, reader: ClusterReader, clock: Clock, order: Order) -> CheckUnits:
        """Prepare the check of an order; UnitFailed if ring or tables are not those that the driver has seen."""
        prepared = await prepare(reader, clock, replace(check_options(order.options), run_id=order.run_id))
        order.require_seen(prepared.ring.fingerprint, prints(prepared.tasks))
        return cls(reader, clock, prepared)

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers so far."""
        return self._reader.traces

    async def read(self, unit: Unit, task: TableTask, telling: Telling, stop: asyncio.Event) -> UnitRead:
        """Read the leaves of a unit; what could not be read of it is in its account, not raised."""
        table, options = task.reading.table, self._prepared.options
        prepared = replace(
            self._prepared,
            options=replace(options, scan=replace(options.scan, max_findings=unit.max_findings)),
            started_us=self.clock.now_us(),
            started=self.clock.monotonic(),
            tasks=(task,),
            refused=(),
            scope=replace(self._prepared.scope, tables=(table,), keyspaces=(), not_checked={}, unreadable={}),
            piece=True,
        )
        kept: list[PartAccount] = []

        def keep(account: PartAccount) -> str:
            kept.append(account)
            return ""

        recorder = PartRecorder(Part(1, 1), "", {}, keep)
        report = await run_prepared(self._reader, self.clock, prepared, telling, stop, recorder)
        return UnitRead(
            unit.number,
            table_json(report.tables[0]),
            tuple(read_json(read) for account in kept for read in account.reads),
            tuple(telling.findings),
            tuple(report.replicas),
            report.notes,
            report.interrupted,
        )


def check_options_json(options: CheckOptions) -> dict[str, Any]:
    """Return what workers must know of the options of a check, as JSON."""
    return {
        "names": list(options.names),
        "depth": options.depth and options.depth.value,
        "route": options.route and options.route.value,
        "dc": options.dc,
        "views": options.views,
        "non_owners": options.non_owners,
        "settle_window_s": options.settle_window_s,
        "rf_minimum": options.rf_minimum,
        "scan": asdict(options.scan),
    }


def check_options(data: Mapping[str, Any]) -> CheckOptions:
    """Read the JSON form."""
    return CheckOptions(
        **{
            **data,
            "names": tuple(data["names"]),
            "depth": data["depth"] and Depth(data["depth"]),
            "route": data["route"] and Route(data["route"]),
            "scan": ScanOptions(**data["scan"]),
        }
    )
