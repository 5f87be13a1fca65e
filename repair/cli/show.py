"""Print plans and outcomes: rules, counts, what is left alone and why. Keys only if they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.cli.show.terminal.advice import quoted
from consistency.cli.show.terminal.console import command, heading, indented, safe
from consistency.cli.show.terminal.problems import key_text
from consistency.errors import UsageError
from consistency.model.cqltext import visible
from consistency.model.ownership import joined
from consistency.model.ring import Ring
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.results.figures import counted
from consistency.results.findings import read_ranges
from consistency.results.forecast import Forecast
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding
from consistency.rows.names import RowRef
from repair.applying.breaker import SPARE
from repair.applying.outcomes import Tally
from repair.deciding.decide import Action, Rule
from repair.deciding.forecast import Change
from repair.keeping.entries import Result
from repair.keeping.planfile import Plan, PlannedRow
from repair.keeping.record import Record
from repair.undoing.undo import Undoing

_MOST_KEYS = 50
_STYLES = {Result.VERIFIED: "green", Result.DIVERGENT: "red", Result.UNKNOWN: "yellow", Result.WAITING: "yellow"}


def print_plan(console: Console, plan: Plan, *, keys: bool = False) -> None:
    """Print what apply would do with this plan."""
    left = [row for row in plan.rows if row.action is Action.NONE and row.rule not in (Rule.AGREED, Rule.GONE)]
    console.print(
        Text.assemble(
            Text("repair plan ", style="bold"), safe(plan.run_id), f"  cluster {safe(plan.cluster)}",
            f"  {counted(len(plan.rows), 'row')}, {len(plan.to_do)} to act on, {len(left)} left alone",
            f", {len(plan.refused)} refused for now" if plan.refused else "",
            f", {plan.left_out:,} left out" if plan.left_out else "",
            f", and {plan.rows_in_ranges:,} in {counted(len(plan.ranges), 'range')}" if plan.ranges else "",
        ),
        soft_wrap=True,
    )  # fmt: skip
    if plan.rows or not plan.ranges:
        print_rules(console, _of_plan(plan))
    print_forecast(console, plan)
    _print_ranges(console, plan)
    policy = plan.policy
    indented(console, f"policy: --zombies {policy.zombies.value} --require {policy.require.value}", style="dim")
    for action in (a for a in Action if a is not Action.NONE and any(r.action is a for r in plan.rows)):
        indented(console, f"{action.value}: {action.sentence}", style="dim")
    for warning in plan.warnings:
        indented(console, f"warning: {safe(warning)}", style="yellow")
    _print_left(console, left)
    _print_refused(console, plan.refused)
    if keys:
        deleted_first = sorted(plan.rows, key=lambda row: row.action is not Action.PURGE)
        told = (
            (row.ref, f"{row.rule.value} -> {row.action.value}{', refused' * bool(row.refused)}")
            for row in deleted_first
        )
        print_keys(console, told)


def counted_ranges(findings: Path) -> list[RangeFinding]:
    """Return the ranges that a findings file counts."""
    ranges = list(read_ranges(findings))
    if not ranges:
        msg = f"{findings} lists every row, and counts no range: check with --max-findings 0 to have ranges instead"
        raise UsageError(msg)
    return ranges


def print_nodetool(console: Console, ranges: Sequence[RangeFinding], ring: Ring) -> None:
    """Print the repairs of Cassandra's own that cover the ranges of a findings file."""
    for text in nodetool_commands(ranges, [token for token, _ in ring.owners]):
        console.print(Text(text), soft_wrap=True)


def nodetool_commands(ranges: Sequence[RangeFinding], tokens: Sequence[int]) -> list[str]:
    """Return the repairs of Cassandra's own that cover the ranges, given the ring's tokens in order.

    nodetool refuses a range that no single range of its node contains: so those that touch are joined, and cut at the
    tokens. Each is run on one of the replicas named behind it; a check that follows proves what it did.
    """
    tables: dict[tuple[str, str, tuple[str, ...]], list[TokenRange]] = {}
    for found in ranges:
        tables.setdefault((found.keyspace, found.table, tuple(found.replicas)), []).append(found.token_range)
    commands = []
    for (keyspace, table, replicas), touching in sorted(tables.items()):
        what, nodes = f"{quoted(keyspace)} {quoted(table)}", ", ".join(map(visible, replicas))
        whole = joined(touching)
        if whole == (TokenRange(MIN_TOKEN, MAX_TOKEN),):
            commands.append(f"nodetool repair --full -pr {what}  # on each of {nodes}, one after the other")
            continue
        parts = [part for each in whole for part in _cut(each, tokens)]
        commands += [f"nodetool repair --full -st {p.start} -et {p.end} {what}  # on one of {nodes}" for p in parts]
    return commands


def _cut(within: TokenRange, tokens: Sequence[int]) -> list[TokenRange]:
    """Cut a range at the tokens inside it, which are in order."""
    ends = [*(token for token in tokens if within.start < token < within.end), within.end]
    return [TokenRange(*pair) for pair in zip([within.start, *ends], ends, strict=False)]


def print_forecast(console: Console, plan: Plan) -> None:
    """Print what will become of the rows, by table, and which replicas lack those of which it cannot be known."""
    counts: Counter[tuple[str, Forecast]] = Counter()
    for row in plan.to_do:
        if row.forecast is not None:
            counts[row.ref.full_name, row.forecast] += 1
    if not counts:
        return
    console.print(heading("forecast"))
    for (table, told), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
        style = "yellow" if told in (Forecast.DELETE, Forecast.UNKNOWN) else ""
        what = "may be deleted: each" if told is Forecast.UNKNOWN else "each"
        indented(console, f"{safe(table)}: {counted(count, 'row')}, {what} {told.sentence}", rest="    ", style=style)
        if told in (Forecast.UNKNOWN, Forecast.RESTORE):
            rows = [row for row in plan.to_do if row.ref.full_name == table and row.forecast is told]
            lacking = Counter(node for row in rows for node in row.lacking)
            for node, lacked in sorted(lacking.items(), key=lambda item: (-item[1], item[0])):
                indented(console, f"{safe(node)} lacks {lacked:,} of them", first="    ", style="dim")
    if plan.forecast[Forecast.UNKNOWN]:
        indented(
            console,
            f"apply stops when --max-deletes rows have vanished (default: {SPARE}); undo brings them back",
            style="dim",
        )


def _print_ranges(console: Console, plan: Plan) -> None:
    """Print what is merged as ranges, by table: how many rows by kind, and what a merge does with them."""
    if not plan.ranges:
        return
    console.print(heading("ranges"))
    tables: dict[str, list[RangeFinding]] = {}
    for found in plan.ranges:
        tables.setdefault(found.full_name, []).append(found)
    for table, ranges in sorted(tables.items()):
        kinds: Counter[Kind] = Counter()
        for found in ranges:
            kinds.update(found.kinds)
        parts = ", ".join(f"{count:,} {kind.value.replace('_', ' ')}" for kind, count in kinds.most_common())
        rows = counted(sum(kinds.values()), "row")
        indented(console, f"{safe(table)}: {rows} in {counted(len(ranges), 'range')}: {parts}", rest="    ")
        if kinds[Kind.MISSING]:
            missing = counted(kinds[Kind.MISSING], "row")
            text = f"{missing} that a replica lacks: each comes back there, or is deleted everywhere"
            indented(console, text, first="    ", style="yellow")
    indented(
        console,
        "each range is read at ALL, which makes the servers merge it, tombstones included; partitions with a zombie"
        " suspect, a write of the future or one that is too young are found then and left alone",
        style="dim",
    )


def what_is_open(record: Record) -> str:
    """Say how many rows a resume goes on with."""
    parts = [counted(len(record.open_rows), "row")] if record.open_rows or not record.open_ranges else []
    return " and ".join([*parts, *([counted(len(record.open_ranges), "range")] if record.open_ranges else [])])


def what_is_done(plan: Plan) -> str:
    """Say what an apply would do, for the question that comes before it; what deletes is said in capitals."""
    counts = Counter(row.action for row in plan.to_do)
    words = {
        Action.RECONCILE: "let the servers merge {}",
        Action.WRITE_BACK: "write back cells of {}",
        Action.PURGE: "DELETE the suspect cells of {}",
    }
    parts = [words[action].format(counted(count, "row")) for action, count in sorted(counts.items())]
    if plan.ranges:
        parts.append(f"let the servers merge about {counted(plan.rows_in_ranges, 'row')} by ranges")
    text = ", ".join(parts) or "do nothing"
    missing = sum(found.kinds.get(Kind.MISSING, 0) for found in plan.ranges)
    if unknown := plan.forecast[Forecast.UNKNOWN] + missing:
        text += f" ({counted(unknown, 'row')} may be deleted)"
    return text[0].upper() + text[1:]


def print_preview(console: Console, counts: Mapping[Undoing, int]) -> None:
    """Print what an undo would do with a journal's rows."""
    if not counts:
        console.print("nothing is left to undo")
    for undoing, count in counts.items():
        indented(console, undoing.of(count), first="", rest="  ")


def print_next(console: Console, why: str, words: Sequence[str], connection: Sequence[str]) -> None:
    """Print the command that follows: a group and its command as one word, and what is given to it.

    An option and its value are one word, so that no line ends between them.
    """
    console.print(heading("next"))
    first, *rest = words
    more = [" ".join(map(quoted, word.split(" ", 1) if word.startswith("--") else [word])) for word in rest]
    command(console, [f"consistency {first}", *more, *map(quoted, connection)], why)


def _of_plan(plan: Plan) -> Counter[tuple[str, str, str, bool]]:
    """Count the rows of a plan as `print_rules` takes them."""
    return Counter((row.ref.full_name, row.rule.value, _what(row), row.acts) for row in plan.rows)


def _what(row: PlannedRow) -> str:
    return f"{row.action.value}, refused" if row.refused else row.action.value


def print_rules(console: Console, counts: Mapping[tuple[str, str, str, bool], int]) -> None:
    """Print how many rows are decided how: by table, rule, action, and whether anything is done with them."""
    grid = Table(box=None, pad_edge=True, padding=(0, 1), header_style="dim", show_edge=False)
    for column in ("table", "rule", "action"):
        grid.add_column(column, overflow="fold")
    grid.add_column("rows", justify="right")
    for (table, rule, action, acts), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
        style = "" if acts else "dim"
        grid.add_row(safe(table), Text(rule, style=style), Text(action, style=style), f"{count:,}")
    console.print(grid)


def _print_left(console: Console, left: Sequence[PlannedRow]) -> None:
    if not left:
        return
    console.print(heading("left alone"))
    why = Counter((row.rule, row.sentence) for row in left)
    for (rule, sentence), count in why.most_common():
        indented(console, f"{count} {rule.value}: {safe(sentence)}", rest="    ")
    short = {dc for row in left for dc, (read, total) in row.dcs.items() if read < total}
    for dc in sorted(short):
        worst = min((row.dcs[dc] for row in left if dc in row.dcs), key=lambda pair: pair[0])
        indented(console, f"{safe(dc)}: {worst[0]} of {counted(worst[1], 'replica')} could be read", style="dim")


def _print_refused(console: Console, rows: Sequence[PlannedRow]) -> None:
    if not rows:
        return
    console.print(heading("refused for now"))
    for why, count in Counter(row.refused for row in rows).most_common():
        indented(console, f"{counted(count, 'row')}: {safe(why)}", rest="    ")
    indented(console, "when that is lifted, apply or resume continues with them", style="dim")


def print_keys(console: Console, rows: Iterable[tuple[RowRef, str]]) -> None:
    """Print the first rows with their keys, and what is to be said of each."""
    for number, (ref, told) in enumerate(rows):
        if number == _MOST_KEYS:
            indented(console, "... more rows are in the plan", style="dim")
            return
        raw = ", ".join(f"{safe(name)}=0x{text}" for name, text in ref.key_hex.items())
        indented(console, f"{safe(ref.full_name)} {key_text(ref.key) or raw}  {told}", rest="      ")


def print_tally(console: Console, tally: Tally, seconds: float) -> None:
    """Print what came of an apply."""
    rate = f", {tally.done / seconds:.0f} rows/s" if seconds > 0 else ""
    console.print(f"{tally.done:,} of {counted(tally.total, 'row')} done in {seconds:.1f} s{rate}")
    print_results(console, tally)


def print_results(console: Console, tally: Tally) -> None:
    """Print the rows by outcome, with the reasons, what became of them, and what ended the run early."""
    if tally.left_out:
        text = f"{counted(tally.left_out, 'further row')} of the findings left out of the plan"
        indented(console, text, style="yellow")
    for result, count in tally.results.most_common():
        indented(console, Text(f"{count} {result.value}", style=_STYLES.get(result, "")))
        for (about, reason), times in tally.reasons.most_common():
            if about is result and reason:
                indented(console, f"{times}: {safe(reason)}", first="    ", rest="      ", style="dim")
    became = [f"{count:,} {done.value}" for done, count in tally.changes.most_common() if count]
    if became:
        style = "yellow" if tally.changes[Change.DELETED] else "dim"
        indented(console, f"of the rows acted on: {', '.join(became)}", style=style)
    if tally.stopped_at is not None:
        left = tally.total - tally.done
        indented(
            console,
            f"stopped: {counted(tally.stopped_at, 'row')} that most replicas held vanished, as many as --max-deletes"
            f" allows; {counted(left, 'row')} not started",
            style="red",
        )
    if tally.out_of_time:
        indented(console, f"{tally.total - tally.done} not started: the time for repairs was over", style="yellow")


def print_record(console: Console, record: Record, *, keys: bool = False) -> None:
    """Print what a journal says happened."""
    print_plan(console, record.plan, keys=keys)
    state = "complete" if record.complete else "not complete: continue with 'repair resume'"
    console.print(heading(f"journal: {state}"))
    begun = sum(entry.result is None for entry in record.entries.values())
    begun += sum(chunk.waiting for chunk in record.chunks.values())
    if begun:
        indented(console, f"{begun} started, outcome not known", style="yellow")
    if waiting := len(record.plan.rows) - len(record.entries):
        indented(console, f"{waiting:,} not started", style="yellow")
    if ranges := len(record.open_ranges):
        indented(console, f"{counted(ranges, 'range')} not ended", style="yellow")
    print_results(console, Tally(0, record.account, left_out=record.plan.left_out))
