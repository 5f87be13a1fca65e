"""The ring as a strip of cells, which show where replicas agree, differ, or were not read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from consistency.cli.show.terminal.console import MARK_STYLES
from consistency.results.figures import counted
from consistency.results.report import TableReport
from consistency.results.strip import overlaid

_BLOCKS = {" ": " ", "=": "━", "?": "░", "x": "█"}
"""Shapes that differ even without colour."""
_MEANING = {"=": "agreed", "?": "not read", "x": "divergent"}


def draw(strip: str, *, blocks: bool, room: int) -> Text:
    """Return the strip as coloured blocks, or as its plain characters; neighbours share a cell where room is scarce."""
    text = Text()
    shared = -(-len(strip) // max(1, room))
    for mark in (overlaid(strip[at : at + shared]) for at in range(0, len(strip), max(1, shared))):
        known = mark if mark in _BLOCKS else "?"
        text.append(_BLOCKS[known] if blocks else known, style=MARK_STYLES.get(known, ""))
    return text


def legend(strip: str, *, blocks: bool) -> Text:
    """Return a legend of the marks that occur."""
    text = Text()
    for mark in "=x?":
        if mark in strip:
            text.append("  " if text else "")
            text.append(_BLOCKS[mark] if blocks else mark, style=MARK_STYLES[mark])
            text.append(f" {_MEANING[mark]}", style="dim")
    return text


def has_problem(strip: str) -> bool:
    """Whether any cell is not agreed."""
    return "x" in strip or "?" in strip


def chosen_strips(tables: Sequence[TableReport], most: int) -> list[tuple[str, str]]:
    """Return what to draw as `(title, strip)`: each table with problems, or one strip if those are many or none."""
    drawn = [t for t in tables if t.strip.strip()]
    troubled = [t for t in drawn if has_problem(t.strip)]
    if 0 < len(troubled) <= most:
        return [(t.full_name, t.strip) for t in troubled]
    merged = overlaid(t.strip for t in (troubled or drawn))
    many = len(troubled or drawn)
    return [(counted(many, "table") if many > 1 else (troubled or drawn)[0].full_name, merged)] if merged else []
