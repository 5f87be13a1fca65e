"""Render docs/reference/cli.md from the commands themselves: `make docs`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from consistency.cli import main
from consistency.verdict import ExitCode

TARGET = Path(__file__).parent / "reference" / "cli.md"

MEANINGS = {
    ExitCode.CONSISTENT: "consistent, and everything that was planned was read; or simply done",
    ExitCode.DIVERGENT: "replicas differ, or a rule of replication is broken",
    ExitCode.USAGE: "an option, a name or a file cannot be used",
    ExitCode.INCOMPLETE: "incomplete: no difference was found, but not everything could be read",
    ExitCode.COULD_NOT_RUN: "could not run",
    ExitCode.LOCKED: "another run holds the lock",
    ExitCode.INTERRUPTED: "interrupted",
}


def commands() -> Iterator[tuple[click.Context, click.Command]]:
    """Yield every command of the program, groups before what is in them."""
    yield from _below(click.Context(main, info_name="consistency", **main.context_settings), main)


def _below(context: click.Context, command: click.Command) -> Iterator[tuple[click.Context, click.Command]]:
    yield context, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                below = click.Context(child, info_name=name, parent=context, **child.context_settings)
                yield from _below(below, child)


def render() -> str:
    """Return the whole reference."""
    lines = [
        "# Commands",
        "",
        "Rendered from the commands by `make docs`. `--help` (`-h`) of each command prints the same.",
        "",
        *_exit_codes(),
    ]
    for context, command in commands():
        lines += ["", *_section(context, command)]
    return "\n".join(lines) + "\n"


def _exit_codes() -> list[str]:
    rows = [f"| {code.value} | {MEANINGS[code]} |" for code in ExitCode]
    return ["## Exit codes", "", "| code | meaning |", "|---|---|", *rows]


def _section(context: click.Context, command: click.Command) -> list[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {context.command_path}", "", f"    {context.command_path} {usage}", "", *_prose(command.help or "")]
    options = [param for param in command.params if isinstance(param, click.Option)]
    rows = [row for option in options for row in _row(context, option)]
    if rows:
        lines += ["", "| option | meaning |", "|---|---|", *rows]
    return lines


def _prose(text: str) -> list[str]:
    """Return a docstring's paragraphs; those that click is told to leave alone become code."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if lines:
            lines.append("")
        if paragraph.startswith("\b\n"):
            lines += [f"    {line}".rstrip() for line in paragraph[2:].splitlines()]
        else:
            lines += [_escaped(line) for line in paragraph.splitlines()]
    return lines


def _row(context: click.Context, option: click.Option) -> list[str]:
    record = option.get_help_record(context)
    if record is None:
        return []
    names, meaning = (text.replace("|", r"\|") for text in record)
    return [f"| `{names}` | {_escaped(meaning)} |"]


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET} written\n")
