"""What servers refuse, on a real cluster: named, foreseen by the plan, and never taken for a node that is down."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consistency.api import preflight
from consistency.auditing.preflight import Answer
from consistency.auditing.preflight_facts import PreflightOptions
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cluster.driver import Channel, Dialer
from consistency.cluster.session import open_cluster
from consistency.errors import ReplicaRefused
from consistency.model.reading import Locality
from consistency.model.ring import Node
from consistency.results.verdict import ExitCode
from consistency.watching.board import Board
from consistency.watching.loop import Watch, WatchOptions
from repair import resume
from repair.applying.guard import PlanRefused
from repair.deciding.decide import Action, Rule
from repair.deciding.policy import Policy
from repair.keeping.entries import Result
from repair.nightly.config import NightlyPolicy
from repair.nightly.night import VisitRepairer
from repair.writing.statements import Write
from repair.writing.writer import CqlWriter
from tests.support.cluster import RunningCluster, summary
from tests.support.repairing import Repairing, everything, results, rules

pytestmark = pytest.mark.cluster


@pytest.fixture
def base_us() -> int:
    """A write time a minute ago."""
    return time.time_ns() // 1000 - 60_000_000


def five(cluster: RunningCluster, base_us: int) -> str:
    """Ask for five replicas where three nodes exist, and damage four rows."""
    return damaged(cluster, cluster.keyspace("five", rf=5), base_us)


def damaged(cluster: RunningCluster, ks: str, base_us: int) -> str:
    """Make a table of which four rows differ."""
    cluster.ddl(f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text)")
    for n in (1, 2, 3):
        for i in range(8):
            cluster.on(n, f"INSERT INTO {ks}.t (id, v) VALUES ({i}, 'v') USING TIMESTAMP {base_us}")
    later = f"USING TIMESTAMP {base_us + 1}"
    cluster.on(1, f"UPDATE {ks}.t {later} SET v = 'w' WHERE id = 0")
    cluster.on(2, f"DELETE FROM {ks}.t {later} WHERE id = 1")
    cluster.on(3, f"DELETE v FROM {ks}.t {later} WHERE id = 2")
    cluster.on(1, f"INSERT INTO {ks}.t (id, v) VALUES (9, 'new') {later}")
    return ks


def test_more_replicas_than_nodes(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """No read at ALL can be answered: the plan says so, each replica is written to by itself, all is verified."""
    repairing = Repairing(cluster, tmp_path, five(cluster, base_us))
    made, tally = repairing.repaired()
    assert {row.action for row in made.rows} == {Action.WRITE_BACK}
    assert any("keyspace five needs 5 replicas of each row" in warning for warning in made.warnings)
    assert results(tally) == {Result.VERIFIED: 4}, tally
    held = everything(cluster, "five", "t")
    assert held[1] == held[2] == held[3]
    assert "[1]" not in held[1]


def test_more_replicas_than_nodes_without_node_local(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """Nothing can be written that all acknowledge: the rows are left alone with the reason, the replicas untouched."""
    repairing = Repairing(cluster, tmp_path, five(cluster, base_us), locality=Locality.TRACED)
    before = everything(cluster, "five", "t")
    made, tally = repairing.repaired()
    assert rules(made) == {Rule.OUT_OF_REACH}
    assert all("3 nodes exist to hold them: lower its replication factor" in row.sentence for row in made.rows)
    assert results(tally) == {Result.LEFT: 4}, tally
    assert everything(cluster, "five", "t") == before


def test_a_nightly_repair_counts_what_it_wrote(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """Of five replicas for three nodes: four rows written, four verified, no node is called down."""
    five(cluster, base_us)
    repair = night(cluster, tmp_path, "five")
    assert (repair["acted_on"], repair["results"], repair["left"]) == (4, {"verified": 4}, {})


def dc_removed(cluster: RunningCluster, ks: str) -> None:
    """Have every node read that the keyspace has replicas in a data centre without a node: no ALTER KEYSPACE may."""
    options = {"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "dc1": "3", "gone": "2"}
    at = f"USING TIMESTAMP {time.time_ns() // 1000}"
    for n in (1, 2, 3):
        cluster.on(
            n, f"UPDATE system_schema.keyspaces {at} SET replication = %s WHERE keyspace_name = %s", (options, ks)
        )
    sandbox = cluster.sandbox
    assert sandbox is not None, "only our own nodes can be told to read their schema anew"
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda n: sandbox.nodetool(n, "reloadlocalschema"), (1, 2, 3)):
            assert done.returncode == 0, done.stdout + done.stderr


def test_a_data_centre_that_was_removed_and_is_still_in_the_options(
    cluster: RunningCluster, tmp_path: Path, base_us: int
) -> None:
    """Named as the reason, no node called down; left alone without NODE_LOCAL, else written back and counted."""
    ks = damaged(cluster, cluster.keyspace("removed"), base_us)
    dc_removed(cluster, ks)
    assert "'gone': '2'" in cluster.session.execute(f"DESCRIBE KEYSPACE {ks}").one()["create_statement"]
    before = everything(cluster, ks, "t")
    made, tally = Repairing(cluster, tmp_path, ks, locality=Locality.TRACED).repaired()
    assert rules(made) == {Rule.OUT_OF_REACH}
    needs = f"keyspace {ks} needs 5 replicas of each row (dc1 3, gone 2), 3 nodes exist to hold them"
    assert all(needs in row.sentence for row in made.rows)
    assert results(tally) == {Result.LEFT: 4}, tally
    assert everything(cluster, ks, "t") == before
    repair = night(cluster, tmp_path, ks)
    assert (repair["acted_on"], repair["results"], repair["left"]) == (4, {"verified": 4}, {})
    held = everything(cluster, ks, "t")
    assert held[1] == held[2] == held[3]
    assert "[1]" not in held[1]
    audited = cluster.command("audit", ks, *cluster.host_options)
    assert (audited.returncode, "a data center without a node" in audited.stdout) == (1, True), audited.stdout


def test_a_corrupt_sstable_is_named_and_the_rest_is_compared(
    cluster: RunningCluster, base_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its bytes is another: the leaf that holds it is unknown, with the reason, and all others are read."""
    monkeypatch.setattr("consistency.checking.scan.SECOND_TRY_AFTER_S", 0.1)
    ks = cluster.keyspace("torn")
    cluster.ddl(f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text)")
    values = ((i, f"{i} {'v' * 50}") for i in range(5_000))
    cluster.load(f"INSERT INTO {ks}.t (id, v) VALUES (?, ?) USING TIMESTAMP {base_us}", values)
    sandbox = cluster.sandbox
    assert sandbox is not None, "only our own nodes have files that may be damaged"
    sandbox.nodetool(2, "flush", ks)
    (data,) = (sandbox.options.dir / "node2").glob(f"data/data/{ks}/t-*/*-Data.db")
    with data.open("r+b") as file:
        middle = file.seek(data.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 255]))
    try:
        report = cluster.check(ks, scan=ScanOptions(leaf_rows=300))
        assert report.exit_code is ExitCode.INCOMPLETE, summary(report)
        assert report.coverage.failed in {1, 2}, "the block lies in one leaf, or on the border of two"
        reasons = {unread.reason.partition(";")[0] for table in report.tables for unread in table.unread}
        assert reasons == {f"{cluster.name(2)}: an SSTable there is corrupt"}
    finally:
        cluster.ddl(f"DROP KEYSPACE {ks}")


def test_what_no_merge_brings_together_is_said(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """A delete past its grace and not purged, an empty value against a delete of its time: named, with a way out."""
    ks = cluster.keyspace("stubborn")
    cluster.ddl(
        f"CREATE TABLE {ks}.late (id int PRIMARY KEY, v text) WITH gc_grace_seconds = 1",
        f"CREATE TABLE {ks}.empty (id int PRIMARY KEY, v text, w text)",
    )
    for n in (1, 2):
        cluster.on(n, f"INSERT INTO {ks}.late (id, v) VALUES (1, 'ahead') USING TIMESTAMP {base_us}")
        cluster.on(n, f"INSERT INTO {ks}.empty (id, v, w) VALUES (1, '', 'w') USING TIMESTAMP {base_us}")
    cluster.on(3, f"DELETE FROM {ks}.late USING TIMESTAMP {base_us + 1} WHERE id = 1")
    cluster.on(3, f"INSERT INTO {ks}.empty (id, w) VALUES (1, 'w') USING TIMESTAMP {base_us}")
    cluster.on(3, f"DELETE v FROM {ks}.empty USING TIMESTAMP {base_us} WHERE id = 1")
    time.sleep(2.5)  # the grace of the delete
    repairing = Repairing(cluster, tmp_path, ks)
    _, tally = repairing.repaired()
    assert results(tally) == {Result.DIVERGENT: 2}, tally
    said = sorted(reason for _, reason in tally.reasons)
    assert "an empty value ('') and a delete of one write time" in said[0]
    assert "older than gc_grace_seconds" in said[1]
    first, second = (night(cluster, tmp_path, ks) for _ in range(2))
    assert (first["acted_on"], first["results"]) == (0, {"still-divergent": 2})
    assert second["results"] == {"left-alone": 2}
    assert all("tried in vain on" in reason for reason in second["left"])


def night(cluster: RunningCluster, tmp_path: Path, keyspace: str) -> dict[str, Any]:
    """Check and repair once, as cron does, and return what the report says of the repair."""
    config, report = tmp_path / "config.toml", tmp_path / "report.json"
    config.write_text(f"[repair]\nsettle = 0.3\ndirectory = '{tmp_path / 'repairs'}'\n")
    words = ("check", keyspace, "--repair", "--config", str(config), "--json", str(report))
    ran = cluster.command(*words, *cluster.host_options)
    assert "did not answer" not in ran.stdout
    told: dict[str, Any] = json.loads(report.read_text())["repair"]
    return told


def test_a_watch_repairs_over_the_connections_of_its_visit(
    cluster: RunningCluster, tmp_path: Path, base_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may allow an address one connection: each node is dialled once for the check and the repair."""
    ks = damaged(cluster, cluster.keyspace("single"), base_us)
    dialled: Counter[tuple[str, int]] = Counter()
    dial = Dialer.dial

    async def counted(dialer: Dialer, place: tuple[str, int]) -> Channel:
        dialled[place] += 1
        return await dial(dialer, place)

    monkeypatch.setattr(Dialer, "dial", counted)
    repairer = VisitRepairer(NightlyPolicy(Policy(settle_s=0.3), directory=tmp_path))
    options = WatchOptions(CheckOptions(names=(ks,), settle_window_s=0.3))
    watch = Watch(lambda: open_cluster(cluster.settings), options, Board(), repairer=repairer)

    async def one_round() -> None:
        stop = asyncio.Event()
        watching = asyncio.create_task(watch.run(stop))
        while not watch.rounds and not watching.done():  # noqa: ASYNC110 - a watch tells nobody of its rounds
            await asyncio.sleep(0.05)
        stop.set()
        await watching

    asyncio.run(one_round())
    assert dialled == dict.fromkeys(cluster.points, 1)
    held = everything(cluster, ks, "t")
    assert held[1] == held[2] == held[3]
    assert "[1]" not in held[1]


@pytest.mark.parametrize("change", ["ADD no int", "RENAME street TO road"])
def test_a_type_that_changes_between_plan_and_apply(
    cluster: RunningCluster, tmp_path: Path, base_us: int, change: str
) -> None:
    """ALTER TYPE is refused as ALTER TABLE is, before anything is written."""
    ks = cluster.keyspace("udt")
    cluster.ddl(
        f"CREATE TYPE {ks}.place (street text)",
        f"CREATE TABLE {ks}.t (id int PRIMARY KEY, u place) WITH read_repair = 'NONE'",
    )
    cluster.on(1, f"INSERT INTO {ks}.t (id, u) VALUES (1, {{street: 'A'}}) USING TIMESTAMP {base_us}")
    repairing = Repairing(cluster, tmp_path, ks)
    repairing.check()
    made = repairing.plan()
    assert made.to_do
    cluster.ddl(f"ALTER TYPE {ks}.place {change}")
    with pytest.raises(PlanRefused, match=r"udt\.t .*has changed since the plan was made"):
        repairing.apply(made)
    assert not list(cluster.on(2, f"SELECT id FROM {ks}.t"))


def test_what_one_replica_has_deleted_comes_to_no_other_where_its_delete_may_not_be_passed_on(
    cluster: RunningCluster, tmp_path: Path, base_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One holds a row, one deleted it or a part of it, one knows nothing: refused half-way, that one shows no more.

    Nor does a stand-in that was sent ahead show; resumed, every replica holds the merge.
    """
    ks, later = cluster.keyspace("hidden"), f"USING TIMESTAMP {base_us + 1}"
    cluster.ddl(
        f"CREATE TABLE {ks}.t (p int, c int, v text, m map<text, int>, PRIMARY KEY (p, c)) WITH read_repair = 'NONE'"
    )
    for p in range(6):
        cluster.on(1, f"INSERT INTO {ks}.t (p, c, v, m) VALUES ({p}, 1, 'v', {{'a': 1}}) USING TIMESTAMP {base_us}")
    for gone in ("p = 0", "p = 1 AND c = 1", "p = 2 AND c > 0"):
        cluster.on(3, f"DELETE FROM {ks}.t {later} WHERE {gone}")
    cluster.on(3, f"DELETE v FROM {ks}.t {later} WHERE p = 3 AND c = 1")
    cluster.on(3, f"DELETE m['a'] FROM {ks}.t {later} WHERE p = 4 AND c = 1")
    before = everything(cluster, ks, "t")
    repairing = Repairing(cluster, tmp_path, ks)
    repairing.check()
    made = repairing.plan()
    with monkeypatch.context() as patch:
        patch.setattr(CqlWriter, "on", no_deletes(CqlWriter.on))
        tally = repairing.apply(made)
    assert results(tally) == {Result.REFUSED: 5, Result.VERIFIED: 1}, tally
    halfway = everything(cluster, ks, "t")
    assert halfway[1] == before[1]
    assert [len(halfway[n]) for n in (2, 3)] == [3, 3], "a deleted row came to a replica that knew nothing of it"
    shown = {r["p"]: (r["v"], r["m"]) for r in cluster.on(2, f"SELECT p, v, m FROM {ks}.t")}
    assert shown == {3: (None, {"a": 1}), 4: ("v", None), 5: ("v", {"a": 1})}
    assert results(resume(repairing.journal, settings=cluster.settings)) == {Result.VERIFIED: 6}
    held = everything(cluster, ks, "t")
    assert held[1] == held[2] == held[3] == halfway[2]


def no_deletes(write: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return a write that servers refuse where it deletes."""

    async def on(writer: CqlWriter, node: Node, statement: Write) -> None:
        if "DELETE" in statement.cql:
            msg = f"{node}: no deletes today"
            raise ReplicaRefused(msg)
        await write(writer, node, statement)

    return on


def test_rows_that_a_view_alone_has_lost_are_not_sent_to_its_table(
    cluster: RunningCluster, tmp_path: Path, base_us: int
) -> None:
    """The table's rows agree: the plan says so and what helps, and nothing is written."""
    ks = cluster.keyspace("hollow")
    cluster.ddl(
        f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text)",
        f"CREATE MATERIALIZED VIEW {ks}.by_v AS SELECT * FROM {ks}.t WHERE v IS NOT NULL AND id IS NOT NULL"
        " PRIMARY KEY (v, id)",
    )
    insert = f"INSERT INTO {ks}.t (id, v) VALUES (1, 'v') USING TIMESTAMP {base_us}"
    cluster.on(3, insert)
    storage = ("sjk", "mx", "-b", "org.apache.cassandra.db:type=StorageService")
    assert cluster.sandbox is not None
    done = cluster.sandbox.nodetool(1, *storage, "-mc", "-op", "truncate", "-a", ks, "-a", "by_v")
    assert done.returncode == 0, done.stdout + done.stderr
    for n in (1, 2):
        cluster.on(n, insert)
    held = everything(cluster, ks, "by_v")
    assert [len(held[n]) for n in (1, 2, 3)] == [1, 1, 0]
    repairing = Repairing(cluster, tmp_path, f"{ks}.t", f"{ks}.by_v")
    made, tally = repairing.repaired()
    assert rules(made) == {Rule.VIEW}
    assert all("agrees on every replica: nodetool repair --full" in row.sentence for row in made.rows)
    assert results(tally) == {Result.LEFT: 1}, tally
    assert everything(cluster, ks, "by_v") == held


def test_a_login_that_nobody_asks_for_takes_nothing_away(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """The servers have no logins, a column is masked: checked, repaired and judged as without a login."""
    assert not cluster.auth
    ks = cluster.keyspace("unasked")
    cluster.ddl(f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text MASKED WITH DEFAULT)")
    for i in range(5):
        cluster.everywhere(f"INSERT INTO {ks}.t (id, v) VALUES ({i}, 'v') USING TIMESTAMP {base_us}")
    cluster.on(1, f"UPDATE {ks}.t USING TIMESTAMP {base_us + 1} SET v = 'w' WHERE id = 1")
    login = replace(cluster, reach=replace(cluster.settings, username="anybody", password="anything"))
    for reached in (cluster, login):
        answers = {
            preflight(h, settings=reached.settings, options=PreflightOptions((ks,))).answer for h in cluster.hosts
        }
        assert answers == {Answer.YES}
        report = reached.check(ks)
        assert report.exit_code is ExitCode.DIVERGENT, summary(report)
        assert (report.coverage.complete, sum(report.findings_by_kind.values())) == (True, 1)
    _, tally = Repairing(login, tmp_path, ks).repaired()
    assert results(tally) == {Result.VERIFIED: 1}, tally
