"""A check by the workers of a Dask cluster: a scheduler and workers of its own, Cassandra a stand-in."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the extra dask is not installed")

from click.testing import CliRunner
from distributed.protocol import pickle as sending

from consistency.checking.observer import ProgressTeller
from consistency.checking.run import run_check
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cli import main
from consistency.cluster.clock import SystemClock
from consistency.errors import ConnectError
from consistency.results.comparison import Comparison
from consistency.results.report import Report
from consistency.results.verdict import ExitCode, Verdict
from consistency.spreading.checked import run_spread
from consistency.spreading.dask_workers import DaskWorkers
from consistency.spreading.messages import Terms
from repair.keeping.planfile import Plan
from repair.planning.planner import PlanOptions, make_plan
from repair.planning.spread import Shared
from tests.support.stand_in_worker import cluster as stand_in
from tests.unit.fake_cluster import FakeCluster, opener, port
from tests.unit.test_compared_spreading import DAMAGED, compared
from tests.unit.test_compared_spreading import ROWS as COMPARED_ROWS
from tests.unit.test_spreading import Reading, unlike

# What the libraries warn of in their own threads and at their end is not ours.
pytestmark = pytest.mark.filterwarnings("default")
ROWS = 200
OPTIONS = CheckOptions(settle_window_s=0.0, scan=ScanOptions(leaf_rows=3))


@dataclass
class Running:
    """A scheduler and its workers."""

    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]
    number: int

    @property
    def address(self) -> str:
        """Where the scheduler is."""
        return f"tcp://127.0.0.1:{self.number}"


@contextmanager
def dask(workers: int, delay_s: float, *damaged: int, rows: int = ROWS) -> Iterator[Running]:
    """Run a scheduler with so many workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.support.dask_stand_ins"]
    env = {**os.environ, "CONSISTENCY_USERNAME": "checker", "CONSISTENCY_PASSWORD": "a-password-of-the-worker"}

    def begin(*more: object) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen([*words, *map(str, more)], env=env, stdout=quiet, stderr=quiet)

    running = Running(begin("scheduler", number), [], number)
    try:
        running.workers += [begin("worker", number, rows, delay_s, *damaged) for _ in range(workers)]
        asyncio.run(_met(running, workers))
        yield running
    finally:
        for process in (*running.workers, running.scheduler):
            process.kill()
            process.wait()


async def _met(running: Running, workers: int) -> None:
    """Wait for the scheduler to know all workers."""
    for _ in range(100):
        try:
            crew = await DaskWorkers.connected(running.address)
        except ConnectError as error:
            if not workers and "has no worker" in str(error):
                return
        else:
            size = crew.size
            await crew.close()
            if size == workers:
                return
        await asyncio.sleep(0.2)
    pytest.fail("Dask did not start")


def by_dask(
    running: Running,
    *damaged: int,
    beside: Callable[[], Awaitable[None]] | None = None,
    observer: Any = None,
    stop: Callable[[asyncio.Event], Awaitable[None]] | None = None,
) -> Report:
    """Check the stand-in's table by Dask's workers."""

    async def run() -> Report:
        cluster = stand_in(ROWS, 0.0, [*damaged])
        event = asyncio.Event()
        work = beside() if beside else stop(event) if stop else asyncio.sleep(0)
        aside = asyncio.ensure_future(work)
        try:
            crew = await DaskWorkers.connected(running.address)
            return await run_spread(port(cluster), SystemClock(), OPTIONS, crew, Terms(), observer, event)
        finally:
            aside.cancel()
            await asyncio.gather(aside, return_exceptions=True)

    return asyncio.run(run())


def test_dask_finds_what_one_process_finds_and_is_sent_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is pickled is searched; progress comes meanwhile."""
    pickled: list[bytes] = []
    dumps = sending.dumps

    def recorded(*words: Any, **more: Any) -> bytes:
        pickled.append(dumps(*words, **more))
        return pickled[-1]

    monkeypatch.setattr(sending, "dumps", recorded)
    monkeypatch.setenv("CONSISTENCY_PASSWORD", "a-password-of-the-driver")
    alone = asyncio.run(run_check(port(stand_in(ROWS, 0.0, [5, 120])), SystemClock(), OPTIONS))
    progress: list[Any] = []
    with dask(2, 0.02, 5, 120) as running:
        report = by_dask(running, 5, 120, observer=ProgressTeller(progress.append))
    assert unlike(alone, report) == []
    assert report.findings_by_kind == {"stale": 2}
    assert progress[-1].leaves_done > 0
    sent = b"".join(pickled)
    assert b"read_unit" in sent
    assert [word for word in (b"a-password", b"password", b"another", b"value 5") if word in sent] == []


def test_dask_compares_two_clusters_and_is_sent_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of neither side: workers connect to both by themselves."""
    pickled: list[bytes] = []
    dumps = sending.dumps

    def recorded(*words: Any, **more: Any) -> bytes:
        pickled.append(dumps(*words, **more))
        return pickled[-1]

    monkeypatch.setattr(sending, "dumps", recorded)

    async def run() -> Comparison:
        return await compared(await DaskWorkers.connected(running.address))

    with dask(2, 0.0, *DAMAGED, rows=COMPARED_ROWS) as running:
        for name in ("CONSISTENCY_PASSWORD", "CONSISTENCY_TARGET_PASSWORD"):
            monkeypatch.setenv(name, "a-password-of-the-driver")
        result = asyncio.run(run())
    assert {unread.reason for table in result.tables for unread in table.report.unread} == set()
    assert (result.verdict, result.findings_by_kind) == (Verdict.DIVERGENT, {"value": 2})
    assert result.coverage.complete
    sent = b"".join(pickled)
    assert b"read_unit" in sent
    assert [word for word in (b"a-password", b"password", b"another", b"value 7") if word in sent] == []


def test_dask_decides_the_rows_of_a_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two plans after each other, each by an order of its own: the same rows as by one process."""
    monkeypatch.setattr("repair.deciding.case._require_own_token", lambda _: None)  # its tokens are made up
    monkeypatch.setattr("repair.planning.planner.secrets.token_hex", lambda size: "5a" * size)
    cluster, clock = port(stand_in(ROWS, 0.0, [5, 120])), SystemClock()
    path = tmp_path / "findings"
    asyncio.run(run_check(cluster, clock, replace(OPTIONS, findings=path)))

    async def plan(address: str | None) -> Plan:
        shared = None
        if address is not None:
            shared = Shared(cluster, clock, await DaskWorkers.connected(address), Terms())
        return await make_plan(cluster, clock, path, PlanOptions(), None, shared)

    alone = asyncio.run(plan(None))
    with dask(2, 0.0, 5, 120) as running:
        plans = [asyncio.run(plan(running.address)) for _ in range(2)]
    assert len(alone.rows) == 2
    assert [made.rows for made in plans] == [alone.rows] * 2


def test_a_worker_that_is_killed_changes_nothing() -> None:
    """Dask has another one read what it had."""
    reading = Reading()
    with dask(3, 0.3, 7) as running:

        async def kill() -> None:
            for worker in running.workers[:2]:
                await reading.some.wait()
                worker.kill()
                await asyncio.sleep(0.5)

        report = by_dask(running, 7, beside=kill, observer=reading)
    assert (report.verdict, report.findings_by_kind) == (Verdict.DIVERGENT, {"stale": 1})
    assert report.coverage.complete


def test_without_its_scheduler_a_run_ends_with_what_was_read() -> None:
    """Exit code 3, and the reason with each range."""
    reading = Reading()
    with dask(2, 0.5) as running:

        async def kill() -> None:
            await reading.some.wait()
            running.scheduler.kill()

        report = by_dask(running, beside=kill, observer=reading)
    assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE)
    assert any("does not answer any more" in unread.reason for unread in report.tables[0].unread)


def test_an_interrupt_reaches_the_workers() -> None:
    """They end what is under way with a true account of it."""
    reading = Reading()

    async def interrupt(stop: asyncio.Event) -> None:
        await reading.some.wait()
        stop.set()

    with dask(2, 0.3) as running:
        report = by_dask(running, observer=reading, stop=interrupt)
    assert (report.verdict, report.interrupted) == (Verdict.UNKNOWN, True)
    assert report.coverage.completed < report.coverage.planned


def test_an_engine_that_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No scheduler, or one without a worker: one line that says what to start, and exit code 4."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("consistency.cluster.session.open_cluster", opener(FakeCluster().fill(5)))
    monkeypatch.setattr("consistency.spreading.dask_workers._CONNECT_S", 2.0)
    result = CliRunner().invoke(main, ["check", "--engine", "dask:tcp://127.0.0.1:9"])
    assert result.exit_code == ExitCode.COULD_NOT_RUN
    assert "no scheduler answers there" in result.output
    with dask(0, 0.0) as running:
        result = CliRunner().invoke(main, ["check", "--engine", f"dask:{running.address}"])
    assert result.exit_code == ExitCode.COULD_NOT_RUN
    assert "has no worker; start some: dask worker" in result.output
