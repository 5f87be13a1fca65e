"""Print the plan of a sync and what came of it: rules, counts, what is left alone and why. Keys only on demand."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.cli.show.terminal.advice import quoted
from consistency.cli.show.terminal.console import command, heading, indented, safe
from consistency.cli.show.terminal.figures import counted
from consistency.cli.show.terminal.problems import key_text
from consistency.model.sides import Side
from consistency.results.verdict import ExitCode
from repair.entries import Account
from repair.outcomes import Tally
from repair.show import print_results
from repair.sync.decide import Action, Rule
from repair.sync.journal import SyncRecord
from repair.sync.planfile import SyncPlan, SyncRow
from repair.sync.undo import preview

_MOST_KEYS = 50


def print_sync_plan(console: Console, plan: SyncPlan, *, keys: bool = False) -> None:
    """Print what apply would do with this plan."""
    summary, policy = plan.summary, plan.policy
    giver, taker = policy.direction.giver, policy.direction.taker
    console.print(
        Text.assemble(
            Text("sync plan ", style="bold"), safe(plan.header.run_id),
            f"  from the {giver} {safe(plan.header.sides[giver].cluster)}",
            f" to the {taker} {safe(plan.header.sides[taker].cluster)}",
            f"  {counted(summary.rows, 'row')}, {summary.to_do:,} to act on, {left_alone(plan):,} left alone",
        ),
        soft_wrap=True,
    )  # fmt: skip
    console.print(_grid(plan))
    compared = f"--compare {policy.terms.compare.value}"
    indented(
        console, f"policy: --direction {policy.direction.value} --extra {policy.extra.value}, {compared}", style="dim"
    )
    for action in (a for a in Action if a is not Action.NONE and summary.with_action(a)):
        indented(console, f"{action.value}: {action.sentence}", style="dim")
    for warning in summary.warnings:
        indented(console, f"warning: {safe(warning)}", style="yellow")
    if summary.reasons:
        console.print(heading("left alone"))
        for (rule, sentence), count in summary.reasons.most_common():
            indented(console, f"{count:,} {rule.value}: {safe(sentence)}", rest="    ")
    for reason, rows in summary.unread.items():
        indented(console, f"{counted(rows, 'row')} not read: {safe(reason)}", rest="    ", style="yellow")
    if keys:
        _print_keys(console, plan)


def left_alone(plan: SyncPlan) -> int:
    """Count the rows that differ and that nothing is done with."""
    return plan.summary.with_action(Action.NONE) - plan.summary.with_rule(Rule.SAME)


def plan_exit(plan: SyncPlan) -> ExitCode:
    """Return the exit code of a plan: what is left alone weighs more than what could not be read."""
    unread = plan.summary.with_rule(Rule.TOO_FEW, Rule.WAITS)
    return ExitCode.of(wrong=left_alone(plan) > unread, unknown=bool(unread or plan.summary.unread))


def what_is_done(plan: SyncPlan) -> str:
    """Say what an apply would do, for the question that comes before it; what deletes is said in capitals."""
    summary, taker = plan.summary, plan.policy.direction.taker
    parts = []
    if written := summary.with_action(Action.WRITE, Action.BOTH):
        parts.append(f"write cells of {counted(written, 'row')}")
    if summary.deletes:
        parts.append(f"DELETE what only the {taker} holds of {counted(summary.deletes, 'row')}")
    text = " and ".join(parts) or "do nothing"
    return f"{text[0].upper()}{text[1:]} in the {taker}, cluster {plan.header.sides[taker].cluster!r}?"


def print_undo(console: Console, record: SyncRecord) -> None:
    """Print what an undo would do with a journal's rows."""
    counts = preview(record)
    if not counts:
        console.print("nothing is left to undo")
    for undoing, count in counts.items():
        indented(console, f"{counted(count, 'row')} {undoing.value}", first="", rest="  ")


def print_sync_record(console: Console, record: SyncRecord, *, keys: bool = False) -> None:
    """Print what a journal says happened."""
    print_sync_plan(console, record.plan, keys=keys)
    rows = record.plan.summary.rows
    state = "complete" if record.ended == rows else "not complete: continue with 'sync resume'"
    console.print(heading(f"journal: {state}"))
    if waiting := rows - record.ended:
        indented(console, f"{counted(waiting, 'row')} not started, or not ended", style="yellow")
    print_results(console, Tally(rows, record.account()))
    undone: Account = record.undone()
    if undone.rows:
        console.print(heading("undone"))
        print_results(console, Tally(undone.rows, undone))


def print_next(console: Console, why: str, words: Sequence[str], connection: Sequence[str]) -> None:
    """Print the command that follows."""
    console.print(heading("next"))
    first, *rest = words
    more = [quoted(word) if " " not in word else word for word in rest]
    command(console, [f"consistency sync {first}", *more, *map(quoted, connection)], why)


def _grid(plan: SyncPlan) -> Table:
    grid = Table(box=None, pad_edge=True, padding=(0, 1), header_style="dim", show_edge=False)
    for column in ("table", "rule", "action"):
        grid.add_column(column, overflow="fold")
    grid.add_column("rows", justify="right")
    for (table, rule, action), count in sorted(plan.summary.counts.items(), key=lambda item: (item[0][0], -item[1])):
        style = "dim" if action is Action.NONE else ""
        grid.add_row(safe(table), Text(rule.value, style=style), Text(action.value, style=style), f"{count:,}")
    return grid


def _print_keys(console: Console, plan: SyncPlan) -> None:
    """Print the first rows, those before the others of which something will be deleted."""
    deleted = (row for row in plan.rows() if row.action.deletes)
    others = (row for row in plan.rows() if not row.action.deletes)
    printed = 0
    for rows in (deleted, others):
        for row in rows:
            if printed == _MOST_KEYS:
                indented(console, "... more rows are in the plan", style="dim")
                return
            _print_key(console, row)
            printed += 1


def _print_key(console: Console, row: SyncRow) -> None:
    ref = row.ref.on(Side.SOURCE)
    raw = ", ".join(f"{safe(name)}=0x{text}" for name, text in ref.key_hex.items())
    told = f"{safe(ref.full_name)} {key_text(ref.key) or raw}  {row.rule.value} -> {row.action.value}"
    indented(console, told, rest="      ")
