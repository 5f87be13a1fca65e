"""What must never pass for consistent: the LOCAL_ONE trap, a node down, a table we may not read."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from consistency.model.reading import Locality
from consistency.results.verdict import ExitCode, Verdict
from tests.support.addresses import address
from tests.support.cluster import RunningCluster, eventually, summary
from tests.support.damage import as_expected, expected

pytestmark = pytest.mark.cluster


def test_damage_on_one_replica_is_found_on_a_fresh_cluster_without_node_local(
    fresh_traced_cluster: RunningCluster, tmp_path: Path
) -> None:
    """Where the coordinator would read another replica, a traced check proves which one answered.

    The damage is made the honest way: a node is stopped while rows are written, hints are off.
    """
    cluster = fresh_traced_cluster
    assert cluster.sandbox is not None
    cluster.keyspace("trap")
    cluster.ddl("CREATE TABLE trap.t (id int PRIMARY KEY, v text)")
    cluster.load("INSERT INTO trap.t (id, v) VALUES (?, ?)", ((i, "old") for i in range(300)))
    cluster.sandbox.stop(3)
    for i in range(0, 300, 10):
        cluster.quorum(f"UPDATE trap.t SET v = 'new' WHERE id = {i}")
    cluster.quorum("INSERT INTO trap.t (id, v) VALUES (1000, 'new')")
    cluster.close()
    cluster.sandbox.start(3)
    report, findings = cluster.findings(tmp_path / "f.jsonl", "trap")
    assert {t.locality for t in report.tables} == {Locality.TRACED.value}
    wanted = {expected("t", "stale", {"id": i}) for i in range(0, 300, 10)} | {expected("t", "missing", {"id": 1000})}
    assert {as_expected(f) for f in findings} == wanted, summary(report)
    assert report.exit_code is ExitCode.DIVERGENT
    for finding in findings:
        behind = {name for name, view in finding.replicas.items() if view.state.value != "current"}
        assert behind == {cluster.name(3)}


def test_node_local_cannot_be_forced_where_the_servers_refuse_it(fresh_traced_cluster: RunningCluster) -> None:
    """--locality node-local on servers that refuse it is one clear line, never a silent fallback."""
    done = fresh_traced_cluster.command("check", "trap", "--locality", "node-local", *fresh_traced_cluster.host_options)
    assert done.returncode == 3, done.stderr
    assert "enable_nodelocal_queries" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def tables(guarded_cluster: RunningCluster) -> RunningCluster:
    """Two tables with a role that may read only one, a keyspace of RF 1."""
    cluster = guarded_cluster
    cluster.ddl(
        "CREATE KEYSPACE trust WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}",
        "CREATE KEYSPACE alone WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}",
        "CREATE TABLE trust.open (id int PRIMARY KEY, v text)",
        "CREATE TABLE trust.closed (id int PRIMARY KEY, v text)",
        "CREATE TABLE alone.t (id int PRIMARY KEY, v text)",
        "CREATE ROLE reader WITH LOGIN = true AND PASSWORD = 'secret word'",
        "GRANT SELECT ON TABLE trust.open TO reader",
    )
    for table in ("trust.open", "trust.closed", "alone.t"):
        cluster.load(f"INSERT INTO {table} (id, v) VALUES (?, ?)", ((i, "v") for i in range(200)))
    return cluster


def test_a_table_without_permission_is_unknown_and_the_others_are_checked(
    tables: RunningCluster, tmp_path: Path
) -> None:
    """Exit 3, the table named with the reason, and the table that may be read is consistent."""
    path = tmp_path / "report.json"
    done = tables.command("check", "trust", "--json", str(path), user="reader", password="secret word")
    report = json.loads(path.read_text())
    by_table = {t["table"]: t for t in report["tables"]}
    assert done.returncode == 3, done.stderr
    assert by_table["open"]["verdict"] == "consistent"
    assert by_table["closed"]["verdict"] == "unknown"
    grant = "GRANT SELECT ON TABLE trust.closed TO reader"
    assert grant in json.dumps(by_table["closed"]["unread"])
    assert grant in " ".join(done.stdout.split())
    assert "secret word" not in done.stdout + done.stderr + path.read_text()


def test_a_masked_column_is_unknown_to_a_role_without_unmask(tables: RunningCluster, tmp_path: Path) -> None:
    """Two values behind one mask look alike: the table is unknown, with the GRANT that mends it, until it is given.

    By either route. SELECT_MASKED lets a role ask for rows by what is masked; what it reads is masked all the same.
    """
    tables.ddl(
        "CREATE TABLE trust.masked (id int PRIMARY KEY, v text MASKED WITH DEFAULT)",
        "GRANT SELECT ON TABLE trust.masked TO reader",
        "GRANT SELECT_MASKED ON TABLE trust.masked TO reader",
    )
    tables.everywhere("INSERT INTO trust.masked (id, v) VALUES (1, 'a') USING TIMESTAMP 5")
    tables.on(1, "INSERT INTO trust.masked (id, v) VALUES (1, 'b') USING TIMESTAMP 5")
    for route in ("server", "client"):
        without = tables.command("check", "trust.masked", "--route", route, user="reader", password="secret word")
        assert without.returncode == 3, without.stdout + without.stderr
        assert "GRANT UNMASK ON TABLE trust.masked" in " ".join(without.stdout.split())
    assert tables.command("check", "trust.masked").returncode == 1
    tables.ddl("GRANT UNMASK ON TABLE trust.masked TO reader")
    eventually(
        lambda: tables.command("check", "trust.masked", user="reader", password="secret word").returncode == 1,
        30,
        "the grant",
    )
    tables.ddl("DROP TABLE trust.masked")


def test_rf_1_is_a_violation_and_the_other_tables_are_checked(tables: RunningCluster, tmp_path: Path) -> None:
    """A keyspace of RF 1 has nothing to compare: a violation, exit 1, and the rest is checked all the same."""
    path = tmp_path / "report.json"
    done = tables.command("check", "trust", "alone", "--json", str(path))
    report = json.loads(path.read_text())
    assert done.returncode == 1
    assert {v["kind"] for v in report["violations"]} >= {"rf_below_minimum"}
    by_table = {t["table"]: t for t in report["tables"]}
    assert "one replica" in by_table["t"]["note"]
    assert by_table["open"]["verdict"] == "consistent"
    assert report["coverage"]["skipped"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "nowhere"], 2, "no keyspace 'nowhere'"),
        (["check", "trust.opne"], 2, "did you mean 'open'"),
        (["check", "trust", "--hosts", f"{address('guarded')}:9"], 4, "no node answers"),
        (["check", "trust", "--hosts", address("guarded", 250)], 4, "no node answers"),
        (["check", "trust", "--hosts", "no-such-host.invalid"], 4, "no-such-host.invalid"),
        (["check", "trust", "--dc", "dc9"], 2, "dc9"),
    ],
)
def test_wrong_input_is_one_clear_line(tables: RunningCluster, arguments: list[str], code: int, words: str) -> None:
    """A wrong name, host or port: one line on standard error that names it, and the right exit code."""
    done = tables.command(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_wrong_or_missing_password_is_one_clear_line(tables: RunningCluster) -> None:
    """The message names the user or asks for one, and never shows a password."""
    wrong = tables.command("check", "trust", password="not the word")
    assert wrong.returncode == 4
    assert "'cassandra'" in wrong.stderr
    assert "not the word" not in wrong.stderr
    missing = tables.command("check", "trust", user=None)
    assert missing.returncode == 4
    assert "CONSISTENCY_USERNAME" in missing.stderr


def test_a_node_down_is_never_consistent(tables: RunningCluster, tmp_path: Path) -> None:
    """Down before the scan: exit 3 and the unread ranges named; with damage elsewhere exit 1, still incomplete."""
    sandbox = tables.sandbox
    assert sandbox is not None
    sandbox.stop(2, "kill")
    try:
        path = tmp_path / "report.json"
        done = tables.command("check", "trust", "--json", str(path))
        report = json.loads(path.read_text())
        assert done.returncode == 3, done.stdout + done.stderr
        assert report["verdict"] == "unknown"
        assert report["coverage"]["failed"] > 0
        named = {u["replica"] for t in report["tables"] for u in t["unread"] if u["ranges"]}
        assert named == {tables.name(2)}
        roots = [tree["roots"] for t in report["tables"] for tree in t["trees"]]
        assert roots
        assert {name for known in roots for name, root in known.items() if root is None} == {tables.name(2)}
        assert tables.name(2) in done.stdout
        tables.on(1, "DELETE FROM trust.open WHERE id = 7")
        done = tables.command("check", "trust", "--json", str(path))
        assert done.returncode == 1
        assert json.loads(path.read_text())["coverage"]["failed"] > 0
        tables.on(3, "DELETE FROM trust.open WHERE id = 7")
    finally:
        tables.close()
        sandbox.start(2)


def test_a_silent_node_is_noticed_within_a_bound(tables: RunningCluster) -> None:
    """A frozen process accepts connections and answers nothing: unknown, within a minute, not a hang."""
    sandbox = tables.sandbox
    assert sandbox is not None
    sandbox.stop(3, "freeze")
    try:
        started = time.monotonic()
        report = tables.check("trust.closed")
        assert report.verdict is Verdict.UNKNOWN, summary(report)
        assert report.coverage.failed > 0
        assert time.monotonic() - started < 90
    finally:
        tables.close()
        sandbox.start(3)
    eventually(lambda: tables.check("trust.closed").verdict is Verdict.CONSISTENT, 60, "the recovery")
