"""`consistency repair`: plan, apply, resume, undo, show."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consistency.checking.settle_window import DEFAULT_WINDOW_S
from consistency.cli.connection import Target, connection_options, take_connection
from consistency.cli.group import LazyGroup
from consistency.cli.ledger import ledger_option, take_ledger
from consistency.cli.outputs import require_writable
from consistency.cli.show.terminal.console import make_console
from consistency.cli.spreading import spreading_options, take_crew
from consistency.cli.values import SECONDS
from consistency.errors import UsageError
from consistency.results.forecast import Forecast
from consistency.results.kinds import Kind
from consistency.results.verdict import ExitCode
from consistency.rows.delete_search import DEFAULT_MOST_TRACES
from repair.applying.breaker import SPARE
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
from repair.deciding.decide import ACTING, Action, Rule
from repair.deciding.mergeable import FEW, RangeMerge
from repair.deciding.policy import Policy, Require, Zombies

if TYPE_CHECKING:
    from repair.api import OpenJournal
    from repair.keeping.planfile import Plan

_REMEMBERED = (
    "The ledger of the check: repaired rows that are found again count as came back. Default: "
    "CONSISTENCY_LEDGER, [ledger] path in the TOML file."
)

_max_deletes = click.option(
    "--max-deletes", type=click.IntRange(min=0), metavar="N",
    help="Stop before more than N rows that most replicas hold vanish. Counts earlier runs of the journal too. "
    f"Default: what the plan forecasts, and {SPARE} more.",
)  # fmt: skip


@click.group(cls=LazyGroup)
def repair() -> None:
    """Repair exactly the rows that a check found to differ.

    'plan' reads each row anew on every replica and decides; 'apply' does what the plan says, proves it row by
    row, and keeps a journal. Nothing newer is ever overwritten, and nothing is deleted on our own judgement.

    \b
    Examples:
      consistency repair plan findings.jsonl -o plan.jsonl --hosts 10.0.0.1
      consistency repair apply plan.jsonl --journal journal.jsonl --hosts 10.0.0.1
      consistency repair resume journal.jsonl --hosts 10.0.0.1
      consistency repair undo journal.jsonl --hosts 10.0.0.1
      consistency repair show plan.jsonl
    """  # noqa: D301 - click wants the control character


@repair.command(short_help="Decide what to do with each row of a findings file.")
@click.argument("findings", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="PLAN", help="Write the plan to this file, mode 0600.")
@click.option(
    "--zombies",
    type=click.Choice([z.value for z in Zombies]),
    default=Zombies.QUARANTINE.value,
    show_default=True,
    help="What to do with zombie suspects: rows older than gc_grace_seconds that only a minority holds.",
)
@click.option(
    "--require",
    type=click.Choice([r.value for r in Require]),
    default=Require.QUORUM.value,
    show_default=True,
    help="How many replicas of a row must be readable before it is decided.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(sorted(r.value for r in ACTING)),
    help="Act only by this rule; may be repeated.",
)
@click.option(
    "--only-forecast",
    multiple=True,
    type=click.Choice([f.value for f in Forecast]),
    help="Act only on rows with this forecast; may be repeated.",
)
@click.option("--max-rows", type=click.IntRange(min=0), metavar="N", help="Act on at most this many rows.")
@click.option(
    "--range-merge",
    type=click.Choice([m.value for m in RangeMerge]),
    default=RangeMerge.AUTO.value,
    show_default=True,
    help="Merge ranges whose rows were counted and not listed as ranges, by reads of all their rows at ALL. auto: if"
    f" {FEW} rows or more differ and their table allows it, and ranges of listed rows too where these are many and lie"
    " densely; of others, and with never, each row is read and planned. only: leave out all else.",
)
@max_clock_skew_option
@click.option("--settle", type=SECONDS, metavar="SECONDS",
              help="A row written to more recently than this is not judged. Default: half a second more than the "
              f"servers' write timeout, {DEFAULT_WINDOW_S:g} where they do not tell it.")  # fmt: skip
@click.option(
    "--print-nodetool", is_flag=True,
    help="Plan nothing; print the 'nodetool repair' commands that cover the ranges whose rows were counted and not "
    "listed, for those who prefer Cassandra's own way. Check again after it.",
)  # fmt: skip
@click.option("--max-traces", type=click.IntRange(min=0), default=DEFAULT_MOST_TRACES, show_default=True, metavar="N",
              help="Look for deletes on replicas that lack rows by at most N traced reads, which stay in system_traces "
              "for a day. Needs SELECT on system_traces.")  # fmt: skip
@click.option("--no-traces", is_flag=True, help="Look for no deletes: rows that a replica lacks are forecast unknown.")
@show_keys_option
@spreading_options
@connection_options
def plan(findings: Path, output: str | None, **given: Any) -> int:
    """Decide what to do with each row of a findings file; nothing is written to the cluster.

    \b
    Examples:
      consistency repair plan findings.jsonl -o plan.jsonl --hosts 10.0.0.1
      consistency repair plan findings.jsonl -o plan.jsonl --workers 4

    \b
    Exit codes:
      0 every row agrees or will be acted on · 1 some rows are left alone
      2 usage · 3 some rows wait for replicas that cannot be read, or
        were left out by --range-merge only · 4 could not run
    """  # noqa: D301
    from repair.api import run_plan  # noqa: PLC0415
    from repair.cli.progress import Ticker  # noqa: PLC0415
    from repair.cli.show import print_next, print_plan  # noqa: PLC0415
    from repair.keeping.planfile import write_plan  # noqa: PLC0415 - what reads a cluster is loaded when it is needed
    from repair.planning.planner import PlanOptions  # noqa: PLC0415

    if given["print_nodetool"]:
        from repair.api import run_ring  # noqa: PLC0415
        from repair.cli.show import counted_ranges, print_nodetool  # noqa: PLC0415

        ranges = counted_ranges(findings)
        ring = asyncio.run(run_ring(take_connection(given).settings, findings))
        print_nodetool(make_console(sys.stdout), ranges, ring)
        return int(ExitCode.CONSISTENT)
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output': name the file that the plan is written to")
    crew = take_crew(given)
    target = take_connection(given)
    require_writable("--output", output)
    policy = Policy(Zombies(given["zombies"]), Require(given["require"]), given["max_clock_skew"], given["settle"])
    options = PlanOptions(
        policy,
        frozenset(map(Rule, given["only"])),
        given["max_rows"],
        frozenset(map(Forecast, given["only_forecast"])),
        0 if given["no_traces"] else given["max_traces"],
        RangeMerge(given["range_merge"]),
    )
    ticker = Ticker(make_console(sys.stderr))
    try:
        gather = crew.gather if crew else None
        work = run_plan(target.settings, findings, options, ticker.planned, gather=gather, given=target.given)
        made = asyncio.run(planning(work))
    finally:
        ticker.close()
    write_plan(Path(output), made)
    console = make_console(sys.stdout)
    print_plan(console, made, keys=given["show_keys"])
    if made.to_do or made.ranges or made.refused:
        print_next(
            console,
            "carry it out" if made.to_do or made.ranges else "when the servers allow it",
            ["repair apply", output, f"--journal {free_journal()}"],
            target.words,
        )
    return _plan_exit(made)


def _plan_exit(made: Plan) -> int:
    left = [row for row in made.rows if row.action is Action.NONE and row.rule not in (Rule.AGREED, Rule.GONE)]
    waiting = [row for row in left if row.rule in (Rule.TOO_FEW, Rule.WAITS)]
    in_ranges = any(found.kinds.keys() & {Kind.ZOMBIE_SUSPECT, Kind.FUTURE_WRITE_TIME} for found in made.ranges)
    wrong = bool(made.refused) or in_ranges or len(left) > len(waiting)
    return ExitCode.of(wrong=wrong, unknown=bool(waiting or made.left_out))


@repair.command()
@click.argument("plan", type=click.Path(path_type=Path))
@journal_option
@_max_deletes
@writing_options
@ledger_option(_REMEMBERED)
@connection_options
def apply(plan: Path, journal: str, **given: Any) -> int:
    """Carry out a plan, exactly as 'repair show' prints it.

    Each row is read again first and left alone if anything about it has changed; after the write every
    replica is read again to prove the outcome. Where a merge makes more rows vanish than --max-deletes says, it
    stops; 'undo' brings them back, 'resume --max-deletes N' goes on.

    \b
    Examples:
      consistency repair apply plan.jsonl --journal journal.jsonl
      consistency repair apply plan.jsonl --journal journal.jsonl --yes

    \b
    Exit codes:
      0 every row is verified
      1 something is left alone, was skipped or still differs
      2 usage · 3 something could not be verified, or the plan leaves
        rows out · 4 could not run
      5 locked · 130 interrupted
    """  # noqa: D301
    from repair.api import begin  # noqa: PLC0415
    from repair.cli.check import note_repaired  # noqa: PLC0415
    from repair.cli.show import what_is_done  # noqa: PLC0415
    from repair.keeping.planfile import read_plan  # noqa: PLC0415

    ledger = take_ledger(given)
    target = take_connection(given)
    made = read_plan(plan)
    require_new_journal(journal, "repair")
    confirm(f"{what_is_done(made)} in cluster {made.cluster!r}?", yes=given["yes"])
    code = _applied(target, journal, begin(Path(journal), made), made, given)
    note_repaired(ledger, Path(journal))
    return code


@repair.command(short_help="Go on with an apply that did not come to its end.")
@click.argument("journal", type=click.Path(path_type=Path))
@_max_deletes
@writing_options
@ledger_option(_REMEMBERED)
@connection_options
def resume(journal: Path, **given: Any) -> int:
    """Go on with an apply that was killed or interrupted, or that the servers refused something.

    Rows that ended are not touched. Those that were refused, or whose end is not known, are read and decided again.

    \b
    Examples:
      consistency repair resume journal.jsonl --hosts 10.0.0.1
      consistency repair resume journal.jsonl --max-deletes 50 --yes

    \b
    Exit codes: as apply
    """  # noqa: D301
    from repair.api import go_on  # noqa: PLC0415
    from repair.applying.outcomes import exit_code  # noqa: PLC0415
    from repair.cli.check import note_repaired  # noqa: PLC0415
    from repair.cli.show import what_is_open  # noqa: PLC0415
    from repair.keeping.record import read_journal  # noqa: PLC0415

    ledger = take_ledger(given)
    target = take_connection(given)
    record = read_journal(journal)
    if not record.open_rows and not record.open_ranges:
        click.echo(f"{journal}: every row has its outcome, so nothing is left to do")
        note_repaired(ledger, journal)
        return exit_code(record.results, record.plan.left_out)
    confirm(f"Continue with {what_is_open(record)} of cluster {record.plan.cluster!r}?", yes=given["yes"])
    code = _applied(target, str(journal), go_on(journal), record.plan, given)
    note_repaired(ledger, journal)
    return code


def _applied(target: Target, journal: str, opened: OpenJournal, made: Plan, given: dict[str, Any]) -> int:
    """Apply a plan with progress; print what came of it and what may follow, and return the exit code."""
    from repair.api import run_apply  # noqa: PLC0415

    options = apply_options(given)
    tally, code = carried_out(
        lambda ticker, stop: run_apply(target.settings, made, opened, options, stop=stop, progress=ticker.applied),
        "repair resume",
        journal,
    )
    most = max((tally.stopped_at or 0) + 1, made.forecast[Forecast.UNKNOWN])
    tell_what_follows(tally, "repair", journal, target.words, ("let them vanish", most))
    return code


@repair.command(short_help="Take back what an apply did, by a new write.")
@click.argument("journal", type=click.Path(path_type=Path))
@dry_run_option
@writing_options
@connection_options
def undo(journal: Path, **given: Any) -> int:
    """Take back what an apply did, by an explicit new write of what a majority of replicas held before.

    Only rows that the journal proves to have been changed by the apply are touched: what the servers refused was not,
    and what they never answered is left alone and named. Undoing can delete: a row that most replicas did not have is
    deleted again. Old write times, counter totals, rows of which no majority held one version, and rows that were
    written to since cannot be brought back; each is named.

    \b
    Examples:
      consistency repair undo journal.jsonl --dry-run
      consistency repair undo journal.jsonl --hosts 10.0.0.1

    \b
    Exit codes:
      0 every row that was changed is undone · 1 some could not be · 2 usage
      4 could not run · 5 locked
    """  # noqa: D301
    from repair.api import run_undo  # noqa: PLC0415
    from repair.cli.show import print_preview  # noqa: PLC0415
    from repair.keeping.record import read_journal  # noqa: PLC0415
    from repair.undoing.undo import preview  # noqa: PLC0415

    target = take_connection(given)
    record = read_journal(journal)
    console = make_console(sys.stdout)
    print_preview(console, preview(record))
    if given["dry_run"]:
        return 0
    confirm(f"Undo them in cluster {record.plan.cluster!r}?", yes=given["yes"])
    _, code = carried_out(
        lambda ticker, stop: run_undo(
            target.settings, journal, apply_options(given), stop=stop, progress=ticker.undone
        ),
        "repair undo",
        str(journal),
    )
    return code


@repair.command()
@click.argument("file", metavar="PLAN|JOURNAL", type=click.Path(path_type=Path))
@click.option("--forecast", type=click.Choice([f.value for f in Forecast]), help="Only the rows with this forecast.")
@show_keys_option
@connection_options
def show(file: Path, forecast: str | None, show_keys: bool, **given: Any) -> int:  # noqa: FBT001
    """Print a plan, or what a journal says happened. No cluster is contacted.

    \b
    Examples:
      consistency repair show plan.jsonl --show-keys
      consistency repair show journal.jsonl

    \b
    Exit codes: of a journal as apply's; of a plan 0 · 2 the file cannot be used
    """  # noqa: D301
    from repair.applying.outcomes import exit_code  # noqa: PLC0415
    from repair.cli.show import print_plan, print_record  # noqa: PLC0415
    from repair.keeping.files import REPAIR_JOURNAL  # noqa: PLC0415
    from repair.keeping.planfile import read_plan  # noqa: PLC0415
    from repair.keeping.record import read_journal  # noqa: PLC0415

    take_connection(given)
    console = make_console(sys.stdout)
    if not REPAIR_JOURNAL.is_of(file):
        print_plan(console, _forecast_so(read_plan(file), forecast), keys=show_keys)
        return 0
    record = read_journal(file)
    if forecast:
        msg = f"--forecast {forecast}: {file} is a journal, which says what became of its rows; show the plan"
        raise UsageError(msg)
    print_record(console, record, keys=show_keys)
    return exit_code(record.results, record.plan.left_out) if record.complete else ExitCode.INCOMPLETE


def _forecast_so(made: Plan, forecast: str | None) -> Plan:
    return made.only(lambda row: row.forecast is Forecast(forecast)) if forecast else made
