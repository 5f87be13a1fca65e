"""`consistency browse`: look through a findings file on the terminal, and mark rows for a repair."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from consistency.cli.group import lacks_packages
from consistency.cli.show.terminal.advice import Typed, can_repair, plan_command
from consistency.cli.show.terminal.console import command, indented, make_console, safe
from consistency.errors import ConsistencyError, UsageError
from consistency.results.figures import counted


@click.command(short_help="Look through the rows that differ, and mark some.")
@click.argument("findings", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write marked rows to this file, mode 0600. Default: FINDINGS with '-marked' in its name.",
)
def browse(findings: Path, output: Path | None) -> int:
    """Look through the rows that differ, by table, range, kind and replica, and mark some for a repair.

    Shows each replica's state and write times side by side. Keys are shown, as this is your own terminal. Marked
    rows are written to another findings file, which 'repair plan' takes like any other. Nothing is read from a
    cluster. Needs the extra 'browse'.

    \b
    Keys:
      arrows, Tab   move, change sides       /       filter by words
      space         mark a row               a, u    mark, unmark all shown
      w             write the marked rows    q       quit

    \b
    Examples:
      consistency browse findings.jsonl
      consistency browse findings.jsonl -o tonight.jsonl

    \b
    Exit codes:
      0 · 2 the file or an option cannot be used · 4 could not run
    """  # noqa: D301 - click wants the control character
    try:
        from consistency.cli.show.browse.app import Browser  # noqa: PLC0415 - loads textual
    except ImportError as error:
        raise ConsistencyError(lacks_packages("browse", error)) from None
    from consistency.cli.show.browse.shelf import Shelf  # noqa: PLC0415

    shelf = Shelf(findings)
    if not shelf.entries:
        some = counted(shelf.counted, "is", "are")
        rest = f"; {some} counted by range: check with --max-findings all" if shelf.counted else ""
        indented(make_console(sys.stdout), f"{safe(findings)} holds no rows to look through{rest}", first="")
        return 0
    output = output or findings.with_name(f"{findings.stem}-marked{findings.suffix}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        msg = f"browse needs a terminal; for one row: consistency explain {findings} --row 1"
        raise UsageError(msg)
    written = Browser(shelf, output).run() or 0
    if written:
        console = make_console(sys.stdout)
        indented(console, f"{counted(written, 'row')} of {len(shelf.entries):,} written to {safe(output)}", first="")
        if can_repair():
            command(console, plan_command(str(output), Typed()), "what would be repaired")
    return 0
