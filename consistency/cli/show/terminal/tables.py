"""One line per table: tables with problems first, clean ones in one line if they are many."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.cli.show.terminal.console import MARK_STYLES, MARKS, heading, indented, print_grid, safe
from consistency.model.cqltext import some_of
from consistency.results.figures import counted, short, span
from consistency.results.report import TableReport
from consistency.results.verdict import Verdict

MOST_LINES = 10
_EXACT = 9_999_999


def print_tables(console: Console, tables: Sequence[TableReport]) -> None:
    """Print the tables that were scanned, then those that were not, by reason."""
    scanned = [t for t in tables if t.depth]
    shown, rest = choose_lines(scanned)
    if shown:
        print_grid(console, _grid(shown))
    for note in _collapsed(rest):
        console.print(note)
    _print_not_scanned(console, [t for t in tables if not t.depth])


def choose_lines(tables: Sequence[TableReport]) -> tuple[list[TableReport], list[TableReport]]:
    """Return the tables with their own line and those summed up: all if they fit, else those with problems first."""
    if len(tables) <= MOST_LINES:
        return list(tables), []
    troubled = [t for t in tables if t.verdict in (Verdict.DIVERGENT, Verdict.UNKNOWN) or t.note]
    troubled.sort(key=lambda t: (t.verdict is not Verdict.DIVERGENT, -t.divergent_rows, t.full_name))
    shown = troubled[:MOST_LINES]
    return shown, [t for t in tables if t not in shown]


def _grid(tables: Sequence[TableReport]) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    grid.add_column("", width=1)
    grid.add_column("table", overflow="fold", min_width=12)
    grid.add_column("rows", justify="right", no_wrap=True)
    grid.add_column("differ", justify="right", no_wrap=True)
    grid.add_column("depth", no_wrap=True)
    grid.add_column("route", no_wrap=True)
    grid.add_column("locality", no_wrap=True)
    grid.add_column("time", justify="right", no_wrap=True)
    for table in tables:
        mark = MARKS[table.verdict]
        style = MARK_STYLES[mark]
        name = safe(table.full_name)
        grid.add_row(
            Text(mark, style=style),
            Text(name, style="" if mark == "=" else style),
            _rows(table.rows),
            Text(_differ(table), style=style),
            table.depth,
            table.route,
            table.locality,
            span(table.seconds),
        )
        if table.note:
            grid.add_row("", Text(safe(table.note), style="dim"))
    return grid


def _rows(count: int) -> str:
    return f"{count:,}" if count <= _EXACT else short(count)


def _differ(table: TableReport) -> str:
    if table.divergent_rows:
        return f"{table.divergent_rows:,}"
    return "none" if table.verdict.agreed else "unknown"


def _collapsed(tables: Sequence[TableReport]) -> list[Text]:
    out: list[Text] = []
    for verdict in (Verdict.DIVERGENT, Verdict.UNKNOWN, Verdict.PART, Verdict.SAMPLED, Verdict.CONSISTENT):
        some = [t for t in tables if t.verdict is verdict]
        if some:
            mark = MARKS[verdict]
            parts = [f"{counted(len(some), 'more table')} {verdict.value}", f"{short(sum(t.rows for t in some))} rows"]
            if verdict is Verdict.DIVERGENT:
                parts.append(counted(sum(t.divergent_rows for t in some), "differs", "differ"))
            parts.append(span(sum(t.seconds for t in some)))
            out.append(Text.assemble((mark, MARK_STYLES[mark]), " ", ", ".join(parts)))
    return out


def _print_not_scanned(console: Console, tables: Sequence[TableReport]) -> None:
    by_note: dict[str, list[TableReport]] = {}
    for table in tables:
        by_note.setdefault(table.note, []).append(table)
    if by_note:
        console.print(heading("not checked"))
    for note, some in by_note.items():
        names = some_of([safe(table.full_name) for table in some], 3)
        indented(console, Text.assemble(("? ", "yellow"), f"{names}: {safe(note)}"), rest="    ")
