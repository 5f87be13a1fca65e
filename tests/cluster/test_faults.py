"""Real faults before, during and after a scan: whatever happens, nothing false is said and nothing waits for ever.

One table of 6,000 rows with three damaged ones. After every fault: no finding but those three, `consistent` never,
the coverage adds up, and the run ended within its bound. CONSISTENCY_SOAK=1 tries every fault at every moment.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from consistency.checking.leaves import LeafResult
from consistency.checking.scan import ScanOptions
from consistency.cluster.pinned import ReadLimits
from consistency.model.reading import ONE_REPLICA, Locality
from consistency.results.findings import Finding, read_findings
from consistency.results.report import Report
from consistency.results.verdict import ExitCode, Verdict
from tests.support.cluster import RunningCluster, eventually, summary
from tests.support.damage import as_expected, expected
from tests.support.figures import LONG, SOAK, Figures
from tests.support.moments import Moment
from tests.support.processes import Checker

pytestmark = pytest.mark.cluster

ROWS = 6_000
BOUND_S = 180
"""No run may take longer, whatever a node does; what a node is started again within is not counted."""
IMPATIENT = ReadLimits(timeout_s=8)
"""A frozen node is waited for three times over; the long variants wait as an operator's run does."""
DAMAGED = {
    expected("t", "missing", {"id": 3}),
    expected("t", "stale", {"id": 2_003}),
    expected("t", "tie", {"id": 5_003}),
}


@dataclass
class Run:
    """One check with a fault in it, and what came of it."""

    report: Report
    findings: list[Finding]
    seconds: float

    @property
    def found(self) -> set[tuple[str, str, str]]:
        """What was found, as the planter names it."""
        return set(map(as_expected, self.findings))

    @property
    def reasons(self) -> set[str]:
        """Why something was not read."""
        return {unread.reason for table in self.report.tables for unread in table.unread}

    def keeps_the_promises(self) -> None:
        """Nothing false, nothing twice, sums that add up, an end in time."""
        assert self.found <= DAMAGED, summary(self.report)
        assert len(self.findings) == len(self.found)
        assert self.report.verdict is not Verdict.CONSISTENT, summary(self.report)
        for c in (self.report.coverage, *(t.coverage for t in self.report.tables)):
            assert c.planned == c.completed + c.skipped + c.failed
        assert self.seconds < BOUND_S, f"{self.seconds:.0f} s"


@dataclass
class Faulty:
    """The cluster whose nodes are stopped, and its table."""

    cluster: RunningCluster
    directory: Path
    _runs: int = field(default=0)

    @property
    def sandbox(self) -> Any:
        """The nodes."""
        return self.cluster.sandbox

    def check(self, moment: Moment | None = None, *names: str, **options: Any) -> Run:
        """Check in small leaves while something happens."""
        self._runs += 1
        path = self.directory / f"findings-{self._runs}.jsonl"
        started = time.monotonic()
        report = self.cluster.check(
            *(names or ("faults.t",)),
            findings=path,
            observer=moment,
            scan=ScanOptions(leaf_rows=100),
            **options,
        )
        spent = moment.took_s if moment else 0.0
        return Run(report, list(read_findings(path)), time.monotonic() - started - spent)

    def back(self, n: int) -> None:
        """Have node n up again, seen by the driver and holding what it held."""
        self.cluster.close()
        self.sandbox.start(n)


@pytest.fixture(scope="module")
def faulty(guarded_cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """The table and its damage."""
    cluster = guarded_cluster
    cluster.keyspace("faults")
    cluster.ddl("CREATE TABLE faults.t (id int PRIMARY KEY, v text)")
    base = time.time_ns() // 1000 - 3_600_000_000
    cluster.load(
        f"INSERT INTO faults.t (id, v) VALUES (?, ?) USING TIMESTAMP {base}", ((i, f"value {i}") for i in range(ROWS))
    )
    cluster.on(1, f"DELETE FROM faults.t USING TIMESTAMP {base + 1} WHERE id = 3")
    cluster.on(2, f"UPDATE faults.t USING TIMESTAMP {base + 1} SET v = 'newer' WHERE id = 2003")
    cluster.on(3, f"UPDATE faults.t USING TIMESTAMP {base} SET v = 'xyz' WHERE id = 5003")
    yield Faulty(cluster, tmp_path_factory.mktemp("faults"))
    cluster.ddl("DROP KEYSPACE IF EXISTS faults")


def test_without_a_fault_the_three_are_found(faulty: Faulty) -> None:
    """What the faults are measured against."""
    run = faulty.check()
    run.keeps_the_promises()
    assert run.found == DAMAGED
    assert run.report.coverage.complete


@pytest.mark.parametrize(
    ("how", "moment"),
    [
        pytest.param(how, moment, marks=[] if (how, moment) == ("kill", "settle") else SOAK)
        for how in ("term", "kill", "freeze")
        for moment in ("before", "scan", "settle", "after")
    ],
)
def test_a_node_that_goes_is_never_taken_for_consistent(
    faulty: Faulty, how: Any, moment: str, figures: Figures
) -> None:
    """Stopped, killed or frozen at any moment: what it did not tell is unread, what the others tell is found."""

    def stop() -> None:
        faulty.sandbox.stop(2, how)

    when = {"scan": Moment(stop, leaf=30), "settle": Moment(stop, finding=1)}.get(moment)
    if moment == "before":
        stop()
    try:
        run = faulty.check(when, limits=None if LONG else IMPATIENT)
        if moment == "after":
            stop()
        run.keeps_the_promises()
        # A leaf that differs and could not be read row by row is unread on all replicas, for the reason of one.
        assert all(faulty.cluster.name(2) in reason for reason in run.reasons), run.reasons
        if moment == "scan":
            assert run.report.coverage.failed > 0
        if moment == "after":
            assert run.found == DAMAGED
    finally:
        faulty.back(2)
    figures.add(f"node {how} {moment} the scan", f"{run.seconds:.0f} s, {run.report.verdict.value}")


@SOAK
def test_a_node_restarted_in_mid_scan_is_asked_again_at_the_end(faulty: Faulty, figures: Figures) -> None:
    """Killed at leaf 30 and back at leaf 60: what could not be digested meanwhile is digested once it is back."""

    class Restart(Moment):
        def leaf_digested(self, result: LeafResult) -> None:
            super().leaf_digested(result)
            if self.leaves == 60:
                started = time.monotonic()
                faulty.sandbox.start(2)
                self.took_s += time.monotonic() - started

    run = faulty.check(Restart(lambda: faulty.sandbox.stop(2, "kill"), leaf=30))
    faulty.cluster.close()
    run.keeps_the_promises()
    # A leaf that was being looked at row by row when the node went is not tried again.
    assert run.report.coverage.completed > run.report.coverage.planned // 2, summary(run.report)
    assert all(faulty.cluster.name(2) in reason for reason in run.reasons), run.reasons
    # A row that was being read again when the node went is counted as unsettled.
    unsettled = sum(table.unsettled_rows for table in run.report.tables)
    assert run.report.coverage.failed or len(DAMAGED - run.found) <= unsettled, summary(run.report)
    figures.add("node killed and restarted in mid-scan", f"{run.seconds:.0f} s, {run.report.coverage}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE faults.u ADD w int", "altered"),
        ("DROP TABLE faults.u", "dropped"),
        pytest.param("ALTER TABLE faults.u DROP v", "altered", marks=SOAK),
        pytest.param(
            "ALTER KEYSPACE faults WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2}",
            "replication was altered",
            marks=SOAK,
        ),
    ],
)
def test_a_schema_change_in_mid_scan_makes_the_table_unknown(faulty: Faulty, change: str, words: str) -> None:
    """A column more or less, the table or a replica gone: the table says so, and nothing of it is believed."""
    cluster = faulty.cluster
    cluster.ddl("CREATE TABLE IF NOT EXISTS faults.u (id int PRIMARY KEY, v text, x int)")
    cluster.load("INSERT INTO faults.u (id, v) VALUES (?, ?)", ((i, "v") for i in range(3_000)))
    try:
        run = faulty.check(Moment(lambda: cluster.ddl(change), leaf=10), "faults.u")
        assert run.report.exit_code is ExitCode.INCOMPLETE, summary(run.report)
        assert not run.findings
        assert words in json.dumps(run.report.as_json())
    finally:
        cluster.ddl(
            "ALTER KEYSPACE faults WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}",
            "DROP TABLE IF EXISTS faults.u",
        )


def test_a_table_truncated_in_mid_scan_raises_no_alarm(faulty: Faulty) -> None:
    """Half of the digests are of rows that are gone: the second reading sees that all replicas agree."""
    cluster = faulty.cluster
    cluster.ddl("CREATE TABLE faults.w (id int PRIMARY KEY, v text)")
    cluster.load("INSERT INTO faults.w (id, v) VALUES (?, ?)", ((i, "v") for i in range(3_000)))
    run = faulty.check(Moment(lambda: cluster.session.execute("TRUNCATE faults.w"), leaf=10), "faults.w")
    assert not run.findings, summary(run.report)
    assert run.report.exit_code in (ExitCode.CONSISTENT, ExitCode.INCOMPLETE)
    cluster.ddl("DROP TABLE faults.w")


def test_the_checker_killed_leaves_the_earlier_findings_whole(faulty: Faulty, tmp_path: Path) -> None:
    """Killed with -9 in mid-run: the file of the run before is untouched, and the next run is like any other."""
    path = tmp_path / "findings.jsonl"
    with Checker(faulty.cluster, "faults.t", "--findings", str(path), "--settle", "0.3") as first:
        assert first.wait(BOUND_S) == 1
    before = path.read_bytes()
    with Checker(faulty.cluster, "faults.t", "--findings", str(path)) as killed:
        eventually(lambda: path.with_name(path.name + ".partial").exists(), 60, "the run's own file")
        killed.process.kill()
        assert killed.wait(10) == -signal.SIGKILL
    assert path.read_bytes() == before
    with Checker(faulty.cluster, "faults.t", "--findings", str(path), "--settle", "0.3") as again:
        assert again.wait(BOUND_S) == 1
    assert {as_expected(f) for f in read_findings(path)} == DAMAGED


@pytest.mark.parametrize("frozen", [False, True])
def test_an_interrupt_ends_within_5_seconds_with_a_true_report(
    faulty: Faulty, tmp_path: Path, frozen: bool, figures: Figures
) -> None:
    """Ctrl-C while all is well, and while a node answers nothing: exit 130, the JSON adds up, never consistent."""
    path, findings = tmp_path / "report.json", tmp_path / "findings.jsonl"
    arguments = ("faults.t", "--json", str(path), "--findings", str(findings), "--settle", "60")
    with Checker(faulty.cluster, *arguments) as checker:
        eventually(findings.with_name("findings.jsonl.partial").exists, 60, "the start of the check")
        try:
            if frozen:
                faulty.sandbox.stop(2, "freeze")
            # After half a minute the driver itself waits for the frozen node.
            time.sleep(35 if frozen and LONG else 4)
            started = time.monotonic()
            checker.process.send_signal(signal.SIGINT)
            code = checker.wait(60)
            seconds = time.monotonic() - started
        finally:
            if frozen:
                faulty.back(2)
    report = json.loads(path.read_text())
    coverage = report["coverage"]
    assert code == 130, checker.stderr
    assert report["interrupted"]
    assert report["verdict"] != "consistent"
    assert coverage["planned"] == coverage["completed"] + coverage["failed"] + coverage["skipped"]
    assert "Traceback" not in checker.stderr
    figures.add(f"Ctrl-C, {'a node frozen' if frozen else 'all nodes up'}", f"{seconds:.1f} s")
    assert seconds < (5 if LONG else 15), f"{seconds:.1f} s"  # beside other tests a process may not run for seconds


def test_a_full_disk_loses_the_findings_file_and_not_the_verdict(faulty: Faulty, tmp_path: Path) -> None:
    """No room for the findings: one line says so, the earlier file stays, the report is whole and nothing is lost."""
    path, findings = tmp_path / "report.json", tmp_path / "findings.jsonl"
    earlier = '{"schema": 1, "type": "findings", "run_id": "an earlier run"}\n'
    findings.write_text(earlier)
    # The signal that comes with the limit is ignored by Python: the write fails.
    limited = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-m", "consistency", "check", "faults.t"]
    done = subprocess.run(
        [*limited, "--json", str(path), "--findings", str(findings), "--settle", "0.3"],
        env=faulty.cluster.environ(),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    # The JSON does not fit either.
    assert done.returncode == 1, done.stderr
    assert f"error: --findings {findings}: File too large; --json {path}: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("DIVERGENT")
    assert findings.read_text() == earlier
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["findings.jsonl"]


def test_reads_that_time_out_in_the_servers_are_unknown_at_worst(faulty: Faulty, figures: Figures) -> None:
    """Range reads that every server gives up from leaf 10 on: split, asked again, then unread; and an end in time."""

    def impatient(milliseconds: int) -> None:
        for n in (1, 2, 3):
            faulty.sandbox.nodetool(n, "settimeout", "range", str(milliseconds))

    try:
        for locality in ONE_REPLICA if LONG else (Locality.NODE_LOCAL,):
            run = faulty.check(Moment(lambda: impatient(1), leaf=10), locality=locality)
            run.keeps_the_promises()
            figures.add(f"range reads time out, {locality.value}", f"{run.seconds:.0f} s, {run.report.coverage}")
            impatient(10_000)
    finally:
        impatient(10_000)


def test_a_field_of_tombstones_is_read_in_smaller_pieces(faulty: Faulty, figures: Figures) -> None:
    """More tombstones than the server reads at once: pages shrink until it manages, and the damage is found."""
    cluster = faulty.cluster
    cluster.ddl("CREATE TABLE faults.tombs (p int, c int, v text, PRIMARY KEY (p, c))")
    batch = f"BEGIN UNLOGGED BATCH {'DELETE FROM faults.tombs WHERE p = 1 AND c = ?; ' * 100} APPLY BATCH"
    gone = [c for c in range(6_000) if c % 6]
    cluster.load_prepared(cluster.session.prepare(batch), (gone[i : i + 100] for i in range(0, len(gone), 100)))
    cluster.load("INSERT INTO faults.tombs (p, c, v) VALUES (1, ?, 'v')", ((c,) for c in range(0, 6_000, 6)))
    cluster.on(3, "DELETE FROM faults.tombs WHERE p = 1 AND c = 3000")
    run = faulty.check(None, "faults.tombs")
    assert run.found == {expected("tombs", "missing", {"p": 1, "c": 3000})}, summary(run.report)
    assert run.report.coverage.complete
    figures.add("5,000 tombstones, the server reads 3,000", f"{run.seconds:.0f} s, {run.report.tables[0].note}")
    cluster.ddl("DROP TABLE faults.tombs")


@SOAK
@pytest.mark.parametrize("kind", ["join", "decommission"])
def test_a_ring_change_in_mid_scan_makes_everything_unknown(faulty: Faulty, kind: str, figures: Figures) -> None:
    """A node joins, then leaves, while a check runs: what was read of the old owners is not believed.

    It streams its rows as it joins: one that holds none of them would truly differ in the check that sees it leave.
    """
    change = threading.Event()

    def join() -> None:
        faulty.sandbox.add()
        change.set()

    def leave() -> None:
        faulty.sandbox.remove(4)
        change.set()

    moment = Moment(join if kind == "join" else leave, leaf=30)
    run = faulty.check(moment)
    faulty.cluster.close()
    assert change.is_set()
    run.keeps_the_promises()
    assert "the ring changed" in json.dumps(run.report.as_json())
    assert run.report.coverage.completed == 0
    figures.add(f"{kind} in mid-scan", f"{run.seconds:.0f} s, {run.report.verdict.value}, all of it unread")
