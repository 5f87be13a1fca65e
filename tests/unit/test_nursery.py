"""The process that local workers are forked off: they share what it has loaded, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from consistency.errors import ConnectError
from consistency.spreading import nursery
from consistency.spreading.local import LocalWorkers
from consistency.spreading.nursery import Nursery, begin_early, take_nursery
from tests.unit.test_spreading import Reading, by_processes, stand_ins

SLEEPER = "import os, time; from consistency.spreading.nursery import fork_workers; fork_workers(lambda _: {})"
"""A nursery whose workers do something with their descriptor and end."""


def forking(work: str) -> tuple[str, ...]:
    """Return the words of a nursery whose workers do this."""
    return sys.executable, "-c", SLEEPER.format(work)


def ended(pid: int) -> bool:
    """Whether a process is gone within a few seconds."""
    until = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_workers_are_forked_off_one_process_that_ends_after_them() -> None:
    """Each has lines of its own, and the nursery buries them all."""

    async def run() -> tuple[set[int], list[bytes], list[int], bool]:
        began = Nursery(forking("(os.write(_, str(os.getpid()).encode()), os.read(0, 1), os._exit(0))"))
        forked = [await began.fork() for _ in range(3)]
        parents = {psutil.Process(each.pid).ppid() for each in forked}
        loop = asyncio.get_running_loop()
        said = [await loop.sock_recv(each.says, 100) for each in forked]
        for each in forked:
            each.hears.close()
            each.says.close()
        await began.end()
        return parents, said, [each.pid for each in forked], began.gone

    parents, said, pids, gone = asyncio.run(run())
    assert len(parents) == 1
    assert os.getpid() not in parents
    assert [int(text) for text in said] == pids
    assert gone
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_nursery_that_ends_is_said_and_one_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it for ever."""
    monkeypatch.setattr(nursery, "_PATIENCE_S", 0.3)

    async def run() -> None:
        ends = Nursery((sys.executable, "-c", "pass"))
        with pytest.raises(ConnectError, match="ended before"):
            await ends.fork()
        await ends.end()
        hangs = Nursery((sys.executable, "-c", "import time; time.sleep(600)"))
        await hangs.end()
        assert hangs.gone

    asyncio.run(run())


def test_a_nursery_ends_with_its_driver() -> None:
    """Also if the driver is killed before it has asked for a worker."""
    code = "import time; from consistency.spreading.nursery import Nursery; n = Nursery();"
    code += "print(n._process.pid, flush=True); time.sleep(600)"
    driver = subprocess.Popen((sys.executable, "-c", code), stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    driver.kill()
    driver.communicate()
    assert ended(pid)


@pytest.mark.timeout(120)
def test_a_nursery_that_is_killed_is_begun_again_for_a_worker_that_is_to_be_replaced() -> None:
    """It is killed, then the only worker: another one takes its place, and what it had is read again."""
    reading, killed = Reading(), list[int]()

    async def kill(crew: LocalWorkers, _: asyncio.Event) -> None:
        await reading.some.wait()
        lost = crew.pids[0]
        parent = psutil.Process(lost).ppid()
        for pid in (parent, lost):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    report = by_processes(1, stand_ins(0.1, 7), 7, beside=kill, observer=reading)
    assert len(killed) == 2
    assert report.findings_by_kind == {"stale": 1}
    assert report.coverage.complete


def test_a_nursery_that_was_begun_early_is_taken_by_whoever_wants_that_one() -> None:
    """It has loaded the program while its driver did; one of other words is another one."""

    async def look() -> None:
        begin_early()
        (early,) = nursery._early
        other = take_nursery((sys.executable, "-c", "pass"))
        assert other is not early
        assert take_nursery(nursery.WORKERS) is early
        assert nursery._early == []
        await other.end()
        await early.end()

    asyncio.run(look())


@pytest.mark.parametrize(("words", "early"), [(["--workers", "0"], 1), (["--workers=0"], 1), (["--engine", "x"], 0)])
def test_a_command_that_is_asked_for_workers_begins_the_nursery_before_it_loads_itself(
    words: list[str], early: int
) -> None:
    """So that both load at the same time."""
    code = (
        "import sys; from consistency.cli import group, main\n"
        "group.begin_early = lambda: print('consistency.cli.check' in sys.modules)\n"
        f"sys.argv = {['consistency', 'check', *words]!r}; main()"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout.split() == ["False"] * early
