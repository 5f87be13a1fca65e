"""The report of a check that workers have read, unit by unit, and what a ledger is told of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from consistency.checking.changes import RING_CHANGED, Changes
from consistency.checking.merged_tables import Lacking, merged_table
from consistency.checking.preparing import Prepared
from consistency.checking.reporting import NOT_REACHED, broken_rules, unreadable_tables
from consistency.checking.scan import TableTask
from consistency.cluster.locality import TracesLeft
from consistency.ledger.port import RangeRead, Recorder, known_as
from consistency.ledger.table_account import TableRead, read_from_json, table_from_json
from consistency.model.ownership import overlap
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange, merged
from consistency.results.diagnosis import CauseCounter
from consistency.results.findings import Finding, FindingsWriter
from consistency.results.report import TOP_FINDINGS, Report, TableReport, Unread, not_scanned
from consistency.results.tree_report import TreeReport
from consistency.results.unstreamed import Owned
from consistency.results.verdict import Coverage
from consistency.spreading.messages import UnitRead


@dataclass
class TableUnits:
    """What is known of one table: what came of its units, and where none came of any."""

    task: TableTask
    reports: list[TableReport] = field(default_factory=list)
    reads: list[TableRead] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    listed: int = 0
    """Rows that are listed so far."""
    started: float = 0.0
    ended: float = 0.0

    @property
    def table(self) -> Table:
        """The table."""
        return self.task.reading.table

    def take(self, came: UnitRead, nodes: Mapping[str, Node]) -> None:
        """Enter what came of a unit."""
        self.reports.append(table_from_json(came.report, None, nodes))
        self.reads += [read_from_json(read, {self.table.full_name: self.table}, nodes) for read in came.reads]

    def report(self) -> TableReport:
        """Return the table's report."""
        if not self.reports and not self.lacking:
            return not_scanned(self.table.keyspace, self.table.name, NOT_REACHED, failed=True)
        reports = self.reports or [self._unread()]
        return replace(merged_table(reports, self.lacking), seconds=max(0.0, self.ended - self.started))

    def _unread(self) -> TableReport:
        """Return the report of a table of which no unit was read."""
        reading, task = self.task.reading, self.task
        names = (self.table.keyspace, self.table.name, reading.depth.value, task.route.value, task.locality)
        return TableReport(*names, rows=0, divergent_rows=0, unsettled_rows=0, seconds=0.0, coverage=Coverage())

    @property
    def ranges(self) -> list[RangeRead]:
        """Every leaf that was reached, in ring order."""
        return sorted((each for read in self.reads for each in read.ranges), key=lambda each: each.token_range)

    def void(self, changes: Changes) -> None:
        """Take back what was read of ranges that changed hands, or of a table that was altered."""
        if why := changes.of_table(self.table):
            self._void((TokenRange.full_ring(),), why)
        elif moved := changes.moved(self.table):
            self._void(moved, RING_CHANGED)

    def _void(self, ranges: Sequence[TokenRange], why: str) -> None:
        self.reports = [voided(report, ranges, why) for report in self.reports]
        self.reads = [
            replace(read, ranges=tuple(r if not overlap(r.token_range, ranges) else _unknown(r) for r in read.ranges))
            for read in self.reads
        ]


def _unknown(read: RangeRead) -> RangeRead:
    return replace(read, complete=False, clean=False)


def voided(report: TableReport, ranges: Sequence[TokenRange], why: str) -> TableReport:
    """Return a table's report with every digest of leaves in some ranges failed, for a reason."""
    lost = 0
    trees: list[TreeReport] = []
    unread: dict[str, list[TokenRange]] = defaultdict(list)
    for tree in report.trees:
        hashes = []
        for leaf, held in tree.hashes:
            if not overlap(leaf, ranges):
                hashes.append((leaf, held))
                continue
            hashes.append((leaf, (None,) * len(held)))
            for node, digest in zip(tree.replicas, held, strict=True):
                if digest is not None:
                    lost += 1
                    unread[node.name].append(leaf)
        trees.append(replace(tree, hashes=tuple(hashes)))
    now = report.coverage
    return replace(
        report,
        trees=tuple(trees),
        coverage=Coverage(now.planned, now.completed - lost, now.skipped, now.failed + lost),
        unread=(*report.unread, *(Unread(name, merged(some), why) for name, some in sorted(unread.items()))),
        held={} if lost else report.held,
    )


class Assembling:
    """Puts a check together while its units come in."""

    def __init__(self, prepared: Prepared, recorder: Recorder | None) -> None:
        self.prepared = prepared
        self._recorder = recorder
        self._nodes = {node.host_id: node for node in prepared.ring.nodes}
        self.tables = {t.reading.table.full_name: TableUnits(t) for t in prepared.tasks}
        self._causes = CauseCounter([token for token, _ in prepared.ring.owners])
        self._top: list[Finding] = []
        self._replicas: set[str] = set()
        self._notes = dict.fromkeys(prepared.notes)
        self._traces = [0, 0]

    def take(self, name: str, came: UnitRead) -> None:
        """Enter what came of a unit of a table, but for its findings."""
        self.tables[name].take(came, self._nodes)
        self._replicas.update(came.replicas)
        self._notes.update(dict.fromkeys(came.notes))
        self._traces = [had + more for had, more in zip(self._traces, came.traces, strict=True)]

    def count(self, found: Finding) -> None:
        """Count a row that differs."""
        self.tables[found.full_name].listed += 1
        self._causes.add(found)
        if len(self._top) < TOP_FINDINGS:
            self._top.append(found)

    def void(self, changes: Changes) -> None:
        """Take back what changed under the run."""
        for table in self.tables.values():
            table.void(changes)

    def report(self, writer: FindingsWriter, seconds: float, traces: TracesLeft, *, interrupted: bool) -> Report:
        """Return the report; the findings file is closed."""
        prepared, options = self.prepared, self.prepared.options
        read = [units.report() for units in self.tables.values()]
        held = {
            self.tables[table.full_name].table: {self._nodes[host]: rows for host, rows in table.held.items()}
            for table in read
            if table.held
        }
        owned = Owned({table.full_name: table.rows for table in read if table.depth}, prepared.shares)
        tables = [*prepared.refused, *unreadable_tables(prepared), *read]
        return Report(
            run_id=prepared.run_id,
            cluster=prepared.ring.cluster,
            started_at=prepared.started_at,
            seconds=seconds,
            tables=tuple(sorted(tables, key=lambda t: (t.keyspace, t.table))),
            violations=broken_rules(prepared, held),
            findings_by_kind={kind.value: count for kind, count in sorted(writer.counts.items())},
            top=tuple(self._top),
            not_checked=prepared.scope.not_checked,
            replicas=tuple(node.name for node in prepared.ring.nodes if node.name in self._replicas),
            findings_path=str(options.findings) if options.findings and not writer.error else None,
            findings_error=writer.error,
            interrupted=interrupted,
            likely_causes=self._causes.causes(owned),
            places={node.name: node.dc for node in prepared.ring.nodes},
            notes=tuple(self._notes),
            traces=TracesLeft(traces.sessions + self._traces[0], traces.with_keys + self._traces[1]),
            cluster_id=known_as(self._recorder, prepared.ring),
        )

    def record(self, report: Report) -> None:
        """Write down for later runs what was read."""
        if self._recorder is None:
            return
        by_name = {table.full_name: table for table in report.tables}
        for name, units in self.tables.items():
            for depth in {read.depth for read in units.reads}:
                non_owners = all(read.non_owners for read in units.reads) and not units.lacking
                trees = by_name[name].trees
                self._recorder.table_read(units.table, depth, units.ranges, non_owners=non_owners, trees=trees)
        self._recorder.end(report)
