"""Who is shown what a watch of two clusters does: the live page, or nobody."""

from __future__ import annotations

from typing import Protocol

from consistency.checking.observer import PairObserver, SilentPair
from consistency.watching.target_end import TargetTable


class TargetAudience(Protocol):
    """Shown each comparison as it happens, on the watch's thread; must not raise and must not wait."""

    def comparing(self, run_id: str, full_name: str) -> PairObserver:
        """Take note that a table is compared; return who is told how it goes."""

    def compared(self, run_id: str, table: TargetTable, rows: int, exit_code: int) -> None:
        """Take the figures of a comparison."""

    def failed(self, run_id: str, full_name: str, reason: str, exit_code: int) -> None:
        """Take note that a visit ended without a result; `full_name` is empty if its table is not known."""

    def waiting(self) -> None:
        """Take note that another run holds a lock."""

    def resting(self, seconds: float) -> None:
        """Take note that the next visit begins after so long."""


class NoTargetAudience:
    """Is shown everything, and looks at nothing."""

    def comparing(self, run_id: str, full_name: str) -> PairObserver:  # noqa: ARG002 - the protocol's
        """Tell nobody."""
        return SilentPair()

    def compared(self, run_id: str, table: TargetTable, rows: int, exit_code: int) -> None:
        """Do nothing."""

    def failed(self, run_id: str, full_name: str, reason: str, exit_code: int) -> None:
        """Do nothing."""

    def waiting(self) -> None:
        """Do nothing."""

    def resting(self, seconds: float) -> None:
        """Do nothing."""
