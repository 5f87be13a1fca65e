"""One check from connection to report: ring and schema in, findings streamed, one frozen report out."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from consistency import __version__
from consistency.audit_holdings import judge_holdings
from consistency.auditing import gravest_first, judge_replication
from consistency.choose import choose
from consistency.classify import finding, judge_row
from consistency.errors import ConsistencyError, UsageError
from consistency.findings import Finding, FindingsWriter, Header
from consistency.nonowners import NonOwnerScan
from consistency.observer import Observer, Silent
from consistency.reader import Clock, ClusterReader
from consistency.reading import Depth, Route
from consistency.report import Report, TableReport, Violation
from consistency.ring import Arc, Node, Ring, around
from consistency.scan import Scan, ScanOptions, TableTask
from consistency.schema import Keyspace, Table
from consistency.scope import Scope, choose_tables
from consistency.settle import DEFAULT_WINDOW_S, Outcome, Settled, Settler
from consistency.verdict import Coverage

_TOP_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What to check and how; None leaves the choice to the tool."""

    names: tuple[str, ...] = ()
    depth: Depth | None = None
    route: Route | None = None
    dc: str | None = None
    views: bool = False
    non_owners: bool = False
    findings: Path | None = None
    settle_window_s: float = DEFAULT_WINDOW_S
    rf_minimum: int = 3
    scan: ScanOptions = field(default_factory=ScanOptions)
    only_tokens: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """By `keyspace.table`: the tokens of the partitions to check, for tables of which no more is wanted."""


async def run_check(
    reader: ClusterReader,
    clock: Clock,
    options: CheckOptions,
    observer: Observer | None = None,
    stop: asyncio.Event | None = None,
) -> Report:
    """Check the tables in scope and return the report; setting `stop` ends early with a true partial one.

    UsageError where a name does not exist; nothing else that concerns a single table or replica is raised.
    """
    run = _Run(reader, clock, options, observer or Silent())
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

    def __init__(self, reader: ClusterReader, clock: Clock, options: CheckOptions, observer: Observer) -> None:
        self._reader = reader
        self._clock = clock
        self._options = options
        self._observer = observer
        self._run_id = str(uuid.uuid4())
        self._started_at = datetime.fromtimestamp(clock.now_us() / 1e6, tz=timezone.utc).isoformat(timespec="seconds")
        self._started = clock.monotonic()
        self._divergent: Counter[str] = Counter()
        self._unsettled: Counter[str] = Counter()
        self._top: list[Finding] = []
        self._scans: dict[str, Scan] = {}
        self._refused: list[TableReport] = []
        self._arcs_of: dict[str, tuple[Arc, ...]] = {}

    async def prepare(self) -> None:
        """Read ring and schema, resolve the scope, open the findings file."""
        self._ring: Ring = await self._reader.ring()
        self._schema: Mapping[str, Keyspace] = await self._reader.schema()
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
        self._settler = Settler(self._reader, self._clock, self._take, self._options.settle_window_s)

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
            await self._look_for_drift()
        finally:
            scanning.cancel()
            settling.cancel()
            await asyncio.gather(scanning, settling, return_exceptions=True)

    async def _scan_all(self, tasks: Sequence[TableTask]) -> None:
        for task in tasks:
            await self._scan(task)
        await self._settler.finish()

    async def _planned(self) -> list[TableTask]:
        """Decide how each table is read; one that cannot be is reported as skipped, with the reason."""
        tasks: list[TableTask] = []
        for table in self._scope.tables:
            task = await self._masked(table) or self._task(table)
            if isinstance(task, TableTask):
                tasks.append(task)
            else:
                self._refused.append(not_scanned(table.keyspace, table.name, task))
        return tasks

    async def _masked(self, table: Table) -> str:
        """Say why a table with masked columns cannot be compared: a role without UNMASK reads and hashes the mask."""
        hidden = [c.name for c in table.columns if c.masked]
        if not hidden or await self._reader.sees_masked(table):
            return ""
        grant = f"GRANT UNMASK ON TABLE {table.quoted} TO our role"
        return f"{', '.join(hidden)} masked for our role, so differences would not be seen; run: {grant}"

    def _task(self, table: Table) -> TableTask | str:
        keyspace = self._schema[table.keyspace]
        if keyspace.replication.transient:
            return "transient replication: its transient replicas hold no full copy to compare"
        arcs = self._arcs(keyspace)
        if table.full_name in self._options.only_tokens:
            arcs = around(arcs, self._options.only_tokens[table.full_name])
        if not any(len(arc.replicas) > 1 for arc in arcs):
            return "one replica: there is nothing to compare it with"
        choice = choose(table, self._reader.capabilities, self._options.depth, self._options.route)
        if choice.reading is None or choice.route is None:
            return choice.refusal
        nodes = {node for arc in arcs for node in arc.replicas}
        locality = "+".join(sorted({self._reader.locality(node).value for node in nodes}))
        return TableTask(choice.reading, choice.route, arcs, locality)

    def _arcs(self, keyspace: Keyspace) -> tuple[Arc, ...]:
        if keyspace.name not in self._arcs_of:
            arcs = self._ring.arcs(keyspace.replication)
            if self._options.dc is not None:
                kept = [Arc(tuple(n for n in a.replicas if n.dc == self._options.dc), a.ranges) for a in arcs]
                arcs = tuple(arc for arc in kept if arc.replicas)
            self._arcs_of[keyspace.name] = arcs
        return self._arcs_of[keyspace.name]

    async def _scan(self, task: TableTask) -> None:
        scan = Scan(task, self._reader, self._clock, self._settler, self._options.scan, self._observer)
        self._scans[task.reading.table.full_name] = scan
        await scan.run()
        if self._options.non_owners:
            # The arcs name the owners of one DC alone where a DC was named; elsewhere nobody could be judged.
            nodes = [n for n in self._ring.nodes if self._options.dc in (None, n.dc)]
            await NonOwnerScan(self._reader, self._clock, nodes, self._report_finding).run(scan)

    async def _take(self, outcome: Outcome) -> None:
        """Enter what the settler found out about one row."""
        table = outcome.reading.table
        if not isinstance(outcome, Settled):
            self._unsettled[table.full_name] += 1
            return
        judgement = judge_row(
            outcome.reading,
            outcome.states,
            now_us=self._clock.now_us(),
            max_skew_s=self._options.scan.max_skew_s,
        )
        self._report_finding(finding(outcome.reading, outcome.name, outcome.states, outcome.unread, judgement))

    def _report_finding(self, found: Finding) -> None:
        self._writer.write(found)
        full_name = f"{found.keyspace}.{found.table}"
        self._divergent[full_name] += 1
        scan = self._scans[full_name]
        if scan.ledger is not None:
            scan.ledger.mark_divergent(found.token)
        if len(self._top) < _TOP_FINDINGS:
            self._top.append(found)
        self._observer.found(found)

    async def _look_for_drift(self) -> None:
        """Take back what was said of a ring or a table that changed while it was scanned."""
        try:
            ring, schema = await asyncio.gather(self._reader.ring_now(), self._reader.schema())
        except ConsistencyError as error:
            for scan in self._scans.values():
                scan.invalidate(f"whether the ring or the schema changed during the scan could not be read: {error}")
            return
        for scan in self._scans.values():
            changed = self._change(scan.task.reading.table, ring, schema)
            if changed:
                scan.invalidate(f"{changed} during the scan; run the check again")

    def _change(self, table: Table, ring: Ring, schema: Mapping[str, Keyspace]) -> str:
        keyspace = schema.get(table.keyspace)
        now = keyspace.tables.get(table.name) if keyspace else None
        if keyspace is None or now is None:
            return "the table was dropped"
        if now.fingerprint != table.fingerprint:
            return "the table was altered"
        if keyspace.replication != self._schema[table.keyspace].replication:
            return "the keyspace's replication was altered"
        if ring.fingerprint != self._ring.fingerprint:
            return "the ring changed (a node joined, left or moved)"
        return ""

    async def finish(self, *, interrupted: bool) -> Report:
        """Close the findings file and build the report from what was counted."""
        self._writer.close()
        tables = [*self._refused, *self._not_reached(), *self._unreadable()]
        tables += [self._table_report(scan) for scan in self._scans.values()]
        tables.sort(key=lambda t: (t.keyspace, t.table))
        for report in tables:
            self._observer.table_done(report)
        return Report(
            run_id=self._run_id,
            cluster=self._ring.cluster,
            started_at=self._started_at,
            seconds=self._clock.monotonic() - self._started,
            tables=tuple(tables),
            violations=self._violations(),
            findings_by_kind={kind.value: count for kind, count in sorted(self._writer.counts.items())},
            top=tuple(self._top),
            not_checked=self._scope.not_checked,
            replicas=tuple(node.name for node in self._ring.nodes),
            findings_path=None if self._options.findings is None else str(self._options.findings),
            interrupted=interrupted,
        )

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
        return tuple(sorted((*found, *self._empty_owners()), key=gravest_first))

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


def not_scanned(keyspace: str, table: str, note: str, *, failed: bool = False) -> TableReport:
    """Return the report of a table that was not scanned at all: it counts against the coverage."""
    coverage = Coverage(planned=1, failed=1) if failed else Coverage(planned=1, skipped=1)
    return TableReport(
        keyspace=keyspace,
        table=table,
        depth="",
        route="",
        locality="",
        rows=0,
        divergent_rows=0,
        unsettled_rows=0,
        seconds=0.0,
        coverage=coverage,
        note=note,
    )
