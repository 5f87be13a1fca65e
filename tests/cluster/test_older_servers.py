"""Cassandra 4.0 (and 4.1 in `make soak`): content is hashed in the servers, and exactly the damage is found."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from consistency.checking.scan import ScanOptions
from consistency.model.reading import ONE_REPLICA, Depth, Locality, Route
from consistency.results.findings import read_findings
from consistency.results.forecast import Forecast
from consistency.results.verdict import ExitCode
from repair.deciding.decide import Action, Rule
from repair.keeping.entries import Result
from tests.support import hashing, merged_ranges, quietness
from tests.support.cluster import RunningCluster, eventually, sandbox_cluster, summary
from tests.support.damage import SHAPES, Planter, as_expected
from tests.support.deletes import Deletes, told_and_done
from tests.support.figures import LONG, SOAK
from tests.support.modes import MODES
from tests.support.repairing import Repairing, results

pytestmark = pytest.mark.cluster

MOST_TOMBSTONES = 3_000
"""How many the servers read at once."""


@pytest.fixture(scope="module", params=["4.0", pytest.param("4.1", marks=SOAK)])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planter]:
    """Every shape of table with its damage on an older server that asks for a login."""
    version: str = request.param
    settings = {"tombstone_failure_threshold": str(MOST_TOMBSTONES)}
    directory = tmp_path_factory.mktemp("older")
    clusters = sandbox_cluster(directory, version, cassandra=version, settings=settings, auth=True)
    cluster: RunningCluster = next(clusters)
    try:
        planter = Planter(cluster, cluster.keyspace("older"))
        for build in SHAPES.values():
            build(planter)
        yield planter
    finally:
        clusters.close()  # type: ignore[attr-defined]


SMOKE = {(Depth.CONTENT, Route.SERVER, Locality.NODE_LOCAL), (Depth.VERSIONS, Route.SERVER, Locality.NODE_LOCAL)}


def in_modes(smoke: Collection[Any]) -> pytest.MarkDecorator:
    """Return what runs a test in every mode, in most of them only in the long variants."""
    modes = [pytest.param(*mode, marks=[] if mode in smoke else SOAK) for mode in MODES]
    return pytest.mark.parametrize(("depth", "route", "locality"), modes, ids=lambda mode: mode.value)


@in_modes(SMOKE)
def test_exactly_the_planted_rows_are_found(
    planted: Planter, tmp_path: Path, depth: Depth, route: Route, locality: Locality
) -> None:
    """Whatever the shape, by either route: no table is left to the client for what it holds."""
    report, findings = planted.cluster.findings(
        tmp_path / "f.jsonl", "older", depth=depth, route=route, locality=locality
    )
    refused = {t.table for t in report.tables if not t.route}
    assert refused == (set() if depth is Depth.CONTENT else {"counters"}), summary(report)
    wanted = {w for w in (planted.content if depth is Depth.CONTENT else planted.versions) if w[0] not in refused}
    found = Counter(map(as_expected, findings))
    assert set(found) == wanted, summary(report)
    assert max(found.values()) == 1, "a damaged row gave more than one finding"
    assert report.exit_code is ExitCode.DIVERGENT
    assert (report.coverage.failed, report.coverage.skipped) == (0, len(refused)), summary(report)
    assert {t.route for t in report.tables if t.table not in refused} == {route.value}
    assert not [t.note for t in report.tables if t.note and t.table not in refused]


def test_rows_that_are_not_listed_are_counted_exactly(planted: Planter, tmp_path: Path) -> None:
    """With no room to list any row, the servers' own hashes tell the kinds that a listing has."""
    listed, _ = planted.cluster.findings(tmp_path / "rows", "older", depth=Depth.CONTENT)
    none = ScanOptions(max_findings=0)
    counted, _ = planted.cluster.findings(tmp_path / "ranges", "older", depth=Depth.CONTENT, scan=none)
    assert counted.findings_by_kind == listed.findings_by_kind, summary(counted)
    assert (counted.exit_code, counted.coverage) == (ExitCode.DIVERGENT, listed.coverage)


def test_ranges_are_merged_around_what_is_left_and_undone(planted: Planter, tmp_path: Path) -> None:
    """An older server's read of a range at ALL merges every column too."""
    merged_ranges.told_and_held(planted.cluster, tmp_path)


def test_content_in_the_servers_is_the_default(planted: Planter) -> None:
    """Also for collections, counters, keys of every type; the report names the form, and what 4.x does not tell."""
    report = planted.cluster.check("older")
    tables = {t.table: t for t in report.tables}
    assert {(t.depth, t.route) for t in report.tables} == {("content", "server")}
    forms = {name: tables[name].scheme.rpartition("/")[2] for name in ("plain", "wide", "Select", "keys_only")}
    assert forms == {"plain": "remainder", "wide": "murmur3", "Select": "remainder", "keys_only": "murmur3"}
    assert any("a collection's write times" in sentence for sentence in tables["collections"].blind)
    assert not any("values" in sentence for sentence in tables["collections"].blind)
    clean = planted.cluster.check("older.expiring", "older.empty")
    assert clean.exit_code is ExitCode.CONSISTENT, summary(clean)


def test_rows_larger_than_a_key_may_be_and_many_columns(planted: Planter, tmp_path: Path) -> None:
    """One byte of a row of 300 kB (in `make soak` 3 MB), and one of 200 columns with long names, whatever the form."""
    cluster, size = planted.cluster, 3_000_000 if LONG else 300_000
    large = Planter(cluster, cluster.keyspace("large"))
    many = [f"a_name_of_forty_bytes_for_column_number_{i}" for i in range(200)]
    for kind, key in (("int", "{}"), ("text", "'{}'")):
        cluster.ddl(
            f"CREATE TABLE large.row_{kind} (p {kind} PRIMARY KEY, b blob)",
            f"CREATE TABLE large.columns_{kind} (p {kind} PRIMARY KEY, {', '.join(f'{name} int' for name in many)})",
        )
        for i in range(4):
            large.all(f"INSERT INTO $row_{kind} (p, b) VALUES ({key.format(i)}, 0x{'ab' * size}) @")
            large.all(f"INSERT INTO $columns_{kind} (p, {many[0]}) VALUES ({key.format(i)}, 1) @")
        large.on(1, f"INSERT INTO $row_{kind} (p, b) VALUES ({key.format(2)}, 0x{'ab' * (size - 1)}ac) @")
        large.on(2, f"UPDATE $columns_{kind} @ SET {many[199]} = 1 WHERE p = {key.format(3)}")
    report, findings = cluster.findings(tmp_path / "f.jsonl", "large")
    wanted = {(f"{shape}_{kind}", str(p)) for kind in ("int", "text") for shape, p in (("row", 2), ("columns", 3))}
    assert {(f.table, str(f.key["p"])) for f in findings} == wanted, summary(report)
    assert {(t.route, t.note) for t in report.tables} == {("server", "")}
    assert report.coverage.failed == 0


@pytest.mark.parametrize("kind", ["int", "text"])
def test_a_type_that_is_not_cqls_is_hashed_and_too_many_tombstones_are_a_named_fallback(
    planted: Planter, tmp_path: Path, kind: str
) -> None:
    """A partition that the servers cannot digest is read in small pages and hashed here; the report says why."""
    cluster, key = planted.cluster, {"int": "1", "text": "'1'"}[kind]
    odd = Planter(cluster, cluster.keyspace("odd"))
    custom = "'org.apache.cassandra.db.marshal.LexicalUUIDType'"
    cluster.ddl(
        f"CREATE TABLE odd.graves (p {kind}, c int, v text, PRIMARY KEY (p, c))",
        f"CREATE TABLE odd.custom (p {kind}, c int, v {custom}, PRIMARY KEY (p, c))",
    )
    odd.many(f"DELETE FROM $graves @ WHERE p = {key} AND c = {c}" for c in range(MOST_TOMBSTONES + 500))
    for c in range(0, MOST_TOMBSTONES + 500, 500):
        odd.all(f"INSERT INTO $graves (p, c, v) VALUES ({key}, {c}, 'v') @", 1)
    odd.on(2, f"DELETE FROM $graves @ WHERE p = {key} AND c = 2000", 2)
    odd.many(f"INSERT INTO $custom (p, c, v) VALUES ({key}, {c}, 0x{c:032x}) @" for c in range(20))
    odd.on(3, f"INSERT INTO $custom (p, c, v) VALUES ({key}, 7, 0x{99:032x}) @")
    report, findings = cluster.findings(tmp_path / "f.jsonl", "odd")
    found = {(f.table, f.kind.value, f.key["c"]) for f in findings}
    assert found == {("graves", "missing", 2000), ("custom", "tie", 7)}, summary(report)
    notes = {t.table: t.note for t in report.tables}
    assert "tombstone" in notes["graves"], summary(report)
    assert notes["custom"] == ""
    assert report.coverage.failed == 0


def test_what_servers_hash_adds_up(planted: Planter) -> None:
    """By range, by partition and by row, in both forms, also where a page ends within a partition."""
    hashing.fill(planted.cluster)
    for name in hashing.TABLES:
        for page_rows in (50, 50_000):
            asyncio.run(hashing.sums_add_up(planted.cluster, name, page_rows))


def test_equal_replicas_have_one_digest(planted: Planter) -> None:
    """Whatever the page size, the files that rows lie in, and the order in which they came; TTLs and ties included."""
    hashing.plant_clean(planted.cluster)
    for kind in hashing.PARTITION:
        asyncio.run(hashing.replicas_are_alike(planted.cluster, kind))
    report = planted.cluster.check("clean")
    assert report.exit_code is ExitCode.CONSISTENT, summary(report)


def test_what_weak_sums_cannot_tell_apart(planted: Planter) -> None:
    """Rows and bytes that were exchanged, moved, emptied or reordered: the digests differ where the rows do."""
    hashing.plant_stories(planted.cluster)
    for kind in hashing.PARTITION:
        asyncio.run(hashing.stories_differ(planted.cluster, kind))


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
    report, findings = cluster.findings(tmp_path / "f.jsonl", "exchanged", depth=Depth.VERSIONS)
    assert {t.route for t in report.tables} == {"server"}
    lost = {(f.key["who"], f.key["whom"]) for f in findings if f.table == "swapped"}
    assert lost == {*pairs[1], *pairs[2]}, summary(report)
    assert [f.key["id"] for f in findings if f.table == "zero"] == [3]


@pytest.mark.parametrize("locality", ONE_REPLICA)
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


@pytest.mark.parametrize("locality", ONE_REPLICA)
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


SECRET = "secret word"
TABLES = {"before": "text", "closed": "int", "open": "int"}
ROLES = ("reader", "nobody")
THE_GRANT = "role 'reader' has no SELECT permission on rights.closed: GRANT SELECT ON TABLE rights.closed TO reader"


@pytest.fixture(scope="module")
def rights(planted: Planter) -> RunningCluster:
    """A damaged table that a role may not read between two that it may, and a role that may read none."""
    cluster = planted.cluster
    cluster.keyspace("rights")
    cluster.ddl(*(f"CREATE TABLE rights.{name} (id {kind} PRIMARY KEY, v text)" for name, kind in TABLES.items()))
    for name, kind in TABLES.items():
        for i in range(20):
            cluster.everywhere(f"INSERT INTO rights.{name} (id, v) VALUES ({_key(kind, i)}, 'v') USING TIMESTAMP 5")
    cluster.on(1, "INSERT INTO rights.closed (id, v) VALUES (7, 'other') USING TIMESTAMP 6")
    cluster.ddl(*(f"CREATE ROLE IF NOT EXISTS {r} WITH LOGIN = true AND PASSWORD = '{SECRET}'" for r in ROLES))
    for role in ROLES:
        cluster.ddl(*(f"GRANT SELECT ON KEYSPACE {name} TO {role}" for name in ("system_traces", "system_views")))
    cluster.ddl(*(f"GRANT SELECT ON TABLE rights.{name} TO reader" for name in ("before", "open")))
    eventually(lambda: _verdicts(_read_by(cluster, "reader"))["open"] == "consistent", 60, "the grants' arrival")
    return cluster


def _key(kind: str, i: int) -> str:
    return f"'{i}'" if kind == "text" else str(i)


def _read_by(cluster: RunningCluster, role: str, *options: str) -> dict[str, Any]:
    """Check the keyspace as a role; return the report, with what the command printed and its exit code."""
    done = cluster.command("check", "rights", "--json", "-", *options, user=role, password=SECRET)
    assert SECRET not in done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return report


def _verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {table["table"]: table["verdict"] for table in report["tables"]}


@in_modes([(Depth.CONTENT, Route.SERVER, Locality.NODE_LOCAL)])
def test_a_table_that_a_role_may_not_read_is_unknown_and_the_grant_is_named(
    rights: RunningCluster, depth: Depth, route: Route, locality: Locality
) -> None:
    """Its damage is not seen, and it never passes for consistent; the tables beside it are checked all the same."""
    mode = ("--depth", depth.value, "--route", route.value, "--locality", locality.value)
    report = _read_by(rights, "reader", *mode)
    assert (report["verdict"], report["exit_code"]) == ("unknown", ExitCode.INCOMPLETE)
    assert _verdicts(report) == {"before": "consistent", "open": "consistent", "closed": "unknown"}
    closed = next(table for table in report["tables"] if table["table"] == "closed")
    assert closed["coverage"]["completed"] == 0
    assert closed["coverage"]["failed"] == closed["coverage"]["planned"] > 0
    assert {unread["replica"] for unread in closed["unread"]} == {rights.name(n) for n in (1, 2, 3)}
    assert all(THE_GRANT in unread["reason"] for unread in closed["unread"])


def test_the_grant_that_is_named_is_all_that_was_missing(rights: RunningCluster) -> None:
    """Who may read nothing is told of every table; the grant, as it is printed, makes the damage known."""
    nothing = _read_by(rights, "nobody")
    assert (set(_verdicts(nothing).values()), nothing["exit_code"]) == ({"unknown"}, ExitCode.INCOMPLETE)
    said = rights.command("check", "rights", user="reader", password=SECRET)
    assert said.returncode == ExitCode.INCOMPLETE
    assert THE_GRANT in " ".join(said.stdout.split())
    rights.ddl(THE_GRANT.rpartition(": ")[2])
    eventually(lambda: _verdicts(_read_by(rights, "reader"))["closed"] == "divergent", 60, "the grant")
    rights.ddl("REVOKE SELECT ON TABLE rights.closed FROM reader")
    eventually(lambda: _verdicts(_read_by(rights, "reader"))["closed"] == "unknown", 60, "that it was taken back")
