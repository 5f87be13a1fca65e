"""Kind of damage x table shape x route x depth x locality on a real cluster: exactly the planted rows are found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.checking.scan import ScanOptions
from consistency.model.reading import Depth, Locality, Route
from consistency.results.findings import State, read_ranges
from consistency.results.kinds import Kind
from consistency.results.verdict import ExitCode, Verdict
from tests.support.cluster import RunningCluster, summary
from tests.support.damage import SHAPES, Planter, as_expected
from tests.support.figures import SOAK
from tests.support.modes import MODES, PAIRS

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def planted(cluster: RunningCluster) -> Planter:
    """Every shape with its damage, in one keyspace."""
    planter = Planter(cluster, cluster.keyspace("matrix"))
    for build in SHAPES.values():
        build(planter)
    return planter


@pytest.mark.parametrize(
    ("depth", "route", "locality"),
    [pytest.param(*mode, marks=[] if mode in PAIRS else SOAK) for mode in MODES],
    ids=lambda mode: mode.value,
)
def test_exactly_the_planted_rows_are_found(
    planted: Planter, tmp_path: Path, depth: Depth, route: Route, locality: Locality
) -> None:
    """Whatever the shape, the route and the locality, nothing planted is lost and nothing is made up."""
    report, findings = planted.cluster.findings(
        tmp_path / "findings.jsonl", "matrix", depth=depth, route=route, locality=locality
    )
    refused = {t.table for t in report.tables if t.note}
    wanted = planted.content if depth is Depth.CONTENT else planted.versions
    wanted = {item for item in wanted if item[0] not in refused}
    assert refused == (set() if depth is Depth.CONTENT else {"counters"}), summary(report)
    found = Counter(map(as_expected, findings))
    assert set(found) == wanted
    assert max(found.values()) == 1, "a damaged row gave more than one finding"
    assert report.exit_code is ExitCode.DIVERGENT
    assert report.coverage.failed == 0, summary(report)
    assert {t.locality for t in report.tables if not t.note} == {locality.value}
    assert {t.route for t in report.tables if not t.note} == {route.value}


@pytest.mark.parametrize("route", list(Route))
def test_native_protocol_4_finds_everything_but_expiry(planted: Planter, tmp_path: Path, route: Route) -> None:
    """Where reads cannot name their own now, remaining TTLs are not compared, and the report says so."""
    older = replace(planted.cluster, protocol=4)
    report, findings = older.findings(tmp_path / "findings.jsonl", "matrix", depth=Depth.CONTENT, route=route)
    assert {as_expected(f) for f in findings} == {item for item in planted.content if item[1] != "expiry"}
    assert all(any("protocol v5" in sentence for sentence in t.blind) for t in report.tables if not t.note)
    assert report.coverage.failed == 0, summary(report)


@pytest.mark.parametrize("route", list(Route))
def test_rows_that_are_not_listed_are_counted_exactly(planted: Planter, tmp_path: Path, route: Route) -> None:
    """With no room to list any row, each table's rows are counted by the kinds that a listing gives them."""
    listed, findings = planted.cluster.findings(tmp_path / "all", "matrix", depth=Depth.CONTENT, route=route)
    none = ScanOptions(max_findings=0)
    counted, rows = planted.cluster.findings(tmp_path / "f", "matrix", depth=Depth.CONTENT, route=route, scan=none)
    ranges = list(read_ranges(tmp_path / "f"))
    # Rows on which all replicas agree are listed all the same: nothing of them differs.
    alike = [f for f in findings if all(view.state is State.CURRENT for view in f.replicas.values())]
    agreed = [f for f in alike if f.kind is Kind.FUTURE_WRITE_TIME]
    assert {as_expected(f) for f in rows} == {as_expected(f) for f in agreed}
    for table in {f.table for f in findings}:
        wanted = Counter(f.kind for f in findings if f.table == table and f not in agreed)
        found = sum((Counter(r.kinds) for r in ranges if r.table == table), Counter())
        assert found == wanted, table
    assert counted.findings_by_kind == listed.findings_by_kind
    assert counted.exit_code is ExitCode.DIVERGENT
    assert counted.coverage == listed.coverage


def test_findings_name_what_every_replica_holds(planted: Planter, tmp_path: Path) -> None:
    """Each finding has a state for every replica and the write time of every cell it holds, and no value."""
    _, findings = planted.cluster.findings(tmp_path / "f.jsonl", "matrix.plain")
    by_key = {finding.key["id"]: finding for finding in findings}
    cluster, base = planted.cluster, planted.base_us
    stale = by_key[2]
    assert {name: view.state.value for name, view in stale.replicas.items()} == {
        cluster.name(1): "stale",
        cluster.name(2): "stale",
        cluster.name(3): "current",
    }
    assert stale.replicas[cluster.name(3)].writetimes == {"a": base + 1, "b": base}
    assert stale.columns == ("a",)
    missing = by_key[1]
    assert missing.replicas[cluster.name(1)].state.value == "missing"
    assert missing.replicas[cluster.name(1)].writetimes == {}
    assert by_key[1007].facts == (Kind.ZOMBIE_SUSPECT, Kind.MISSING)
    text = (tmp_path / "f.jsonl").read_text()
    assert "newer" not in text
    assert "one only" not in text
    assert ((tmp_path / "f.jsonl").stat().st_mode & 0o777) == 0o600


def test_depth_versions_says_what_it_cannot_see(planted: Planter) -> None:
    """A tie is not found at depth versions, and the report says that values are out of its sight."""
    report = planted.cluster.check("matrix.typed_values", depth=Depth.VERSIONS)
    assert report.verdict is Verdict.CONSISTENT
    assert any("values" in sentence for sentence in report.tables[0].blind)


def test_undamaged_tables_are_consistent_and_complete(planted: Planter) -> None:
    """Tables whose TTLs run out meanwhile, and empty ones, are consistent by every mode, with full coverage."""
    for depth, route, locality in PAIRS:
        report = planted.cluster.check("matrix.expiring", "matrix.empty", depth=depth, route=route, locality=locality)
        assert report.exit_code is ExitCode.CONSISTENT, summary(report)
        assert report.coverage.planned == report.coverage.completed > 0
