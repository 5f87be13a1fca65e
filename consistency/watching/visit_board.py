"""What the boards of both watches share: how the last visit ended, how many rounds there were, and who is told."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from consistency.results.verdict import ExitCode
from consistency.watching.metrics import RunEnd, WatchFigures


class VisitBoard(ABC):
    """What a watch knows now; `run_end` is always replaced as a whole, so any thread may read it."""

    def __init__(self, extra_labels: Mapping[str, str] | None = None) -> None:
        self._extra_labels = dict(extra_labels or {})
        self._rounds = 0
        self._hook_failures = 0
        self._last = (0.0, 0.0, int(ExitCode.INCOMPLETE))
        self.run_end: RunEnd | None = None

    @property
    @abstractmethod
    def tables(self) -> int:
        """The number of tables in scope."""

    @property
    @abstractmethod
    def divergent_rows(self) -> int:
        """The differing rows, by the latest visit of each table."""

    @abstractmethod
    def failed(self, full_name: str | None, reason: str, seconds: float, exit_code: int) -> None:
        """Record a visit without a result; `full_name` is None if its table is not known."""

    @abstractmethod
    def forget(self) -> None:
        """Forget every visit, because the ledger that they rest on is lost."""

    @abstractmethod
    def _run_end(self, ended_at: float, seconds: float, exit_code: int, figures: WatchFigures) -> RunEnd:
        """Return everything, as it is now, as the end of one run."""

    def waited(self, seconds: float, exit_code: int) -> None:
        """Record that another run held the lock, or that there is nothing to visit; what is known stays."""
        self._enter(seconds, exit_code)

    def round_done(self, rounds: int) -> None:
        """Record the number of complete rounds."""
        self._rounds = rounds
        self._publish()

    def hook_failed(self) -> None:
        """Count a hook that could not be notified."""
        self._hook_failures += 1
        self._publish()

    def _enter(self, seconds: float, exit_code: int) -> None:
        """Record how a visit ended."""
        self._last = (time.time(), seconds, int(exit_code))
        self._publish()

    def _publish_again(self) -> None:
        """Tell what has changed between visits, and not only when the next one has ended, which may take hours."""
        if self.run_end is not None:
            self._publish()

    def _publish(self) -> None:
        self.run_end = self._run_end(*self._last, WatchFigures(self._rounds, self._hook_failures))
