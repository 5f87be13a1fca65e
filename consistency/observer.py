"""Who is told while a check runs: the terminal's progress, a library's callback, or nobody."""

from __future__ import annotations

from typing import Protocol

from consistency.findings import Finding
from consistency.leaves import LeafResult
from consistency.plan import TablePlan
from consistency.report import TableReport
from consistency.schema import Table


class Observer(Protocol):
    """Told what happens, in the order in which it does; must not raise and must not wait."""

    def scan_started(self, tables: int) -> None:
        """So many tables will be scanned."""

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """A table was cut into leaves."""

    def leaf_digested(self, result: LeafResult) -> None:
        """One leaf came back from all its replicas."""

    def found(self, finding: Finding) -> None:
        """A difference outlived the settle window."""

    def settling(self, waiting: int) -> None:
        """So many suspected rows wait to be read again."""

    def table_done(self, report: TableReport) -> None:
        """A table's report is final."""


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

    def settling(self, waiting: int) -> None:
        """Do nothing."""

    def table_done(self, report: TableReport) -> None:
        """Do nothing."""


class Both:
    """Tells two observers, in turn."""

    def __init__(self, first: Observer, second: Observer) -> None:
        self._each = (first, second)

    def scan_started(self, tables: int) -> None:
        """Pass it on."""
        for each in self._each:
            each.scan_started(tables)

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """Pass it on."""
        for each in self._each:
            each.table_planned(table, plan)

    def leaf_digested(self, result: LeafResult) -> None:
        """Pass it on."""
        for each in self._each:
            each.leaf_digested(result)

    def found(self, finding: Finding) -> None:
        """Pass it on."""
        for each in self._each:
            each.found(finding)

    def settling(self, waiting: int) -> None:
        """Pass it on."""
        for each in self._each:
            each.settling(waiting)

    def table_done(self, report: TableReport) -> None:
        """Pass it on."""
        for each in self._each:
            each.table_done(report)
