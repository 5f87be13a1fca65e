"""Who is shown what a watch does: the live page, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from consistency.checking.observer import Observer, Silent
from consistency.model.ring import Ring
from consistency.model.schema import Table
from consistency.results.report import Report
from consistency.watching.visit_ledger import KnownTable

Known = Callable[[str], KnownTable | None]
"""What the ledger knows of a table by its full name; None without a ledger."""


class Audience(Protocol):
    """Shown each visit as it happens, on the watch's thread; must not raise and must not wait."""

    def in_scope(self, tables: Sequence[Table], known: Known) -> None:
        """Take note of the tables that are watched."""

    def visiting(self, run_id: str, table: Table, ring: Ring) -> Observer:
        """Take note that a visit begins; return who is told how it goes."""

    def recorded(self, table: Table, known: Known) -> None:
        """Take note that the ledger has the visit."""

    def visited(self, report: Report, exit_code: int) -> None:
        """Take the report of a visit."""

    def failed(self, run_id: str, full_name: str, reason: str, exit_code: int) -> None:
        """Take note that a visit ended without a report; `full_name` is empty if its table is not known."""

    def waiting(self) -> None:
        """Take note that another run holds the lock."""

    def resting(self, seconds: float) -> None:
        """Take note that the next visit begins after so long."""


class Nobody:
    """Is shown everything, and looks at nothing."""

    def in_scope(self, tables: Sequence[Table], known: Known) -> None:
        """Do nothing."""

    def visiting(self, run_id: str, table: Table, ring: Ring) -> Observer:  # noqa: ARG002 - the protocol's
        """Tell nobody."""
        return Silent()

    def recorded(self, table: Table, known: Known) -> None:
        """Do nothing."""

    def visited(self, report: Report, exit_code: int) -> None:
        """Do nothing."""

    def failed(self, run_id: str, full_name: str, reason: str, exit_code: int) -> None:
        """Do nothing."""

    def waiting(self) -> None:
        """Do nothing."""

    def resting(self, seconds: float) -> None:
        """Do nothing."""
