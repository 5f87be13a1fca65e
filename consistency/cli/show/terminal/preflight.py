"""The answer of a preflight: one line to act on, then its reasons."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from consistency.auditing.preflight import Answer, Preflight
from consistency.cli.show.terminal.console import indented, safe

_WORDS = {Answer.YES: ("YES", "bold green"), Answer.NO: ("NO", "bold red"), Answer.UNKNOWN: ("UNKNOWN", "bold yellow")}
_MARKS = {Answer.YES: ("-", "dim"), Answer.NO: ("x", "red"), Answer.UNKNOWN: ("?", "yellow")}
_MOST = 12


def print_preflight(console: Console, found: Preflight) -> None:
    """Print the answer in one line of any length, and the details below it."""
    word, style = _WORDS[found.answer]
    line = Text.assemble((word, style), f"  {safe(found.node.name)}: {safe(found.line)}")
    console.print(line, soft_wrap=True)
    rest = [r for r in found.reasons if r not in found.against[:1]]
    for reason in rest[:_MOST]:
        mark, colour = _MARKS[reason.answer]
        indented(console, Text.assemble((f"{mark} ", colour), safe(reason.detail)), rest="    ")
    if len(rest) > _MOST:
        indented(console, f"and {len(rest) - _MOST:,} more, in the JSON", style="dim")
