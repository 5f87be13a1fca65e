"""Pages of docs/how-to as tests use them: their code by language, and the commands in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def blocks(page: str, language: str = "sh") -> list[str]:
    """Return the fenced code of one language, in the page's order."""
    text = (HOW_TO / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of every `consistency ...` in a page's code, and of those in its sentences that are whole.

    Variables become `1`; a sentence that names a command, or one option of it, is no command.
    """
    text = (HOW_TO / page).read_text(encoding="utf-8")
    for found in re.findall(r"(?<![\w./-])consistency ((?:[a-z]+)(?: [^`\n;|&)]*)?)", "\n".join(_code(text))):
        yield shlex.split(re.sub(r"\$\w+", "1", found))


def _code(text: str) -> Iterator[str]:
    yield from re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    yield from (code for code in re.findall(r"(?<!`)`(consistency [^`\n]+)`", text) if len(code.split()) > 3)
