"""The sandbox with real nodes: few tests, one node each, because every start costs seconds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sandbox import Sandbox, SandboxError, SandboxOptions, StartError
from tests.support.addresses import address

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ADDRESS = address("one node")
UP = [sys.executable, "-m", "sandbox", "up", "--nodes", "1", "--heap", "512m", "--address-base", ADDRESS]


def options(directory: Path, **more: object) -> SandboxOptions:
    """Describe one small node."""
    plain = SandboxOptions(dir=directory / "box", nodes=1, heap="512m", address_base=ADDRESS).to_json()
    return SandboxOptions.from_json({**plain, **more})


def processes_of(directory: Path) -> list[psutil.Process]:
    """Find every process that has the directory in its command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(directory) in part for part in process.info["cmdline"] or ()) and process.pid != os.getpid()
    ]


def said_by(directory: Path) -> str:
    """Return what the node logged."""
    return (directory / "box" / "node1" / "logs" / "system.log").read_text()


def wait_for(condition: object, seconds: float = 30) -> bool:
    """Poll a callable until it is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The reason from its own log, in one line, with the log's name; and nothing keeps running."""
    with pytest.raises(StartError, match=r"node 1 did not start: .*\[no_such_key\].* \(log: .*system\.log\)"):
        Sandbox(options(tmp_path, settings={"no_such_key": "1"})).up()
    assert not processes_of(tmp_path)


def test_a_killed_starter_leaves_nothing_running(tmp_path: Path) -> None:
    """SIGKILL while `up` waits for its node."""
    with subprocess.Popen([*UP, "--dir", str(tmp_path / "box")], stderr=subprocess.PIPE) as parent:
        assert wait_for((tmp_path / "box" / "node1" / "logs" / "system.log").exists)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_for(lambda: not processes_of(tmp_path), seconds=10)


def test_one_node_through_its_life(tmp_path: Path) -> None:
    """Up, asked by nodetool, frozen, woken, killed, started on its own data; gone when the block ends."""
    with Sandbox(options(tmp_path)) as box:
        assert [node.state for node in box.nodes] == ["up"]
        assert "JNA mlockall successful" not in said_by(tmp_path)
        assert "approximate time-check" not in said_by(tmp_path)  # a task that runs 500 times a second
        assert f"UN  {ADDRESS}" in box.nodetool(1, "status").stdout
        host_id = box.nodetool(1, "info").stdout.splitlines()[0]
        assert box.nodetool(1, "no-such-command").returncode != 0

        other = Sandbox(options(tmp_path / "other"))
        (tmp_path / "other").mkdir()
        with pytest.raises(SandboxError, match=rf"{ADDRESS}:9042 .* in use"):
            other.up()

        box.stop(1, "freeze")
        assert wait_for(lambda: box.nodes[0].state == "frozen")
        box.start(1)
        assert box.nodes[0].state == "up"

        box.stop(1, "kill")
        assert box.nodes[0].state == "down"
        box.start(1)
        assert box.nodetool(1, "info").stdout.splitlines()[0] == host_id
        with socket.create_connection((ADDRESS, 9042), timeout=5):
            pass
    assert not processes_of(tmp_path)
