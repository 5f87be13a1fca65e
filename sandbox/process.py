"""Processes of nodes: started under a keeper, and known by pid and start time, so that no other process is killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from sandbox.errors import StartError

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|JAVA_HOME|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS"
    r"|LD_PRELOAD|(?:DY)?LD_LIBRARY_PATH|MALLOC_ARENA_MAX"
)
"""The variables that Java and Cassandra read, besides those that every program needs."""
KEEPER = Path(__file__).with_name("keeper.py")
# The start time is derived from the boot time, which moves by a little when the clock is set.
START_TOLERANCE_S = 2.0
POLL_S = 0.05


@dataclass(frozen=True)
class ProcessId:
    """One process, told apart from a later one that got the same pid."""

    pid: int
    started: float

    def find(self) -> psutil.Process | None:
        """Return the process while it lives."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > START_TOLERANCE_S:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None

    @property
    def alive(self) -> bool:
        """Whether it still runs (or is frozen)."""
        return self.find() is not None

    @property
    def frozen(self) -> bool:
        """Whether it was stopped by SIGSTOP."""
        process = self.find()
        try:
            return process is not None and process.status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        process = self.find()
        if process is not None:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                return

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False when it still lives after the timeout.

        A zombie has ended: in a container the first process may never collect it.
        """
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


class KeptProcess:
    """A node's process under its keeper; until it is released it ends with us."""

    def __init__(self, command: Sequence[str], output: Path, cwd: Path) -> None:
        with output.open("ab") as errors:
            self._keeper = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", str(KEEPER), str(output), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env=child_environment(),
                # We handle Ctrl-C on the terminal ourselves.
                start_new_session=True,
            )
        line = _pipe(self._keeper.stdout).readline()
        _pipe(self._keeper.stdout).close()
        if not line.strip():
            self.kill()
            msg = f"{command[0]}: could not be started; see {output}"
            raise StartError(msg)
        pid = int(line)
        try:
            self.id = ProcessId(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            self.kill()
            msg = f"{command[0]}: ended at once; see {output}"
            raise StartError(msg) from None

    def release(self) -> None:
        """Let the node outlive us; its keeper exits."""
        pipe = _pipe(self._keeper.stdin)
        try:
            pipe.write(b"release\n")
            pipe.close()
        except OSError:
            pass  # the keeper has ended, and so has the node; its next status shows that
        self._keeper.wait()

    def kill(self) -> None:
        """End the node and its keeper now."""
        with suppress(OSError):  # a keeper that is gone has closed its end
            _pipe(self._keeper.stdin).close()
        self._keeper.wait()

    def reap(self) -> None:
        """Collect the keeper of a node that has ended by itself."""
        self.kill()


def run(command: Sequence[str], *, capture: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of our helper programs to its end; without `capture` it prints to our output."""
    return subprocess.run(  # noqa: S603 - ours
        command, capture_output=capture, text=True, check=False, env=child_environment()
    )


def child_environment() -> dict[str, str]:
    """Return the part of our environment that a program gets, without passwords and secrets that may be in it."""
    return {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - we asked for a pipe
    return stream
