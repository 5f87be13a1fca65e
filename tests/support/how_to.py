"""Pages of docs/ that are run: their code by language, the commands in it, and a shell in which a page comes true."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from sandbox.cache import cache_dir
from tests.support.cluster import SHORT_LIVED

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
TUTORIAL = "../tutorial.md"
"""The tutorial as a page of the how-to."""
PAGES = (*sorted(path.name for path in HOW_TO.glob("*.md")), TUTORIAL)

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\S*[./]\S*)\n")
_VARYING = {
    r"\s+": " ",
    r"127\.\d+\.\d+\.(\d)(?=:\d)": r"127.0.0.\1",
    r"\brow \d+ of\b": "row N of",
    r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d(\.\d+)?)?( to (\d{4}-\d\d-\d\d )?\d\d:\d\d(:\d\d)?)?": "TIME",
    r"\b(run|plan) [0-9a-f]{8,}": r"\1 ID",
    r"\b[\d.]+(ms|s|m \d\ds)\b": "TIME",
    r"\b[\d.]+ s, [\d,]+ rows/s": "SPEED",
    # Rows that differ settle side by side: which of them come first varies.
    r"(\d+ (missing|stale) \S+ token -?\d+ (missing|behind|(current )?only) on [\d.:, ]+; (in [\w, ]+; )?"
    r"newest write TIME UTC ?)+": "ROWS ",
}
_ENDS_WITH = re.compile(r"^(.*?)\s+# exit code (\d+)$", re.MULTILINE)


def parts(page: str) -> list[tuple[str, str]]:
    """Return the fenced code of a page in its order: language and text."""
    return _FENCED.findall((HOW_TO / page).read_text(encoding="utf-8"))


def blocks(page: str, language: str = "sh") -> list[str]:
    """Return the fenced code of one language, in the page's order."""
    return [text for kind, text in parts(page) if kind == language]


def printed(page: str) -> dict[int, str]:
    """Return what a page shows as printed (```text), by the number of the script before it."""
    shown: dict[int, str] = {}
    scripts = 0
    for kind, text in parts(page):
        scripts += kind == "sh"
        if kind == "text":
            shown[scripts - 1] = text
    return shown


def unvarying(text: str) -> str:
    """Return printed text in one line, without what differs from run to run: times, ids, speeds, addresses."""
    for pattern, name in _VARYING.items():
        text = re.sub(pattern, name, text)
    return " ".join(text.split())


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of every `consistency ...` in a page's code, and of those in its sentences that are whole.

    Variables become `1`; a sentence that names a command, or one option of it, is no command.
    """
    text = (HOW_TO / page).read_text(encoding="utf-8")
    code = re.sub(r"\s+#.*", "", "\n".join(_code(text)))
    for found in re.findall(r"(?<![\w./-])consistency ((?:[a-z]+(?:-[a-z]+)*)(?: [^`\n;|&)]*)?)", code):
        yield shlex.split(re.sub(r"\$\w+", "1", found))


def _code(text: str) -> Iterator[str]:
    yield from re.findall(r"^```(?:sh|cron)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    yield from (code for code in re.findall(r"(?<!`)`(consistency [^`\n]+)`", text) if len(code.split()) > 3)


def asserted(script: str) -> str:
    """Return a script that ends where a line does not end as it says: with `# exit code N`, else with 0."""
    wrong = 'echo "exit code $code where the page says {1}: {0}" >&2; exit 97'

    def line(match: re.Match[str]) -> str:
        command, code = match[1], match[2]
        told = wrong.format(command.replace('"', "'"), code)
        return f'code=0; {command} || code=$?; [ "$code" -eq {code} ] || {{ {told}; }}'

    return "set -eu\n" + _ENDS_WITH.sub(line, script)


_CONSISTENCY = """#!/bin/sh
if [ "$1" = sandbox ]; then
    verb="$2"
    shift 2
    case "$verb" in up) set -- --address-base {base}.1 {jvm} "$@" ;; esac
    set -- sandbox "$verb" --dir {box} "$@"
fi
exec {python} -m consistency "$@"
"""


class PageShell:
    """Runs a page's code in a directory of its own: `consistency` is this tree's, its sandbox lies there too.

    Addresses 127.0.0.N and 10.0.0.N of the page are the sandbox's nodes, /etc/consistency and /var/lib/consistency
    directories of the test's. Python, TOML and crontab code whose first line names a file is written to it.
    """

    def __init__(self, directory: Path, base: str, **replaced: str) -> None:
        self.directory = directory
        self.box = directory / "box"
        self._programs = directory / "programs"
        self._work = directory / "work"
        for made in (self._programs, self._work, *(directory / name for name in ("cron", "etc", "var"))):
            made.mkdir()
        jvm = " ".join(f"--jvm-opt={option}" for option in SHORT_LIVED)
        self.program("consistency", _CONSISTENCY.format(base=base, jvm=jvm, box=self.box, python=sys.executable))
        self.program("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        self._replaced = {
            **replaced,
            r"(?:127\.0\.0|10\.0\.0)(?=\.[123]\b)": base,
            "/etc/cron.d": str(directory / "cron"),
            "/etc/consistency": str(directory / "etc"),
            "/var/lib/consistency": str(directory / "var"),
        }
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("CONSISTENCY_")}
        self.environ["PATH"] = f"{self._programs}:{os.environ['PATH']}"
        self.environ["PYTHONPATH"] = str(HOW_TO.parents[1])
        self.environ["HOME"] = self.environ["XDG_STATE_HOME"] = str(directory)
        self.environ["CONSISTENCY_HOSTS"] = f"{base}.1"
        self.environ["CONSISTENCY_CACHE"] = str(cache_dir())  # not one below the other home

    def program(self, name: str, text: str) -> None:
        """Put a program in the way of one of that name."""
        path = self._programs / name
        path.write_text(text)
        path.chmod(0o755)

    def file(self, name: str) -> Path:
        """Return where a file of the page is."""
        return self._work / name

    def here(self, text: str) -> str:
        """Return a page's text with the addresses and places of this test."""
        either = "|".join(f"({written})" for written in self._replaced)
        there = list(self._replaced.values())
        return re.sub(either, lambda found: there[(found.lastindex or 1) - 1], text)

    def page(
        self, page: str, environ: Mapping[str, str] | None = None, *, since: str = "", until: str = ""
    ) -> list[str]:
        """Do what a page says from the block that begins with `since` up to the one that begins with `until`.

        Returns what each script printed.
        """
        said: list[str] = []
        going = not since
        for kind, code in parts(page):
            going = going or code.startswith(since)
            if until and code.startswith(until):
                break
            if not going:
                continue
            text = self.here(code)
            if kind != "sh" and (named := _NAMED.match(text)):
                path = self._work / named[1]
                path.write_text(text)
                path.chmod(0o600)
            if kind == "sh":
                said.append(self.run(text, environ))
        return said

    def run(self, script: str, environ: Mapping[str, str] | None = None, timeout: float = 240) -> str:
        """Run a script with what its lines say of themselves; return its output, stderr included."""
        log = self.directory / "output"
        with log.open("w") as output:
            shell = subprocess.Popen(
                ["sh", "-c", asserted(script)],
                cwd=self._work,
                env={**self.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = shell.wait(timeout)
            finally:
                self._end_what_is_left(shell)
        text = log.read_text()
        assert code == 0, f"exit code {code} of:\n{script}\n{text}"
        return text

    @staticmethod
    def _end_what_is_left(shell: subprocess.Popen[bytes]) -> None:
        """End a watch that a failed script left behind; nodes of the sandbox have sessions of their own."""
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
        shell.wait()
