"""Who is told while a check runs: the terminal's progress, a library's callback, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import TablePlan
from consistency.model.schema import Table
from consistency.results.findings import Finding
from consistency.results.range_findings import RangeFinding
from consistency.results.report import TableReport


class Observer(Protocol):
    """Told what happens, in the order in which it does; must not raise and must not wait.

    Its methods are called on the thread and in the event loop of the check: what takes long holds the check up.
    A class of your own may begin with `Silent` and define what it wants to know.
    """

    def scan_started(self, tables: int) -> None:
        """So many tables will be scanned."""

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """A table was cut into leaves."""

    def leaf_digested(self, result: LeafResult) -> None:
        """One leaf came back from all its replicas."""

    def found(self, finding: Finding) -> None:
        """A difference outlived the settle window."""

    def found_range(self, finding: RangeFinding) -> None:
        """Rows of one range differ that are counted and not listed."""

    def settling(self, waiting: int) -> None:
        """So many suspected rows wait to be read again."""

    def table_done(self, report: TableReport) -> None:
        """A table's report is final."""


class PairObserver(Observer, Protocol):
    """Told what happens in a comparison of two clusters; what differs is told by the number of rows alone."""

    def differing(self, rows: int) -> None:
        """So many rows more are known to differ between the clusters, or among the replicas of one of them."""


class Silent:
    """Tells nobody."""

    def scan_started(self, tables: int) -> None:
        """Do nothing."""

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """Do nothing."""

    def leaf_digested(self, result: LeafResult) -> None:
        """Do nothing."""

    def found(self, finding: Finding) -> None:
        """Do nothing."""

    def found_range(self, finding: RangeFinding) -> None:
        """Do nothing."""

    def settling(self, waiting: int) -> None:
        """Do nothing."""

    def table_done(self, report: TableReport) -> None:
        """Do nothing."""


class SilentPair(Silent):
    """Tells nobody of a comparison either."""

    def differing(self, rows: int) -> None:
        """Do nothing."""


class Several:
    """Tells several observers, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def scan_started(self, tables: int) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.scan_started(tables)

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.table_planned(table, plan)

    def leaf_digested(self, result: LeafResult) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.leaf_digested(result)

    def found(self, finding: Finding) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.found(finding)

    def found_range(self, finding: RangeFinding) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.found_range(finding)

    def settling(self, waiting: int) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.settling(waiting)

    def table_done(self, report: TableReport) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.table_done(report)


class SeveralOfPair(Several):
    """Tells several observers of a comparison."""

    def __init__(self, *observers: PairObserver) -> None:
        super().__init__(*observers)
        self._of_pair = observers

    def differing(self, rows: int) -> None:
        """Pass it on."""
        for observer in self._of_pair:
            observer.differing(rows)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check is: counts that only grow, but for `waiting`. Tables are planned as they are reached."""

    tables: int = 0
    """How many tables will be scanned."""
    tables_planned: int = 0
    """How many of them were begun."""
    table: str = ""
    """`keyspace.table` of the one that was begun last."""
    leaves: int = 0
    """Token ranges of the tables begun."""
    leaves_done: int = 0
    """How many of them were read on all their replicas, or given up."""
    rows: int = 0
    """Rows in them, of the replica that holds most; those read a second time count again."""
    findings: int = 0
    """Rows that are known to differ."""
    waiting: int = 0
    """Rows that are suspected to differ and wait to be read again."""
    share: float = 0.0
    """About how much is done, from 0 to 1. At 1 some rows may still wait."""


class ProgressTeller(Silent):
    """Tells one function how far the check is, each time something was read or found."""

    def __init__(self, tell: Callable[[Progress], object]) -> None:
        self._tell = tell
        self._now = Progress()

    def scan_started(self, tables: int) -> None:
        """Tell how many there are."""
        self._say(tables=tables)

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """Count its leaves."""
        now = self._now
        self._say(table=table.full_name, tables_planned=now.tables_planned + 1, leaves=now.leaves + len(plan.leaves))

    def leaf_digested(self, result: LeafResult) -> None:
        """Count one leaf; one that is read once more at the end is counted once."""
        now = self._now
        self._say(leaves_done=min(now.leaves_done + 1, now.leaves), rows=now.rows + result.rows)

    def found(self, finding: Finding) -> None:  # noqa: ARG002 - the protocol's
        """Count one row."""
        self._say(findings=self._now.findings + 1)

    def found_range(self, finding: RangeFinding) -> None:
        """Count its rows."""
        self._say(findings=self._now.findings + finding.rows)

    def differing(self, rows: int) -> None:
        """Count them."""
        self._say(findings=self._now.findings + rows)

    def settling(self, waiting: int) -> None:
        """Tell how many wait, if that changed."""
        if waiting != self._now.waiting:
            self._say(waiting=waiting)

    def _say(self, **changed: Any) -> None:
        now = replace(self._now, **changed)
        if now.leaves:
            # Tables are planned one after the other: those to come count as much as those that are known.
            share = now.leaves_done / now.leaves * now.tables_planned / now.tables
            now = replace(now, share=max(now.share, min(share, 1.0)))
        self._now = now
        self._tell(now)
