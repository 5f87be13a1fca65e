"""A smoke test on Cassandra 4.1 and 4.0: sums in the server where they cover a table, hashing here where not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from consistency.reading import Depth, Locality, Route
from consistency.verdict import ExitCode
from tests.support.cluster import RunningCluster, sandbox_cluster, summary
from tests.support.damage import Planter, as_expected, keys_only, names, plain, statics, wide

pytestmark = pytest.mark.cluster

ADDRESSES = {"4.1": "127.0.34.1", "4.0": "127.0.35.1"}


@pytest.fixture(scope="module", params=sorted(ADDRESSES))
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planter]:
    """Tables of several shapes with their damage on an older server."""
    version: str = request.param
    clusters = sandbox_cluster(tmp_path_factory.mktemp("older"), ADDRESSES[version], cassandra=version)
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


def test_content_by_the_client_route_sees_everything(planted: Planter, tmp_path: Path) -> None:
    """What the sums cannot see, --depth content finds on an older server too."""
    report, findings = planted.cluster.findings(tmp_path / "f.jsonl", "older", depth=Depth.CONTENT)
    assert {t.route for t in report.tables} == {Route.CLIENT.value}
    assert {as_expected(f) for f in findings} == planted.content, summary(report)
