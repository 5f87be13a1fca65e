"""Run two or more sides of a comparison in alternation, and compute their ratios.

Each side runs once unmeasured (a cold JVM takes two to three times as long), then the sides alternate. A ratio
is taken within each round, when both sides met the same conditions; its median and spread are printed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one side: seconds of wall time and of its own processor time, peak memory, further facts."""

    wall_s: float
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    facts: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


Side = Callable[[], Sample]
Figures = dict[str, list[Sample]]


def alternate(sides: Mapping[str, Side], rounds: int) -> Figures:
    """Run every side `rounds` times in alternation, every other round backwards, after one unmeasured run of each."""
    for run in sides.values():
        run()
    figures: Figures = {name: [] for name in sides}
    for i in range(rounds):
        for name in reversed(list(sides)) if i % 2 else sides:
            figures[name].append(sides[name]())
    return figures


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Spread:
    """Return ours over theirs in wall time, round by round."""
    return Spread.of([a.wall_s / b.wall_s for a, b in zip(ours, theirs, strict=True)])


# A child's peak memory is at least its parent's at the start, so a small process starts it.
_STARTER = """
import json, os, sys, time
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
figures = [time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), *figures], file)
"""


def command(words: Sequence[str], *, accept: Sequence[int] = (0,)) -> Sample:
    """Run a command as a user would, start-up included; an exit status that is not accepted is an error."""
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile("w+") as output:
        path = Path(directory) / "figures.json"
        starter = [sys.executable, "-I", "-S", "-c", _STARTER, str(path), *words]
        subprocess.run(starter, stdout=output, stderr=subprocess.STDOUT, check=True)
        status, wall_s, cpu_s, peak = json.loads(path.read_text(encoding="utf-8"))
        if status not in accept:
            output.seek(0)
            msg = f"{' '.join(words[2:6])} ended with {status}: {output.read()[-2000:]}"
            raise RuntimeError(msg)
    return Sample(wall_s, cpu_s, peak * _RSS_UNIT / 2**20)


def timed(run: Callable[[], object]) -> Sample:
    """Run a function of this process and time it."""
    started = time.perf_counter()
    run()
    return Sample(time.perf_counter() - started)
