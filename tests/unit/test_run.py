"""One check as a whole: what it opened is closed, whatever ends it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TextIO

import pytest

from consistency.checking.observer import Silent
from consistency.checking.run import run_check
from consistency.checking.tasks import CheckOptions
from consistency.cluster.clock import SystemClock
from consistency.results import findings
from tests.unit.fake_cluster import FakeCluster, port


class Broken(Silent):
    """Watches until it cannot show what it is told of at one place."""

    def __init__(self, place: str) -> None:
        setattr(self, place, self._break)

    def _break(self, *_: object) -> None:
        raise OSError("the terminal is gone")


@pytest.mark.parametrize("place", ["scan_started", "leaf_digested", "found", "settling"])
def test_the_findings_file_is_closed_whatever_is_raised(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier file stays, and what was found is beside it, marked partial."""
    opened: list[TextIO] = []
    honest = findings._begun

    def open_private(path: Path, option: str) -> TextIO:
        opened.append(honest(path, option))
        return opened[-1]

    monkeypatch.setattr(findings, "_begun", open_private)
    cluster = FakeCluster().fill(6)
    del cluster.rows["10.0.0.3:9042"][4]
    path = tmp_path / "f.jsonl"
    path.write_text("of an earlier run")
    with pytest.raises(OSError, match="the terminal is gone"):
        asyncio.run(
            run_check(
                port(cluster), SystemClock(), CheckOptions(findings=path, settle_window_s=0), observer=Broken(place)
            )
        )
    assert [file.closed for file in opened] == [True]
    assert path.read_text() == "of an earlier run"
    assert (tmp_path / "f.jsonl.partial").exists()


def test_a_check_that_is_cancelled_closes_the_findings_file(tmp_path: Path) -> None:
    """A library's caller may cancel it at any moment: an open file would be a warning, and warnings are errors."""

    async def cancelled() -> None:
        cluster = FakeCluster().fill(6)
        cluster.on_digest = asyncio.Event().wait
        options = CheckOptions(findings=tmp_path / "f.jsonl", settle_window_s=0)
        check = asyncio.create_task(run_check(port(cluster), SystemClock(), options))
        await asyncio.sleep(0.1)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check

    asyncio.run(cancelled())
    assert [file.name for file in tmp_path.iterdir()] == ["f.jsonl.partial"]
