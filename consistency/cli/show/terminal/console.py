"""The console: calm on a terminal, plain ASCII everywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistency.model.cqltext import visible
from consistency.results.verdict import Verdict

MAX_WIDTH = 100
PLAIN_WIDTH = 80
_NARROW = 70

VERDICT_STYLES: Mapping[Verdict, str] = {
    Verdict.CONSISTENT: "bold green",
    Verdict.SAMPLED: "bold green",
    Verdict.PART: "bold green",
    Verdict.UNKNOWN: "bold yellow",
    Verdict.DIVERGENT: "bold red",
}
MARKS: Mapping[Verdict, str] = {
    Verdict.CONSISTENT: "=",
    Verdict.SAMPLED: "~",
    Verdict.PART: "~",
    Verdict.UNKNOWN: "?",
    Verdict.DIVERGENT: "x",
}
MARK_STYLES = {"=": "green", "~": "green", "?": "yellow", "x": "red"}


class CalmConsole(Console):
    """A console that ignores markup, and is silent when its reader has gone."""

    def on_broken_pipe(self) -> None:
        """Let the command end with its own exit code, because `| head` must not lose the verdict."""
        self.quiet = True
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(nowhere.fileno(), self.file.fileno())


def make_console(stream: IO[str] | None = None, *, environ: Mapping[str, str] | None = None) -> CalmConsole:
    """Return a console on `stream` (stdout when none): cursor movement only on a terminal, colour unless NO_COLOR."""
    stream = sys.stdout if stream is None else stream
    environ = os.environ if environ is None else environ
    live = is_live(stream, environ)
    coloured = live and not environ.get("NO_COLOR")
    console = CalmConsole(
        file=stream,
        force_terminal=live,
        color_system="auto" if coloured else None,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
        width=None if live else PLAIN_WIDTH,
    )
    if live:
        # One column stays free, because some terminals wrap a line that fills the last one.
        console.width = max(40, min(MAX_WIDTH, console.width - 1))
    return console


def print_grid(console: Console, grid: Table) -> None:
    """Print a table; on a narrow terminal its cells fold, because rich would leave out the first columns, the names."""
    if console.width < _NARROW:
        for column in grid.columns:
            column.no_wrap, column.overflow = False, "fold"
    console.print(grid)


def is_live(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether the terminal lets us move the cursor."""
    return stream.isatty() and environ.get("TERM", "") not in ("", "dumb", "unknown")


def safe(text: object) -> str:
    """Return external text in displayable form: one line, without invisible characters or cursor movements."""
    return visible(str(text))


def heading(text: str) -> Text:
    """Return the title of a section."""
    return Text(text, style="bold")


def indented(
    console: Console, text: Text | str, *, first: str = "  ", rest: str | None = None, style: str = ""
) -> None:
    """Print text wrapped to the console, every line indented."""
    rest = first if rest is None else rest
    body = Text(text, style=style) if isinstance(text, str) else text
    room = max(20, console.width - max(len(first), len(rest)))
    for number, line in enumerate(body.wrap(console, room)):
        line.rstrip()
        console.print(Text(rest if number else first) + line, soft_wrap=True)


def name_file(console: Console, what: str, path: str) -> None:
    """Say where a file lies: its name is never broken, so that it can be copied."""
    line = f"{what} {safe(path)}"
    for part in [line] if len(line) <= console.width else [what, f"  {safe(path)}"]:
        console.print(Text(part), soft_wrap=True)


def command(console: Console, words: Sequence[str], why: str = "") -> None:
    r"""Print a command to copy, with a comment; a long command continues with ` \` and never breaks a word."""
    room = console.width - 2
    lines: list[str] = []
    for word in words:
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and len(joined) > room - 6:
            lines.append(f"    {word}")
        else:
            lines[-1:] = [joined]
    comment = f"  # {why}" if why else ""
    if comment and (len(lines) > 1 or len(lines[-1]) + len(comment) > room):
        console.print(Text(f"  # {why}", style="dim"), soft_wrap=True)
        comment = ""
    for number, line in enumerate(lines):
        last = number + 1 == len(lines)
        end = Text(comment, style="dim") if last else Text(" \\")
        console.print(Text.assemble(Text(f"  {line}", style="cyan"), end), soft_wrap=True)
