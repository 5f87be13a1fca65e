"""Every command and option says what it is for, and the pages say it too."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from types import ModuleType

import click
import pytest

from consistency.results.verdict import ExitCode
from tests.house.source import ROOT, listed, text_of


@cache
def reference() -> ModuleType:
    """Load the generator, which lies beside the pages and not in a package."""
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options() -> list[tuple[str, click.Option]]:
    """Return every option of every command, with the command's name."""
    return [
        (context.command_path, option)
        for context, command in reference().commands()
        for option in command.get_params(context)
        if isinstance(option, click.Option)
    ]


def pages() -> str:
    """Return the text in which a user looks something up."""
    return "\n".join([text_of("README.md"), *(p.read_text("utf-8") for p in (ROOT / "docs/reference").glob("*.md"))])


def test_every_command_says_what_it_does() -> None:
    """A command that says nothing, or could not be loaded, is of no use to anyone."""
    found = [
        f"{context.command_path}: {command.help!r}"
        for context, command in reference().commands()
        if not command.help or command.help.startswith("Not here")
    ]
    assert not found, listed(found, "give the command's function a docstring, or mend its import:")


def test_no_line_in_a_list_of_commands_is_cut() -> None:
    """What a command does is said whole where all are listed, on a terminal of 80 columns."""
    said = {c.command_path: command.get_short_help_str(59) for c, command in reference().commands() if c.parent}
    found = [f"{path}: {text}" for path, text in said.items() if text.endswith("...") or len(text) > 59]
    assert not found, listed(found, "pass short_help= to the command:")


def test_every_option_has_help() -> None:
    """`--help` leaves no option to guessing."""
    found = [f"{path} {option.opts[0]}" for path, option in options() if not option.help]
    assert not found, listed(found, "pass help= to the option:")


def test_every_long_option_is_documented() -> None:
    """What can be typed can be looked up."""
    text = pages()
    names = {name for _, option in options() for name in option.opts + option.secondary_opts if name.startswith("--")}
    found = sorted(name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", text))
    assert not found, listed(found, "not in README.md or docs/reference/; run: make docs")


def test_every_exit_code_is_documented() -> None:
    """A script that reads the exit code finds what it means, each on a line that begins with it."""
    text = pages()
    found = [
        f"{code.value} {code.name}"
        for code in ExitCode
        if not re.search(rf"^\W*{code.value}\W+[A-Za-z]", text, re.MULTILINE)
    ]
    assert not found, listed(found, "not in README.md or docs/reference/; run: make docs")


@pytest.mark.parametrize("page", sorted(reference().PAGES))
def test_the_reference_is_what_the_code_says(page: str) -> None:
    """The pages are rendered, never edited."""
    assert text_of("docs", "reference", page) == reference().PAGES[page](), "run: make docs"
