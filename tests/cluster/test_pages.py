"""The tutorial and the how-to pages, line by line, on one sandbox that the tutorial itself starts and deletes."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator

import pytest

from sandbox import Sandbox
from tests.support.addresses import network
from tests.support.cluster import RunningCluster
from tests.support.how_to import TUTORIAL, PageShell, blocks, printed, unvarying
from tests.support.shown_commands import ACCOUNT, Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
BASE = network("pages")
UP, DOWN = "consistency sandbox up", "consistency sandbox down"


ROW = """--row $(awk '/"id": *497[,}]/ {print NR - 1; exit}' findings.jsonl)"""
"""The row that the tutorial explains: rows that differ settle side by side, so its number varies."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageShell]:
    """Three nodes, up by the tutorial's own line."""
    directory = tmp_path_factory.mktemp("pages")
    shell = PageShell(directory, BASE, **{r"127\.0\.0\.1:9477": f"127.0.0.1:{free_port()}", "--row 8": ROW})
    for name in ("python3", "pip"):  # the environment that runs this test is the one
        shell.program(name, "#!/bin/sh\nmkdir -p .venv/bin && : > .venv/bin/activate\n")
    try:
        yield shell
    finally:
        if (directory / "box").exists():
            Sandbox.attach(directory / "box").down(how="kill", delete=True)


def test_the_tutorial_comes_true(shell: PageShell) -> None:
    """Consistent, 21 rows differ by the kinds that it names, repaired; then the same from Python."""
    said = shell.page(TUTORIAL, until=DOWN)
    *_, mended = said
    shown = printed(TUTORIAL)
    assert sorted(shown) == [2, 3, 4, 5, 6]  # check, check, explain, plan, apply
    for number, text in shown.items():
        assert unvarying(text) in unvarying(said[number]), unvarying(said[number])
    kinds = re.findall(r"^(\w+) orders", mended, re.MULTILINE)
    assert kinds.count("stale") == 20  # those that were new on Monday are updated on Tuesday
    assert mended.endswith("{'verified': 20}\n")


def test_the_maintenance_scripts_do_what_is_said_of_them(shell: PageShell) -> None:
    """Preflight, progress, findings, logins of one's own; then a repair of rows that differ, cancelled and resumed."""
    page, mend = "maintenance-script.md", "python mend.py"
    before, ten, own = shell.page(page, until=mend)
    assert "100% shop.orders: 509 rows, 0 differ" in before
    assert ten == "consistent complete\n"
    assert own.endswith("consistent 509 orders\n")
    shell.run("consistency sandbox stop 3\npython shop.py wednesday\nconsistency sandbox start 3\n")
    shell.run("sed 's/Timer(600,/Timer(0,/' mend.py > cancelled.py\npython cancelled.py\n")
    journal = shell.file("tonight.jsonl").read_text()
    assert journal.count('"verified"') == 20
    shell.file("tonight.jsonl").unlink()
    shell.run(f"consistency check shop\n{mend}\n")


def test_the_nights_come_true(shell: PageShell) -> None:
    """By hand, by the crontab's own lines, and with a repair."""
    (shell.directory / "etc" / "password").write_text("secret\n")
    shell.page("nightly-cron.md")
    crontab = (shell.directory / "cron" / "consistency").read_text()
    settings = dict(re.findall(r"^(CONSISTENCY_\w+)=(.*)$", crontab, re.MULTILINE))
    lines = re.findall(r"^(?:[\d*]+ ){5} *\w+ +(.*)$", crontab, re.MULTILINE)
    assert (len(lines), len(settings)) == (3, 2)
    repairs = shell.directory / "var" / "repairs"
    repairs.mkdir(exist_ok=True)
    old, new = repairs / "old.journal.jsonl", repairs / "new.journal.jsonl"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    for line in lines:
        shell.run(line, settings)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("page", ["alerts.md", "watch-beside-production.md"])
def test_the_page_comes_true(shell: PageShell, page: str) -> None:
    """Every script of it ends as it says."""
    assert shell.page(page)


def test_the_commands_of_the_other_pages_come_true(shell: PageShell) -> None:
    """In the order of their table, with a row that one node alone holds, until one of them mends it."""
    nodes = RunningCluster([f"{BASE}.{n}" for n in (1, 2, 3)], 9042)
    nodes.on(3, "INSERT INTO shop.orders (id, buyer, cents) VALUES (7000, 'late', 1)")
    nodes.close()
    policy = shell.directory / ".config" / "consistency" / "config.toml"
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text("[repair]\n")
    for command, told in ACCOUNT.items():
        if isinstance(told, Run):
            line = f"{shell.here(command)} {told.also}  # exit code {told.code}"
            shell.run(f"mkdir -p others && cd others\n{line}\n")


def test_the_tutorial_cleans_up(shell: PageShell) -> None:
    """Its last line leaves nothing."""
    shell.run(next(block for block in blocks(TUTORIAL) if block.startswith(DOWN)))
    assert not shell.box.exists()
