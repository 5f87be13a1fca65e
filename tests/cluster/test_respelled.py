"""One value in different bytes: to Cassandra the decimals 1.0 and 1.00 are one key, to an application they are two.

Replicas that hold different bytes do not agree, no merge makes them alike, and what looks lost is not.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from consistency.model.reading import Route
from consistency.results.findings import read_findings
from consistency.results.verdict import ExitCode
from repair.deciding.decide import Rule
from repair.deciding.policy import Zombies
from repair.keeping.entries import Result
from tests.support.cluster import RunningCluster, summary
from tests.support.repairing import Repairing, everything, results, rules

pytestmark = pytest.mark.cluster
TABLES = ("keyed", "mapped", "listed")


@pytest.fixture(params=["BLOCKING", "NONE"])
def respelled(cluster: RunningCluster, request: pytest.FixtureRequest) -> RunningCluster:
    """Of each table one row that agrees, and two of which node 3 has the key or an element in other bytes."""
    name, repair = cluster.keyspace("respelled"), f"WITH read_repair = '{request.param}'"
    cluster.ddl(
        f"CREATE TABLE {name}.keyed (p int, c decimal, v int, PRIMARY KEY (p, c)) {repair}",
        f"CREATE TABLE {name}.mapped (p int PRIMARY KEY, m map<decimal, int>) {repair}",
        f"CREATE TABLE {name}.listed (p int PRIMARY KEY, s set<double>) {repair}",
    )
    # Long ago: what a minority holds is a suspected zombie then.
    stamp = f"USING TIMESTAMP {time.time_ns() // 1000 - 30 * 86_400_000_000}"
    for n in (1, 2, 3):
        one = "1.00" if n == 3 else "1.0"
        # Two NaNs of different bits are one double.
        nan = "0x7ff8000000000001" if n == 3 else "0x7ff8000000000000"
        for p in (1, 2):
            cluster.on(n, f"INSERT INTO {name}.keyed (p, c, v) VALUES ({p}, {one}, 7) {stamp}")
            cluster.on(n, f"INSERT INTO {name}.mapped (p, m) VALUES ({p}, {{{one}: 1, 5: 1}}) {stamp}")
        insert = cluster.session.prepare(f"INSERT INTO {name}.listed (p, s) VALUES (?, ?) {stamp}")
        raw = b"\0\0\0\1\0\0\0\x08" + bytes.fromhex(nan[2:])
        bound = insert.bind((1, {0.0}))
        bound.values[1] = raw
        bound.consistency_level = 11
        cluster.session.execute(bound, host=cluster._host(n))
        cluster.on(n, f"INSERT INTO {name}.keyed (p, c, v) VALUES (9, 1.5, 7) {stamp}")
        cluster.on(n, f"INSERT INTO {name}.mapped (p, m) VALUES (9, {{1.5: 1}}) {stamp}")
    return cluster


@pytest.mark.parametrize("route", list(Route))
def test_what_is_spelled_otherwise_is_found_once(respelled: RunningCluster, tmp_path: Path, route: Route) -> None:
    """By both routes: a tie for each row, and the column that is to blame."""
    report, findings = respelled.findings(tmp_path / "f.jsonl", "respelled", route=route)
    assert report.exit_code is ExitCode.DIVERGENT
    told = sorted((f.table, f.kind.value, f.key["p"], f.columns) for f in findings)
    assert told == [
        ("keyed", "tie", 1, ("c",)),
        ("keyed", "tie", 2, ("c",)),
        ("listed", "tie", 1, ("s",)),
        ("mapped", "tie", 1, ("m",)),
        ("mapped", "tie", 2, ("m",)),
    ], summary(report)


@pytest.mark.parametrize("columns", ["d decimal PRIMARY KEY, v int", "d decimal, c int, v int, PRIMARY KEY (d, c)"])
def test_partitions_whose_keys_are_one_value_are_each_found_and_repaired(
    cluster: RunningCluster, tmp_path: Path, columns: str
) -> None:
    """1.0 and 1.00 have tokens of their own, though of a list of keys the servers read one of them alone."""
    name = cluster.keyspace("spelledkeys")
    cluster.ddl(f"CREATE TABLE {name}.t ({columns})")
    more, value = (", c", ", 7") if "c int" in columns else ("", "")
    stamp = f"USING TIMESTAMP {time.time_ns() // 1000 - 3_600_000_000}"
    insert = f"INSERT INTO {name}.t (d, v{more}) VALUES ({{}}, 1{value}) {stamp}"
    for n, key in enumerate(("1.0", "1.00", "1.000", "2.5", "2.50")):
        cluster.on(1 + n % 3, insert.format(key))
    _, findings = cluster.findings(tmp_path / "f.jsonl", name)
    assert sorted(str(f.key["d"]) for f in findings) == ["1.0", "1.00", "1.000", "2.5", "2.50"]
    _, tally = Repairing(cluster, tmp_path, name).repaired()
    assert results(tally) == {Result.VERIFIED: 5}
    held = everything(cluster, name, "t")
    assert held[1] == held[2] == held[3]
    assert len(held[1]) == 5


def test_it_is_explained_and_left_alone(respelled: RunningCluster, tmp_path: Path) -> None:
    """No policy touches it: what is held stays, byte for byte, on every node."""
    before = {table: everything(respelled, "respelled", table) for table in TABLES}
    repairing = Repairing(respelled, tmp_path, "respelled")
    repairing.check()
    for zombies in Zombies:
        made = repairing.plan(zombies=zombies)
        assert rules(made) == {Rule.SPELLING}
        assert results(repairing.apply(made)) == {Result.LEFT: len(made.rows)}
    assert {table: everything(respelled, "respelled", table) for table in TABLES} == before
    findings = tmp_path / "findings.jsonl"
    number = next(i for i, f in enumerate(read_findings(findings), start=1) if f.table == "keyed")
    told = respelled.command("explain", str(findings), "--row", str(number))
    assert told.returncode == ExitCode.DIVERGENT, told.stdout + told.stderr
    assert "Cassandra takes it for one row" in " ".join(told.stdout.split())
