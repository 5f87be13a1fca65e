"""A watch with a ledger beside writers: what is planted is reported within a round, over kill -9 and SIGTERM.

CONSISTENCY_SOAK_SECONDS is how long (1,200 in `make soak`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from consistency.errors import UsageError
from consistency.ledger import open_ledger
from consistency.results.findings import read_findings
from tests.cluster.test_load import LEVELS, Writer, fill, plant
from tests.support.cluster import RunningCluster, eventually
from tests.support.damage import Expected, as_expected
from tests.support.figures import Figures
from tests.unit.test_metrics import figures as metrics_in

pytestmark = pytest.mark.cluster

SECONDS = float(os.environ.get("CONSISTENCY_SOAK_SECONDS", "8"))
SOAK_S = 120.0
"""From here on nothing else runs on the machine, and how long a round takes is judged too."""
ROWS = 8_000 if SECONDS < SOAK_S else 20_000
PERIOD_S = 12.0 if SECONDS < SOAK_S else 40.0
RUN_TIME_S = 2.0
SETTLE_S = 2.5
LOOKS = 15
"""How often its memory is looked at, at least."""
ENDS_S = 5.0 if SECONDS >= SOAK_S else 15.0
"""After SIGTERM; beside other tests a process of low priority may not run for seconds."""
SLACK_S = 10.0
"""What a busy machine may add: the test asks every half second, the watch pauses a second between two visits."""


class Watching:
    """A watch as a process of its own; `log` is appended to, over restarts too."""

    def __init__(self, cluster: RunningCluster, folder: Path, *words: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._from = len(self._lines())
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "consistency",
            "watch",
            *words,
            "--listen",
            "127.0.0.1:0",
        ]
        command += ["--ledger", str(folder / "ledger"), "--log-file", str(self.log)]
        with (folder / "stderr").open("a") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, env=cluster.environ())
        eventually(lambda: bool(self.events("watch.started")), 60, "the watch's start")
        self.address = self.events("watch.started")[0]["address"]

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one kind since this process began."""
        found = [json.loads(line) for line in self._lines()[self._from :] if line.endswith("}")]
        return [event for event in found if event["event"] == name]

    @property
    def metrics(self) -> dict[tuple[str, ...], float]:
        """The metrics that it serves now."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as answer:
            return metrics_in(answer.read().decode())

    @property
    def memory_mb(self) -> float:
        """What it holds in memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def end(self) -> float:
        """Ask it to end; return how long that took."""
        asked = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            ended = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # what each of its threads does is then in its stderr
            self.process.send_signal(signal.SIGABRT)
            ended = self.process.wait(timeout=10)
        assert ended == 0, (self.folder / "stderr").read_text()
        return time.monotonic() - asked


@contextmanager
def watching(cluster: RunningCluster, folder: Path, *words: str) -> Iterator[Watching]:
    """Watch, and leave no process behind."""
    watch = Watching(cluster, folder, *words)
    try:
        yield watch
    finally:
        watch.process.kill()
        watch.process.wait()


@contextmanager
def writing(cluster: RunningCluster) -> Iterator[list[Writer]]:
    """Have three writers write all the while."""
    stop = threading.Event()
    writers = [Writer(cluster.session, level, seed, stop) for seed, level in enumerate(LEVELS.values())]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def live(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """A table of several slices that is written to, and two small ones."""
    fill(cluster, ROWS)
    small_tables(cluster, "quiet", "still")
    yield cluster
    cluster.ddl("DROP KEYSPACE live")


@pytest.fixture
def quiet(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """One small table that nobody writes to."""
    cluster.keyspace("live")
    small_tables(cluster, "quiet")
    yield cluster
    cluster.ddl("DROP KEYSPACE live")


def small_tables(cluster: RunningCluster, *names: str) -> None:
    """Fill tables of 300 rows."""
    for name in names:
        cluster.ddl(f"CREATE TABLE live.{name} (id int PRIMARY KEY, v text)")
        cluster.load(f"INSERT INTO live.{name} (id, v) VALUES (?, 'v')", ((i,) for i in range(300)))


class Planted:
    """The rows that were damaged, when, and after how long, and how many ends of rounds, each was reported."""

    def __init__(self, cluster: RunningCluster, findings: Path, log: Path) -> None:
        self.cluster = cluster
        self.findings = findings
        self.at: dict[Expected, float] = {}
        self.took: dict[Expected, float] = {}
        self.rounds: dict[Expected, int] = {}
        self._log = log
        self._ended = 0

    def _ended_rounds(self) -> int:
        """Count the ends of rounds in which all was read: on a busy machine a node may fail to answer in time."""
        ended, read = 0, True
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        for event in (json.loads(line) for line in lines if line.endswith("}")):
            if event["event"] == "watch.round":
                ended, read = ended + read, True
            elif event["event"] == "run.failed" or event.get("failed") or event.get("unsettled_rows"):
                read = False
        return ended

    def add(self) -> None:
        """Damage one more row."""
        row = plant(self.cluster, len(self.at))
        self.at[row] = time.monotonic()
        self.rounds[row] = -self._ended_rounds()

    def look(self) -> None:
        """Enter what is reported by now; nothing else may be."""
        ended, self._ended = self._ended, self._ended_rounds()
        try:
            found = {as_expected(finding) for finding in read_findings(self.findings)}
        except UsageError:  # there is no file yet
            found = set()
        assert found <= set(self.at), found - set(self.at)
        for row in found - set(self.took):
            self.took[row] = time.monotonic() - self.at[row]
            self.rounds[row] = max(0, self.rounds[row] + ended)


def oldest_table(ledger: Path) -> str:
    """Return the table with the range that was read longest ago, the first by name where none was ever."""
    with open_ledger(ledger, create=False) as opened:
        past = opened.past()
        ((cluster, _),) = past.clusters()
        read = past.read_until(cluster, None, "")
    return min(("live.quiet", "live.still", "live.t"), key=lambda name: (read.get(name, 0), name))


def test_damage_is_reported_within_a_round_beside_writers_and_over_a_kill(
    live: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """Planted at random moments; a kill -9 loses a slice at most, memory stays flat, SIGTERM ends it in seconds."""
    words = ["live", "--period", str(PERIOD_S), "--run-time", str(RUN_TIME_S), "--settle", str(SETTLE_S)]
    words += ["--rate", str(ROWS * 2 // 5), "--findings-dir", str(tmp_path)]
    planted = Planted(live, tmp_path / "live.t.jsonl", tmp_path / "log")
    moments = random.Random(7)
    memory: list[float] = []
    rounds: list[float] = []
    with writing(live) as writers:
        with watching(live, tmp_path, *words) as watch:
            eventually(lambda: len(watch.events("table.done")) >= 4, 60, "some visits")
            planted.add()
            time.sleep(moments.uniform(0, RUN_TIME_S))
            watch.process.kill()
            watch.process.wait()
            rounds += [event["seconds"] for event in watch.events("watch.round")]
        expected = oldest_table(tmp_path / "ledger")
        killed = time.monotonic()
        with watching(live, tmp_path, *words) as watch:
            eventually(lambda: bool(watch.events("table.done")), 60, "the first visit")
            first = watch.events("table.done")[0]
            assert f"{first['keyspace']}.{first['table']}" == expected
            assert os.getpriority(os.PRIO_PROCESS, watch.process.pid) >= 10  # it may share a node's machine
            due = time.monotonic()
            while time.monotonic() - killed < SECONDS or len(memory) < LOOKS:
                if time.monotonic() >= due and len(planted.at) < 700:
                    planted.add()
                    due = time.monotonic() + moments.uniform(1, max(3.0, SECONDS / 100))
                time.sleep(0.5)
                planted.look()
                memory.append(watch.memory_mb)
            limit = max(8 * PERIOD_S, 160)
            eventually(lambda: planted.look() or len(planted.took) == len(planted.at), limit, "the last report")
            eventually(lambda: bool(rounds or watch.events("watch.round")), limit, "the end of a round")
            rounds += [event["seconds"] for event in watch.events("watch.round")]
            # The file of findings is written a moment before the board is.
            counted = ("consistency_divergent_rows", "live", "t")
            eventually(lambda: watch.metrics.get(counted) == len(planted.at), 20, "the same count on the board")
            assert watch.metrics["consistency_oldest_clean_pass_age_seconds", "live", "quiet"] < limit
            ended_s = watch.end()
    third = len(memory) // 3
    before, after = sum(memory[:third]) / third, sum(memory[-third:]) / third
    writes = sum(sum(writer.done.values()) for writer in writers)
    slowest, longest = max(planted.took.values()), max(rounds)
    figures.add(
        f"a watch beside {writes:,} writes in {SECONDS:.0f} s, period {PERIOD_S:.0f} s, one kill -9",
        f"{len(planted.took)} of {len(planted.at)} planted rows reported, 0 others; the last of them after "
        f"{slowest:.1f} s, the longest of {len(rounds)} rounds {longest:.1f} s; memory {before:.0f} MB in the first "
        f"third, {after:.0f} MB in the last; ended {ended_s:.1f} s after SIGTERM",
    )
    # Planted after its range was read, a row is found before the next round ends, however busy the machine is.
    assert max(planted.rounds.values()) <= 1
    if SECONDS >= SOAK_S:
        assert longest <= PERIOD_S + RUN_TIME_S + SLACK_S
        assert slowest <= max(longest, PERIOD_S) + RUN_TIME_S + SETTLE_S + SLACK_S
    assert after <= before * 1.1 + 15
    assert ended_s < ENDS_S


def test_a_watch_repairs_within_bounds_and_goes_on_after_a_stop_in_the_middle(
    quiet: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """SIGTERM in mid-repair: what was proven is in the ledger, and the next watch repairs the rest."""
    config = tmp_path / "c.toml"
    config.write_text(f'[repair]\nrate = 60\nsettle = 0\ndirectory = "{tmp_path}/repairs"\n')
    words = ["live.quiet", "--period", "2", "--settle", "0.3", "--config", str(config), "--repair"]
    rows = 240
    for i in range(rows):
        quiet.on(3, f"DELETE FROM live.quiet WHERE id = {i}")
        quiet.on(3, f"INSERT INTO live.quiet (id, v) VALUES ({i}, 'newer')")
    with watching(quiet, tmp_path, *words) as watch:
        journals = tmp_path / "repairs"
        eventually(lambda: any('"verified"' in j.read_text() for j in journals.glob("*.journal.jsonl")), 60, "a row")
        ended_s = watch.end()
    states = in_ledger(tmp_path / "ledger")
    assert 0 < states.get("repaired", 0) < rows, states
    with watching(quiet, tmp_path, *words) as watch:
        eventually(lambda: bool(watch.events("repair.ended")), 60, "the rest of the repair")
        (ended, *_) = watch.events("repair.ended")
        assert (ended["verified"], ended["remaining"]) == (rows - states["repaired"], 0)
        eventually(lambda: watch.metrics.get(("consistency_verdict", "consistent")) == 1, 30, "the verdict")
        assert watch.metrics["consistency_divergent_rows", "live", "quiet"] == 0
        watch.end()
    assert in_ledger(tmp_path / "ledger") == {"repaired": rows}
    report = quiet.check("live.quiet")
    assert report.exit_code == 0
    figures.add(
        "SIGTERM in the middle of a watch's repair",
        f"ended after {ended_s:.1f} s, {states['repaired']} of {rows} rows were in the ledger, the next watch repaired "
        f"the other {ended['verified']}",
    )
    assert ended_s < ENDS_S


def in_ledger(path: Path) -> dict[str, int]:
    """Count the rows of a ledger by state."""
    with open_ledger(path, create=False) as ledger:
        past = ledger.past()
        ((cluster, _),) = past.clusters()
        counted: dict[str, int] = {}
        for age in past.tables(cluster):
            for state, count in age.states.items():
                counted[state] = counted.get(state, 0) + count
        return counted
