"""Completion in three shells, and the man page."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from consistency.cli.completion import SHELLS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "consistency"]


def run(*words: str, **environ: str) -> str:
    """Return what the program prints."""
    done = subprocess.run(
        [*PROGRAM, *words], env={**os.environ, **environ}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_one_that_the_shell_can_read(shell: str) -> None:
    """It names the program and how the program is asked; a shell that is here finds no fault in it."""
    script = run("completion", shell)
    assert f"_CONSISTENCY_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell_is_refused_with_those_that_are_known() -> None:
    """In one line."""
    done = subprocess.run([*PROGRAM, "completion", "csh"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bash" in done.stderr


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("wat", {"watch"}),
        ("repair pl", {"plan"}),
        ("check --depth ", {"versions", "content"}),
        ("check --find", {"--findings"}),
        ("completion ", set(SHELLS)),
    ],
)
def test_bash_completes_commands_options_and_choices(typed: str, wanted: set[str], tmp_path: Path) -> None:
    """In a real bash, with the script that was printed."""
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    script = run("completion", "bash")
    program = tmp_path / "consistency"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m consistency "$@"\n')
    program.chmod(0o755)
    words = ["consistency", *typed.split()] + ([""] if typed.endswith(" ") else [])
    listed = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _consistency_completion consistency; "
    done = subprocess.run(
        ["bash", "-c", script + asked + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == wanted, done.stderr


def test_the_man_page_is_one(tmp_path: Path) -> None:
    """Groff finds no fault in it; every command has its section."""
    page = ROOT / "docs" / "reference" / "consistency.1"
    if not shutil.which("man") or not shutil.which("groff"):
        pytest.skip("there is no man with groff")
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "PAGER": "cat"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for heading in ("CHECK", "REPAIR APPLY", "COMPLETION", "EXIT STATUS"):
        assert f"\n{heading}\n" in done.stdout
