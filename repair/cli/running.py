"""How the commands that write to a cluster run: they ask first, and show what came of it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from consistency.cli.interrupt import Interrupt
from consistency.cli.outputs import require_writable
from consistency.cli.show.terminal.console import make_console
from consistency.errors import ConnectError, ReplicaError, UsageError
from consistency.results.verdict import ExitCode

if TYPE_CHECKING:
    from repair.applying.outcomes import Tally
    from repair.applying.pace import ApplyOptions
    from repair.cli.progress import Ticker

PlanT = TypeVar("PlanT")


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
    from repair.applying.pace import ApplyOptions  # noqa: PLC0415

    rate = None if given["full_speed"] else given["rate"]
    return ApplyOptions(rate=rate, max_deletes=given.get("max_deletes"))


async def planning(work: Coroutine[Any, Any, PlanT]) -> PlanT:
    """Plan, and leave with one line at the first signal: nothing was written that would have to be finished."""
    Interrupt(lambda: None, lambda: click.echo("interrupted: there is no plan", err=True)).listen()
    return await work


def free_journal() -> str:
    """Return a name for a journal that no file here has: a journal is never written over."""
    names = ("journal.jsonl", *(f"journal-{n}.jsonl" for n in range(2, 1_000)))
    return next((name for name in names if not Path(name).exists()), names[0])


def require_new_journal(journal: str, group: str) -> None:
    """Refuse a journal that exists, or that cannot be written."""
    if Path(journal).is_file():
        msg = f"--journal {journal} exists: continue it with '{group} resume {journal}', or name a new file"
        raise UsageError(msg)
    require_writable("--journal", journal)


def tell_what_follows(
    tally: Tally, group: str, journal: str, connection: Sequence[str], vanish: tuple[str, int]
) -> None:
    """Print what is typed after an apply that did not come to the end of its plan.

    `vanish` is what a resume does that lets more rows vanish, and the --max-deletes that lets all of them.
    """
    from repair.cli.show import print_next  # noqa: PLC0415
    from repair.keeping.entries import Result  # noqa: PLC0415

    console, resume = make_console(sys.stdout), [f"{group} resume", journal]
    if tally.stopped_at is not None:
        print_next(console, "bring them back", [f"{group} undo", journal], connection)
        print_next(console, vanish[0], [*resume, f"--max-deletes {vanish[1]}"], connection)
    elif tally.done < tally.total or tally.results[Result.REFUSED]:
        print_next(console, "go on", resume, connection)


def carried_out(
    work: Callable[[Ticker, asyncio.Event], Coroutine[Any, Any, Tally]], again: str, journal: str
) -> tuple[Tally, int]:
    """Run an apply or an undo with progress and Ctrl-C; print what came of it, and return it with the exit code.

    `again` is the command that goes on with the journal: an error that ends the work names it if nodes do not answer
    any more. What has changed under a plan ends it for good, and the journal alone tells how far it came.
    """
    from repair.applying.guard import PlanRefused  # noqa: PLC0415
    from repair.applying.outcomes import exit_code  # noqa: PLC0415
    from repair.cli.show import print_tally  # noqa: PLC0415

    began = time.monotonic()
    try:
        tally = asyncio.run(_listening(work))
    except (ConnectError, ReplicaError, PlanRefused) as error:
        if not Path(journal).is_file():
            raise
        if isinstance(error, PlanRefused):
            msg = f"{error}; {journal} tells what was done until then"
            raise PlanRefused(msg) from error
        kind = ConnectError if isinstance(error, ConnectError) else ReplicaError
        msg = f"{error}; {journal} tells what was done, '{again} {journal}' goes on from there"
        raise kind(msg) from error
    print_tally(make_console(sys.stdout), tally, time.monotonic() - began)
    if tally.interrupted:
        return tally, ExitCode.INTERRUPTED
    return tally, exit_code(tally.results, tally.left_out) if tally.stopped_at is None else ExitCode.DIVERGENT


async def _listening(work: Callable[[Ticker, asyncio.Event], Coroutine[Any, Any, Tally]]) -> Tally:
    from repair.cli.check import between_rows  # noqa: PLC0415
    from repair.cli.progress import Ticker  # noqa: PLC0415

    ticker = Ticker(make_console(sys.stderr))
    interrupt = between_rows()
    try:
        return await work(ticker, interrupt.stop)
    finally:
        ticker.close()
