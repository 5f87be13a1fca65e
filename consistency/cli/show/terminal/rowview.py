"""One row on all its replicas: who holds what, cell by cell, who wins and by which rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import xxhash
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.checking.settle_window import DEFAULT_WINDOW_S
from consistency.cli.show.terminal.console import command, heading, indented, safe
from consistency.cli.show.terminal.problems import key_text
from consistency.model.cqltext import to_json, to_text
from consistency.model.reading import Cell, CellColumn, Times, each_time
from consistency.model.ring import Node
from consistency.results.figures import counted, moment, span
from consistency.results.kinds import Kind
from consistency.rows.explain import Chosen, Explanation, decided_by
from consistency.rows.reconcile import EMPTY

_LONGEST_VALUE = 300
_MOST_ALIKE = 12

ValueText = Callable[[CellColumn, Cell], str]


def print_row(
    console: Console, chosen: Chosen, found: Explanation, next_words: Sequence[str], *, show: ValueText
) -> None:
    """Print the whole explanation; `show` renders a value or its substitute."""
    _print_head(console, chosen, found)
    for warning in found.warnings:
        indented(console, Text.assemble(("! ", "yellow"), safe(warning)), rest="    ")
    console.print()
    for place, column, contest in found.contested():
        versions = {node: state.cells[place] for node, state in found.states.items() if state is not None}
        rule = f"decided by: {decided_by(contest, list(versions.values()), multicell=column.column.type.is_multicell)}"
        outcomes = {node: "wins" if node in contest.current else "loses" for node in versions}
        if not column.writetime:
            rule, outcomes = "not decided here: the servers tell no write time of it, and merge it", {}
        console.print(Text.assemble(heading(safe(column.column.name)), "  ", (rule, "dim")))
        rows = [(safe(n), cell, outcomes.get(n, "")) for n, cell in versions.items()]
        console.print(cells_table("replica", rows, partial(show, column)))
    _print_alike(console, found, show)
    _print_replicas(console, found)
    _print_notes(console, found)
    if found.differs and next_words:
        console.print(heading("next"))
        command(console, next_words, "plan the repair; it reads every row again")


def value_text(column: CellColumn, cell: Cell) -> str:
    """Return the value for people, cut if it is very long."""
    if cell == EMPTY:
        return "null"
    text = to_text(column.column.type, cell.value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(cell.value or b''):,} bytes)"


def stand_in(seed: int, column: CellColumn, cell: Cell) -> str:  # noqa: ARG001 - the signature of ValueText
    """Return a value's length and four digits, equal for equal values; the random seed makes them useless otherwise."""
    if cell == EMPTY:
        return "null"
    if cell.value is None:
        return "-"
    return f"{len(cell.value):,} B #{xxhash.xxh3_64(cell.value, seed).hexdigest()[:4]}"


def _print_head(console: Console, chosen: Chosen, found: Explanation) -> None:
    if found.differs:
        kind = found.facts[0]
        head = Text.assemble((kind.value.replace("_", " ").upper(), "bold red"), "  ", kind.sentence)
    elif found.unread or not found.states:
        head = Text.assemble(("UNKNOWN", "bold yellow"), "  not every replica could be read")
    elif found.gone:
        head = Text.assemble(("SETTLED", "bold green"), "  no replica has the row any more: it was deleted or expired")
    else:
        head = Text.assemble(("SETTLED", "bold green"), "  the row is now the same on every replica")
    indented(console, head, first="", rest="  ")
    finding = found.finding
    static = "  (the partition's static row)" if found.evidence.name.static else ""
    indented(console, f"{safe(f'{finding.keyspace}.{finding.table}')}  {key_text(finding.key)}{static}", rest="    ")
    facts = [kind.sentence for kind in found.facts[1:]]
    for sentence in facts:
        indented(console, f"also: {sentence}", style="dim")
    was = finding.kind.value.replace("_", " ")
    if not found.differs and not found.unread:
        healed = "it differed when it was found; hints, a read or a repair have fixed it since"
        indented(console, healed, style="dim", rest="    ")
    hint = "; --row N shows another" if chosen.total > 1 else ""
    origin = f"row {chosen.number:,} of {chosen.total:,}{hint}; found as '{was}'; token {finding.token}"
    indented(console, origin, style="dim", rest="    ")
    indented(
        console, f"read on {counted(len(found.states), 'replica')} at {moment(found.evidence.now_us)}", style="dim"
    )


def cells_table(title: str, rows: Sequence[tuple[str, Cell, str]], show: Callable[[Cell], str]) -> Table:
    """Return a table of cells, each with its name and what becomes of it; times that are all null are left out."""
    expiring = any(cell.expires is not None for _, cell, _ in rows)
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    grid.add_column("", width=1)
    grid.add_column(title, overflow="fold")
    grid.add_column("written (UTC)", no_wrap=True)
    if expiring:
        grid.add_column("expires (UTC)", no_wrap=True)
    grid.add_column("value", overflow="fold")
    grid.add_column("", no_wrap=True)
    for name, cell, outcome in rows:
        style = {"wins": "green", "loses": "red"}.get(outcome, "")
        expires = [_times_text(cell.expires, _expiry_text)] if expiring else []
        written = _times_text(cell.writetimes, partial(moment, micros=True))
        grid.add_row("", name, written, *expires, Text(show(cell)), Text(outcome, style=style))
    return grid


def _times_text(times: Times, one: Callable[[int], str]) -> str:
    if not isinstance(times, tuple):
        return "-" if times is None else one(times)
    newest = max(each_time(times), default=None)
    if newest is None:
        return "-"
    return f"{one(newest)}" if len(times) == 1 else f"{one(newest)} ({counted(len(times), 'cell')})"


def _expiry_text(seconds: int) -> str:
    return moment(seconds * 1_000_000).removesuffix(" UTC")


def _print_alike(console: Console, found: Explanation, show: ValueText) -> None:
    """Print the columns on which all holders of the row agree."""
    holders = [node for node, state in found.states.items() if state is not None]
    if not holders:
        return
    contested = {place for place, _, _ in found.contested()}
    state = found.states[holders[0]]
    held = [] if state is None else list(zip(found.evidence.columns, state.cells, strict=True))
    alike = [(column, cell) for i, (column, cell) in enumerate(held) if i not in contested and cell != EMPTY]
    if not alike:
        return
    everywhere = len(holders) == len(found.states) and not found.unread
    who = "on every replica" if everywhere else f"on {', '.join(safe(n) for n in holders)}"
    if len(alike) > _MOST_ALIKE or contested:
        names = ", ".join(safe(column.column.name) for column, _ in alike)
        indented(console, Text.assemble(heading("the same"), f"  {who}: {names}"), first="", rest="  ")
        return
    indented(console, Text.assemble(heading("the same"), "  ", who), first="", rest="  ")
    values = iter([show(column, cell) for column, cell in alike])
    rows = [(safe(column.column.name), cell, "") for column, cell in alike]
    console.print(cells_table("column", rows, lambda _: next(values)))


def _print_replicas(console: Console, found: Explanation) -> None:
    """Print for every node what it lacks, or that it is up to date."""
    lines: list[tuple[str, str, str]] = []
    # If most replicas lack the row they may know of a delete, so no side is marked as right.
    unsure = 2 * sum(state is not None for state in found.states.values()) <= len(found.states)
    for node, state in found.states.items():
        lacking = [] if state is None else found.lacks(node)
        if state is None and not found.gone:
            what = "lacks the row, or has its delete" if unsure and not found.undeleted else "lacks the row"
            lines.append(("?" if unsure else "x", safe(node), what))
        elif lacking:
            lines.append(("x", safe(node), f"is behind in {', '.join(safe(n) for n in lacking)}"))
        elif state is not None and found.undated:
            lines.append(("?", safe(node), f"may be behind in {', '.join(safe(n) for n in found.undated)}"))
        elif state is not None:
            whole = all(held is not None for held in found.states.values())
            if whole or found.contested():
                lines.append(("=", safe(node), "is up to date"))
            else:
                lines.append(("?" if unsure else "=", safe(node), "holds the row"))
    for node, state in found.non_owners.items():
        what = "no longer holds the row" if state is None else "holds the row and does not own its token range"
        lines.append(("=" if state is None else "x", safe(node), what))
    lines += [("?", safe(node), f"could not be read: {safe(reason)}") for node, reason in found.unread.items()]
    styles = {"=": "green", "x": "red", "?": "yellow"}
    if lines:
        console.print(heading("replicas"))
    for mark, name, what in lines:
        indented(console, Text.assemble((f"{mark} ", styles[mark]), f"{name} {what}"), rest="    ")


def _print_notes(console: Console, found: Explanation) -> None:
    notes: list[str] = []
    newest = found.newest_us
    age_s = None if newest is None else (found.evidence.now_us - newest) / 1e6
    if found.differs and age_s is not None and 0 <= age_s < DEFAULT_WINDOW_S:
        notes.append(f"the newest write is {span(age_s)} old and may still be on its way: run this again")
    if found.undeleted:
        notes.append("no replica that lacks the row can hold its delete, by a trace there: a merge brings the row back")
    elif Kind.MISSING in found.facts or any(decided == EMPTY for decided in _losers(found)):
        notes.append("CQL does not show deletes: an absent row or cell may have been deleted with a newer write time")
    if Kind.FUTURE_WRITE_TIME in found.facts and found.newest_us is not None:
        notes.append(f"no write or delete with a correct write time can replace it before {moment(found.newest_us)}")
    if Kind.ZOMBIE_SUSPECT in found.facts:
        notes.append("repair quarantines this row unless --zombies says otherwise")
    for node, state in found.states.items():
        if state is not None and state.spelling is not None:
            columns = found.evidence.table.primary_key
            key = {c.name: to_json(c.type, raw) for c, raw in zip(columns, state.spelling, strict=True)}
            notes.append(
                f"Cassandra takes it for one row, but {safe(node)} holds it as {key_text(key)}: no repair changes that"
            )
    for note in notes:
        indented(console, f"note: {note}", first="", rest="  ", style="dim")


def _losers(found: Explanation) -> list[Cell]:
    cells: list[Cell] = []
    for place, _, contest in found.contested():
        states: Sequence[tuple[Node, Cell]] = [(n, s.cells[place]) for n, s in found.states.items() if s is not None]
        cells += [cell for node, cell in states if node not in contest.current]
    return cells
