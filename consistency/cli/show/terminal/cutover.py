"""The answer of a cutover check: one line to act on, then its reasons."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from consistency.auditing.preflight import Answer
from consistency.cli.show.terminal.console import indented, safe
from consistency.comparing.cutover import Cutover

_WORDS = {Answer.YES: ("YES", "bold green"), Answer.NO: ("NO", "bold red"), Answer.UNKNOWN: ("UNKNOWN", "bold yellow")}
_MARKS = {Answer.YES: ("-", "dim"), Answer.NO: ("x", "red"), Answer.UNKNOWN: ("?", "yellow")}
_MOST = 12


def print_cutover(console: Console, found: Cutover) -> None:
    """Print the answer in one line of any length, and the details below it."""
    word, style = _WORDS[found.answer]
    console.print(Text.assemble((word, style), f"  {safe(found.line)}"), soft_wrap=True)
    for reason in found.reasons[:_MOST]:
        mark, colour = _MARKS[reason.answer]
        indented(console, Text.assemble((f"{mark} ", colour), safe(reason.detail)), rest="    ")
    if len(found.reasons) > _MOST:
        indented(console, f"and {len(found.reasons) - _MOST:,} more, in the JSON", style="dim")
