"""`consistency sync`: what a comparison found is brought from one cluster to the other, and taken back."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.connection import Target, connection_options, take_both, target_options
from consistency.cli.group import LazyGroup
from consistency.cli.outputs import require_writable
from consistency.cli.politeness import politeness_options, take_politeness
from consistency.cli.show.terminal.console import make_console
from consistency.cli.values import SECONDS
from consistency.results.verdict import ExitCode
from repair.cli.options import dry_run_option, journal_option, max_clock_skew_option, show_keys_option, writing_options
from repair.cli.running import (
    apply_options,
    carried_out,
    confirm,
    free_journal,
    planning,
    require_new_journal,
    tell_what_follows,
)
from repair.sync.policy import DEFAULT_MAX_DELETES, Direction, Extra, Level

if TYPE_CHECKING:
    from repair.sync.api import Both, OpenSync
    from repair.sync.planfile import SyncPlan

_level = click.option(
    "--level", type=click.Choice([level.value for level in Level]), default=Level.LOCAL_QUORUM.value,
    show_default=True, help="How many replicas must acknowledge a write. All of them are read afterwards.",
)  # fmt: skip
_max_deletes = click.option(
    "--max-deletes", type=click.IntRange(min=0), metavar="N",
    help="Stop before anything is deleted of more than N rows. Counts earlier runs of the journal too. "
    f"Default: {DEFAULT_MAX_DELETES:,}.",
)  # fmt: skip


@click.group(cls=LazyGroup, short_help="Bring what 'compare' found from one cluster to the other.")
def sync() -> None:
    """Bring the rows that 'compare' found to differ from one cluster to the other.

    'plan' reads each row anew on both sides and decides; 'apply' writes each cell with the write time and expiry that
    it has on the side that gives, so newer writes of the other side stay, and twice is once; it proves every row, and
    keeps a journal. Rows and cells that only the other side holds are left alone unless --extra delete says otherwise.

    \b
    Examples:
      consistency compare shop --config both.toml --findings differing.jsonl
      consistency sync plan differing.jsonl -o sync.jsonl --config both.toml
      consistency sync apply sync.jsonl --journal journal.jsonl --config both.toml
      consistency sync resume journal.jsonl --config both.toml
      consistency sync undo journal.jsonl --config both.toml
      consistency sync show sync.jsonl
    """  # noqa: D301 - click wants the control character


@sync.command(short_help="Decide what to do with each row that 'compare' found.")
@click.argument("findings", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="PLAN", required=True, help="Write the plan to this file, mode 0600.")
@click.option(
    "--direction",
    type=click.Choice([d.value for d in Direction]),
    default=Direction.TO_TARGET.value,
    show_default=True,
    help="Which side gives its rows to the other.",
)
@click.option(
    "--extra",
    type=click.Choice([e.value for e in Extra]),
    default=Extra.KEEP.value,
    show_default=True,
    help="What to do with rows and cells that only the side which is written to holds: leave them, or delete them at "
    "exactly their own write time, so that newer writes stay. For that every replica of both sides must be readable.",
)
@max_clock_skew_option
@click.option("--settle", type=SECONDS, metavar="SECONDS",
              help="A row written to more recently than this is not judged. Default: as 'compare'.")  # fmt: skip
@politeness_options
@show_keys_option
@connection_options
@target_options
def plan(findings: Path, output: str, **given: Any) -> int:
    """Decide what to do with each row of a findings file of 'compare'; nothing is written to either cluster.

    Rows of ranges that were counted and not listed are found by reading these ranges on both sides. The plan names
    every row. However many there are, memory stays flat.

    \b
    Examples:
      consistency sync plan found.jsonl -o sync.jsonl --config both.toml
      consistency sync plan found.jsonl -o sync.jsonl --extra delete
      consistency sync plan found.jsonl -o back.jsonl \\
          --direction target-to-source

    \b
    Exit codes:
      0 every row is the same by now or will be acted on
      1 some rows are left alone · 2 usage
      3 some rows wait for replicas that cannot be read
      4 could not run
    """  # noqa: D301
    from consistency.cluster.pinned import ReadLimits  # noqa: PLC0415 - what reads a cluster is loaded when needed
    from consistency.results.pair_findings import read_pair_header  # noqa: PLC0415
    from repair.cli.progress import Ticker  # noqa: PLC0415
    from repair.cli.show import print_next  # noqa: PLC0415
    from repair.cli.show_sync import plan_exit, print_sync_plan  # noqa: PLC0415
    from repair.sync.api import run_sync_plan  # noqa: PLC0415
    from repair.sync.planner import SyncOptions  # noqa: PLC0415

    both, words = _both(given)
    read_pair_header(findings)  # refused before a cluster is asked
    require_writable("--output", output)
    limits = ReadLimits(politeness=take_politeness(given))
    options = SyncOptions(
        Direction(given["direction"]), Extra(given["extra"]), given["settle"], given["max_clock_skew"]
    )
    total = _rows_of(findings)
    ticker = Ticker(make_console(sys.stderr))

    def progress(rows: int) -> None:
        ticker.planned(rows, max(rows, total))

    try:
        made = asyncio.run(planning(run_sync_plan(both, findings, Path(output), options, progress, limits=limits)))
    finally:
        ticker.close()
    console = make_console(sys.stdout)
    print_sync_plan(console, made, keys=given["show_keys"])
    if made.summary.to_do:
        print_next(console, "carry it out", ["sync apply", output, f"--journal {free_journal()}"], words)
    return plan_exit(made)


def _rows_of(findings: Path) -> int:
    """Count the findings, for progress: those of ranges are not known before they are read."""
    with findings.open("rb") as file:
        return sum(1 for _ in file) - 1


@sync.command()
@click.argument("plan", type=click.Path(path_type=Path))
@journal_option
@_level
@_max_deletes
@writing_options
@connection_options
@target_options
def apply(plan: Path, journal: str, **given: Any) -> int:
    """Carry out a plan, exactly as 'sync show' prints it.

    Each row is read again on both sides first and skipped if either has changed; after the write every replica of the
    side that was written to is read again to prove the outcome. The other side is never written to.

    \b
    Examples:
      consistency sync apply sync.jsonl --journal journal.jsonl --config both.toml
      consistency sync apply sync.jsonl --journal journal.jsonl \\
          --rate 200 --level quorum --yes

    \b
    Exit codes:
      0 every row is verified
      1 something is left alone, was skipped or still differs
      2 usage · 3 something could not be verified · 4 could not run
      5 locked · 130 interrupted
    """  # noqa: D301
    from repair.cli.show_sync import what_is_done  # noqa: PLC0415
    from repair.sync.journal import SyncJournal  # noqa: PLC0415
    from repair.sync.planfile import read_sync_plan  # noqa: PLC0415

    both, words = _both(given)
    made = read_sync_plan(plan)
    require_new_journal(journal, "sync")
    confirm(what_is_done(made), yes=given["yes"])
    return _apply(both, words, made, journal, partial(SyncJournal.begin, Path(journal), made), given)


@sync.command(short_help="Go on with a sync that did not come to its end.")
@click.argument("journal", type=click.Path(path_type=Path))
@_level
@_max_deletes
@writing_options
@connection_options
@target_options
def resume(journal: Path, **given: Any) -> int:
    """Go on with a sync that was killed or interrupted, or that the servers refused something.

    Rows that ended are not touched. Those that were refused, or whose end is not known, are read and decided again.

    \b
    Example:
      consistency sync resume journal.jsonl --config both.toml

    \b
    Exit codes: as apply
    """  # noqa: D301
    from consistency.results.figures import counted  # noqa: PLC0415
    from repair.applying.outcomes import exit_code  # noqa: PLC0415
    from repair.sync.journal import SyncJournal, read_sync_journal  # noqa: PLC0415

    both, words = _both(given)
    record = read_sync_journal(journal)
    if not record.open_rows:
        click.echo(f"{journal}: every row has its outcome, so nothing is left to do")
        return exit_code(record.account().results)
    cluster = record.plan.header.sides[record.plan.policy.direction.taker].cluster
    confirm(f"Continue with {counted(record.open_rows, 'row')} of cluster {cluster!r}?", yes=given["yes"])
    return _apply(both, words, record.plan, str(journal), partial(SyncJournal.go_on, journal), given)


def _apply(
    both: Both, words: tuple[str, ...], made: SyncPlan, journal: str, opened: OpenSync, given: dict[str, Any]
) -> int:
    """Apply a plan with progress; print what came of it and what may follow, and return the exit code."""
    from repair.sync.api import run_sync_apply  # noqa: PLC0415
    from repair.sync.run import SyncApplyOptions  # noqa: PLC0415

    options = SyncApplyOptions(apply_options(given), Level(given["level"]))
    tally, code = carried_out(
        lambda ticker, stop: run_sync_apply(both, made, opened, options, stop=stop, progress=ticker.applied),
        "sync resume",
        journal,
    )
    tell_what_follows(tally, "sync", journal, words, ("delete the others too", made.summary.deletes))
    return code


@sync.command(short_help="Take back what an apply did, by a new write.")
@click.argument("journal", type=click.Path(path_type=Path))
@dry_run_option
@writing_options
@connection_options
@target_options
def undo(journal: Path, **given: Any) -> int:
    """Take back what an apply did, by a new write of what the replicas held before; the other side is not needed.

    Only rows that the journal proves to have been changed by the sync are touched, and only if nobody has written to
    them since. A row that the sync brought is deleted again: to be synced once more it must be written anew, as that
    delete is newer than its cells. Old write times cannot be brought back.

    \b
    Examples:
      consistency sync undo journal.jsonl --dry-run --config both.toml
      consistency sync undo journal.jsonl --config both.toml

    \b
    Exit codes:
      0 every row that was changed is undone · 1 some could not be · 2 usage
      4 could not run · 5 locked
    """  # noqa: D301
    from repair.cli.show import print_preview  # noqa: PLC0415
    from repair.sync.api import run_sync_undo  # noqa: PLC0415
    from repair.sync.journal import read_sync_journal  # noqa: PLC0415
    from repair.sync.undo import preview  # noqa: PLC0415

    both, _ = _both(given)
    record = read_sync_journal(journal)
    side = record.plan.policy.direction.taker
    print_preview(make_console(sys.stdout), preview(record))
    if given["dry_run"]:
        return 0
    confirm(f"Undo them in the {side}, cluster {record.plan.header.sides[side].cluster!r}?", yes=given["yes"])
    options = apply_options(given)
    _, code = carried_out(
        lambda ticker, stop: run_sync_undo(both.of(side), journal, options, stop=stop, progress=ticker.undone),
        "sync undo",
        str(journal),
    )
    return code


@sync.command()
@click.argument("file", metavar="PLAN|JOURNAL", type=click.Path(path_type=Path))
@show_keys_option
def show(file: Path, show_keys: bool) -> int:  # noqa: FBT001
    """Print a plan, or what a journal says happened. No cluster is contacted.

    \b
    Examples:
      consistency sync show sync.jsonl --show-keys
      consistency sync show journal.jsonl

    \b
    Exit codes: of a journal as apply's; of a plan 0 · 2 the file cannot be used
    """  # noqa: D301
    from repair.applying.outcomes import exit_code  # noqa: PLC0415
    from repair.cli.show_sync import print_sync_plan, print_sync_record  # noqa: PLC0415
    from repair.keeping.files import SYNC_JOURNAL  # noqa: PLC0415
    from repair.sync.journal import read_sync_journal  # noqa: PLC0415
    from repair.sync.planfile import read_sync_plan  # noqa: PLC0415

    console = make_console(sys.stdout)
    if not SYNC_JOURNAL.is_of(file):
        print_sync_plan(console, read_sync_plan(file), keys=show_keys)
        return 0
    record = read_sync_journal(file)
    print_sync_record(console, record, keys=show_keys)
    whole = record.ended == record.plan.summary.rows
    return exit_code(record.account().results) if whole else ExitCode.INCOMPLETE


def _both(given: dict[str, Any]) -> tuple[Both, tuple[str, ...]]:
    """Take the options of both sides out of a command's arguments."""
    from repair.sync.api import Both  # noqa: PLC0415

    source: Target
    source, target = take_both(given)
    return Both(source.settings, target.settings), (*source.words, *target.words)
