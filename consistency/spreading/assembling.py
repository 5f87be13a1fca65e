"""The tables of a run that workers have read, unit by unit, and what is taken back of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from consistency.checking.changes import RING_CHANGED, Changing
from consistency.checking.merged_tables import Lacking, merged_table
from consistency.checking.reporting import NOT_REACHED
from consistency.checking.scan import TableTask
from consistency.cluster.locality import TracesLeft
from consistency.ledger.port import RangeRead
from consistency.ledger.table_account import TableRead, read_from_json, table_from_json
from consistency.model.ownership import overlap
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange, merged
from consistency.results.report import TableReport, Unread, not_scanned
from consistency.results.tree_report import TreeReport
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

    def void(self, changes: Changing) -> None:
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


UnitsT = TypeVar("UnitsT", bound=TableUnits)


class Assembling(Generic[UnitsT]):
    """Puts the tables of a run together while its units come in; `nodes` are all that may be told of."""

    def __init__(
        self,
        tasks: Sequence[TableTask],
        nodes: Iterable[Node],
        notes: Iterable[str],
        table: Callable[[TableTask], UnitsT],
    ) -> None:
        self.nodes = {node.host_id: node for node in nodes}
        self.tables = {task.reading.table.full_name: table(task) for task in tasks}
        self.replicas: set[str] = set()
        """The names of the nodes that were read."""
        self.notes = dict.fromkeys(notes)
        self._traces = TracesLeft()

    def take(self, name: str, came: UnitRead) -> None:
        """Enter what came of a unit of a table, but for its findings."""
        self.tables[name].take(came, self.nodes)
        self.replicas.update(came.replicas)
        self.notes.update(dict.fromkeys(came.notes))
        self._traces += came.traces

    def void(self, changes: Changing) -> None:
        """Take back what changed under the run."""
        for table in self.tables.values():
            table.void(changes)

    def traces(self, own: TracesLeft) -> TracesLeft:
        """Return what the proofs of all workers have left on the servers, and our own."""
        return own + self._traces
