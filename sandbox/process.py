"""Processes of nodes: started under a keeper, known by pid and start time, so that no stranger is ever killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from sandbox.errors import StartError

KEEPER = Path(__file__).with_name("keeper.py")
# The start time is derived from the boot time, which moves by a little when the clock is set.
START_TOLERANCE_S = 2.0


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
        """Send a signal, if it still lives."""
        process = self.find()
        if process is not None:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                return

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False when it still lives after the timeout."""
        process = self.find()
        if process is None:
            return True
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            return False
        return True


class KeptProcess:
    """A node's process under its keeper: it dies with us until it is released."""

    def __init__(self, command: Sequence[str], output: Path, cwd: Path) -> None:
        with output.open("ab") as errors:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), str(output), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                # A Ctrl-C on the terminal is ours to handle, in order.
                start_new_session=True,
            )
        line = _pipe(self._keeper.stdout).readline()
        _pipe(self._keeper.stdout).close()
        if not line.strip():
            self.kill()
            raise StartError(f"{command[0]}: could not be started; see {output}")
        pid = int(line)
        try:
            self.id = ProcessId(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            self.kill()
            raise StartError(f"{command[0]}: ended at once; see {output}") from None

    def release(self) -> None:
        """Let the node outlive us; its keeper goes."""
        pipe = _pipe(self._keeper.stdin)
        try:
            pipe.write(b"release\n")
            pipe.close()
        except OSError:
            pass  # the keeper is gone, and so is the node: the next look at it will tell
        self._keeper.wait()

    def kill(self) -> None:
        """End the node and its keeper now."""
        try:
            _pipe(self._keeper.stdin).close()
        except OSError:
            pass  # a keeper that is gone has closed its end
        self._keeper.wait()

    def reap(self) -> None:
        """Collect the keeper of a node that has ended by itself."""
        self.kill()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # we asked for a pipe
    return stream

