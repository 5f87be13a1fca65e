"""One check from connection to report: ring and schema in, findings streamed, one frozen report out."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from consistency import __version__
from consistency.auditing.holdings import judge_holdings
from consistency.auditing.nodes import judge_agreement
from consistency.auditing.rules import gravest_first, judge_replication
from consistency.checking.changes import RING_CHANGED, Changes
from consistency.checking.claiming import claim
from consistency.checking.non_owners import NonOwnerScan
from consistency.checking.observer import Observer, Silent
from consistency.checking.oldest_first import scan_slice
from consistency.checking.scan import Scan, TableTask
from consistency.checking.settle import Outcome, Settled, Settler
from consistency.checking.settle_window import settled_how
from consistency.checking.tasks import CheckOptions, Tasks
from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import UsageError
from consistency.ledger.port import Recorder, RunFacts, known_as
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.scope import Scope, choose_tables
from consistency.results.diagnosis import CauseCounter
from consistency.results.findings import Finding, FindingsWriter, Header, Kind, to_blame
from consistency.results.report import Report, Severity, TableReport, Violation, not_scanned
from consistency.results.unstreamed import Owned

_TOP_FINDINGS = 20
_LAST_LOOK_S = 10.0
"""How long an interrupted run waits for the ring and the schema."""


async def plenty() -> None:
    """Take findings as they come."""


async def run_check(
    reader: ClusterReader,
    clock: Clock,
    options: CheckOptions,
    observer: Observer | None = None,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    room: Callable[[], Awaitable[None]] = plenty,
) -> Report:
    """Check the tables in scope and return the report; setting `stop` ends early with a true partial one.

    UsageError where a name does not exist; nothing else that concerns a single table or replica is raised.
    `recorder` writes down for later runs what was read and found. `room` is awaited after each finding:
    it returns when whoever takes them has room for more.
    """
    run = _Run(reader, clock, options, observer or Silent(), recorder, room)
    await run.prepare()
    return await run.finish(interrupted=await _interruptible(run.work(), stop))


async def _interruptible(work: Coroutine[None, None, None], stop: asyncio.Event | None) -> bool:
    """Run `work` until it is done or `stop` is set; return whether it was stopped."""
    task = asyncio.ensure_future(work)
    if stop is None:
        await task
        return False
    waiter = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return False
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return True
    finally:
        waiter.cancel()
        task.cancel()


class _Run:
    """The parts of one check and what they have counted so far."""

    def __init__(
        self,
        reader: ClusterReader,
        clock: Clock,
        options: CheckOptions,
        observer: Observer,
        recorder: Recorder | None,
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self._room = room
        self._reader = reader
        self._clock = clock
        self._options = options
        self._observer = observer
        self._recorder = recorder
        self._run_id = options.run_id or str(uuid.uuid4())
        self._started_us = clock.now_us()
        self._started_at = datetime.fromtimestamp(self._started_us / 1e6, tz=timezone.utc).isoformat(timespec="seconds")
        self._started = clock.monotonic()
        self._divergent: Counter[str] = Counter()
        self._unsettled: Counter[str] = Counter()
        self._top: list[Finding] = []
        self._scans: dict[str, Scan] = {}
        self._refused: list[TableReport] = []

    async def prepare(self) -> None:
        """Read ring and schema, resolve the scope, open the findings file."""
        self._ring: Ring = await self._reader.ring()
        self._causes = CauseCounter([token for token, _ in self._ring.owners])
        self._schema: Mapping[str, Keyspace] = await self._reader.schema()
        self._tasks = Tasks(self._reader, self._ring, self._schema, self._options)
        self._changes = Changes(self._reader, self._clock, (self._ring, self._schema), self._reader.sees_masked)
        self._scope: Scope = choose_tables(self._schema, self._options.names, views=self._options.views)
        if self._options.dc is not None and self._options.dc not in self._ring.datacenters:
            msg = f"--dc {self._options.dc}: the ring has no such DC; it has {', '.join(self._ring.datacenters)}"
            raise UsageError(msg)
        header = Header(
            self._run_id,
            self._ring.cluster,
            self._ring.fingerprint,
            self._started_at,
            f"consistency {__version__}",
        )
        self._writer = FindingsWriter(self._options.findings, header)
        if self._recorder is not None:
            tables, names, dc = self._scope.tables, self._options.names, self._options.dc
            self._recorder.begin(RunFacts(self._run_id, self._started_us, self._ring, self._schema, tables, names, dc))
        window_s, self._notes = await settled_how(self._reader, self._clock, self._options.settle_window_s)
        self._settler = Settler(self._reader, self._clock, self._take, window_s)

    async def work(self) -> None:
        """Scan every table, settling suspects meanwhile."""
        tasks = await self._planned()
        self._observer.scan_started(len(tasks))
        scanning = asyncio.create_task(self._scan_all(tasks))
        settling = asyncio.create_task(self._settler.run())
        try:
            # A settler that failed takes no more suspects: the scan would wait for it for ever.
            await asyncio.wait({scanning, settling}, return_when=asyncio.FIRST_COMPLETED)
            if scanning.done():
                scanning.result()
            while not settling.done():
                self._observer.settling(self._settler.waiting)
                await asyncio.wait({settling}, timeout=0.2)
            settling.result()
            await self._look_for_changes()
        finally:
            scanning.cancel()
            settling.cancel()
            await asyncio.gather(scanning, settling, return_exceptions=True)

    async def _scan_all(self, tasks: Sequence[TableTask]) -> None:
        if self._options.run_time_s is None:
            for task in tasks:
                await self._scan(self._begin(task))
        else:
            deadline = self._started + self._options.run_time_s
            await scan_slice([self._begin(task) for task in tasks], self._recorder, self._clock, deadline)
        await self._settler.finish()

    async def _planned(self) -> list[TableTask]:
        """Decide how each table is read; one that cannot be is reported as skipped, with the reason."""
        tasks: list[TableTask] = []
        for table in self._scope.tables:
            task = await self._tasks.task(table)
            if isinstance(task, TableTask):
                tasks.append(task)
            else:
                self._refused.append(not_scanned(table.keyspace, table.name, task))
        return tasks

    def _begin(self, task: TableTask) -> Scan:
        scan = Scan(task, self._reader, self._clock, self._settler, self._options.scan, self._observer)
        self._scans[task.reading.table.full_name] = scan
        return scan

    async def _scan(self, scan: Scan) -> None:
        await scan.run()
        if self._options.non_owners:
            # The arcs name the owners of one DC alone where a DC was named; elsewhere nobody could be judged.
            nodes = [n for n in self._ring.nodes if self._options.dc in (None, n.dc)]
            await NonOwnerScan(self._reader, self._clock, nodes, self._report_stray).run(scan)

    async def _take(self, outcome: Outcome) -> None:
        """Enter what the settler found out about one row."""
        table, token = outcome.reading.table, outcome.name.token
        if isinstance(outcome, Settled):
            await self._changes.after(outcome.read_at)
            if reason := self._changes.of_row(table, token):
                self._leave_unsettled(table, token, reason)
                return
        claimed = claim(outcome, self._options.scan.max_skew_s)
        if isinstance(claimed, Finding):
            await self._report_finding(claimed)
        elif claimed is not None:
            self._leave_unsettled(table, token)

    def _leave_unsettled(self, table: Table, token: int, reason: str = "") -> None:
        """Count a row that could not be judged; a reason holds for the whole leaf, which then counts as failed."""
        self._unsettled[table.full_name] += 1
        account = self._scans[table.full_name].account
        if account is None:
            return
        leaf = account.leaf_of(token)
        account.unjudged.add(leaf)
        if reason:
            account.fail(leaf, reason)

    async def _report_stray(self, found: Finding, read_at: float) -> None:
        """Report a row on a node that did not own it when it was read, unless ranges have changed hands meanwhile."""
        scan = self._scans[f"{found.keyspace}.{found.table}"]
        await self._changes.after(read_at)
        if not self._changes.of_row(scan.task.reading.table, found.token):
            await self._report_finding(found)

    async def _report_finding(self, found: Finding) -> None:
        self._writer.write(found)
        full_name = f"{found.keyspace}.{found.table}"
        self._divergent[full_name] += 1
        scan = self._scans[full_name]
        if scan.account is not None:
            scan.account.mark_divergent(found.token, to_blame(found))
            if found.kind is not Kind.NON_OWNER:  # the owners may agree all the same
                scan.account.unlike.add(scan.account.leaf_of(found.token))
        self._causes.add(found)
        if self._recorder is not None:
            self._recorder.found(found, scan.task.reading.depth)
        if len(self._top) < _TOP_FINDINGS:
            self._top.append(found)
        self._observer.found(found)
        await self._room()

    async def _look_for_changes(self, limit_s: float | None = None) -> None:
        """Take back what was said of ranges or tables that changed while they were scanned."""
        with contextlib.suppress(asyncio.TimeoutError):
            # Without the latest description nothing can be believed, and `of_table` says so.
            await asyncio.wait_for(self._last_look(), limit_s)
        for scan in self._scans.values():
            table = scan.task.reading.table
            if altered := self._changes.altered(table):
                # Why reads of it failed meanwhile: a node that is a replica no more, for one, cannot answer for itself.
                scan.invalidate(altered, instead=True)
            elif reason := self._changes.of_table(table):
                scan.invalidate(reason, instead=False)
            elif scan.account is not None:
                scan.account.fail_within(self._changes.moved(table), RING_CHANGED)

    async def _last_look(self) -> None:
        self._changes.begin_look()
        await self._changes.masks([scan.task.reading.table for scan in self._scans.values()])
        await self._changes.look()

    async def finish(self, *, interrupted: bool) -> Report:
        """Close the findings file and build the report from what was counted."""
        self._writer.close()
        if interrupted and self._recorder is not None:
            # What was read before the interrupt counts later only where nothing changed under it.
            await self._look_for_changes(_LAST_LOOK_S)
        tables = [*self._refused, *self._not_reached(), *self._unreadable()]
        tables += [self._table_report(scan) for scan in self._scans.values()]
        tables.sort(key=lambda t: (t.keyspace, t.table))
        for table in tables:
            self._observer.table_done(table)
        accounts = [scan.account for scan in self._scans.values() if scan.account is not None]
        read = {node for account in accounts for result in account.results.values() for node in result.digests}
        report = Report(
            run_id=self._run_id,
            cluster=self._ring.cluster,
            started_at=self._started_at,
            seconds=self._clock.monotonic() - self._started,
            tables=tuple(tables),
            violations=self._violations(),
            findings_by_kind={kind.value: count for kind, count in sorted(self._writer.counts.items())},
            top=tuple(self._top),
            not_checked=self._scope.not_checked,
            replicas=tuple(node.name for node in self._ring.nodes if node in read),
            findings_path=str(self._options.findings) if self._options.findings and not self._writer.error else None,
            findings_error=self._writer.error,
            interrupted=interrupted,
            run_time_s=self._options.run_time_s,
            likely_causes=self._causes.causes(self._owned()),
            places={node.name: node.dc for node in self._ring.nodes},
            notes=self._notes,
            traces=self._reader.traces,
            cluster_id=known_as(self._recorder, self._ring),
        )
        self._record(report)
        return report

    def _record(self, report: Report) -> None:
        if self._recorder is None:
            return
        for name, scan in self._scans.items():
            if scan.account is not None:
                ranges = scan.account.ranges_read(waiting=self._settler.waiting_of(name) > 0)
                strays = self._options.non_owners and not report.interrupted and not scan.extra
                table, depth, trees = scan.task.reading.table, scan.task.reading.depth, scan.account.trees()
                self._recorder.table_read(table, depth, ranges, strays=strays, trees=trees)
        self._recorder.end(report)

    def _owned(self) -> Owned:
        """Return how many rows each scanned table has, and the most of the ring that each replica owns of any."""
        shares: dict[str, float] = {}
        for arcs in self._tasks.arcs_of.values():
            here: dict[str, float] = defaultdict(float)
            for arc in arcs:
                for node in arc.replicas:
                    here[node.name] += arc.share
            shares.update({name: max(share, shares.get(name, 0)) for name, share in here.items()})
        rows = {name: scan.account.rows for name, scan in self._scans.items() if scan.account is not None}
        return Owned(rows, shares)

    def _table_report(self, scan: Scan) -> TableReport:
        name = scan.task.reading.table.full_name
        # After an interrupt some suspects still wait to be judged.
        unsettled = self._unsettled[name] + self._settler.waiting_of(name)
        return scan.report(divergent=self._divergent[name], unsettled=unsettled)

    def _not_reached(self) -> list[TableReport]:
        known = {*self._scans, *(t.full_name for t in self._refused)}
        return [
            not_scanned(t.keyspace, t.name, "not reached before the run ended", failed=True)
            for t in self._scope.tables
            if t.full_name not in known
        ]

    def _unreadable(self) -> list[TableReport]:
        out = []
        for full_name, reason in self._scope.unreadable.items():
            keyspace, _, table = full_name.partition(".")
            out.append(not_scanned(keyspace, table, f"its schema cannot be read: {reason}", failed=True))
        return out

    def _violations(self) -> tuple[Violation, ...]:
        found = judge_replication(
            self._ring,
            self._schema,
            scope=self._scope.keyspaces,
            rf_minimum=self._options.rf_minimum,
            with_nodes=False,
        )
        # What the nodes disagree on is unknown, and the coverage says so: here it is named.
        named = (replace(v, severity=Severity.WARNING) for v in judge_agreement(self._ring))
        return tuple(sorted((*found, *named, *self._empty_owners()), key=gravest_first))

    def _empty_owners(self) -> tuple[Violation, ...]:
        held: dict[str, dict[tuple[str, Node], int]] = defaultdict(dict)
        for scan in self._scans.values():
            table = scan.task.reading.table
            for node, rows in scan.rows_by_node().items():
                held[table.keyspace][table.name, node] = rows
        return tuple(
            violation
            for keyspace, rows in held.items()
            for violation in judge_holdings(self._ring, self._schema[keyspace], rows)
        )
