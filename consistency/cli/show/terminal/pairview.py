"""One row on all replicas of two clusters: who holds what, cell by cell, and how the clusters differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from consistency.cli.show.terminal.console import heading, indented, safe
from consistency.cli.show.terminal.problems import key_text
from consistency.cli.show.terminal.rowview import ValueText, cells_table
from consistency.comparing.explaining import PairExplanation
from consistency.comparing.rows import merged
from consistency.model.reading import Cell
from consistency.model.sides import Side
from consistency.results.figures import counted, moment
from consistency.rows.reconcile import EMPTY


def print_pair(console: Console, found: PairExplanation, *, show: ValueText) -> None:
    """Print the whole explanation; `show` renders a value or its substitute."""
    _print_head(console, found)
    for warning in found.warnings:
        indented(console, Text.assemble(("! ", "yellow"), safe(warning)), rest="    ")
    console.print()
    unlike = found.unlike
    for place, kind in sorted((unlike.columns or {}).items()):
        column = found.evidence.columns[place]
        console.print(Text.assemble(heading(safe(column.column.name)), "  ", (kind.sentence, "dim")))
        cells = [
            (safe(node), EMPTY if state is None else state.cells[place], "")
            for node, state in found.evidence.states.items()
        ]
        console.print(cells_table("replica", cells, partial(show, column)))
    if unlike.row is not None:
        _print_holder(console, found, show)
    _print_replicas(console, found)
    if unlike.row is not None or found.torn:
        note = "CQL does not show deletes: what a side or a replica lacks may have been deleted there"
        indented(console, f"note: {note}", first="", rest="  ", style="dim")
    for side in found.torn:
        note = f"the {side} disagrees with itself here: check and repair that cluster first"
        indented(console, f"note: {note}", first="", rest="  ", style="dim")


def _print_head(console: Console, found: PairExplanation) -> None:
    chosen, finding = found.chosen, found.chosen.finding
    if found.facts:
        kind = found.facts[0]
        head = Text.assemble((kind.value.replace("_", " ").upper(), "bold red"), "  ", kind.sentence)
    elif found.evidence.unread:
        head = Text.assemble(("UNKNOWN", "bold yellow"), "  not every replica could be read")
    elif found.torn:
        sides = " and the ".join(side.value for side in found.torn)
        head = Text.assemble(("TORN", "bold yellow"), f"  the {sides} may hold what the other side holds, or not")
    else:
        head = Text.assemble(("SETTLED", "bold green"), "  both sides hold the same now, as far as is compared")
    indented(console, head, first="", rest="  ")
    static = "  (the partition's static row)" if found.evidence.name.static else ""
    target = ".".join(finding.target)
    names = finding.full_name if target == finding.full_name else f"{finding.full_name}, {target} in the target"
    indented(console, f"{safe(names)}  {key_text(finding.key)}{static}", rest="    ")
    for kind in found.facts[1:]:
        indented(console, f"also: {kind.sentence}", style="dim")
    was = finding.kind.value.replace("_", " ")
    hint = "; --row N shows another" if chosen.total > 1 else ""
    origin = f"row {chosen.number:,} of {chosen.total:,}{hint}; found as '{was}'; token {finding.token}"
    indented(console, origin, style="dim", rest="    ")
    read = ", ".join(f"{counted(len(copies), 'replica')} of the {side}" for side, copies in found.sides.items())
    indented(console, f"read on {read} at {moment(found.evidence.now_us)}", style="dim", rest="    ")


def _print_holder(console: Console, found: PairExplanation, show: ValueText) -> None:
    """Print the row of the side that has it."""
    side = next((side for side in Side if merged(found.sides[side]) is not None), Side.SOURCE)
    state = merged(found.sides[side])
    if state is None:
        return
    held = [pair for pair in zip(found.evidence.columns, state.cells, strict=True) if pair[1] != EMPTY]
    values = iter([show(column, cell) for column, cell in held])
    rows: Sequence[tuple[str, Cell, str]] = [(safe(column.column.name), cell, "") for column, cell in held]
    console.print(Text.assemble(heading(side.value), "  holds", "" if rows else " nothing but the key"))
    if rows:
        console.print(cells_table("column", rows, lambda _: next(values)))


def _print_replicas(console: Console, found: PairExplanation) -> None:
    console.print(heading("replicas"))
    for node, state in found.evidence.states.items():
        held = "holds the row" if state is not None else "lacks the row, or has its delete"
        mark = ("= ", "green") if state is not None else ("? ", "yellow")
        indented(console, Text.assemble(mark, f"{safe(node)} {held}"), rest="    ")
    for node, reason in found.evidence.unread.items():
        indented(
            console, Text.assemble(("? ", "yellow"), f"{safe(node)} could not be read: {safe(reason)}"), rest="    "
        )
