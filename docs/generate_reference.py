"""Render docs/reference/cli.md, metrics.md and events.md from the code itself: `make docs`."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from consistency.cli import main
from consistency.events import COMMON_FIELDS, EVENTS, EVENTS_VERSION
from consistency.metrics import HELP, LABELS, METRICS_VERSION
from consistency.verdict import ExitCode

FOLDER = Path(__file__).parent / "reference"

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


def render_metrics() -> str:
    """Return the page about metrics."""
    rows = [f"| `{name}` | {_codes(LABELS.get(name, ()))} | {_escaped(text)} |" for name, text in HELP.items()]
    return "\n".join(
        [*_METRICS_INTRODUCTION, "", "| metric | labels | meaning, and what to do |", "|---|---|---|", *rows, ""]
    )


def render_events() -> str:
    """Return the page about the event log."""
    common = [f"| `{name}` | {text} |" for name, text in COMMON_FIELDS.items()]
    rows = [
        f"| `{name}` | {logging.getLevelName(event.level).lower()} | {event.meaning} | {_codes(event.fields)} |"
        for name, event in EVENTS.items()
    ]
    return "\n".join(
        [
            *_EVENTS_INTRODUCTION,
            "",
            "| field of every event | meaning |",
            "|---|---|",
            *common,
            "",
            "| event | level | meaning | fields |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_METRICS_INTRODUCTION = f"""\
# Metrics

Rendered from the code by `make docs`. Version {METRICS_VERSION}: a metric that is renamed, removed or comes to mean
something else raises it.

`consistency check --metrics FILE` writes them for node_exporter's textfile collector: whole or not at all,
mode 0644, and whatever became of the run. They hold names of keyspaces and tables, never keys, values or
addresses. `--metrics-label cluster=prod` puts a label on all of them.

**No data is not clean.** `consistency_divergent_rows` and `consistency_findings` are 0 only where all of the
table, or everything, was read and settled and the run came to its end. Otherwise they are absent, or count
what was found. So the alert on divergence looks at the last known figure (`last_over_time`), and a run that
could not run neither raises nor ends it: that has alerts of its own.

Rules and their tests: `deploy/prometheus/`; dashboard: `deploy/grafana/`; what to do: [alerts](../alerts.md).
""".splitlines()

_EVENTS_INTRODUCTION = f"""\
# Events

Rendered from the code by `make docs`. Version {EVENTS_VERSION}: an event or field that is renamed, removed or
comes to mean something else raises it.

`--log-format json` (or `console`, for people) writes them to stderr in place of progress, `--log-file FILE`
appends them to a file, `CONSISTENCY_LOG` asks for them without an option, `--log-level` leaves out the lower
ones. Nothing is logged unless one of these asks for it.

No event holds a key, a token of a row, a value, or the text of an error once rows are read (its type alone):
those are in the report and the findings file, which are kept from others.
""".splitlines()

PAGES: Mapping[str, Callable[[], str]] = {"cli.md": render, "metrics.md": render_metrics, "events.md": render_events}
"""Every page that is rendered."""


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for page, text_of_page in PAGES.items():
        (FOLDER / page).write_text(text_of_page(), encoding="utf-8")
        sys.stdout.write(f"docs/reference/{page} written\n")
