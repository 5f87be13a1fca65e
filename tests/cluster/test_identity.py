"""Whose answer is it? Balancers, shared addresses, odd peers tables and old schemas on a real cluster."""

from __future__ import annotations

import asyncio
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consistency.api import check, preflight
from consistency.auditing.preflight import Answer
from consistency.auditing.preflight_facts import PreflightOptions
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import ConnectionSettings
from consistency.errors import ConsistencyError, TopologyError
from consistency.model.reading import Locality
from consistency.results.findings import read_findings
from consistency.results.report import Report
from consistency.results.verdict import ExitCode, Verdict
from repair import Rule, apply, plan
from repair.deciding.policy import Policy
from repair.planning.planner import PlanOptions
from tests.support.addresses import address
from tests.support.cluster import RunningCluster, summary
from tests.support.damage import as_expected, expected
from tests.support.figures import LONG, SOAK
from tests.support.forwarder import Forwarder
from tests.support.moments import Moment

pytestmark = pytest.mark.cluster

BALANCER = address("shared", 50)
GHOST = address("shared", 99)
WANTED = {expected("t", "missing", {"id": 7}), expected("t", "stale", {"id": 8})}
PEERS = (
    "peer, peer_port, data_center, rack, host_id, native_address, native_port, release_version, schema_version, tokens"
)
INSERT = f"INSERT INTO system.peers_v2 ({PEERS}) VALUES ({', '.join(['%s'] * 10)})"


@pytest.fixture(scope="module")
def damaged(cluster: RunningCluster) -> RunningCluster:
    """Node 2 lacks row 7, nodes 1 and 3 have an older row 8."""
    cluster.keyspace("whose")
    cluster.ddl("CREATE TABLE whose.t (id int PRIMARY KEY, v text)")
    at = time.time_ns() // 1000 - 3_600_000_000
    cluster.load("INSERT INTO whose.t (id, v) VALUES (?, ?) USING TIMESTAMP ?", ((i, "x", at) for i in range(100)))
    cluster.on(2, f"DELETE FROM whose.t USING TIMESTAMP {at + 1} WHERE id = 7")
    cluster.on(2, f"INSERT INTO whose.t (id, v) VALUES (8, 'another') USING TIMESTAMP {at + 1}")
    return cluster


def reached(cluster: RunningCluster, **settings: Any) -> RunningCluster:
    """Return the cluster as other settings reach it: through its first node alone, where none are given."""
    return replace(cluster, reach=ConnectionSettings(**{"contact_points": cluster.points[:1], **settings}))


def found(cluster: RunningCluster, path: Path, **options: Any) -> tuple[Report, set[Any]]:
    """Check and return the report and what was found."""
    report = cluster.check("whose", findings=path, **options)
    return report, {as_expected(finding) for finding in read_findings(path)}


@pytest.mark.parametrize(
    ("rotation", "locality"),
    [
        ("strict", None),
        ("two then three", Locality.TRACED),
        ("four then three", None),
        ("random", Locality.TRACED),
        pytest.param("strict", Locality.TRACED, marks=SOAK),
        pytest.param("two then three", None, marks=SOAK),
        pytest.param("four then three", Locality.TRACED, marks=SOAK),
        pytest.param("random", None, marks=SOAK),
    ],
)
def test_a_balancer_is_a_contact_point_and_nothing_more(
    damaged: RunningCluster, tmp_path: Path, rotation: str, locality: Locality | None
) -> None:
    """Whatever node a connection to it reaches, each node is read once, at its own address."""
    dice = random.Random(3)
    choices: dict[str, Callable[[int], int]] = {
        "strict": lambda n: n % 3,
        "two then three": lambda n: 1 if n < 2 else 2,
        "four then three": lambda n: 1 if n < 4 else 2,
        "random": lambda _: dice.randrange(3),
    }
    with Forwarder(BALANCER, lambda n: damaged.points[choices[rotation](n)]) as balancer:
        places = (balancer.place, balancer.place)
        through = reached(damaged, contact_points=places)
        report, seen = found(through, tmp_path / "f.jsonl", locality=locality)
    assert seen == WANTED, summary(report)
    assert (report.coverage.complete, set(report.replicas)) == (True, {damaged.name(n) for n in (1, 2, 3)})


def test_a_node_whose_address_leads_to_another_one_is_unread(damaged: RunningCluster, tmp_path: Path) -> None:
    """From the start, or after a reconnect in mid-scan: never counted twice, and named with the way out."""
    points = damaged.points
    for switched_after in (0, 3):
        turn = {"to": points[1] if switched_after else points[2]}
        with Forwarder(BALANCER, lambda _: turn["to"]) as two:  # noqa: B023 - closed before the next turn

            def exchange() -> None:
                turn["to"] = points[2]  # noqa: B023
                two.cut()

            moment = Moment(exchange, leaf=switched_after)
            through = reached(damaged, addresses={damaged.hosts[1]: two.place})
            report, _ = found(through, tmp_path / "f", observer=moment, scan=ScanOptions(leaf_rows=4))
            two.cut()
        assert report.verdict is not Verdict.CONSISTENT
        reasons = {u.reason for t in report.tables for u in t.unread}
        assert reasons, summary(report)
        assert all(reason.startswith(damaged.name(2)) for reason in reasons), reasons
        assert any("another node answers at" in reason for reason in reasons), reasons


def test_no_majority_is_made_of_one_node_counted_twice(damaged: RunningCluster, tmp_path: Path) -> None:
    """A row that one node alone holds past gc_grace stays a zombie suspect through a balancer, and is left alone."""
    damaged.ddl("CREATE TABLE whose.dead (id int PRIMARY KEY, v text) WITH gc_grace_seconds = 3600")
    old = time.time_ns() // 1000 - 3 * 86_400_000_000
    damaged.on(1, f"INSERT INTO whose.dead (id, v) VALUES (1, 'undead') USING TIMESTAMP {old}")
    for n in range(3):
        with Forwarder(BALANCER, lambda i, n=n: damaged.points[0 if i < n else (i + n) % 3]) as balancer:  # type: ignore[misc]
            settings = ConnectionSettings((balancer.place,))
            path = tmp_path / f"f{n}"
            reached(damaged, contact_points=(balancer.place,)).check("whose.dead", findings=path)
            made = plan(path, settings=settings, options=PlanOptions(Policy(settle_s=0.3)))
            assert [row.rule for row in made.rows] == [Rule.ZOMBIE]
            apply(made, tmp_path / f"j{n}", settings=settings)
    assert [len(damaged.on(m, "SELECT id FROM whose.dead").all()) for m in (1, 2, 3)] == [1, 0, 0]
    damaged.ddl("DROP TABLE whose.dead")


@contextmanager
def odd_peers(cluster: RunningCluster, *statements: tuple[str, tuple[Any, ...]], on: int = 1) -> Iterator[None]:
    """Have a node's peers table say something odd for a while."""
    kept = cluster.on(on, f"SELECT {PEERS} FROM system.peers_v2").all()
    try:
        for cql, values in statements:
            cluster.on(on, cql, values)
        yield
    finally:
        for row in cluster.on(on, "SELECT peer, peer_port FROM system.peers_v2").all():
            if row["peer"] not in {k["peer"] for k in kept}:
                where = (row["peer"], row["peer_port"])
                cluster.on(on, "DELETE FROM system.peers_v2 WHERE peer = %s AND peer_port = %s", where)
        for row in kept:
            cluster.on(on, INSERT, tuple(set(v) if k == "tokens" else v for k, v in row.items()))


def _update(column: str, value: str) -> Callable[[RunningCluster], tuple[str, tuple[Any, ...]]]:
    return lambda cluster: (
        f"UPDATE system.peers_v2 SET {column} = {value} WHERE peer = %s AND peer_port = 7000",
        (cluster.hosts[1],),
    )


def _ghost(cluster: RunningCluster, tokens: set[str] | None) -> tuple[str, tuple[Any, ...]]:
    return INSERT, (GHOST, 7000, "dc1", "rack1", uuid.UUID(int=99), GHOST, 9042, "5.0.8", uuid.UUID(int=1), tokens)


def _tokens_of_two(cluster: RunningCluster) -> set[str]:
    row = cluster.on(1, "SELECT tokens FROM system.peers_v2 WHERE peer = %s", (cluster.hosts[1],)).one()
    return set(row["tokens"])


ODD: dict[str, tuple[Callable[[RunningCluster], tuple[str, tuple[Any, ...]]], str]] = {
    "a node that failed to join": (lambda c: _ghost(c, None), "stale_peer"),
    "no port": (_update("native_port", "null"), "peers_disagree"),
    "any address": (_update("native_address", "'0.0.0.0'"), "peers_disagree"),
    "no rack": (_update("rack", "null"), "peers_disagree"),
    "no data centre": (_update("data_center", "null"), "peers_disagree"),
    "no tokens": (_update("tokens", "null"), "peers_disagree"),
    "another rack": (_update("rack", "'elsewhere'"), "peers_disagree"),
    "no host id": (_update("host_id", "null"), "peers_disagree"),
    "not there": (
        lambda c: ("DELETE FROM system.peers_v2 WHERE peer = %s AND peer_port = 7000", (c.hosts[1],)),
        "peers_disagree",
    ),
    "dead, tokens of its own": (lambda c: _ghost(c, {"1", "4611686018427387904"}), "stale_peer"),
    "dead, tokens of a living one": (lambda c: _ghost(c, _tokens_of_two(c)), "stale_peer"),
}


_AS_OTHERS = ("no port", "no rack", "no data centre", "another rack")
"""Odd in ways that another one stands for, unless there is time."""


@pytest.mark.parametrize("odd", ODD if LONG else [name for name in ODD if name not in _AS_OTHERS])
def test_odd_rows_of_one_peers_table_change_nothing_and_are_named(
    damaged: RunningCluster, tmp_path: Path, odd: str
) -> None:
    """Asked through the node that has them alone: all nodes are found through one another, and the audit says it."""
    statement, kind = ODD[odd]
    with odd_peers(damaged, statement(damaged)):
        report, seen = found(reached(damaged), tmp_path / "f")
    assert seen == WANTED, summary(report)
    assert report.coverage.complete
    assert kind in {v.kind for v in report.violations}
    assert damaged.hosts[0] in " ".join(v.detail for v in report.violations)


def test_nodes_that_tell_one_address_are_refused_by_name_unless_told_where_they_are(
    damaged: RunningCluster, tmp_path: Path
) -> None:
    """All peers of node 1 tell node 1's address: nobody knows who would answer; a map by host id says it."""
    ids = {host: str(damaged.on(n, "SELECT host_id FROM system.local").one()["host_id"])
           for n, host in enumerate(damaged.hosts, start=1)}  # fmt: skip
    statements = [
        (
            "UPDATE system.peers_v2 SET native_address = %s WHERE peer = %s AND peer_port = 7000",
            (damaged.hosts[0], host),
        )
        for host in damaged.hosts[1:]
    ]
    with odd_peers(damaged, *statements):
        for locality in (None, Locality.TRACED):
            with pytest.raises(TopologyError, match="both tell") as refused:
                reached(damaged).check("whose", locality=locality)
            assert sum(host_id in str(refused.value) for host_id in ids.values()) == 2
        places = {ids[host]: (host, damaged.port) for host in damaged.hosts}
        report, seen = found(reached(damaged, addresses=places), tmp_path / "f")
    assert seen == WANTED, summary(report)


def test_one_address_for_all_nodes_is_no_obstacle_where_a_map_says_where_they_are(
    damaged: RunningCluster, tmp_path: Path
) -> None:
    """Each node tells the balancer's address of itself: they are told apart by where each is reached."""
    host_id = "SELECT host_id FROM system.local"
    ids = [str(damaged.on(n, host_id).one()["host_id"]) for n in (1, 2, 3)]
    places = dict(zip(ids, damaged.points, strict=True))
    try:
        for n in (1, 2, 3):
            damaged.on(n, f"UPDATE system.local SET rpc_address = '{BALANCER}' WHERE key = 'local'")
        report, seen = found(reached(damaged, addresses=places), tmp_path / "f")
        named, _ = found(reached(damaged, contact_points=damaged.points), tmp_path / "g")
    finally:
        for n, host in enumerate(damaged.hosts, start=1):
            damaged.on(n, f"UPDATE system.local SET rpc_address = '{host}' WHERE key = 'local'")
    assert seen == WANTED, summary(report)
    assert named.coverage.complete, summary(named)


def test_an_owner_whose_row_nobody_has_makes_every_range_unknown(damaged: RunningCluster, tmp_path: Path) -> None:
    """It does not answer us either; gossip shows it: a ring without it would make every row look lost somewhere."""
    box = damaged.sandbox
    assert box is not None
    gone = ("DELETE FROM system.peers_v2 WHERE peer = %s AND peer_port = 7000", (damaged.hosts[2],))
    box.nodetool(3, "disablebinary")
    try:
        with odd_peers(damaged, gone), odd_peers(damaged, gone, on=2):
            report, seen = found(reached(damaged), tmp_path / "f")
            audit = reached(damaged).command("audit", "whose")
    finally:
        box.nodetool(3, "enablebinary")
        damaged.close()
    assert (report.verdict, seen) == (Verdict.UNKNOWN, set()), summary(report)
    assert report.coverage.completed == 0
    assert damaged.hosts[2] in audit.stdout
    assert audit.returncode == 1


def test_a_table_that_one_node_describes_otherwise_is_unknown(damaged: RunningCluster, tmp_path: Path) -> None:
    """Node 1 missed an ALTER TABLE and a CREATE TABLE: whoever is asked, both are unknown and node 1 is named."""
    damaged.ddl(
        "CREATE TABLE whose.altered (id int PRIMARY KEY, v text, c int)",
        "CREATE TABLE whose.newer (id int PRIMARY KEY)",
    )
    time.sleep(3)  # a node that heard of a change late asks for it once more, and would put its version right
    version = damaged.on(1, "SELECT schema_version FROM system.local").one()["schema_version"]
    column = "keyspace_name = 'whose' AND table_name = 'altered' AND column_name = 'c'"
    kept = damaged.on(1, f"SELECT * FROM system_schema.columns WHERE {column}").one()
    table = "keyspace_name = 'whose' AND table_name = 'newer'"
    newer = damaged.on(1, f"SELECT * FROM system_schema.tables WHERE {table}").one()
    try:
        damaged.on(1, f"DELETE FROM system_schema.columns WHERE {column}")
        damaged.on(1, f"DELETE FROM system_schema.tables WHERE {table}")
        damaged.on(1, "UPDATE system.local SET schema_version = uuid() WHERE key = 'local'")
        for n in (1, 2):
            through = reached(damaged, contact_points=damaged.points[n - 1 : n])
            report, seen = found(through, tmp_path / f"f{n}")
            audit = through.command("audit", "whose")
            notes = {t.table: t.note for t in report.tables if t.verdict is Verdict.UNKNOWN}
            assert set(notes) == {"altered", "newer"}, summary(report)
            assert all(damaged.name(1) in note for note in notes.values())
            assert seen == WANTED
            assert "schema_disagreement" in {v.kind for v in report.violations}
            assert audit.returncode == 1, audit.stdout
            assert damaged.name(1) in audit.stdout
    finally:
        _put_back(damaged, "columns", kept)
        _put_back(damaged, "tables", newer)
        damaged.on(1, "UPDATE system.local SET schema_version = %s WHERE key = 'local'", (version,))
    damaged.ddl("DROP TABLE whose.altered", "DROP TABLE whose.newer")
    report, _ = found(damaged, tmp_path / "after")
    assert report.coverage.complete, summary(report)


def _put_back(cluster: RunningCluster, table: str, row: dict[str, Any]) -> None:
    """Write a row of the schema to all nodes at one time: the version is a digest of rows with their write times."""
    held = {name: _plain(value) for name, value in row.items() if value is not None}
    marks = ", ".join(["%s"] * len(held))
    at = time.time_ns() // 1000
    for n in (1, 2, 3):
        cql = f"INSERT INTO system_schema.{table} ({', '.join(held)}) VALUES ({marks}) USING TIMESTAMP {at}"
        cluster.on(n, cql, tuple(held.values()))


def _plain(value: Any) -> Any:
    """Return one of the driver's collections as one that it takes."""
    if hasattr(value, "items"):
        return dict(value.items())
    return set(value) if type(value).__name__ == "SortedSet" else value


def test_a_table_altered_under_a_check_is_unknown(damaged: RunningCluster, tmp_path: Path) -> None:
    """Also where a mask is put on a column: what is hashed from then on may be the mask."""
    for change in ("ALTER TABLE whose.late ADD d int", "ALTER TABLE whose.late ALTER v MASKED WITH DEFAULT"):
        damaged.ddl("DROP TABLE IF EXISTS whose.late", "CREATE TABLE whose.late (id int PRIMARY KEY, v text)")
        damaged.load("INSERT INTO whose.late (id, v) VALUES (?, 'v')", ((i,) for i in range(50)))
        moment = Moment(lambda: damaged.ddl(change), leaf=2)  # noqa: B023 - called before the next turn
        report = damaged.check("whose.late", observer=moment, scan=ScanOptions(leaf_rows=5))
        assert moment.done
        assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE), summary(report)
        assert "altered" in summary(report)
    damaged.ddl("DROP TABLE whose.late")


def test_who_answers_is_asked_once_a_connection_and_costs_little(damaged: RunningCluster) -> None:
    """One connection a node, one question on each; the cluster is described in a moment."""

    async def run() -> tuple[float, int]:
        started = time.monotonic()
        async with open_cluster(damaged.settings) as (reader, _):
            took_s = time.monotonic() - started
            return took_s, len(reader.access.connection._channels)

    runs = [asyncio.run(run()) for _ in range(3)]
    assert min(took for took, _ in runs) < 2.0
    assert {channels for _, channels in runs} == {3}


def test_a_contact_point_that_is_no_cassandra_is_one_line(damaged: RunningCluster) -> None:
    """A listener that closes at once, beside one that answers, does no harm; alone it is an error with the hosts."""
    with Forwarder(BALANCER, lambda _: (GHOST, 1)) as nobody:
        assert reached(damaged, contact_points=(nobody.place, damaged.points[0])).check("whose").coverage.complete
        with pytest.raises(ConsistencyError) as error:
            reached(damaged, contact_points=(nobody.place,)).check("whose")
    assert "\n" not in str(error.value)
    assert nobody.place[0] in str(error.value)


@pytest.fixture
def named(damaged: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> RunningCluster:
    """The cluster as it is reached by names, which the resolver of this process knows alone."""
    names = {f"node-{n}.test": host for n, host in enumerate(damaged.hosts, start=1)} | {"balancer.test": BALANCER}
    resolve = socket.getaddrinfo

    def by_name(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve(names.get(host, host), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", by_name)
    return reached(damaged, contact_points=[(name, damaged.port) for name in names if name.startswith("node")])


def test_the_only_copy_that_a_check_by_name_found_keeps_its_node_up_by_address(
    damaged: RunningCluster, named: RunningCluster, tmp_path: Path
) -> None:
    """A node is its host id, in the ledger too: however it is called, the one with the only copy may not go."""
    keyspace = damaged.keyspace("sole")
    damaged.ddl(f"CREATE TABLE {keyspace}.t (id int PRIMARY KEY, v text)")
    damaged.on(1, f"INSERT INTO {keyspace}.t (id, v) VALUES (1, 'only here')")
    ledger = tmp_path / "ledger"
    time.sleep(0.5)
    report = check(keyspace, settings=named.settings, ledger=ledger, options=CheckOptions(settle_window_s=0.3))
    assert report.exit_code is ExitCode.DIVERGENT, summary(report)
    options = PreflightOptions((keyspace,), ledger)
    answers = [preflight(host, settings=damaged.settings, options=options).answer for host in damaged.hosts]
    assert answers == [Answer.NO, Answer.YES, Answer.YES]


def test_a_node_by_name_whose_connections_were_cut_is_read_again(
    damaged: RunningCluster, named: RunningCluster, tmp_path: Path
) -> None:
    """As by its address: what could not be digested when it was away is digested at the end."""
    with Forwarder(BALANCER, lambda _: damaged.points[1]) as two:
        place = ("balancer.test", two.place[1])
        moment = Moment(two.cut, leaf=3)
        through = reached(named, contact_points=[place], addresses={damaged.hosts[1]: place})
        report, seen = found(through, tmp_path / "f", observer=moment, scan=ScanOptions(leaf_rows=4))
    assert seen == WANTED, summary(report)
    assert report.coverage.complete, summary(report)
