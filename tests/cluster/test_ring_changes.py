"""A ring or a replication that changes while a check reads beside writers: no live write becomes a finding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consistency.checking.scan import ScanOptions
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.throttle import Politeness
from consistency.model.reading import Locality
from consistency.results.findings import read_findings
from consistency.results.verdict import Verdict
from tests.support.cluster import RunningCluster, sandbox_cluster, summary
from tests.support.damage import as_expected, expected
from tests.support.figures import SOAK, Figures
from tests.support.moments import Moment
from tests.support.writers import Writers

pytestmark = pytest.mark.cluster

ROWS = 600
AT_FULL_SPEED = ReadLimits(politeness=Politeness(guard=None))
DAMAGED = 5


def filled(cluster: RunningCluster, name: str, factor: int) -> None:
    """Make a keyspace with a table of equal rows, of which the first node has lost one."""
    cluster.keyspace(name, dc1=factor)
    cluster.ddl(f"CREATE TABLE {name}.t (id int PRIMARY KEY, v text)")
    cluster.load(f"INSERT INTO {name}.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(ROWS)))
    for n in range(1, len(cluster.points) + 1):
        if list(cluster.on(n, f"SELECT id FROM {name}.t WHERE id = {DAMAGED}")):
            cluster.on(n, f"DELETE FROM {name}.t WHERE id = {DAMAGED}")
            break


def changed_under_writers(
    cluster: RunningCluster, name: str, change: Callable[[], object], path: Path, locality: Locality
) -> None:
    """Check while a change begins at the third leaf, and again while it goes on; claim nothing but the damage."""
    running = threading.Thread(target=change, daemon=True)
    beginning = Moment(running.start, leaf=3)
    keys = [i for i in range(ROWS) if i != DAMAGED]
    with Writers(cluster, f"UPDATE {name}.t SET v = 'w' WHERE id = ?", keys) as writers:
        runs = []
        for moment in (beginning, None):
            runs.append(
                cluster.check(
                    name,
                    observer=moment,
                    findings=path,
                    scan=ScanOptions(leaf_rows=50),
                    locality=locality,
                    limits=AT_FULL_SPEED,
                    settle_window_s=2.5,
                )
            )
            found = {as_expected(f) for f in read_findings(path)}
            assert found <= {expected("t", "missing", {"id": DAMAGED})}, summary(runs[-1])
        running.join(300)
    assert not running.is_alive()
    assert writers.written > 100
    assert all(run.verdict is not Verdict.CONSISTENT for run in runs), [summary(run) for run in runs]


@pytest.mark.parametrize(
    ("factor", "locality"),
    [
        (2, Locality.NODE_LOCAL),
        (3, Locality.NODE_LOCAL),
        pytest.param(2, Locality.TRACED, marks=SOAK),
        pytest.param(3, Locality.TRACED, marks=SOAK),
    ],
)
def test_a_replication_factor_that_changes_in_mid_run(
    cluster: RunningCluster, tmp_path: Path, factor: int, locality: Locality
) -> None:
    """Lowered: the third replica gets no more writes. Raised: the new one has nothing yet. Neither is a finding."""
    name = f"altered_{factor}_{locality.name.lower()}"
    filled(cluster, name, factor)
    replication = f"{{'class': 'NetworkTopologyStrategy', 'dc1': {5 - factor}}}"
    alter = f"ALTER KEYSPACE {name} WITH replication = {replication}"
    path = tmp_path / "findings.jsonl"
    beginning = Moment(lambda: cluster.ddl(alter), leaf=3)
    with Writers(cluster, f"UPDATE {name}.t SET v = 'w' WHERE id = ?", [i for i in range(ROWS) if i != DAMAGED]):
        report = cluster.check(
            name,
            observer=beginning,
            findings=path,
            scan=ScanOptions(leaf_rows=50),
            locality=locality,
            limits=AT_FULL_SPEED,
            settle_window_s=2.5,
        )
    assert beginning.done
    assert report.verdict is not Verdict.CONSISTENT
    assert report.coverage.failed > 0, summary(report)
    assert "replication was altered during the run" in summary(report)
    assert {as_expected(f) for f in read_findings(path)} <= {expected("t", "missing", {"id": DAMAGED})}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Four nodes of one token each, of which one may move and one may go."""
    yield from sandbox_cluster(tmp_path_factory.mktemp("moving"), "moving", dcs={"dc1": 4}, num_tokens=1, heap="384m")


@SOAK
@pytest.mark.parametrize(
    ("how", "locality"),
    [("move", Locality.NODE_LOCAL), ("move", Locality.TRACED), ("decommission", Locality.NODE_LOCAL)],
)
def test_a_node_that_moves_or_goes_in_mid_run(
    four: RunningCluster, tmp_path: Path, how: str, locality: Locality, figures: Figures
) -> None:
    """The ranges that it gains or hands over are unknown; what all others hold is told as it is."""
    box = four.sandbox
    assert box is not None
    name = f"{how}_{locality.name.lower()}"
    filled(four, name, 3)
    if how == "move":
        token = "1234567890123456789" if locality is Locality.TRACED else "-1234567890123456789"
        changed_under_writers(four, name, lambda: box.nodetool(2, "move", token), tmp_path / "f.jsonl", locality)
    else:
        changed_under_writers(four, name, lambda: box.nodetool(4, "decommission"), tmp_path / "f.jsonl", locality)
    figures.add(f"{how} beside writers, {locality.value}", "no false finding")
