"""Stand-ins for `ssh` and `cqlsh`, and a shorter `sleep`: an operator's script runs unchanged on the nodes of a test.

Each is a small program that sends its words to the test and prints what comes back. Nodes are started and
stopped by the test's own process, so that they die with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Listener
from pathlib import Path

from tests.support.cluster import RunningCluster

_KEY = b"stand-ins"
_PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.support.stand_ins import ask
sys.exit(ask({port}, [{name!r}, *sys.argv[1:]]))
"""
_SLEEP = """#!/bin/sh
exec /bin/sleep 0.5
"""
_CONSISTENCY = """#!/bin/sh
exec {python} -m consistency "$@"
"""


def ask(port: int, words: list[str]) -> int:
    """Send words to the test, print its answer and return its exit code."""
    with Client(("127.0.0.1", port), authkey=_KEY) as connection:
        connection.send(words)
        code, text = connection.recv()
    sys.stdout.write(text)
    return int(code)


class StandIns:
    """Runs scripts in which `ssh`, `cqlsh` and `consistency` mean the nodes of one cluster."""

    def __init__(self, cluster: RunningCluster, directory: Path) -> None:
        self.said: list[tuple[str, ...]] = []
        self._cluster = cluster
        self._directory = directory
        self._listener = Listener(("127.0.0.1", 0), authkey=_KEY)
        root, python = str(Path(__file__).resolve().parents[2]), sys.executable
        port = self._listener.address[1]
        for name in ("ssh", "cqlsh"):
            self._write(name, _PROGRAM.format(python=python, root=root, port=port, name=name))
        self._write("consistency", _CONSISTENCY.format(python=python))
        self._write("sleep", _SLEEP)
        self._root = root
        threading.Thread(target=self._serve, daemon=True).start()

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """Run a script of an operator's; the addresses 10.0.0.N in it are the cluster's nodes."""
        for number, host in enumerate(self._cluster.hosts, start=1):
            script = script.replace(f"10.0.0.{number}", host)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("CONSISTENCY_")}
        environ["CONSISTENCY_HOSTS"] = ",".join(self._cluster.hosts)
        environ["PATH"] = f"{self._directory}:{environ['PATH']}"
        environ["PYTHONPATH"] = self._root
        environ["WAIT"] = "120"
        return subprocess.run(
            ["sh", "-c", script, "script", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environ,
            cwd=self._directory,
        )

    def close(self) -> None:
        """Take no more calls."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            with connection:
                name, *words = connection.recv()
                self.said.append((name, *words))
                act: Callable[..., str] = {"ssh": self._ssh, "cqlsh": self._cqlsh}[name]
                try:
                    connection.send((0, act(*words)))
                except Exception as error:  # noqa: BLE001 - the script is told, and its test fails
                    connection.send((1, f"{type(error).__name__}: {error}\n"))

    def _ssh(self, host: str, command: str) -> str:
        number, sandbox = self._cluster.hosts.index(host) + 1, self._cluster.sandbox
        assert sandbox is not None
        if "systemctl restart cassandra" in command:
            sandbox.nodetool(number, "drain")
            sandbox.stop(number)
            sandbox.start(number)
            return ""
        if "statusbinary" in command:
            return sandbox.nodetool(number, "statusbinary").stdout
        assert command.startswith("nodetool "), command
        return sandbox.nodetool(number, *command.split()[1:]).stdout

    def _cqlsh(self, host: str, option: str, cql: str) -> str:
        assert (host in self._cluster.hosts, option) == (True, "-e")
        self._cluster.ddl(cql)
        return ""
