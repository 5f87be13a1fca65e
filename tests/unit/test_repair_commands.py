"""What the commands that write to a cluster share: what follows them, and what they refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consistency.errors import ConnectError, ConsistencyError, ReplicaUnavailable, UsageError
from repair.applying.guard import PlanRefused
from repair.applying.outcomes import Tally
from repair.cli.progress import Ticker
from repair.cli.running import carried_out, free_journal, require_new_journal, tell_what_follows
from repair.keeping.entries import Result

VANISH = ("let them vanish", 7)


def told(tally: Tally, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is printed after an apply."""
    tell_what_follows(tally, "sync", "a journal", ("--hosts", "10.0.0.1"), VANISH)
    return " ".join(capsys.readouterr().out.split())


def ended(result: Result, total: int = 1) -> Tally:
    """Return the tally of one row that ended."""
    tally = Tally(total)
    tally.add(result, "why")
    return tally


def test_nothing_follows_an_apply_that_came_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row has an outcome that a resume would not change."""
    assert told(ended(Result.VERIFIED), capsys) == ""
    assert told(ended(Result.DIVERGENT), capsys) == ""


@pytest.mark.parametrize("tally", [ended(Result.VERIFIED, total=2), ended(Result.REFUSED)])
def test_a_resume_follows_rows_without_an_end(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    """Not started, or refused: the command is whole, with a journal's name that a shell takes."""
    said = told(tally, capsys)
    assert "consistency sync resume 'a journal' --hosts 10.0.0.1" in said
    assert "--max-deletes" not in said


def test_where_too_many_rows_vanished_both_ways_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Back, or on with a bound that lets the others vanish."""
    tally = ended(Result.VERIFIED, total=9)
    tally.stopped_at = 3
    said = told(tally, capsys)
    assert "sync undo 'a journal'" in said
    assert "sync resume 'a journal' --max-deletes 7" in said
    assert "let them vanish" in said


def test_a_journal_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that exists is named with the command that goes on with it; a plan names one that does not."""
    monkeypatch.chdir(tmp_path)
    assert free_journal() == "journal.jsonl"
    (tmp_path / "journal.jsonl").touch()
    (tmp_path / "journal-2.jsonl").touch()
    assert free_journal() == "journal-3.jsonl"
    (tmp_path / "journal").touch()
    with pytest.raises(UsageError, match="exists: continue it with 'sync resume"):
        require_new_journal(str(tmp_path / "journal"), "sync")
    require_new_journal(str(tmp_path / "new"), "repair")
    with pytest.raises(UsageError, match="is a directory; name a file"):
        require_new_journal(str(tmp_path), "sync")
    with pytest.raises(UsageError, match="is not a regular file"):
        require_new_journal("/dev/full", "sync")


@pytest.mark.parametrize("error", [ConnectError("no node answers at h"), ReplicaUnavailable("no node answers at h")])
def test_nodes_that_stop_answering_leave_a_way_on(error: ConsistencyError, tmp_path: Path) -> None:
    """What ends an apply says where it goes on from; before there is a journal nothing has begun."""
    journal = tmp_path / "j"

    async def work(ticker: Ticker, stop: asyncio.Event) -> Tally:
        raise error

    for begun in (False, True):
        if begun:
            journal.touch()
        with pytest.raises(ConsistencyError) as ended:
            carried_out(work, "sync resume", str(journal))
        assert ended.value.exit_code == error.exit_code
        assert ("'sync resume" in str(ended.value)) is begun
        assert str(ended.value).startswith("no node answers at h")


def test_what_ends_an_apply_for_good_names_the_journal(tmp_path: Path) -> None:
    """A plan that no longer fits is not gone on with, but some of its rows may have been repaired."""
    journal = tmp_path / "j"

    async def work(ticker: Ticker, stop: asyncio.Event) -> Tally:
        raise PlanRefused("the ring has changed")

    for begun in (False, True):
        if begun:
            journal.touch()
        with pytest.raises(PlanRefused, match="the ring has changed") as ended:
            carried_out(work, "repair resume", str(journal))
        assert (f"{journal} tells what was done" in str(ended.value)) is begun
