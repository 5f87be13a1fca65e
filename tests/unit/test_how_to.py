"""The pages of docs/how-to: every command in them exists as it is typed, and the scripts do what is said of them."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import click
import pytest

from consistency.cli import main
from tests.support.how_to import HOW_TO, blocks, commands

PAGES = sorted(path.name for path in HOW_TO.glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one(page: str) -> None:
    """Names, options and their values are those of this version."""
    context = click.Context(main, info_name="consistency")
    found = 0
    for words in commands(page):
        name, command, rest = main.resolve_command(context, words)
        assert command is not None
        command.make_context(name, rest, parent=context)
        found += 1
    assert found


@pytest.mark.parametrize("page", PAGES)
def test_every_script_of_a_page_can_be_read_by_its_language(page: str) -> None:
    """By a plain shell, and by Python."""
    for block in blocks(page):
        done = subprocess.run(["sh", "-n"], input=block, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    for block in blocks(page, "python"):
        ast.parse(block)


def restart(tmp_path: Path, refused: str = "") -> tuple[int, list[str]]:
    """Run the restart script with stand-ins for what it calls; preflight refuses one node."""
    log = tmp_path / "log"
    stand_ins = {
        "consistency": f'echo "preflight $2" >> {log}\n[ "$2" != "{refused}" ]\n',
        "ssh": f'echo "ssh $1 $2" >> {log}\n',
    }
    for name, body in stand_ins.items():
        path = tmp_path / name
        path.write_text("#!/bin/sh\n" + body)
        path.chmod(0o755)
    script = tmp_path / "restart.sh"
    script.write_text(blocks("rolling-restart.md")[0])
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(script), "a", "b", "c"], env=environ, check=False)
    return done.returncode, log.read_text().splitlines()


def test_the_restart_script_asks_before_each_node_and_waits_for_it_after(tmp_path: Path) -> None:
    """And once more at the end."""
    code, said = restart(tmp_path)
    assert code == 0
    one_node = ["preflight {}", "ssh {} nodetool drain; sudo systemctl", "ssh {} until nodetool statusbinary"]
    wanted = [text.format(node) for node in "abc" for text in one_node] + ["preflight a"]
    assert len(said) == len(wanted)
    assert all(line.startswith(begin) for line, begin in zip(said, wanted, strict=True))


def test_the_restart_script_stops_at_a_no(tmp_path: Path) -> None:
    """The node that may not go down is not touched, nor is any after it."""
    code, said = restart(tmp_path, refused="b")
    assert code == 1
    assert [line for line in said if line.startswith("ssh")] == [line for line in said if line.startswith("ssh a ")]
    assert said[-1] == "preflight b"
