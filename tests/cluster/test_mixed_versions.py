"""A cluster under upgrade: one node is newer than the others, and all replicas are hashed in one form."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cassandra import ConsistencyLevel, ReadTimeout, Unavailable
from cassandra.query import SimpleStatement

from consistency.checking.scan import ScanOptions
from consistency.model.reading import Depth
from consistency.results.verdict import ExitCode
from tests.support import hashing
from tests.support.cluster import RunningCluster, eventually, sandbox_cluster, summary
from tests.support.damage import SHAPES, Planter, as_expected
from tests.support.figures import SOAK

pytestmark = [pytest.mark.cluster, SOAK]

UPGRADES = (("4.1", "5.0"), ("4.0", "4.1"))


@pytest.fixture(scope="module", params=UPGRADES, ids=" to ".join)
def upgraded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planter]:
    """Every shape of table with its damage on three nodes, of which the third was upgraded afterwards."""
    old, new = request.param
    directory = tmp_path_factory.mktemp("upgrade")
    clusters = sandbox_cluster(directory, "upgrade", cassandra=old, heap="512m")
    cluster: RunningCluster = next(clusters)
    try:
        planter = Planter(cluster, cluster.keyspace("upgraded"))
        for build in SHAPES.values():
            build(planter)
        hashing.plant_stories(cluster)
        _upgrade(cluster, directory, 3, new)
        yield planter
    finally:
        clusters.close()  # type: ignore[attr-defined]


def _upgrade(cluster: RunningCluster, directory: Path, n: int, version: str) -> None:
    """Stop a node and start it in another version, with its own data; a 5.0 behaves as 4 does by default."""
    assert cluster.sandbox is not None
    cluster.close()
    cluster.sandbox.nodetool(n, "drain")
    cluster.sandbox.stop(n)
    state_file = next(directory.glob("*.json"))
    state = json.loads(state_file.read_text())
    state["options"]["cassandra"] = version
    state_file.write_text(json.dumps(state))
    cluster.sandbox.start(n)
    eventually(lambda: _together(cluster), 60, "the nodes knowing each other")


def _together(cluster: RunningCluster) -> bool:
    """Whether each node takes all of them for alive; 4.0 has no table that tells."""
    read = SimpleStatement("SELECT id FROM upgraded.empty", consistency_level=ConsistencyLevel.ALL)
    try:
        for n in (1, 2, 3):
            cluster.session.execute(read, host=cluster._host(n))
    except (Unavailable, ReadTimeout):
        return False
    return True


def test_exactly_the_planted_rows_are_found(upgraded: Planter, tmp_path: Path) -> None:
    """At both depths, whatever the shape: in one form on all nodes, and no table is left to the client."""
    cluster = upgraded.cluster
    for depth, wanted in ((Depth.CONTENT, upgraded.content), (Depth.VERSIONS, upgraded.versions)):
        report, findings = cluster.findings(tmp_path / f"{depth.value}.jsonl", "upgraded", depth=depth)
        refused = {t.table for t in report.tables if not t.route}
        assert refused == (set() if depth is Depth.CONTENT else {"counters"}), summary(report)
        found = Counter(map(as_expected, findings))
        assert set(found) == {each for each in wanted if each[0] not in refused}, summary(report)
        assert max(found.values()) == 1
        assert report.exit_code is ExitCode.DIVERGENT
        assert (report.coverage.failed, report.coverage.skipped) == (0, len(refused)), summary(report)
        assert {(t.route, t.note) for t in report.tables if t.table not in refused} == {("server", "")}


def test_the_form_is_one_that_every_node_has(upgraded: Planter, tmp_path: Path) -> None:
    """A node of 5.0 takes no row for a text, so that texts are hashed otherwise; rows are counted alike."""
    cluster = upgraded.cluster
    report = cluster.check("upgraded")
    forms = {t.table: t.scheme.rpartition("/")[2] for t in report.tables}
    texts = "remainder" if (5, 0) in _versions(cluster) else "murmur3"
    assert {name: forms[name] for name in ("plain", "wide", "keys_only")} == {
        "plain": "remainder",
        "wide": texts,
        "keys_only": "murmur3",
    }
    counted, _ = cluster.findings(tmp_path / "f.jsonl", "upgraded", scan=ScanOptions(max_findings=0))
    assert counted.findings_by_kind == report.findings_by_kind
    clean = cluster.check("upgraded.expiring", "upgraded.empty")
    assert clean.exit_code is ExitCode.CONSISTENT, summary(clean)
    assert "mixed_versions" in cluster.command("audit").stdout.replace("\N{NO-BREAK SPACE}", "_")


def _versions(cluster: RunningCluster) -> set[tuple[int, ...]]:
    """Return the versions of all nodes, major and minor."""
    found = [cluster.on(n, "SELECT release_version AS v FROM system.local").one()["v"] for n in (1, 2, 3)]
    return {tuple(int(part) for part in version.split(".")[:2]) for version in found}


@pytest.mark.parametrize("kind", hashing.PARTITION)
def test_what_weak_sums_cannot_tell_apart(upgraded: Planter, kind: str) -> None:
    """The stories again, the third replica on the newer node: equal rows have equal hashes on old and new ones."""
    asyncio.run(hashing.stories_differ(upgraded.cluster, kind))
