"""Two data centres, four nodes on one address: placement, replication factors per DC, --dc, and changes of the ring.

CONSISTENCY_TEST_VNODES=1 or 256 gives every node another number of tokens (`make soak` runs all three).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cassandra import ConsistencyLevel, WriteTimeout

from consistency.checking.scan import ScanOptions
from consistency.errors import ConsistencyError
from consistency.results.findings import read_findings
from consistency.results.verdict import ExitCode, Verdict
from repair import apply, plan
from repair.deciding.decide import Rule
from repair.deciding.policy import Policy, Require
from repair.keeping.entries import Result
from repair.planning.planner import PlanOptions
from tests.support.cluster import RunningCluster, eventually, sandbox_cluster, summary
from tests.support.damage import as_expected, expected
from tests.support.figures import Figures
from tests.support.moments import Moment
from tests.support.repairing import Repairing, everything, results, rules
from tests.support.writers import Writers

pytestmark = pytest.mark.cluster

VNODES = int(os.environ.get("CONSISTENCY_TEST_VNODES", "16"))
ROWS = 600
FACTORS = {1: {"dc1": 1}, 2: {"dc1": 1, "dc2": 1}, 3: {"dc1": 2, "dc2": 1}, 4: {"dc1": 2, "dc2": 2}}


@pytest.fixture(scope="module")
def two_dcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """dc1 and dc2 of two nodes in two racks each, one address, ports that count up."""
    yield from sandbox_cluster(
        tmp_path_factory.mktemp("topology"),
        "two data centres",
        dcs={"dc1": 2, "dc2": 2},
        racks=2,
        one_address=True,
        storage_port=7100,
        num_tokens=VNODES,
        heap="384m",
    )


def filled(cluster: RunningCluster, name: str, rows: int = ROWS, **factors: int) -> RunningCluster:
    """Make a keyspace with a table of equal rows."""
    cluster.keyspace(name, **factors)
    cluster.ddl(f"CREATE TABLE {name}.t (id int PRIMARY KEY, v text)")
    cluster.load(f"INSERT INTO {name}.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(rows)))
    return cluster


def holders(cluster: RunningCluster, keyspace: str, i: int) -> list[int]:
    """Return the nodes that hold a row in their own storage."""
    cql = f"SELECT id FROM {keyspace}.t WHERE id = {i}"
    return [n for n in range(1, len(cluster.points) + 1) if list(cluster.on(n, cql))]


def test_nodes_that_start_slowly_are_not_forgotten(two_dcs: RunningCluster) -> None:
    """Each node learns of the others once, however long they take until they own their ranges."""
    assert two_dcs.sandbox is not None
    for node in two_dcs.sandbox.nodes:
        told = node.log.read_text()
        assert told.count("is now part of the cluster") == 3
        assert "removing from gossip" not in told


@pytest.mark.parametrize("rf", sorted(FACTORS))
def test_replicas_of_every_replication_factor_are_compared(
    two_dcs: RunningCluster, tmp_path: Path, rf: int, figures: Figures
) -> None:
    """RF 1 has nothing to compare; with 2, 3 and 4 every replica is read, and one that lost a row is found."""
    cluster = filled(two_dcs, f"rf{rf}", **FACTORS[rf])
    report = cluster.check(f"rf{rf}", rf_minimum=1)
    if rf == 1:
        assert "one replica" in report.tables[0].note
        assert report.verdict is Verdict.UNKNOWN
        return
    assert report.verdict is Verdict.CONSISTENT, summary(report)
    assert report.tables[0].rows == ROWS
    owners = Counter(n for i in range(0, ROWS, 20) for n in holders(cluster, f"rf{rf}", i))
    assert owners.total() == rf * ROWS // 20
    damaged = {}
    for i in range(0, ROWS, 60):
        held_by = holders(cluster, f"rf{rf}", i)
        damaged[i] = held_by[i // 60 % len(held_by)]
        cluster.on(damaged[i], f"DELETE FROM rf{rf}.t WHERE id = {i}")
    report, findings = cluster.findings(tmp_path / "f.jsonl", f"rf{rf}", rf_minimum=1)
    assert {as_expected(f) for f in findings} == {expected("t", "missing", {"id": i}) for i in damaged}
    for finding in findings:
        lacking = {name for name, view in finding.replicas.items() if view.state.value == "missing"}
        assert lacking == {cluster.name(damaged[finding.key["id"]])}
        assert len(finding.replicas) == rf
    figures.add(f"RF {rf}, {VNODES} tokens a node", f"{len(findings)} of {len(damaged)} found, {report.coverage}")


def test_a_difference_between_data_centres_is_found_and_dc_limits_a_check(
    two_dcs: RunningCluster, tmp_path: Path
) -> None:
    """All of dc2 is behind: the whole check sees it, each DC alone is consistent, and a DC with damage is not."""
    cluster = filled(two_dcs, "across", dc1=2, dc2=2)
    for n in (3, 4):
        cluster.on(n, "DELETE FROM across.t WHERE id = 5")
    path = tmp_path / "f.jsonl"
    report, findings = cluster.findings(path, "across")
    assert {as_expected(f) for f in findings} == {expected("t", "missing", {"id": 5})}
    behind = {name for name, view in findings[0].replicas.items() if view.state.value == "missing"}
    assert behind == {cluster.name(n) for n in (3, 4)}
    for dc in ("dc1", "dc2"):
        alone = cluster.check("across", dc=dc)
        assert alone.verdict is Verdict.CONSISTENT, summary(alone)
        assert 0 < alone.coverage.planned < report.coverage.planned
    cluster.on(4, "DELETE FROM across.t WHERE id = 9")
    alone = cluster.check("across", dc="dc1", rf_minimum=2)
    assert alone.exit_code is ExitCode.CONSISTENT, summary(alone)
    _, findings = cluster.findings(path, "across", dc="dc2")
    assert {as_expected(f) for f in findings} == {expected("t", "missing", {"id": 9})}


def test_writes_of_one_data_centre_on_their_way_to_the_other_are_no_finding(
    two_dcs: RunningCluster, tmp_path: Path
) -> None:
    """LOCAL_QUORUM in dc1 while a check runs: what dc2 gets a moment later is not reported.

    What a busy node has dropped for good differs, and is no false alarm: there are no hints.
    """
    cluster = filled(two_dcs, "local", dc1=2, dc2=2)
    statement = cluster.session.prepare("INSERT INTO local.t (id, v) VALUES (?, 'w')")
    statement.consistency_level = ConsistencyLevel.LOCAL_QUORUM
    pending = [cluster.session.execute_async(statement, (i,)) for i in range(ROWS)]
    report, findings = cluster.findings(tmp_path / "f.jsonl", "local", settle_window_s=2.5)
    for future in pending:
        with suppress(WriteTimeout):  # a busy machine: the row may be anywhere
            future.result()
    time.sleep(2.5)
    for finding in findings:
        row = f"SELECT v, writetime(v) FROM local.t WHERE id = {finding.key['id']}"
        held = {n: str(cluster.on(n, row).one()) for n in (1, 2, 3, 4)}
        assert len(set(held.values())) > 1, (held, summary(report))
    assert len(findings) < ROWS // 10, summary(report)


def test_a_data_centre_without_replicas_is_named_by_the_audit(two_dcs: RunningCluster) -> None:
    """A keyspace that lives in dc1 alone, and one that names a DC that is not there."""
    filled(two_dcs, "lonely", rows=1, dc1=2)
    done = two_dcs.command("audit", "lonely")
    assert "dc_without_replicas" in done.stdout.replace("\N{NO-BREAK SPACE}", "_"), done.stdout + done.stderr


def test_a_repair_over_two_data_centres(two_dcs: RunningCluster, tmp_path: Path, figures: Figures) -> None:
    """What all of dc2 lacks, a delete that dc1 alone knows, a stale row in each: mended with their own write times.

    With --require each-quorum a row waits for a data centre that cannot be read by quorum.
    """
    cluster = filled(two_dcs, "mended", dc1=2, dc2=2)
    base = time.time_ns() // 1000
    update = f"UPDATE mended.t USING TIMESTAMP {base} SET v"
    for n in (1, 2):
        cluster.on(n, f"INSERT INTO mended.t (id, v) VALUES (9001, 'one') USING TIMESTAMP {base}")
        cluster.on(n, f"DELETE FROM mended.t USING TIMESTAMP {base} WHERE id = 5")
    for n in (2, 4):
        cluster.on(n, f"{update} = 'newer' WHERE id = {10 + n}")
    everyone = tuple(range(1, 5))
    before = everything(cluster, "mended", "t", everyone)
    repairing = Repairing(cluster, tmp_path, "mended")
    assert sum(repairing.check().findings_by_kind.values()) == 4
    made, tally = repairing.repaired()
    assert results(tally) == {Result.VERIFIED: 4}, made.rows
    after = everything(cluster, "mended", "t", everyone)
    assert all(after[n] == after[1] for n in everyone)
    touched = {key for n in everyone for key in after[1] if before[n].get(key) != after[1][key]}
    assert len(touched) == 3
    assert len(after[1]) == ROWS
    cluster.on(1, f"UPDATE mended.t USING TIMESTAMP {base + 1} SET v = 'newest' WHERE id = 20")
    repairing.check()
    assert cluster.sandbox is not None
    cluster.sandbox.stop(4)
    cluster.close()
    try:
        assert rules(repairing.plan(require=Require.EACH_QUORUM)) == {Rule.TOO_FEW}
        assert Rule.TOO_FEW not in rules(repairing.plan(require=Require.QUORUM))
    finally:
        cluster.sandbox.start(4)
        cluster.close()
    _, tally = repairing.repaired(require=Require.EACH_QUORUM)
    assert results(tally) == {Result.VERIFIED: 1}
    assert repairing.check().verdict is Verdict.CONSISTENT
    figures.add("repair over two data centres", "5 of 5 rows verified, nothing else touched; each-quorum waits")


def test_a_ring_change_spoils_the_check_under_way_and_the_repair_after_it(
    two_dcs: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """A node joins while a check runs beside writers at QUORUM: no row of a range that moved is claimed to differ.

    Findings and plan of the old ring are refused afterwards.
    """
    cluster = filled(two_dcs, "moved", dc1=2, dc2=2)
    cluster.on(1, "DELETE FROM moved.t WHERE id = 5")
    path = tmp_path / "f.jsonl"
    cluster.findings(path, "moved")
    options = PlanOptions(Policy(settle_s=0.3))
    made = plan(path, settings=cluster.settings, options=options)
    assert len(made.rows) == len(list(read_findings(path))) == 1
    box = cluster.sandbox
    assert box is not None
    joining = Moment(lambda: box.add("dc2", stream=False), leaf=2)
    later = tmp_path / "later.jsonl"
    with Writers(cluster, "UPDATE moved.t SET v = 'w' WHERE id = ?", [i for i in range(ROWS) if i != 5]):
        meanwhile = cluster.check(
            "moved", observer=joining, findings=later, scan=ScanOptions(leaf_rows=50), settle_window_s=2.5
        )
    assert joining.done
    assert meanwhile.verdict is not Verdict.CONSISTENT
    assert meanwhile.coverage.failed > 0
    assert "the ring changed" in summary(meanwhile)
    assert {as_expected(f) for f in read_findings(later)} <= {expected("t", "missing", {"id": 5})}, summary(meanwhile)
    cluster.close()
    eventually(lambda: ring_of(cluster) == 5, 60, "the fifth node")
    with pytest.raises(ConsistencyError, match="ring"):
        plan(path, settings=cluster.settings, options=options)
    with pytest.raises(ConsistencyError, match="ring"):
        apply(made, tmp_path / "journal.jsonl", settings=cluster.settings)
    assert not holders(cluster, "moved", 5).count(1)
    figures.add("a node joined", "no false finding beside writers, plan and apply were refused, nothing written")


def ring_of(cluster: RunningCluster) -> int:
    """Return how many nodes the first one knows of."""
    return len(list(cluster.session.execute("SELECT peer FROM system.peers_v2", host=cluster._host(1)))) + 1
