"""A partition that the servers refuse to have read, on a real cluster: it alone is unread, in both localities."""

from __future__ import annotations

from pathlib import Path

import pytest

from consistency.model.reading import Locality
from consistency.results.findings import read_findings
from consistency.results.verdict import ExitCode
from tests.support.cluster import RunningCluster, summary
from tests.support.figures import SOAK

pytestmark = pytest.mark.cluster

TOKEN_OF_1 = -4069959284402364209


@pytest.mark.parametrize("locality", [None, pytest.param(Locality.TRACED, marks=SOAK)])
def test_a_field_of_tombstones_without_a_row_leaves_the_rest_readable(
    guarded_cluster: RunningCluster, tmp_path: Path, locality: Locality | None
) -> None:
    """No page is small enough: its token is named, every other difference is found, the verdict is not consistent."""
    cluster = guarded_cluster
    ks = cluster.keyspace("grave")
    cluster.ddl(f"CREATE TABLE {ks}.t (p int, c int, v text, PRIMARY KEY (p, c))")
    cluster.load(f"INSERT INTO {ks}.t (p, c, v) VALUES (?, 1, 'v')", ((p,) for p in range(100, 160)))
    batch = f"BEGIN UNLOGGED BATCH {f'DELETE FROM {ks}.t WHERE p = 1 AND c = ?; ' * 100} APPLY BATCH"
    cluster.load_prepared(cluster.session.prepare(batch), (range(at, at + 100) for at in range(0, 3_500, 100)))
    for n, p in ((1, 110), (2, 120), (3, 150)):
        cluster.on(n, f"DELETE FROM {ks}.t WHERE p = {p} AND c = 1")
    report = cluster.check(ks, findings=tmp_path / "f", locality=locality)
    assert {f.key["p"] for f in read_findings(tmp_path / "f")} == {110, 120, 150}, summary(report)
    assert report.exit_code is ExitCode.DIVERGENT
    (table,) = report.tables
    assert {(place.width, place.end) for unread in table.unread for place in unread.ranges} == {(1, TOKEN_OF_1)}
    assert all("tombstone_failure_threshold" in unread.reason for unread in table.unread)
    cluster.ddl(f"DROP KEYSPACE {ks}")
