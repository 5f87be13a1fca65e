"""Counts the events of a check, as an Observer: the figures of its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import Leaf, TablePlan
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.results.findings import Finding
from consistency.results.range_findings import RangeFinding
from consistency.results.report import TableReport

_TELLING = 0.02
"""Before this part of a table is done, its remaining time is not shown."""


@dataclass(slots=True)
class Lane:
    """One replica's part of the current table, in digests; `rows` are those digested so far."""

    planned: int = 0
    done: int = 0
    failed: int = 0
    rows: int = 0

    @property
    def part(self) -> float:
        """The part that is done, from 0 to 1."""
        return min(1.0, self.done / self.planned) if self.planned else 0.0


class Counts:
    """The state of a check, from its events; the figures of replicas are those of the current table."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.started = clock()
        self.tables = 0
        self.begun = 0
        self.table = ""
        self.table_started = self.started
        self.lanes: dict[str, Lane] = {}
        self.rows = 0
        self.findings = 0
        self.waiting = 0
        self.settling_now = False
        self._failed: set[tuple[Leaf, Node]] = set()

    def scan_started(self, tables: int) -> None:
        """Record the number of tables."""
        self.tables = tables

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """Start a table."""
        lanes: dict[str, Lane] = {}
        for leaf in plan.leaves:
            for node in leaf.replicas:
                lanes.setdefault(node.name, Lane()).planned += 1
        self.lanes = dict(sorted(lanes.items()))
        self._failed.clear()
        self.table = table.full_name
        self.table_started = self._clock()
        self.begun += 1

    def leaf_digested(self, result: LeafResult) -> None:
        """Count a leaf's digests; a digest that failed and is tried again counts once."""
        self.rows += result.rows
        for node in result.leaf.replicas:
            lane = self.lanes.setdefault(node.name, Lane())
            again = (result.leaf, node) in self._failed
            lane.done += not again
            if node in result.digests:
                lane.rows += result.digests[node].rows
                lane.failed -= again
                self._failed.discard((result.leaf, node))
            elif not again:
                lane.failed += 1
                self._failed.add((result.leaf, node))

    def found(self, finding: Finding) -> None:  # noqa: ARG002 - the Observer's signature
        """Count a finding."""
        self.findings += 1

    def found_range(self, finding: RangeFinding) -> None:
        """Count the rows of a range."""
        self.findings += finding.rows

    def differing(self, rows: int) -> None:
        """Count the rows of two clusters."""
        self.findings += rows

    def settling(self, waiting: int) -> None:
        """Record that the scan is over, and the number of suspects left."""
        self.settling_now = True
        self.waiting = waiting

    def table_done(self, report: TableReport) -> None:
        """Do nothing: reports come at the end."""

    @property
    def part(self) -> float:
        """The digested part of the current table, from 0 to 1."""
        lanes = list(self.lanes.values())
        planned = sum(lane.planned for lane in lanes)
        return min(1.0, sum(lane.done for lane in lanes) / planned) if planned else 0.0

    @property
    def failed(self) -> int:
        """The failed digests of the current table."""
        return sum(lane.failed for lane in list(self.lanes.values()))

    @property
    def table_seconds(self) -> float:
        """How long the current table has taken."""
        return max(1e-3, self._clock() - self.table_started)

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return self._clock() - self.started

    def rate(self, lane: Lane) -> float:
        """Rows per second that one replica digests of the current table."""
        return lane.rows / self.table_seconds

    @property
    def seconds_left(self) -> float | None:
        """How long the current table will still take at this pace, None while that is not known."""
        part = self.part
        if part < _TELLING or part >= 1:
            return None
        return self.table_seconds * (1 - part) / part

    @property
    def stage(self) -> str:
        """The current activity, in two or three words."""
        if self.settling_now:
            return "reading suspects again"
        if not self.begun:
            return "reading the schema" if not self.tables else "estimating rows"
        return "comparing rows" if self.part >= 1 else "digesting"
