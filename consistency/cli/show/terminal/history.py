"""Past runs and the age of the last clean pass, on one screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.cli.show.terminal.advice import quoted
from consistency.cli.show.terminal.console import MARK_STYLES, MARKS, command, heading, indented, print_grid, safe
from consistency.cli.show.terminal.problems import percent
from consistency.ledger import PastRun
from consistency.ledger.history import History, Standing, TableHistory
from consistency.model.cqltext import some_of
from consistency.results.figures import counted, moment, span
from consistency.results.verdict import Verdict

_STYLES = {
    Standing.OVERDUE: "bold red",
    Standing.DUE: "bold red",
    Standing.UNCHECKED: "bold yellow",
    Standing.IN_TIME: "bold green",
}
_TABLE_MARKS = {Standing.OVERDUE: "x", Standing.DUE: "x", Standing.UNCHECKED: "?", Standing.IN_TIME: "="}
_MOST_TABLES = 10
_MOST_NAMES = 4


def print_history(console: Console, history: History) -> None:
    """Print for each cluster how it stands, its tables, its runs, and what to do next."""
    for each in (history, *history.others):
        if history.others:
            _print_which(console, each, first=each is history)
        _print_one(console, each)


def _print_which(console: Console, history: History, *, first: bool) -> None:
    """Print what tells clusters of one name apart: the id, which `--cluster` takes, and the nodes."""
    if not first:
        console.print()
    nodes = some_of([safe(name) for name in history.nodes], _MOST_NAMES)
    indented(console, f"{safe(history.cluster)}  {history.cluster_id}  {nodes}", first="", rest="  ", style="bold")


def _print_one(console: Console, history: History) -> None:
    standing = history.standing
    word = Text(standing.value.upper(), style=_STYLES[standing])
    indented(console, Text.assemble(word, "  ", claim(history)), first="", rest="  ")
    indented(console, _basis(history), style="dim")
    console.print()
    _print_tables(console, history.tables)
    _print_unchanged(console, history.tables)
    _print_came_back(console, history.tables)
    _print_runs(console, history.runs)
    _print_next(console, history)


def claim(history: History) -> str:
    """Return a sentence about the oldest range, and another one about rows that differ."""
    return _age_claim(history) + _rows_claim(history.tables)


def _rows_claim(tables: Sequence[TableHistory]) -> str:
    differ = [t for t in tables if t.known.differing]
    if not differ:
        return ""
    total = sum(t.known.differing for t in differ)
    where = safe(differ[0].known.full_name) if len(differ) == 1 else counted(len(differ), "table")
    return f" {counted(total, 'row')} differed when last read, in {where}."


def _age_claim(history: History) -> str:
    worst = history.worst
    if worst is None:
        return "No table was ever checked."
    name = safe(worst.known.full_name)
    if history.standing is Standing.UNCHECKED:
        others = [t.known.never for t in history.tables if t.known.never and t is not worst]
        part = "all" if min(others, default=0.0) == 1 else "all or parts" if max(others, default=0.0) == 1 else "parts"
        more = f", nor {part} of {counted(len(others), 'other table')}" if others else ""
        return f"{_never(worst)} of the ring of {name} was never clean on all replicas in any run{more}."
    age, grace = span(worst.age_s or 0.0), span(worst.known.gc_grace_s)
    if history.standing is Standing.OVERDUE:
        return (
            f"The oldest range of {name} was last clean {age} ago, and gc_grace_seconds ({grace}) has passed: "
            "a tombstone may be purged on one replica before it reached another."
        )
    if history.standing is Standing.DUE:
        return f"The oldest range of {name} was last clean {age} ago: {_part(worst)} of gc_grace_seconds ({grace})."
    oldest = max((t for t in history.tables if t.age_s is not None), key=lambda t: t.age_s or 0.0)
    return (
        f"Every range of {counted(len(history.tables), 'table')} was clean on all replicas within the last "
        f"{span(oldest.age_s or 0.0)}."
    )


def _basis(history: History) -> str:
    runs = history.runs
    since = f" since {moment(runs[-1].started_us)}" if runs else ""
    return f"{safe(history.cluster)}, {counted(len(runs), 'run')}{since}, exit code {int(history.exit_code)}"


def _never(table: TableHistory) -> str:
    return "All" if table.known.never == 1 else percent(table.known.never)


def _part(table: TableHistory) -> str:
    if table.part is None:
        return "no limit" if table.age_s is not None else "-"
    return f"{table.part:.0%}"


def _print_tables(console: Console, tables: Sequence[TableHistory]) -> None:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    grid.add_column("", width=1)
    grid.add_column("table", overflow="fold", min_width=12)
    grid.add_column("oldest clean", justify="right", no_wrap=True)
    grid.add_column("of gc_grace", justify="right", no_wrap=True)
    grid.add_column("never clean", justify="right", no_wrap=True)
    grid.add_column("differ", justify="right", no_wrap=True)
    shown = [t for t in tables if t.standing is not Standing.IN_TIME or t.known.differing][:_MOST_TABLES]
    if len(tables) <= _MOST_TABLES:
        shown = list(tables)
    for table in shown:
        mark = "x" if table.known.differing else _TABLE_MARKS[table.standing]
        style = MARK_STYLES[mark]
        age = "never" if table.age_s is None else f"{span(table.age_s)} ago"
        grid.add_row(
            Text(mark, style=style),
            Text(safe(table.known.full_name), style="" if mark == "=" else style),
            age,
            _part(table),
            Text(
                percent(table.known.never) if table.known.never else "none", style="yellow" if table.known.never else ""
            ),
            Text(f"{table.known.differing:,}" if table.known.differing else "none"),
        )
    if shown:
        print_grid(console, grid)
    rest = Counter(t.standing for t in tables if t not in shown)
    for standing, count in rest.items():
        mark = _TABLE_MARKS[standing]
        text = f"{counted(count, 'more table')} {standing.value}"
        console.print(Text.assemble((mark, MARK_STYLES[mark]), "  ", text))


def _print_unchanged(console: Console, tables: Sequence[TableHistory]) -> None:
    same = [t.known for t in tables if t.known.unchanged_since_us is not None]
    if not same:
        return
    console.print(Text.assemble(heading("unchanged"), "  ", counted(len(same), "table")))
    for table in same[:_MOST_NAMES]:
        roots = [tree.root.hex()[:12] for tree in table.trees if tree.root]
        shown = f"root {roots[0]}" if len(roots) == 1 else f"{len(roots):,} roots, the first {roots[0]}"
        indented(console, f"{safe(table.full_name)} since {moment(table.unchanged_since_us or 0)}, {shown}")
    if len(same) > _MOST_NAMES:
        indented(console, f"and {counted(len(same) - _MOST_NAMES, 'more table')}")


def _print_came_back(console: Console, tables: Sequence[TableHistory]) -> None:
    back = [t for t in tables if t.known.came_back]
    if not back:
        return
    total = sum(t.known.came_back for t in back)
    console.print(Text.assemble(heading("came back"), "  ", (counted(total, "row"), "red")))
    where = ", ".join(f"{t.known.came_back:,} in {safe(t.known.full_name)}" for t in back[:_MOST_NAMES])
    more = f", and in {counted(len(back) - _MOST_NAMES, 'more table')}" if len(back) > _MOST_NAMES else ""
    text = f"{where}{more}: they had agreed, or were repaired, and now differ again. Find out what changes them."
    indented(console, text)


def _print_runs(console: Console, runs: Sequence[PastRun]) -> None:
    if not runs:
        return
    verdicts = Counter(run.verdict or "not ended" for run in runs)
    console.print(heading("runs") + Text("  " + ", ".join(f"{n:,} {what}" for what, n in verdicts.most_common())))
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    grid.add_column("", width=1)
    grid.add_column("started (UTC)", no_wrap=True)
    for name in ("time", "read", "differ", "new", "back", "gone", "exit"):
        grid.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        grid.add_row(*_run(run))
    print_grid(console, grid)


def _run(run: PastRun) -> list[Text | str]:
    started = moment(run.started_us).removesuffix(" UTC")[:16]
    if not run.ended:
        return [Text("?", style="yellow"), started, Text("no end", style="yellow"), *["-"] * 6]
    mark = MARKS[Verdict(run.verdict)]
    coverage, rows = run.coverage, run.states
    differ = sum(run.findings_by_kind.values())
    return [
        Text(mark, style=MARK_STYLES[mark]),
        started,
        span(run.seconds),
        percent(coverage.completed / coverage.planned) if coverage.planned else "-",
        Text(f"{differ:,}", style="red" if differ else ""),
        f"{rows.get('new', 0):,}",
        Text(f"{rows.get('came back', 0):,}", style="red" if rows.get("came back") else ""),
        f"{rows.get('gone', 0):,}",
        str(run.exit_code),
    ]


def _print_next(console: Console, history: History) -> None:
    late = [t for t in history.tables if t.standing is not Standing.IN_TIME]
    if not late:
        return
    keyspaces = dict.fromkeys(t.known.keyspace for t in late)
    names = [t.known.full_name for t in late] if len(late) <= _MOST_NAMES else list(keyspaces)
    console.print(heading("next"))
    words = ["consistency check", *(quoted(n) for n in names[:_MOST_NAMES]), f"--ledger {quoted(history.ledger)}"]
    if any(t.known.differing for t in late):
        words.append("--findings findings.jsonl")
        why = "then 'consistency repair plan findings.jsonl': a range with differing rows has no clean pass"
    else:
        why = "a clean pass resets their age"
    command(console, words, why)
