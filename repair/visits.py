"""Repairs what the visits of a watch find, and tells the ledger of each row that was proven to agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from consistency.checking.tasks import CheckOptions
from consistency.cluster.settings import ConnectionSettings
from consistency.errors import UsageError
from consistency.results.report import Report
from repair.config import NightlyPolicy
from repair.nightly import NightlyFiles, repair_found
from repair.remember import remember_or_warn


@dataclass(frozen=True, slots=True)
class VisitRepairer:
    """A watch's Repairer: plans, applies and checks again as `check --repair` does, within the same bounds."""

    settings: ConnectionSettings
    policy: NightlyPolicy
    ledger: Path | None = None
    warn: Callable[[str], None] = lambda _: None

    @property
    def directory(self) -> Path:
        """Where findings, plans and journals are kept."""
        return self.policy.directory

    async def repair(self, found: Report, checked: CheckOptions, stop: asyncio.Event) -> Report:
        """Repair what was found; what was proven until then is noted however this ends."""
        if checked.findings is None:
            raise UsageError("a repair needs the findings in a file")
        files = NightlyFiles.of(checked.findings, found.run_id, self.directory)
        ended: Report | None = None
        try:
            ended = await repair_found(self.settings, found, checked, self.policy, stop)
            return ended
        finally:
            journal = files.journal if files.journal.exists() else None
            remember_or_warn(self.ledger, journal, self.warn, ended)
