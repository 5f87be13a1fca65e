"""Command lines of this program wherever the project's files show one, and what click makes of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from consistency.cli import COMMANDS, main
from tests.house.source import ROOT

_COMMAND = re.compile(rf"(?<![\w./-])(?:[\w./]*/)?consistency (?=(?:{'|'.join(COMMANDS)})(?![\w-]))(?P<rest>[^\n]*)")
_ENDS = {"'": "'", "`": "`", "(": ")", '"': '"'}


def shown() -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the words of every command line in deploy/, docs/, the pages and the compose file."""
    paths = [ROOT / "README.md", ROOT / "docker-compose.yml"]
    paths += [p for folder in ("deploy", "docs") for p in sorted((ROOT / folder).rglob("*")) if p.is_file()]
    for path in paths:
        rendered = path.parent == ROOT / "docs" / "reference" and path.name in {"cli.md", "consistency.1"}
        if path.suffix not in {".pyc", ".py", ".json"} and not rendered:
            yield from _in_text(path)
        if path.suffix in {".yml", ".yaml"}:
            yield from _in_lists(path)


def _in_text(path: Path) -> Iterator[tuple[str, list[str]]]:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    if path.suffix in {".yml", ".yaml"}:
        text = re.sub(r"\n +(?=\S)", " ", text) if "description: >-" in text else text
    for match in _COMMAND.finditer(text):
        before = text[match.start() - 1] if match.start() else "\n"
        rest = match["rest"]
        if before in _ENDS:  # quoted in a sentence: the command ends where the quotation does
            rest = rest.partition(_ENDS[before])[0]
        rest = re.split(r"\s#\s|\s{3,}#|\s\|\s|\s&&\s|;\s|\s>\s?\S", rest)[0]
        yield f"{path.relative_to(ROOT)}: consistency {rest.strip()}", shlex.split(rest)


def _in_lists(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the arguments that a container is given as a list."""
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        for words in _lists(document):
            if words and words[0] in COMMANDS:
                yield f"{path.relative_to(ROOT)}: {' '.join(words)}", words


def _lists(node: Any) -> Iterator[list[str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"args", "command"} and isinstance(value, list):
                yield [str(word) for word in value]
            else:
                yield from _lists(value)
    elif isinstance(node, list):
        for value in node:
            yield from _lists(value)


def parse(words: list[str]) -> None:
    """Have click read a command line as it would to run it; click.UsageError where it cannot."""
    words = ["1" if word.strip('"').startswith("$") else word for word in words]  # a script's variable
    if {"--help", "-h"} & set(words):
        words = [word for word in words if not word.startswith("-")]
        _find(words)
        return
    command, context, rest = _find(words)
    if rest and not isinstance(command, click.Group):  # a bare name is a mention
        command.make_context(command.name, rest, parent=context)


def _find(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """Return the command that the words name, below its groups, and the words left for it."""
    context: click.Context = click.Context(main, info_name="consistency", **main.context_settings)
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context = click.Context(found, info_name=name, parent=context)
        command = found
    return command, context, rest
