"""The tutorial and docs/how-to: every command and name in them exists, and the scripts do what is said of them.

tests/cluster/test_pages.py runs them.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
from pathlib import Path

import click
import pytest

from consistency.cli import main
from tests.house.source import text_of
from tests.support.how_to import HOW_TO, PAGES, TUTORIAL, PageShell, asserted, blocks, commands, printed, unvarying


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
    assert found or blocks(page, "python")


@pytest.mark.parametrize("page", PAGES)
def test_every_script_of_a_page_can_be_read_by_its_language(page: str) -> None:
    """By a plain shell, and by Python."""
    for block in blocks(page):
        done = subprocess.run(["sh", "-n"], input=block, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES)
def test_every_name_that_a_page_imports_is_public(page: str) -> None:
    """Of this project's packages: a script that is copied goes on working."""
    for block in blocks(page, "python"):
        require_public(block)


def test_the_readme_shows_a_script_that_can_be_read() -> None:
    """Its example of the library is Python, and imports what is public."""
    section = text_of("README.md").partition("## As a library\n")[2].partition("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    assert "begin_check(" in code
    require_public(code)


def require_public(code: str) -> None:
    """Fail where a script imports a name of ours that is not promised to stay."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"consistency", "repair"}:
            package = importlib.import_module(node.module or "")
            assert {alias.name for alias in node.names} <= set(package.__all__)


def test_the_readme_shows_what_the_tutorial_prints() -> None:
    """Its report, explanation, plan and repair are lines of the tutorial, which runs on real nodes."""
    shown = "\n".join(printed(TUTORIAL).values())
    known = {unvarying(line) for line in shown.splitlines()}
    readme = text_of("README.md").replace("10.0.0.", "127.0.0.")
    blocks_of = re.findall(r"^    (?:DIVERGENT|STALE|consistency repair plan) .*\n(?:    .*\n)+", readme, re.MULTILINE)
    lines = [line[4:] for block in blocks_of for line in block.splitlines() if not line.startswith("    consistency ")]
    assert len(blocks_of) == 3
    assert not [line for line in lines if unvarying(line) not in known]


@pytest.mark.parametrize(
    "which",
    ["missing on 127.0.0.3:9042", "only on 127.0.0.3:9042", "behind on 127.0.0.1:9042, 127.0.0.2:9042; in b, c"],
)
def test_which_rows_are_printed_first_makes_no_difference(which: str) -> None:
    """They settle side by side, and a machine that is slow today has others first."""
    newest = "newest write 2026-11-29\n     03:18:24 UTC\n"
    first = f"  1  missing  shop.orders  token -86\n     missing on 127.0.0.3:9042; {newest}"
    other = f"  9  stale  shop.orders  token 17\n     {which}; {newest}"
    assert unvarying(f"{first}{other}     18 more") == unvarying(f"{first}     18 more")


def test_the_readme_links_to_every_page() -> None:
    """A page that nobody finds is of no use."""
    readme = text_of("README.md")
    assert not [
        page for page in PAGES if f"(docs/{'how-to/' if page != TUTORIAL else ''}{Path(page).name})" not in readme
    ]


def test_links_between_the_pages_lead_somewhere() -> None:
    """As a reader of the files follows them."""
    found = [
        f"{page}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", (HOW_TO / page).read_text("utf-8"))
        if not (HOW_TO / page).parent.joinpath(target).exists()
    ]
    assert not found


def test_a_line_that_ends_otherwise_than_the_page_says_ends_the_script(tmp_path: Path) -> None:
    """With the line in the message; and a file that a page names is written where it says."""

    def code(script: str) -> int:
        return subprocess.run(["sh", "-c", asserted(script)], capture_output=True, check=False).returncode

    assert code("true\nfalse   # exit code 1\ntrue\n") == 0
    assert code("false   # exit code 3\n") == 97
    assert code("false\ntrue\n") == 1
    shell = PageShell(tmp_path, "127.0.9")
    with pytest.raises(AssertionError, match="exit code 0 where the page says 1: true"):
        shell.run("true  # exit code 1\n")


def test_the_tutorial_installs_what_there_is(tmp_path: Path) -> None:
    """Its first lines with stand-ins for venv and pip: the extra that they name exists."""
    shell = PageShell(tmp_path, "127.0.9")
    shell.program("python3", '#!/bin/sh\n[ "$*" = "-m venv .venv" ] && mkdir -p .venv/bin && : > .venv/bin/activate\n')
    shell.program("pip", '#!/bin/sh\necho "pip $*"\n')
    (said,) = shell.page(TUTORIAL, until="consistency sandbox up")
    (extra,) = re.fullmatch(r"pip install \.\[(\w+)\]\n", said).groups()  # type: ignore[union-attr]
    assert f"\n{extra} = [" in text_of("pyproject.toml")


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
