"""Render docs/reference: api.md, cli.md, metrics.md, events.md and the man page from the code itself: `make docs`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import click

import consistency
import repair
from consistency.cli import main
from consistency.results.verdict import ExitCode
from consistency.watching.events import COMMON_FIELDS, EVENTS, EVENTS_VERSION
from consistency.watching.metrics import HELP, LABELS, METRICS_VERSION

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


def render_man() -> str:
    """Return the man page: what `--help` of every command prints, as one page of section 1."""
    lines = [
        f'.TH CONSISTENCY 1 "" "consistency {consistency.__version__}" "User Commands"',
        ".SH NAME",
        r"consistency \- prove that an Apache Cassandra cluster holds what it should",
        ".SH SYNOPSIS",
        r".B consistency",
        r"[\-h] [\-V] \fICOMMAND\fR [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
    ]
    for context, command in commands():
        if context.parent is not None:
            usage = " ".join(command.collect_usage_pieces(context))
            lines += [f".SH {context.command_path.removeprefix('consistency ').upper()}"]
            lines += [f".B {_roff(context.command_path)}", _roff(usage), ".PP"]
        lines += _man_prose(command.help or "")
        for option in (param for param in command.params if isinstance(param, click.Option)):
            if (record := option.get_help_record(context)) is not None:
                lines += [".TP", f".B {_roff(record[0])}", _roff(record[1])]
    lines += [".SH EXIT STATUS"]
    for code, meaning in MEANINGS.items():
        lines += [".TP", f".B {code.value}", _roff(meaning)]
    return "\n".join(lines) + "\n"


def _man_prose(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            lines += [".PP", ".nf", *(_roff(line) for line in paragraph[2:].splitlines()), ".fi"]
        else:
            lines += [".PP", *(_roff(line) for line in paragraph.splitlines())]
    return lines


def _roff(text: str) -> str:
    """Return text of which troff takes nothing for its own."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


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


def render_api() -> str:
    """Return the page about the library."""
    lines = list(_API_INTRODUCTION)
    for package in (consistency, repair):
        lines += ["", f"## {package.__name__}", "", *_paragraphs(package)]
        names = sorted((n for n in package.__all__ if n != "__version__"), key=lambda n: (n[0].isupper(), n))
        for name in names:
            lines += ["", *_entry(f"{package.__name__}.{name}", getattr(package, name))]
    return "\n".join(lines) + "\n"


def _entry(name: str, found: Any) -> list[str]:
    lines = [f"### {name}", ""]
    if not inspect.isclass(found):
        return [*lines, *_signature(found), "", *_paragraphs(found)]
    if issubclass(found, BaseException):
        base = found.__base__
        above = "" if base in {None, Exception} else f"A {base.__name__}. "
        return [*lines, f"{above}{inspect.getdoc(found)} Exit code {getattr(found, 'exit_code', 4)}."]
    lines += _paragraphs(found)
    if issubclass(found, Enum):
        values = [f"`{one.name}` = `{one.value!r}`" for one in found]
        return [*lines, "", textwrap.fill(", ".join(values), 118, break_long_words=False, break_on_hyphens=False)]
    source = textwrap.dedent(inspect.getsource(found))
    node = cast("ast.ClassDef", ast.parse(source).body[0])
    lines += _fields(found, node, source)
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            lines += _method(found, method.name)
    return lines


def _fields(owner: Any, node: ast.ClassDef, source: str) -> list[str]:
    """Return a field a row: its type and default, and the text that stands below it."""
    rows, meanings = [], []
    for at, field in enumerate(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id[0] != "_":
            kind = ast.get_source_segment(source, field.annotation)
            rows.append(f"{field.target.id}: {kind}{_default(owner, field, source)}")
            below = node.body[at + 1] if at + 1 < len(node.body) else None
            told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            meanings.append(" ".join(str(below.value.value).split()) if told else "")  # type: ignore[union-attr]
    if not any(meanings):
        return ["", "```python", *rows, "```"] if rows else []
    table = [
        f"| `{row.replace('|', chr(92) + '|')}` | {_escaped(text)} |" for row, text in zip(rows, meanings, strict=True)
    ]
    return ["", "| field | meaning |", "|---|---|", *table]


def _default(owner: Any, field: ast.AnnAssign, source: str) -> str:
    """Return a field's default: its value where that is plain, else how it is written."""
    known = owner.__dataclass_fields__[cast("ast.Name", field.target).id]
    if known.default_factory is not dataclasses.MISSING:
        return f" = {known.default_factory.__name__}()"
    if known.default is dataclasses.MISSING or field.value is None:
        return ""
    if known.default is None or type(known.default) in {bool, int, float, str, tuple}:
        return " = " + repr(known.default).replace("'", '"')
    return f" = {ast.get_source_segment(source, field.value)}"


def _method(owner: Any, name: str) -> list[str]:
    found = inspect.getattr_static(owner, name)
    function = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    said = _paragraphs(function)
    if said == ["Do nothing."]:
        return []
    return ["", *_signature(function), "", *said]


def _signature(function: Any) -> list[str]:
    """Return the lines of the source from `def` to the colon, with the decorators: they are written for people."""
    source = textwrap.dedent(inspect.getsource(function))
    node = cast("ast.FunctionDef", ast.parse(source).body[0])
    lines = source.splitlines()[: node.body[0].lineno - 1]
    return ["```python", *lines[:-1], lines[-1].removesuffix(":"), "```"]


def _paragraphs(found: ModuleType | Callable[..., Any]) -> list[str]:
    return _escaped(inspect.getdoc(found) or "").splitlines()


_API_INTRODUCTION = """\
# Library

Rendered from the code by `make docs`. What is named here is stable: a name, argument or field that is removed or
comes to mean something else is in the changelog, with the version. Everything is typed (`py.typed`). At work:
[a maintenance script](../how-to/maintenance-script.md).
""".splitlines()

PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": render_api,
    "cli.md": render,
    "consistency.1": render_man,
    "metrics.md": render_metrics,
    "events.md": render_events,
}
"""Every page that is rendered."""


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for page, text_of_page in PAGES.items():
        (FOLDER / page).write_text(text_of_page(), encoding="utf-8")
        sys.stdout.write(f"docs/reference/{page} written\n")
