"""Processes that end with us, and strangers that are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sandbox.keeper import CAP_IPC_LOCK
from sandbox.process import KeptProcess, ProcessId, run

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = """
import sys
from pathlib import Path
from sandbox.keeper import CAP_IPC_LOCK
from sandbox.process import KeptProcess
kept = KeptProcess([sys.executable, "-c", "import time; time.sleep(60)"], Path(sys.argv[1]), Path.cwd())
print(kept.id.pid, kept.id.started, flush=True)
input()
"""


def wait_gone(process: ProcessId) -> bool:
    """Wait a little for a process to go."""
    deadline = time.monotonic() + 10
    while process.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    return not process.alive


def test_a_recycled_pid_is_not_ours() -> None:
    """The same pid with another start time is a stranger: not alive to us, never signalled."""
    me = psutil.Process()
    assert ProcessId(me.pid, me.create_time()).alive
    stranger = ProcessId(me.pid, me.create_time() - 100)
    assert not stranger.alive
    stranger.signal(signal.SIGKILL)
    assert stranger.wait(0)


def test_killing_ends_the_process_and_its_keeper(tmp_path: Path) -> None:
    """Nothing is left behind of it; other tests' nodes may run meanwhile."""
    before = set(psutil.Process().children())
    kept = KeptProcess(SLEEP, tmp_path / "out", tmp_path)
    assert kept.id.alive
    kept.kill()
    assert not kept.id.alive
    assert not set(psutil.Process().children()) - before


def test_a_released_process_outlives_its_keeper(tmp_path: Path) -> None:
    """It stays after release, and can be frozen and ended by its id."""
    kept = KeptProcess(SLEEP, tmp_path / "out", tmp_path)
    kept.release()
    try:
        assert kept.id.alive
        kept.id.signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while not kept.id.frozen and time.monotonic() < deadline:
            time.sleep(0.02)
        assert kept.id.frozen
    finally:
        kept.id.signal(signal.SIGKILL)
    assert wait_gone(kept.id)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_ends_when_its_starter_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    """Even SIGKILL, which nobody can handle, closes the pipe."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, started = parent.stdout.readline().split()
        process = ProcessId(int(pid), float(started))
        assert process.alive
        os.kill(parent.pid, number)
        parent.wait()
    assert wait_gone(process)


def test_output_goes_to_the_file(tmp_path: Path) -> None:
    """Both streams, appended."""
    out = tmp_path / "out"
    out.write_text("before\n")
    kept = KeptProcess([sys.executable, "-c", "import os; os.system('echo a; echo b >&2')"], out, tmp_path)
    assert wait_gone(kept.id)
    kept.reap()
    assert out.read_text() == "before\na\nb\n"


def test_a_node_and_our_helpers_get_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cassandra writes its environment nowhere, and need not have our password all the same."""
    monkeypatch.setenv("CONSISTENCY_PASSWORD", "canary")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dours")
    helper = run(["/bin/sh", "-c", "env"]).stdout
    kept = KeptProcess(["/bin/sh", "-c", f"env > {tmp_path}/env; sleep 60"], tmp_path / "log", tmp_path)
    try:
        for _ in range(200):
            if (tmp_path / "env").exists() and "JAVA_TOOL_OPTIONS" in (tmp_path / "env").read_text():
                break
            time.sleep(0.05)
        node = (tmp_path / "env").read_text()
    finally:
        kept.kill()
    for text in (helper, node):
        assert "canary" not in text
        assert "JAVA_TOOL_OPTIONS=-Dours" in text
        assert "PATH=" in text


def test_a_node_may_lock_no_memory(tmp_path: Path) -> None:
    """Root's Cassandra would fill, and keep from all others, memory that it never uses."""
    rights = Path("/proc/self/status")
    if not rights.exists():
        pytest.skip("only Linux tells what a process may do in /proc")
    asks = f"(ulimit -l; grep CapBnd {rights}) > {tmp_path}/asked; mv {tmp_path}/asked {tmp_path}/told"
    kept = KeptProcess(["/bin/sh", "-c", asks], tmp_path / "log", tmp_path)
    assert wait_gone(kept.id)
    kept.reap()
    kilobytes, _, bounds = (tmp_path / "told").read_text().split()
    assert kilobytes == "64"
    assert not int(bounds, 16) & 1 << CAP_IPC_LOCK
