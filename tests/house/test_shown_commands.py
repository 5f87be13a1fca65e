"""Each command of README.md, deploy/ and docs/ is run by a test, or listed with the reason why not."""

from __future__ import annotations

import re

from tests.house.source import ROOT, listed
from tests.support.how_to import PAGES
from tests.support.shown_commands import ACCOUNT, Elsewhere, NotRun, run_by_a_page, shown_commands

_NAMED = re.compile(r"(?:tests|docs)/[\w./-]*\w")
TABLE = "tests/support/shown_commands.py"


def test_every_command_is_run_or_has_a_reason() -> None:
    """A line that is added to a page is added to the table, or nobody knows whether it is true."""
    known = set(ACCOUNT) | run_by_a_page()
    found = [f"{page}: {command}" for page, command in shown_commands() if command not in known]
    assert not found, listed(found, f"say in {TABLE} who runs it, or why nobody does:")


def test_the_table_has_nothing_that_no_page_shows() -> None:
    """A line that left its page leaves the table."""
    shown = {command for _, command in shown_commands()}
    found = [command for command in ACCOUNT if command not in shown]
    assert not found, listed(found, f"take it out of {TABLE}:")


def test_what_runs_a_command_exists_and_a_reason_says_something() -> None:
    """A test by its file, in a reason too; a reason in a sentence."""
    found = [
        f"{command}: {told}"
        for command, told in ACCOUNT.items()
        if (isinstance(told, Elsewhere) and not (ROOT / told.test).is_file())
        or (isinstance(told, NotRun) and len(told.reason.split()) < 4)
        or (isinstance(told, NotRun) and not all((ROOT / name).exists() for name in _NAMED.findall(told.reason)))
    ]
    assert not found, listed(found, "name a test that is there, or the reason:")


def test_the_pages_that_run_whole_are_run() -> None:
    """Each is named by a test of real nodes, the tutorial by its name in how_to.py."""
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests" / "cluster").glob("test_*.py"))
    found = [page for page in PAGES if page not in tests and "TUTORIAL" not in tests]
    found += [page for page in PAGES if not page.endswith("tutorial.md") and f'"{page}"' not in tests]
    assert not found, listed(found, "run it in tests/cluster/test_pages.py:")
