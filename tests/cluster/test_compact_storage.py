"""COMPACT STORAGE tables of old: read as CQL shows them, and unknown where CQL cannot name a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from consistency.model.reading import Route
from consistency.results.verdict import ExitCode, Verdict
from tests.support.cluster import RunningCluster, summary
from tests.support.damage import Planter, as_expected, expected

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def planter(cluster: RunningCluster) -> Planter:
    """Three kinds of compact tables, each sound."""
    planter = Planter(cluster, cluster.keyspace("compact"))
    cluster.ddl(
        "CREATE TABLE compact.still (p int PRIMARY KEY, a int, b text) WITH COMPACT STORAGE",
        "CREATE TABLE compact.dense (p int, c int, v int, PRIMARY KEY (p, c)) WITH COMPACT STORAGE",
        "CREATE TABLE compact.loose (p int, c int, d int, v int, PRIMARY KEY (p, c, d)) WITH COMPACT STORAGE",
    )
    for i in range(20):
        planter.all(f"INSERT INTO $still (p, a, b) VALUES ({i}, 1, 'b') @")
        planter.all(f"INSERT INTO $dense (p, c, v) VALUES ({i}, 1, 1) @")
        planter.all(f"INSERT INTO $loose (p, c, d, v) VALUES ({i}, 1, 1, 1) @")
    planter.all("INSERT INTO $loose (p, c, v) VALUES (1, 7, 1) @")
    return planter


def test_sound_compact_tables_are_consistent(planter: Planter) -> None:
    """Hidden columns and missing clustering columns disturb nothing."""
    for route in Route:
        report = planter.cluster.check("compact", route=route)
        assert report.exit_code is ExitCode.CONSISTENT, summary(report)


def test_damage_is_found_where_the_row_has_a_name(planter: Planter, tmp_path: Path) -> None:
    """Static and dense compact tables are compared as any other."""
    planter.on(1, "UPDATE $still @ SET b = 'newer' WHERE p = 3", 1)
    planter.on(2, "DELETE FROM $dense @ WHERE p = 4 AND c = 1", 1)
    _, findings = planter.cluster.findings(tmp_path / "f.jsonl", "compact.still", "compact.dense")
    wanted = {expected("still", "stale", {"p": 3}), expected("dense", "missing", {"p": 4, "c": 1})}
    assert {as_expected(f) for f in findings} == wanted


def test_a_row_without_a_name_is_never_called_consistent(planter: Planter) -> None:
    """A row that lacks a clustering column differs: unknown, with the reason, by both routes."""
    planter.on(1, "INSERT INTO $loose (p, c, v) VALUES (1, 7, 2) @", 1)
    for route in Route:
        report = planter.cluster.check("compact.loose", route=route)
        assert report.verdict is Verdict.UNKNOWN, summary(report)
        assert "COMPACT STORAGE" in report.tables[0].unread[0].reason
