"""`consistency check` as a process of its own: to be signalled, killed and measured."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
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
            self.code = self.process.poll()
            self.memory_mb = max(self.memory_mb, self._peak_mb())
            if time.monotonic() > deadline:
                msg = f"it did not end within {seconds:.0f} s:\n{self.stderr}"
                raise AssertionError(msg)
            time.sleep(0.02)
        return self.code

    def _peak_mb(self) -> float:
        """Return the most memory it held so far. What the system keeps for the parent counts the parent's too."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        except OSError:  # it has ended, or the system has no such files
            return 0.0
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0

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
