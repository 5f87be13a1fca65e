"""Servers that refuse what a repair asks for: by permission, by guardrail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consistency.model.reading import Locality
from repair import resume
from repair.deciding.decide import Action, Rule
from repair.keeping.entries import Fate, Result
from repair.keeping.record import read_journal
from tests.support.cluster import RunningCluster, eventually
from tests.support.figures import SOAK
from tests.support.guardrails import as_role, no_reads_at, no_writes_older_than
from tests.support.repairing import Dump, Repairing, everything, results

pytestmark = pytest.mark.cluster
MENDER = "mender"
DAY_US = 86_400_000_000


@pytest.fixture
def base_us() -> int:
    """A write time an hour ago."""
    return time.time_ns() // 1000 - 3_600_000_000


@pytest.fixture(scope="module")
def mender(guarded_cluster: RunningCluster) -> Iterator[RunningCluster]:
    """The cluster as a role reaches it that guardrails bind; it may read and write the keyspace `barred`."""
    cluster = guarded_cluster
    cluster.keyspace("barred")
    cluster.ddl(
        "CREATE TABLE barred.merged (id int PRIMARY KEY, v text, m map<text, int>)",
        "CREATE TABLE barred.total (id int PRIMARY KEY, n counter)",
        "CREATE TABLE barred.aged (id int PRIMARY KEY, a text, b text) WITH read_repair = 'NONE'",
        f"CREATE ROLE IF NOT EXISTS {MENDER} WITH LOGIN = true AND PASSWORD = '{MENDER}'",
        *(f"GRANT SELECT ON KEYSPACE {name} TO {MENDER}" for name in ("barred", "system_traces", "system_views")),
        f"GRANT MODIFY ON KEYSPACE barred TO {MENDER}",
    )
    role = as_role(cluster, MENDER, MENDER)

    def may() -> bool:
        done = role.command("check", "barred.total", user=MENDER, password=MENDER)
        return done.returncode == 0

    eventually(may, 60, "the grants' arrival on every node")
    yield role
    cluster.ddl("DROP KEYSPACE barred", f"DROP ROLE {MENDER}")


def alike(held: Dump) -> bool:
    """Whether every replica shows the same, write times too."""
    return held[1] == held[2] == held[3]


def test_where_reads_at_all_are_forbidden_rows_are_written_back(
    mender: RunningCluster, tmp_path: Path, base_us: int
) -> None:
    """The plan knows the guardrail: cells, elements and deletes are written back, a counter is left and named."""
    at = f"USING TIMESTAMP {base_us}"
    for i in range(4):
        mender.everywhere(f"INSERT INTO barred.merged (id, v, m) VALUES ({i}, 'v', {{'a': 1}}) {at}")
    mender.on(1, f"DELETE FROM barred.merged USING TIMESTAMP {base_us + 1} WHERE id = 1")
    mender.on(2, f"UPDATE barred.merged USING TIMESTAMP {base_us + 1} SET v = 'new', m['b'] = 2 WHERE id = 2")
    mender.on(3, f"INSERT INTO barred.merged (id, v) VALUES (100, 'only') {at}")
    mender.on(2, "UPDATE barred.total SET n = n + 5 WHERE id = 1")
    time.sleep(3)  # a counter's write times are the servers'
    repairing = Repairing(mender, tmp_path, "barred.merged", "barred.total")
    with no_reads_at(mender, "ALL"):
        repairing.check()
        made = repairing.plan()
        assert {row.action for row in made.rows if row.ref.table == "merged"} == {Action.WRITE_BACK}
        assert len(made.to_do) == 3
        assert all("read_consistency_levels" in row.refused for row in made.refused)
        assert {row.rule for row in made.refused} <= {Rule.COUNTER}
        tally = repairing.apply(made)
        assert results(tally)[Result.VERIFIED] == 3, tally
        held = everything(mender, "barred", "merged")
        assert alike(held)
        assert len(held[1]) == 4, "the delete that one replica knew did not win"
        before = everything(mender, "barred", "total")
        undone = mender.command("repair", "undo", str(repairing.journal), "--yes", user=MENDER, password=MENDER)
        assert "3 undone" in undone.stdout, undone.stdout + undone.stderr
        assert alike(everything(mender, "barred", "merged"))
        assert everything(mender, "barred", "total") == before


def test_a_guardrail_that_comes_or_goes_after_the_plan_takes_no_row_out_of_it(
    mender: RunningCluster, tmp_path: Path, base_us: int
) -> None:
    """One that comes is named, nothing is written, resume goes on without it; a write-back is made though it went."""
    for n, i in ((1, 11), (2, 12)):
        mender.everywhere(f"INSERT INTO barred.merged (id, v) VALUES ({i}, 'v') USING TIMESTAMP {base_us}")
        mender.on(n, f"DELETE FROM barred.merged USING TIMESTAMP {base_us + 1} WHERE id = {i}")
    before = everything(mender, "barred", "merged")
    repairing = Repairing(mender, tmp_path, "barred.merged")
    repairing.check()
    made = repairing.plan()
    assert {row.action for row in made.rows} == {Action.RECONCILE}
    with no_reads_at(mender, "ALL"):
        tally = repairing.apply(made)
        assert results(tally) == {Result.REFUSED: 2}, tally
        assert all("read_consistency_levels" in reason for _, reason in tally.reasons)
        assert everything(mender, "barred", "merged") == before
        written = repairing.plan().only(lambda row: row.ref.key_hex == made.rows[0].ref.key_hex)
        assert {row.action for row in written.rows} == {Action.WRITE_BACK}
    first = repairing.journal
    assert results(repairing.apply(written)) == {Result.VERIFIED: 1}
    assert results(resume(first, settings=mender.settings)) == {Result.VERIFIED: 2}
    held = everything(mender, "barred", "merged")
    assert alike(held)
    assert not {"[11]", "[12]"} & held[1].keys()


@pytest.mark.parametrize("locality", [Locality.NODE_LOCAL, pytest.param(Locality.TRACED, marks=SOAK)])
def test_what_a_role_may_not_write_is_not_undone_and_resumed_by_one_that_may(
    guarded_cluster: RunningCluster, mender: RunningCluster, tmp_path: Path, base_us: int, locality: Locality
) -> None:
    """Every write refused: undo changes no replica and says that nothing was changed; resume repairs; undo undoes."""
    cluster = guarded_cluster
    cluster.ddl("TRUNCATE barred.aged", f"REVOKE MODIFY ON KEYSPACE barred FROM {MENDER}")
    for i in range(3):
        cluster.everywhere(f"INSERT INTO barred.aged (id, a) VALUES ({i}, 'old') USING TIMESTAMP {base_us}")
    cluster.on(1, f"DELETE FROM barred.aged USING TIMESTAMP {base_us + 1} WHERE id = 1")
    cluster.on(2, f"UPDATE barred.aged USING TIMESTAMP {base_us + 1} SET a = 'new' WHERE id = 2")
    cluster.on(2, f"INSERT INTO barred.aged (id, a) VALUES (100, 'only') USING TIMESTAMP {base_us}")
    before = everything(cluster, "barred", "aged")
    try:
        repairing = Repairing(mender, tmp_path, "barred.aged", locality=locality)
        repairing.check()
        made = repairing.plan()
        assert {row.action for row in made.rows} == {Action.WRITE_BACK}
        eventually(lambda: not _may_write(mender), 30, "the REVOKE's arrival")
        assert results(repairing.apply(made)) == {Result.REFUSED: 3}
    finally:
        cluster.ddl(f"GRANT MODIFY ON KEYSPACE barred TO {MENDER}")
    entries = read_journal(repairing.journal).entries.values()
    assert {entry.fate for entry in entries} == {Fate.NONE}
    assert everything(cluster, "barred", "aged") == before
    undone = cluster.command("repair", "undo", str(repairing.journal), "--yes")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert "3 not-changed" in undone.stdout
    assert "MODIFY" in undone.stdout, "the reason is not named"
    assert everything(cluster, "barred", "aged") == before, "undo changed what was never repaired"
    resumed = cluster.command("repair", "resume", str(repairing.journal), "--yes")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = everything(cluster, "barred", "aged")
    assert alike(after)
    assert len(after[1]) == 3
    undone = cluster.command("repair", "undo", str(repairing.journal), "--yes")
    assert "3 undone" in undone.stdout, undone.stdout + undone.stderr


def _may_write(role: RunningCluster) -> bool:
    from cassandra import Unauthorized  # noqa: PLC0415
    from cassandra.auth import PlainTextAuthProvider  # noqa: PLC0415
    from cassandra.cluster import Cluster  # noqa: PLC0415

    allowed = False
    for host in role.hosts:
        with Cluster([host], port=role.port, auth_provider=PlainTextAuthProvider(MENDER, MENDER)) as cluster:
            try:
                cluster.connect().execute("DELETE FROM barred.aged USING TIMESTAMP 1 WHERE id = -1")
                allowed = True
            except Unauthorized:
                pass
    return allowed


def test_a_row_of_cells_of_different_ages_is_written_whole_or_not_at_all(
    mender: RunningCluster, tmp_path: Path, base_us: int
) -> None:
    """A guardrail forbids the older cell: foreseen, nothing of the row is written, and all once it is lifted."""
    mender.ddl("TRUNCATE barred.aged")
    for i in range(5):
        for n in (1, 2):
            mender.on(n, f"UPDATE barred.aged USING TIMESTAMP {base_us} SET a = 'young' WHERE id = {i}")
            mender.on(n, f"UPDATE barred.aged USING TIMESTAMP {base_us - 3 * DAY_US} SET b = 'old' WHERE id = {i}")
    before = everything(mender, "barred", "aged")
    repairing = Repairing(mender, tmp_path, "barred.aged", locality=Locality.TRACED)
    with no_writes_older_than(mender, "1d"):
        repairing.check()
        made = repairing.plan()
        assert len(made.refused) == 5
        assert all("minimum_timestamp" in row.refused for row in made.rows)
        assert results(repairing.apply(made)) == {Result.REFUSED: 5}
        assert everything(mender, "barred", "aged") == before, "a row is torn"
    resumed = mender.command("repair", "resume", str(repairing.journal), "--yes", user=MENDER, password=MENDER)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    held = everything(mender, "barred", "aged")
    assert alike(held)
    assert held[3] == before[1]
