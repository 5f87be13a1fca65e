"""Nights of cron on a real cluster, with faults between them: every trace that a night leaves tells the true story.

There are fourteen in the long variant. Exit code, metrics file, log and ledger are those of real runs. promtool then
plays the metrics files as the days they stand for and says which alerts would have been firing each noon.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.house.source import ROOT
from tests.support.cluster import RunningCluster
from tests.support.figures import LONG

pytestmark = pytest.mark.cluster

DAY_S = 86_400
DIFFER, ZOMBIES, FAILED = "ConsistencyReplicasDiffer", "ConsistencyZombiesSuspected", "ConsistencyCheckFailed"
_TIMESTAMP = "consistency_last_run_timestamp_seconds"
OLD_ROW = 1_747_117_471
"""Its key; the digits of a shorter one may stand in a time or an id by chance."""
_TWENTY_DAYS_US = 20 * DAY_S * 1_000_000


@dataclass(frozen=True)
class Night:
    """What happens before a night's run, what the run leaves with, and which alerts fire at noon."""

    story: str
    before: Callable[[Cron], None]
    exit_code: int
    alerts: frozenset[str] = frozenset()
    divergent_rows: int | None = 0
    words: tuple[str, ...] = ()
    locked: bool = False
    long: bool = False
    """Whether it is left out of the shorter story."""


@dataclass
class Cron:
    """The line in the crontab, and the files it writes."""

    cluster: RunningCluster
    directory: Path

    @property
    def metrics(self) -> Path:
        """The file for node_exporter."""
        return self.directory / "consistency.prom"

    @property
    def ledger(self) -> Path:
        """What the runs remember."""
        return self.directory / "ledger"

    @property
    def log(self) -> Path:
        """One object a line, all nights."""
        return self.directory / "log.jsonl"

    @property
    def config(self) -> Path:
        """What a nightly repair may do."""
        path = self.directory / "consistency.toml"
        path.write_text(f'[repair]\ndirectory = "{self.directory / "repairs"}"\nsettle = 0.3\n')
        return path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the night's check."""
        files = ("--ledger", self.ledger, "--metrics", self.metrics, "--log-file", self.log)
        findings = ("--findings", self.directory / "findings.jsonl")
        options = (*map(str, (*files, *findings)), "--settle", "0.3", "--quiet")
        options += ("--config", str(self.config), *words)
        return self.cluster.command("check", "shop", *options)

    def delete(self, n: int) -> None:
        """Delete a row on one node alone."""
        self.cluster.on(n, "DELETE FROM shop.t WHERE id = 7")

    def stop(self, n: int) -> None:
        """Have a node down."""
        assert self.cluster.sandbox is not None
        self.cluster.sandbox.stop(n)
        self.cluster.await_alive(*{1, 2, 3} - {n})

    def start(self, n: int) -> None:
        """Have it up again."""
        assert self.cluster.sandbox is not None
        self.cluster.sandbox.start(n)
        self.cluster.await_alive(1, 2, 3)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, as a run of the night before that has not ended."""
        with next(self.directory.glob("ledger.*.lock")).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def quiet(_: Cron) -> None:
    """Nothing happens."""


def back_and_merged(cron: Cron) -> None:
    """The node comes back; a read at ALL lets the servers merge the row."""
    if LONG:
        cron.start(2)
    cron.cluster.everywhere("SELECT * FROM shop.t WHERE id = 7")


def written_again(cron: Cron) -> None:
    """The row is inserted everywhere, then lost on node 1 once more."""
    cron.cluster.everywhere("INSERT INTO shop.t (id, v) VALUES (7, 'v')")
    cron.delete(1)


def old_row_and_node_back(cron: Cron) -> None:
    """A row of three weeks ago turns up on one replica."""
    if LONG:
        cron.start(3)
    old = time.time_ns() // 1000 - _TWENTY_DAYS_US
    cron.cluster.on(2, f"INSERT INTO shop.t (id, v) VALUES ({OLD_ROW}, 'old') USING TIMESTAMP {old}")


def deleted(cron: Cron) -> None:
    """Whoever looked into it found that the row had been deleted."""
    cron.cluster.everywhere(f"DELETE FROM shop.t WHERE id = {OLD_ROW}")


_FORTNIGHT = (
    Night("all is well", quiet, 0),
    Night("all is well", quiet, 0, long=True),
    Night("node 3 lost a row", lambda cron: cron.delete(3), 1, frozenset({DIFFER}), 1),
    Night("nobody mended it", quiet, 1, frozenset({DIFFER}), 1),
    Night("and node 2 is down besides", lambda cron: cron.stop(2), 1, frozenset({DIFFER}), 1, long=True),
    Night("node 2 is back, the servers merged the row", back_and_merged, 0),
    Night("a cluster that cannot be reached", quiet, 4, frozenset({FAILED}), None, ("--hosts", "127.0.0.1:9")),
    Night("all is well", quiet, 0, long=True),
    Night("the row is lost again, on node 1", written_again, 1, frozenset({DIFFER}), 1),
    Night("the run of the night before has not ended", quiet, 5, frozenset({DIFFER}), None, locked=True),
    Night("the repair of the nightly configuration mends it", quiet, 0, words=("--repair",)),
    Night("node 3 is down, nothing else is wrong", lambda cron: cron.stop(3), 3, divergent_rows=None, long=True),
    Night("a row of three weeks ago turned up on node 2", old_row_and_node_back, 1, frozenset({DIFFER, ZOMBIES}), 1),
    Night("somebody deleted it everywhere", deleted, 0),
)
NIGHTS = tuple(night for night in _FORTNIGHT if LONG or not night.long)


@pytest.fixture(scope="module")
def cron(stoppable_cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cron]:
    """Three nodes without hints, which would mend what the nights damage."""
    cluster = stoppable_cluster
    cluster.drop_keyspaces()
    cluster.keyspace("shop")
    cluster.ddl("CREATE TABLE shop.t (id int PRIMARY KEY, v text)")
    cluster.load("INSERT INTO shop.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(300)))
    yield Cron(cluster, tmp_path_factory.mktemp("cron"))
    cluster.ddl("DROP KEYSPACE shop")


def test_the_nights_tell_the_true_story(cron: Cron) -> None:
    """Each night's exit code, metrics and log; then the ledger's account of all; then the alerts, noon by noon."""
    files = []
    for number, night in enumerate(NIGHTS, 1):
        night.before(cron)
        with cron.locked() if night.locked else nullcontext():
            done = cron.run(*night.words)
        assert done.returncode == night.exit_code, (number, night.story, done.stdout, done.stderr)
        files.append(figures(cron.metrics))
        told = files[-1].get('consistency_divergent_rows{keyspace="shop",table="t"}')
        assert told == night.divergent_rows, (number, night.story)
        assert files[-1]["consistency_last_run_exit_code"] == night.exit_code, (number, night.story)
    the_log_is_in_sequence(cron)
    the_ledger_knows_them(cron)
    the_alerts_fire(files, cron.directory)


def figures(path: Path) -> dict[str, float]:
    """Return every sample of a metrics file, by the name that PromQL has for it."""
    return {
        f"{sample.name}{labels(sample.labels)}": sample.value
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8"))
        for sample in family.samples
    }


def labels(named: dict[str, str]) -> str:
    """Write labels as PromQL does."""
    pairs = ",".join(f'{name}="{value}"' for name, value in sorted(named.items()))
    return f"{{{pairs}}}" if pairs else ""


def the_log_is_in_sequence(cron: Cron) -> None:
    """Every night's events are numbered from one and end with how the night ended; no key is in them."""
    runs: dict[str, list[dict[str, object]]] = {}
    for line in cron.log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        runs.setdefault(event["run_id"], []).append(event)
    assert len(runs) == len(NIGHTS)
    for night, events in zip(NIGHTS, runs.values(), strict=True):
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), night.story
        last = [event for event in events if event["event"] in {"run.ended", "run.failed"}][-1]
        assert last["exit_code"] == night.exit_code, night.story
    assert str(OLD_ROW) not in cron.log.read_text(encoding="utf-8")


def the_ledger_knows_them(cron: Cron) -> None:
    """The nights that reached the cluster, newest first, and what became of the row: new, still there, back again."""
    done = cron.cluster.command("history", "shop", "--ledger", str(cron.ledger), "--json", "-")
    assert done.returncode == 0, done.stdout + done.stderr
    history = json.loads(done.stdout)
    kept = [night for night in NIGHTS if night.exit_code not in {4, 5}]
    assert [run["exit_code"] for run in reversed(history["runs"])] == [night.exit_code for night in kept]
    rows = {night.story: nonzero(run["rows"]) for night, run in zip(kept, reversed(history["runs"]), strict=True)}
    assert rows["node 3 lost a row"] == {"new": 1}
    assert rows["nobody mended it"] == {"still there": 1}
    assert rows["the row is lost again, on node 1"] == {"came back": 1}
    assert history["standing"] == "in time"


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    """Leave out what there is none of."""
    return {name: count for name, count in counts.items() if count}


def the_alerts_fire(files: list[dict[str, float]], directory: Path) -> None:
    """Play the files as days: at each noon exactly the alerts of the night before are firing."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here; Debian's package prometheus has it")
    names = sorted({name for file in files for name in file})
    per_day = DAY_S // 300
    series = []
    for name in names:
        values = []
        for day, file in enumerate(files):
            value = day * DAY_S if name == _TIMESTAMP else file.get(name)
            values += ["_"] * per_day if value is None else [f"{value:g}x{per_day - 1}"]
        series.append({"series": name, "values": " ".join(values)})
    firing = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{day * 24 + 12}h",
            "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(night.alerts)],
        }
        for day, night in enumerate(NIGHTS)
    ]
    shutil.copy(ROOT / "deploy" / "prometheus" / "rules.yml", directory / "rules.yml")
    test = {"interval": "5m", "input_series": series, "promql_expr_test": firing}
    (directory / "nights.yml").write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "10m", "tests": [test]})
    )
    words = [promtool, "test", "rules", "nights.yml"]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
