"""How the commands that write to a cluster run: they ask first, and show what came of it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.connection import Target
from consistency.cli.show.terminal.console import make_console
from consistency.errors import UsageError
from consistency.results.forecast import Forecast
from consistency.results.verdict import ExitCode

if TYPE_CHECKING:
    from repair.journal import Journal
    from repair.outcomes import Tally
    from repair.pace import ApplyOptions
    from repair.planfile import Plan
    from repair.progress import Ticker
    from repair.record import Record

    OpenJournal = Callable[[], tuple[Journal, Record]]


def confirm(question: str, *, yes: bool) -> None:
    """Ask before anything is written, unless `yes` answers already."""
    if yes:
        return
    if not sys.stdin.isatty():
        msg = f"no one is at the terminal to answer: {question} Give --yes once you know"
        raise UsageError(msg)
    if not click.confirm(question):
        raise UsageError("not confirmed: nothing was written")


def apply_options(given: dict[str, Any]) -> ApplyOptions:
    """Return how hard to write, as the command line says."""
    from repair.pace import ApplyOptions  # noqa: PLC0415

    rate = None if given["full_speed"] else given["rate"]
    return ApplyOptions(rate=rate, max_deletes=given.get("max_deletes"))


def apply_plan(target: Target, journal: str, opened: OpenJournal, options: ApplyOptions, made: Plan) -> int:
    """Apply a plan with progress; print what came of it and what may follow, and return the exit code."""
    from repair.api import run_apply  # noqa: PLC0415
    from repair.entries import Result  # noqa: PLC0415
    from repair.show import print_next  # noqa: PLC0415

    tally, code = carried_out(
        lambda ticker, stop: run_apply(target.settings, made, opened, options, stop=stop, progress=ticker.applied)
    )
    if tally.stopped_at is not None:
        out = make_console(sys.stdout)
        more = max(tally.stopped_at + 1, made.forecast[Forecast.UNKNOWN])
        print_next(out, "bring them back", ["undo", journal], target.words)
        print_next(out, "let them vanish", ["resume", journal, f"--max-deletes {more}"], target.words)
    elif tally.done < tally.total or tally.results[Result.REFUSED]:
        print_next(make_console(sys.stdout), "go on", ["resume", journal], target.words)
    return code


def carried_out(work: Callable[[Ticker, asyncio.Event], Coroutine[Any, Any, Tally]]) -> tuple[Tally, int]:
    """Run an apply or an undo with progress and Ctrl-C; print what came of it, and return it with the exit code."""
    from repair.outcomes import exit_code  # noqa: PLC0415
    from repair.show import print_tally  # noqa: PLC0415

    began = time.monotonic()
    tally = asyncio.run(_listening(work))
    print_tally(make_console(sys.stdout), tally, time.monotonic() - began)
    if tally.interrupted:
        return tally, ExitCode.INTERRUPTED
    return tally, exit_code(tally.results) if tally.stopped_at is None else ExitCode.DIVERGENT


async def _listening(work: Callable[[Ticker, asyncio.Event], Coroutine[Any, Any, Tally]]) -> Tally:
    from repair.cli_check import between_rows  # noqa: PLC0415
    from repair.progress import Ticker  # noqa: PLC0415

    ticker = Ticker(make_console(sys.stderr))
    interrupt = between_rows()
    try:
        return await work(ticker, interrupt.stop)
    finally:
        ticker.close()
