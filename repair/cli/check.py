"""`consistency check --repair`: what the check command hands over to once it has found something."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consistency.cli.interrupt import Interrupt
from consistency.cli.show.terminal.console import make_console
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import load_config
from consistency.errors import ConsistencyError
from consistency.results.report import RepairSummary
from repair.nightly.config import NightlyPolicy, nightly_policy
from repair.nightly.night import VisitRepairer, remember_or_warn

if TYPE_CHECKING:
    from consistency.checking.tasks import CheckOptions
    from consistency.cluster.settings import ConnectionSettings
    from consistency.results.report import Report


def nightly(config: str | None, *, max_rows: int | None, max_seconds: float | None) -> NightlyPolicy:
    """Read what may be repaired; options win over the file. Refused here is refused before anything is read."""
    policy = nightly_policy(load_config(config), config)
    if max_rows is not None:
        policy = replace(policy, max_rows=max_rows)
    return policy if max_seconds is None else replace(policy, max_seconds=max_seconds)


def repair_found(
    settings: ConnectionSettings,
    found: Report,
    checked: CheckOptions,
    policy: NightlyPolicy,
    *,
    quiet: bool,
    ledger: Path | None = None,
) -> Report:
    """Repair within bounds, with progress and Ctrl-C; return the report with what came of it."""
    try:
        report = asyncio.run(_listening(settings, found, checked, policy, quiet=quiet))
    except ConsistencyError as error:
        # What the check found must be told all the same, and none of it is known to be repaired.
        click.echo(f"error: the repair ended early: {error}", err=True)
        rows = sum(found.findings_by_kind.values())
        left = {f"the repair ended early: {error}": rows}
        return replace(found, repair=RepairSummary(rows=rows, remaining=rows, left=left))
    journal = report.repair.journal if report.repair else None
    remember_or_warn(ledger, Path(journal) if journal else None, _warn, report)
    return report


def watch_repairer(policy: NightlyPolicy, ledger: Path | None) -> VisitRepairer:
    """Return what repairs after each visit of a watch; refused here is refused before anything is read."""
    policy.new_findings()  # makes the directory, or says why it cannot be
    return VisitRepairer(policy, ledger, _warn)


def note_repaired(ledger: Path | None, journal: Path) -> None:
    """Tell the ledger, if there is one, of the rows that were proven to agree."""
    remember_or_warn(ledger, journal, _warn)


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def between_rows() -> Interrupt:
    """Listen for Ctrl-C and SIGTERM: the first ends a run after the rows under way, the second at once."""
    interrupt = Interrupt(
        lambda: click.echo("interrupted: ending after the rows under way", err=True),
        lambda: click.echo("interrupted", err=True),
    )
    interrupt.listen()
    interrupt.begun()
    return interrupt


async def _listening(
    settings: ConnectionSettings, found: Report, checked: CheckOptions, policy: NightlyPolicy, *, quiet: bool
) -> Report:
    from repair.cli.progress import Ticker  # noqa: PLC0415
    from repair.nightly.night import NightlyProgress, repair_found  # noqa: PLC0415

    interrupt = between_rows()
    if quiet:
        return await repair_found(open_cluster(settings), found, checked, policy, interrupt.stop)
    ticker = Ticker(make_console(sys.stderr))
    try:
        progress = NightlyProgress(ticker.planned, ticker.applied)
        return await repair_found(open_cluster(settings), found, checked, policy, interrupt.stop, progress)
    finally:
        ticker.close()
