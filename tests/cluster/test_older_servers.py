"""A smoke test on Cassandra 4.0 (and 4.1 in `make soak`): sums in the server where they cover a table."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from consistency.model.reading import Depth, Locality, Route
from consistency.results.findings import read_findings
from consistency.results.verdict import ExitCode
from repair.decide import Action, Rule
from repair.forecast import Forecast
from repair.journal import Result
from tests.support import quietness
from tests.support.cluster import RunningCluster, sandbox_cluster, summary
from tests.support.damage import Planter, as_expected, keys_only, names, plain, statics, wide
from tests.support.deletes import Deletes, told_and_done
from tests.support.figures import SOAK
from tests.support.repairing import Repairing, results

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=["4.0", pytest.param("4.1", marks=SOAK)])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planter]:
    """Tables of several shapes with their damage on an older server."""
    version: str = request.param
    clusters = sandbox_cluster(tmp_path_factory.mktemp("older"), version, cassandra=version)
    cluster: RunningCluster = next(clusters)
    try:
        planter = Planter(cluster, cluster.keyspace("older"))
        for build in (plain, wide, statics, names, keys_only):
            build(planter)
        cluster.ddl("CREATE TABLE older.lists (id int PRIMARY KEY, l list<int>)")
        planter.all("INSERT INTO $lists (id, l) VALUES (1, [1, 2]) @")
        yield planter
    finally:
        clusters.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("locality", list(Locality))
def test_the_route_is_chosen_and_finds_what_its_depth_sees(
    planted: Planter, tmp_path: Path, locality: Locality
) -> None:
    """Versions in the server where token() covers the key, content on the client elsewhere; exactly the damage."""
    report, findings = planted.cluster.findings(tmp_path / "f.jsonl", "older", locality=locality)
    chosen = {t.table: (t.depth, t.route) for t in report.tables}
    assert chosen["plain"] == ("versions", "server")
    assert chosen["statics"] == ("versions", "server")
    assert chosen["wide"] == ("content", "client")
    assert chosen["lists"] == ("content", "client")
    deep = {table for table, (depth, _) in chosen.items() if depth == "content"}
    wanted = {w for w in planted.content if w[0] in deep} | {w for w in planted.versions if w[0] not in deep}
    assert {as_expected(f) for f in findings} == wanted, summary(report)
    assert len(findings) == len(wanted)
    assert report.exit_code is ExitCode.DIVERGENT
    assert report.coverage.failed == report.coverage.skipped == 0, summary(report)


def test_rows_that_were_exchanged_and_write_times_of_zero_are_found(planted: Planter, tmp_path: Path) -> None:
    """Losses that cancel out in a plain sum of tokens: pairs swapped, a cycle turned round; and a cell written at 0."""
    cluster = planted.cluster
    planted = Planter(cluster, cluster.keyspace("exchanged"))
    cluster.ddl(
        "CREATE TABLE exchanged.swapped (who int, whom int, PRIMARY KEY (who, whom))",
        "CREATE TABLE exchanged.zero (id int PRIMARY KEY, v int, w text)",
    )
    for who in range(5):
        for whom in range(5):
            planted.all(f"INSERT INTO $swapped (who, whom) VALUES ({who}, {whom}) @")
        planted.all(f"INSERT INTO $zero (id, v) VALUES ({who}, 1) @")
    pairs = {1: ((1, 1), (2, 2), (0, 3), (3, 4), (4, 0)), 2: ((1, 2), (2, 1), (3, 0), (4, 3), (0, 4))}
    for n, lost in pairs.items():
        for who, whom in lost:
            planted.on(n, f"DELETE FROM $swapped @ WHERE who = {who} AND whom = {whom}", 1)
    cluster.on(1, "UPDATE exchanged.zero USING TIMESTAMP 0 SET w = 'lost' WHERE id = 3")
    report, findings = cluster.findings(tmp_path / "f.jsonl", "exchanged")
    assert {t.depth for t in report.tables} == {"versions"}
    lost = {(f.key["who"], f.key["whom"]) for f in findings if f.table == "swapped"}
    assert lost == {*pairs[1], *pairs[2]}, summary(report)
    assert [f.key["id"] for f in findings if f.table == "zero"] == [3]


def test_content_by_the_client_route_sees_everything(planted: Planter, tmp_path: Path) -> None:
    """What the sums cannot see, --depth content finds on an older server too."""
    report, findings = planted.cluster.findings(tmp_path / "f.jsonl", "older", depth=Depth.CONTENT)
    assert {t.route for t in report.tables} == {Route.CLIENT.value}
    assert {as_expected(f) for f in findings} == planted.content, summary(report)


@pytest.mark.parametrize("locality", list(Locality))
def test_repair_on_an_older_server(planted: Planter, tmp_path: Path, locality: Locality) -> None:
    """What differs is planned and merged by the servers, and the check finds only what was left alone."""
    cluster, table = planted.cluster, f"mended_{locality.name.lower()}"
    cluster.ddl(f"CREATE TABLE older.{table} (p int, c int, v text, m map<text, int>, PRIMARY KEY (p, c))")
    for c in range(20):
        planted.all(f"INSERT INTO ${table} (p, c, v, m) VALUES (1, {c}, 'v', {{'a': 1}}) @")
    planted.on(1, f"UPDATE ${table} @ SET v = 'newer' WHERE p = 1 AND c = 1", 1)
    planted.on(2, f"DELETE FROM ${table} @ WHERE p = 1 AND c = 2", 1)
    planted.on(3, f"DELETE v FROM ${table} @ WHERE p = 1 AND c = 3", 1)
    planted.on(1, f"UPDATE ${table} @ SET m['b'] = 2 WHERE p = 1 AND c = 4", 1)
    repairing = Repairing(cluster, tmp_path, f"older.{table}", locality=locality)
    made, tally = repairing.repaired()
    assert {row.rule for row in made.rows} <= {Rule.LAST_WRITE, Rule.ZOMBIE}
    assert set(results(tally)) <= {Result.VERIFIED, Result.LEFT}
    left = {tuple(row.ref.key_hex.items()) for row in made.rows if row.action is Action.NONE}
    assert len(left) <= 1, "only a map's element, whose age an older server does not tell, may be left"
    after = repairing.check()
    found = {tuple(f.key_hex.items()) for f in read_findings(tmp_path / "findings.jsonl")}
    assert found == left, summary(after)
    held = [list(cluster.on(n, f"SELECT v FROM older.{table} WHERE p = 1")) for n in (1, 2, 3)]
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 19


@pytest.mark.parametrize("locality", list(Locality))
def test_readers_write_nothing_on_an_older_server(planted: Planter, tmp_path: Path, locality: Locality) -> None:
    """Check, explain and plan change no replica of tables whose reads are speculated, and no key stays in a trace."""
    secret = f"secret{uuid.uuid4().hex}"
    quietness.plant(planted.cluster, planted.base_us, secret)
    left = quietness.read_everything(planted.cluster, tmp_path, locality)
    assert (left.sessions > 0) is (locality is Locality.TRACED)
    assert left.with_keys == quietness.traces_with(planted.cluster, secret) == 0


def test_forecasts_on_an_older_server_are_right_or_unknown(planted: Planter, tmp_path: Path) -> None:
    """What its traces say of deletes is worded as in 5.0: rows that never arrived are told from deleted ones."""
    deletes = Deletes(planted.cluster, "older_fate", time.time_ns() // 1000 - 60_000_000)
    deletes.plant()
    time.sleep(1.5)  # until what has a time to live of a second has expired
    assert told_and_done(deletes, tmp_path)[Forecast.RESTORE]
