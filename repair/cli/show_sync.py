"""Print the plan of a sync and what came of it: rules, counts, what is left alone and why. Keys only on demand."""

from __future__ import annotations

from itertools import chain

from rich.console import Console
from rich.text import Text

from consistency.cli.show.terminal.console import heading, indented, safe
from consistency.model.sides import Side
from consistency.results.figures import counted
from consistency.results.verdict import ExitCode
from repair.applying.outcomes import Tally
from repair.cli.show import print_keys, print_results, print_rules
from repair.keeping.entries import Account
from repair.sync.decide import Action, Rule
from repair.sync.journal import SyncRecord
from repair.sync.planfile import SyncPlan


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
    rules = {
        (table, rule.value, action.value, action is not Action.NONE): rows
        for (table, rule, action), rows in summary.counts.items()
    }
    print_rules(console, rules)
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


def _print_keys(console: Console, plan: SyncPlan) -> None:
    """Print the first rows, those before the others of which something will be deleted."""
    deleted = (row for row in plan.rows() if row.action.deletes)
    others = (row for row in plan.rows() if not row.action.deletes)
    told = ((row.ref.on(Side.SOURCE), f"{row.rule.value} -> {row.action.value}") for row in chain(deleted, others))
    print_keys(console, told)
