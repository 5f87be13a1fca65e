"""`consistency check` as a process of its own: to be signalled, killed and measured."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO

from tests.support.cluster import RunningCluster


class Checker:
    """One `consistency check` on a cluster; `memory_mb` is the most it held, known once it has ended."""

    def __init__(
        self,
        cluster: RunningCluster,
        *arguments: str,
        command: str = "check",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115 - closed with us
        self._kept: dict[IO[str], str] = {}
        self.memory_mb = 0.0
        self.code: int | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "consistency", command, *arguments],
            env={**cluster.environ(), **(environ or {})},
            stdout=self._out,
            stderr=self._err,
        )

    def wait(self, seconds: float) -> int:
        """Wait for the end and return the exit code, negative for a signal; AssertionError where it hangs."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.code = self.process.returncode = os.waitstatus_to_exitcode(status)
                self.memory_mb = usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
                return self.code
            if time.monotonic() > deadline:
                msg = f"it did not end within {seconds:.0f} s:\n{self.stderr}"
                raise AssertionError(msg)
            time.sleep(0.02)
        return self.code

    @property
    def stdout(self) -> str:
        """What it printed."""
        return self._read(self._out)

    @property
    def stderr(self) -> str:
        """What it said on standard error."""
        return self._read(self._err)

    def _read(self, file: IO[str]) -> str:
        if file.closed:
            return self._kept[file]
        file.seek(0)
        return file.read()

    def __enter__(self) -> Checker:  # noqa: PYI034 - Self is 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            self.process.kill()
            self.process.wait()
        for file in (self._out, self._err):
            self._kept[file] = self._read(file)
            file.close()
