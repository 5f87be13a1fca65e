"""At size: 500 planted divergences among many rows, and one partition of many rows.

CONSISTENCY_SOAK=1 (`make soak`) takes 200,000 rows and a partition of 300,000.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from consistency.checking.sampling import Sample
from consistency.model.reading import Depth, Route
from consistency.results.kinds import Kind
from consistency.results.verdict import ExitCode, Verdict
from tests.support.cluster import RunningCluster, summary
from tests.support.damage import as_expected, expected
from tests.support.figures import LONG
from tests.support.modes import PAIRS

pytestmark = pytest.mark.cluster

ROWS = 200_000 if LONG else 20_000
WIDEST = 300_000 if LONG else 20_000
_PER_BATCH = 100


def load_in_batches(cluster: RunningCluster, table: str, partitions: int, base_us: int) -> None:
    """Load `partitions` partitions of 100 rows at ALL, an unlogged batch each."""
    insert = cluster.session.prepare(
        "BEGIN UNLOGGED BATCH "
        + f"INSERT INTO {table} (p, c, a, b) VALUES (?, ?, ?, ?) USING TIMESTAMP {base_us}; " * _PER_BATCH
        + "APPLY BATCH"
    )
    rows = (
        [value for c in range(_PER_BATCH) for value in (p, c, f"name of row {c:06d} in {p:06d}", p * _PER_BATCH + c)]
        for p in range(partitions)
    )
    cluster.load_prepared(insert, rows)


@pytest.fixture(scope="module")
def big(cluster: RunningCluster) -> tuple[RunningCluster, int]:
    """Partitions of a hundred rows, equal everywhere."""
    cluster.keyspace("scale")
    cluster.ddl("CREATE TABLE scale.big (p int, c int, a text, b int, PRIMARY KEY (p, c))")
    base_us = time.time_ns() // 1000 - 3_600_000_000
    load_in_batches(cluster, "scale.big", ROWS // _PER_BATCH, base_us)
    return cluster, base_us


def test_a_clean_table_is_consistent_by_every_mode(big: tuple[RunningCluster, int]) -> None:
    """Exit 0, verdict consistent, planned == completed, no finding: both depths, every route and locality."""
    cluster, _ = big
    for depth, route, locality in PAIRS:
        report = cluster.check("scale.big", depth=depth, route=route, locality=locality)
        assert report.exit_code is ExitCode.CONSISTENT, summary(report)
        assert report.coverage.planned == report.coverage.completed > 0
        assert report.tables[0].rows == ROWS
        assert not report.findings_by_kind


def test_500_divergences_of_every_kind_are_found_exactly(big: tuple[RunningCluster, int], tmp_path: Path) -> None:
    """Exactly the 500 damaged rows are found, by every route and locality."""
    cluster, base = big
    wanted = plant_500(cluster, "scale.big", base)
    assert len(wanted) == 500
    for depth, route, locality in PAIRS if LONG else PAIRS[:1]:
        report, findings = cluster.findings(
            tmp_path / "f.jsonl", "scale.big", depth=depth, route=route, locality=locality
        )
        visible = {w for w in wanted if depth is Depth.CONTENT or w[1] != "tie"}
        found = Counter(map(as_expected, findings))
        assert set(found) == visible, (depth, route, locality, summary(report))
        assert len(findings) == len(visible)
        assert report.exit_code is ExitCode.DIVERGENT
        assert report.findings_by_kind == dict(Counter(kind for _, kind, _ in visible))


def test_a_sample_ends_in_time_and_claims_no_more_than_it_read(big: tuple[RunningCluster, int], tmp_path: Path) -> None:
    """Of a table in which 500 rows differ: the whole as a sample finds all of them, a second of it some or none."""
    cluster, base = big
    wanted = plant_500(cluster, "scale.big", base)
    report, findings = cluster.findings(tmp_path / "f.jsonl", "scale.big", sample=Sample(share=1.0))
    assert set(map(as_expected, findings)) == wanted
    report, findings = cluster.findings(tmp_path / "f.jsonl", "scale.big", sample=Sample(within_s=1.0, seed=4))
    assert set(map(as_expected, findings)) <= wanted
    assert report.verdict is (Verdict.DIVERGENT if findings else Verdict.SAMPLED)
    (table,) = report.tables
    assert 0 < table.ranges_read < table.ranges, summary(report)
    assert report.seconds < 30


def plant_500(cluster: RunningCluster, table: str, base: int) -> set[tuple[str, str, str]]:
    """Plant 500 damaged rows, spread over all partitions, on the three nodes in turn."""
    wanted: set[tuple[str, str, str]] = set()
    for i in range(500):
        p, c, n = i * (ROWS // _PER_BATCH) // 500, i % _PER_BATCH, i % 3 + 1
        where = f"p = {p} AND c = {c}"
        kind, key = list(Kind)[i % 6], {"p": p, "c": c}
        if kind is Kind.MISSING:
            cluster.on(n, f"DELETE FROM {table} USING TIMESTAMP {base + 1} WHERE {where}")
        elif kind is Kind.STALE:
            cluster.on(n, f"UPDATE {table} USING TIMESTAMP {base + 1} SET a = 'newer' WHERE {where}")
        elif kind is Kind.TIE:
            cluster.on(n, f"UPDATE {table} USING TIMESTAMP {base} SET a = 'zzz' WHERE {where}")
        elif kind is Kind.EXPIRY:
            value = p * _PER_BATCH + c
            cluster.on(n, f"UPDATE {table} USING TIMESTAMP {base} AND TTL 99999 SET b = {value} WHERE {where}")
        elif kind is Kind.ZOMBIE_SUSPECT:
            key = {"p": p, "c": 1000 + c}
            cluster.on(n, f"INSERT INTO {table} (p, c, a) VALUES ({p}, {1000 + c}, 'old') USING TIMESTAMP 1000000")
        else:
            cluster.on(n, f"UPDATE {table} USING TIMESTAMP {base + 10**14} SET b = 0 WHERE {where}")
        wanted.add(expected(table.split(".")[1], kind.value, key))
    return wanted


def test_one_partition_of_very_many_rows(cluster: RunningCluster, tmp_path: Path) -> None:
    """A table that is one huge partition is checked whole, its damage found row by row, by both routes."""
    cluster.keyspace("widest")
    cluster.ddl("CREATE TABLE widest.one (p int, c int, s text static, v text, PRIMARY KEY (p, c))")
    base = time.time_ns() // 1000 - 3_600_000_000
    insert = cluster.session.prepare(
        "BEGIN UNLOGGED BATCH "
        + f"INSERT INTO widest.one (p, c, v) VALUES (1, ?, ?) USING TIMESTAMP {base}; " * 100
        + "APPLY BATCH"
    )
    cluster.load_prepared(insert, ([x for c in range(i, i + 100) for x in (c, f"v{c}")] for i in range(0, WIDEST, 100)))
    report = cluster.check("widest")
    assert report.exit_code is ExitCode.CONSISTENT, summary(report)
    assert report.tables[0].rows == WIDEST
    cluster.on(1, f"DELETE FROM widest.one USING TIMESTAMP {base + 1} WHERE p = 1 AND c = {WIDEST // 2}")
    cluster.on(2, f"UPDATE widest.one USING TIMESTAMP {base + 1} SET v = 'x' WHERE p = 1 AND c = {WIDEST - 1}")
    cluster.on(3, f"UPDATE widest.one USING TIMESTAMP {base} SET s = 'static' WHERE p = 1")
    wanted = {
        expected("one", "missing", {"p": 1, "c": WIDEST // 2}),
        expected("one", "stale", {"p": 1, "c": WIDEST - 1}),
        expected("one", "missing", {"p": 1}),
    }
    for route in Route:
        _, findings = cluster.findings(tmp_path / "f.jsonl", "widest", route=route)
        assert {as_expected(f) for f in findings} == wanted
