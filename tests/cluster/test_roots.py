"""The roots of Merkle trees on a real cluster: the same on every replica, and the same tomorrow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from consistency.checking.scan import ScanOptions
from consistency.cluster.settings import ConnectionSettings
from consistency.model.reading import Route
from consistency.results.report import Report, TreeReport
from consistency.results.verdict import Verdict
from tests.support.cluster import RunningCluster, summary

pytestmark = pytest.mark.cluster

NOBODY = ("127.0.0.1", 1)
"""An address at which no node answers."""


@pytest.mark.parametrize("route", list(Route))
def test_a_root_is_every_replicas_own_and_stays_until_somebody_writes(cluster: RunningCluster, route: Route) -> None:
    """Whatever the order of the reads; one row of one replica changes its root alone, and its leaf alone."""
    name = f"{cluster.keyspace(f'roots_{route.value}', 3)}.t"
    cluster.ddl(f"CREATE TABLE {name} (id int PRIMARY KEY, v text) WITH read_repair = 'NONE'")
    cluster.load(f"INSERT INTO {name} (id, v) VALUES (?, ?) USING TIMESTAMP 1000", [(i, f"v{i}") for i in range(600)])
    first, second = (tree_of(checked(cluster, name, route, Verdict.CONSISTENT)) for _ in range(2))
    assert first.root is not None
    assert (first.root, first.leaves, first.differing) == (second.root, second.leaves, 0)
    assert len(first.agreed) == first.leaves > 4
    cluster.on(2, f"UPDATE {name} USING TIMESTAMP 2000 SET v = 'other' WHERE id = 77")
    tree = tree_of(checked(cluster, name, route, Verdict.DIVERGENT))
    roots = {node.name: root for node, root in tree.roots.items()}
    assert tree.root is None
    assert [cluster.name(n) for n in (1, 2, 3) if roots[cluster.name(n)] != first.root] == [cluster.name(2)]
    assert (tree.differing, len(tree.agreed)) == (1, tree.leaves - 1)


def test_a_leaf_is_compared_wherever_it_hangs_in_its_tree(cluster: RunningCluster, tmp_path: Path) -> None:
    """One row of one replica in every right child: all of them are found, and no other leaf is looked into."""
    name = f"{cluster.keyspace('roots_right', 3)}.t"
    cluster.ddl(f"CREATE TABLE {name} (id int PRIMARY KEY, v text) WITH read_repair = 'NONE'")
    cluster.load(f"INSERT INTO {name} (id, v) VALUES (?, ?) USING TIMESTAMP 1000", [(i, f"v{i}") for i in range(600)])
    leaves = [leaf for leaf, _ in tree_of(checked(cluster, name, Route.SERVER, Verdict.CONSISTENT)).agreed]
    tokens = {row["id"]: row["at"] for row in cluster.everywhere(f"SELECT id, token(id) AS at FROM {name}")}
    damaged = set()
    for leaf in leaves[1::2]:
        inside = next(key for key, token in tokens.items() if leaf.start < token <= leaf.end)
        cluster.on(2, f"UPDATE {name} USING TIMESTAMP 2000 SET v = 'other' WHERE id = {inside}")
        damaged.add(inside)
    report, findings = cluster.findings(tmp_path / "findings", name, scan=ScanOptions(leaf_rows=60))
    assert {finding.key["id"] for finding in findings} == damaged
    tree = tree_of(report)
    assert (tree.differing, [leaf for leaf, _ in tree.agreed]) == (len(damaged), leaves[::2])
    # The third node cannot be reached: it has no root, and the trees of the other two are compared all the same.
    point = cluster.points[0]
    away = replace(cluster, reach=ConnectionSettings((point,), addresses={cluster.hosts[2]: NOBODY}))
    report, findings = away.findings(tmp_path / "findings", name, scan=ScanOptions(leaf_rows=60))
    assert {finding.key["id"] for finding in findings} == damaged
    tree = tree_of(report)
    assert {node.name for node, root in tree.roots.items() if root is None} == {cluster.name(3)}
    assert (tree.differing, tree.agreed) == (len(damaged), ())


def checked(cluster: RunningCluster, name: str, route: Route, verdict: Verdict) -> Report:
    """Check a table in small leaves."""
    report = cluster.check(name, route=route, scan=ScanOptions(leaf_rows=60))
    assert report.verdict is verdict, summary(report)
    return report


def tree_of(report: Report) -> TreeReport:
    """Return the trees of the only set of replicas."""
    ((tree,),) = (table.trees for table in report.tables)
    return tree
