"""Checks beside writers that never pause: nothing they write is reported, what is planted is found.

CONSISTENCY_LOAD_SECONDS is how long (600 in `make soak`). `nodetool repair --preview` looks at the same table in the
same minutes; what it calls out of sync although nothing is wrong is counted beside our findings.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cassandra import ConsistencyLevel
from cassandra.cluster import NoHostAvailable
from cassandra.query import BatchStatement, BatchType

from consistency.cluster.pinned import ReadLimits
from consistency.cluster.throttle import Politeness
from consistency.results.verdict import Verdict
from tests.support.cluster import RunningCluster, summary
from tests.support.damage import Expected, as_expected, expected
from tests.support.figures import Figures

pytestmark = pytest.mark.cluster

SECONDS = float(os.environ.get("CONSISTENCY_LOAD_SECONDS", "15"))
ROWS = 20_000 if SECONDS >= 120 else 8_000
LIVE = 4_000
"""The rows that writers write to; what is planted is elsewhere."""
PER_SECOND = 60
"""Writes a second and writer; there are three."""
FULL_SPEED = ReadLimits(politeness=Politeness(guard=None))
"""A polite check would rest most of the time: here as many as possible meet the writers."""
LEVELS = {
    "ONE": ConsistencyLevel.ONE,
    "QUORUM": ConsistencyLevel.QUORUM,
    "ALL": ConsistencyLevel.ALL,
}


@dataclass
class Writer:
    """Writes at one level at a steady pace until told to stop: inserts, updates, deletes, TTLs, batches, LWTs."""

    session: Any
    level: int
    seed: int
    stop: threading.Event
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._statements = {
            "insert": "INSERT INTO live.t (p, c, v, m) VALUES (?, ?, ?, {'a': 1})",
            "update": "UPDATE live.t SET v = ?, m['b'] = 2 WHERE p = ? AND c = ?",
            "delete": "DELETE FROM live.t WHERE p = ? AND c = ?",
            "range delete": "DELETE FROM live.t WHERE p = ? AND c >= ?",
            "ttl": "INSERT INTO live.t (p, c, v) VALUES (?, ?, ?) USING TTL 3",
            "lwt": "INSERT INTO live.t (p, c, v) VALUES (?, ?, ?) IF NOT EXISTS",
        }
        self._prepared = {name: self.session.prepare(text) for name, text in self._statements.items()}

    def run(self) -> None:
        """Write until stopped; a write that times out is counted and may have been applied."""
        due = time.monotonic()
        while not self.stop.is_set():
            due += 1 / PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            name = self._random.choice([*self._statements, "insert", "insert", "update", "batch"])
            try:
                self.session.execute(self._statement(name))
                self.done[name] += 1
            except (NoHostAvailable, Exception) as error:  # noqa: BLE001 - counted; the load goes on
                self.done[type(error).__name__] += 1

    def _statement(self, name: str) -> Any:
        p, c = self._random.randrange(LIVE // 20), self._random.randrange(20)
        v = f"{self.level} {self._random.random()}"
        if name == "batch":
            batch = BatchStatement(BatchType.UNLOGGED, consistency_level=self.level)
            for i in range(5):
                batch.add(self._prepared["insert"], (p, (c + i) % 20, v))
            return batch
        values: tuple[Any, ...] = {"update": (v, p, c), "delete": (p, c), "range delete": (p, max(c, 15))}.get(
            name, (p, c, v)
        )
        bound = self._prepared[name].bind(values)
        bound.consistency_level = ConsistencyLevel.QUORUM if name == "lwt" else self.level
        return bound


def fill(cluster: RunningCluster, rows: int = ROWS) -> None:
    """Make a table, the first rows of which are written to."""
    cluster.keyspace("live")
    cluster.ddl("CREATE TABLE live.t (p int, c int, v text, m map<text, int>, PRIMARY KEY (p, c))")
    base = time.time_ns() // 1000 - 3_600_000_000
    cluster.load(
        f"INSERT INTO live.t (p, c, v) VALUES (?, ?, 'v') USING TIMESTAMP {base}",
        ((i // 20, i % 20) for i in range(rows)),
    )


@pytest.fixture
def live(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """A table, the first rows of which are written to."""
    fill(cluster)
    yield cluster
    cluster.ddl("DROP KEYSPACE live")


def plant(cluster: RunningCluster, number: int) -> Expected:
    """Damage one more row, out of the writers' reach."""
    p = LIVE // 20 + number
    cluster.on(number % 3 + 1, f"DELETE FROM live.t WHERE p = {p} AND c = {number % 20}")
    return expected("t", "missing", {"p": p, "c": number % 20})


def test_writers_raise_no_alarm_and_damage_is_found_beside_them(
    live: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """Check after check while writers at ONE, QUORUM and ALL go on: exactly what was planted, every time."""
    stop = threading.Event()
    writers = [Writer(live.session, level, seed, stop) for seed, level in enumerate(LEVELS.values())]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    planted: set[Expected] = set()
    checks = false_ranges = previews = unsettled = 0
    started = time.monotonic()
    try:
        while time.monotonic() - started < SECONDS or not previews:
            if checks % 4 == 0:
                previews += 1
                false_ranges += out_of_sync(live, planted)
            planted.add(plant(live, checks))
            report, findings = live.findings(tmp_path / "f.jsonl", "live", settle_window_s=2.5, limits=FULL_SPEED)
            assert {as_expected(f) for f in findings} == planted, summary(report)
            assert report.verdict is Verdict.DIVERGENT
            assert report.coverage.complete, summary(report)
            unsettled += report.tables[0].unsettled_rows
            checks += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    done: Counter[str] = sum((writer.done for writer in writers), Counter())
    figures.add(
        f"{done.total():,} writes in {time.monotonic() - started:.0f} s at ONE, QUORUM and ALL",
        f"{checks} checks, 0 false findings, {checks * (checks + 1) // 2} of {checks * (checks + 1) // 2} planted rows"
        f" found, {unsettled} rows unsettled; nodetool preview: {false_ranges} ranges out of sync in {previews} runs",
    )
    figures.add("the writes", ", ".join(f"{count:,} {name}" for name, count in done.most_common()))
    assert {"insert", "update", "delete", "range delete", "ttl", "lwt", "batch"} <= set(done)


def out_of_sync(cluster: RunningCluster, planted: set[Expected]) -> int:
    """Return how many ranges `nodetool repair --preview` finds out of sync beyond the rows that are planted."""
    assert cluster.sandbox is not None
    done = cluster.sandbox.nodetool(1, "repair", "--preview", "--full", "live", "t")
    ranges = [int(number) for number in re.findall(r"^\s*live\.t - (\d+) ranges", done.stdout, re.MULTILINE)]
    if not ranges and "in sync" not in done.stdout:
        raise AssertionError(done.stdout + done.stderr)
    return max(0, max(ranges, default=0) - len(planted))
