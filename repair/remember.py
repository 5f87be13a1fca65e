"""Tells the ledger which rows were repaired, so that a row that differs again is known to have come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from consistency.errors import ConsistencyError
from consistency.ledger import open_ledger
from consistency.results.report import Report
from repair.journal import Result, read_journal


def remember(ledger: Path, journal: Path) -> int:
    """Enter every row of a journal that was proven to agree; return how many of them the ledger knew."""
    record = read_journal(journal)
    proven = [n for n, entry in record.entries.items() if entry.result is Result.VERIFIED and entry.undo is None]
    refs = [record.plan.rows[n].ref for n in proven]
    with open_ledger(ledger, create=False) as opened:
        return opened.repaired(record.plan.findings_run_id, [(r.keyspace, r.table, r.key_hex) for r in refs])


def remember_or_warn(
    ledger: Path | None, journal: Path | None, warn: Callable[[str], object], report: Report | None = None
) -> None:
    """Tell the ledger, where there is one, of the rows proven and of how the run that found them ended with them.

    What it cannot take is a warning: the rows are repaired all the same.
    """
    if ledger is None:
        return
    try:
        if journal is not None:
            remember(ledger, journal)
        if report is not None:
            with open_ledger(ledger, create=False) as opened:
                opened.ended(report)
    except ConsistencyError as error:
        warn(str(error))
