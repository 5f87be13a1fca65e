"""`consistency check --repair`: what the check command hands over to once it has found something."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from consistency.cli.interrupt import Interrupt
from consistency.settings import load_config
from consistency.terminal.console import make_console
from repair.config import NightlyPolicy, nightly_policy

if TYPE_CHECKING:
    from consistency.checking import CheckOptions
    from consistency.report import Report
    from consistency.settings import ConnectionSettings
    from repair.outcomes import Tally
    from repair.planfile import Plan


def nightly(config: str | None, *, max_rows: int | None, max_seconds: float | None) -> NightlyPolicy:
    """Read what may be repaired; options win over the file. Refused here is refused before anything is read."""
    policy = nightly_policy(load_config(config), config)
    if max_rows is not None:
        policy = replace(policy, max_rows=max_rows)
    return policy if max_seconds is None else replace(policy, max_seconds=max_seconds)


def repair_found(
    settings: ConnectionSettings, found: Report, checked: CheckOptions, policy: NightlyPolicy, *, quiet: bool
) -> Report:
    """Repair within bounds, with progress and Ctrl-C; print what was planned and done; return the report with it."""
    report, plan, tally = asyncio.run(_listening(settings, found, checked, policy, quiet=quiet))
    if plan is not None and not (quiet and not report.exit_code):
        from repair.show import print_plan, print_results  # noqa: PLC0415

        console = make_console(sys.stderr)
        print_plan(console, plan)
        if tally is not None:
            print_results(console, tally)
    return report


async def _listening(
    settings: ConnectionSettings, found: Report, checked: CheckOptions, policy: NightlyPolicy, *, quiet: bool
) -> tuple[Report, Plan | None, Tally | None]:
    from repair.nightly import NightlyProgress, repair_found  # noqa: PLC0415
    from repair.progress import Ticker  # noqa: PLC0415

    interrupt = Interrupt(
        lambda: click.echo("interrupted: ending after the rows under way", err=True),
        lambda: click.echo("interrupted", err=True),
    )
    interrupt.listen()
    interrupt.begun()
    if quiet:
        return await repair_found(settings, found, checked, policy, interrupt.stop)
    ticker = Ticker(make_console(sys.stderr))
    try:
        progress = NightlyProgress(ticker.planned, ticker.applied)
        return await repair_found(settings, found, checked, policy, interrupt.stop, progress)
    finally:
        ticker.close()
