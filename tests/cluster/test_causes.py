"""Likely causes, the page and marked rows on a real cluster: what happened is what is said."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from consistency.cli.show.browse.shelf import Choice, Shelf
from consistency.results.cause import CauseKind
from consistency.results.kinds import Kind
from tests.support.cluster import RunningCluster, summary
from tests.support.repairing import Repairing

pytestmark = pytest.mark.cluster

MINUTE_US = 60_000_000
ROWS = 60


@pytest.fixture
def base_us() -> int:
    """A write time of ten days ago."""
    return time.time_ns() // 1000 - 10 * 24 * 60 * MINUTE_US


def table(cluster: RunningCluster, keyspace: str, base_us: int, rf: int = 3, rows: int = 100) -> str:
    """Make a table with rows on all its replicas, written a minute apart."""
    name = f"{cluster.keyspace(keyspace, rf)}.t"
    cluster.ddl(f"CREATE TABLE {name} (id int PRIMARY KEY, v text)")
    insert = f"INSERT INTO {name} (id, v) VALUES (?, ?) USING TIMESTAMP ?"
    cluster.load(insert, [(i, f"value {i}", base_us + i * MINUTE_US) for i in range(rows)])
    return name


def write_on(cluster: RunningCluster, nodes: tuple[int, ...], table: str, key: int, time_us: int) -> None:
    """Write a row on some nodes alone."""
    for node in nodes:
        cluster.on(node, f"INSERT INTO {table} (id, v) VALUES ({key}, 'new') USING TIMESTAMP {time_us}")


def test_an_outage_is_named_shown_and_repaired_in_part(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """One node misses a quarter of an hour: the cause names it, the page holds it, marked rows alone are planned."""
    name = table(cluster, "outage", base_us)
    since = base_us + 1000 * MINUTE_US
    for i in range(ROWS):
        write_on(cluster, (1, 2), name, 10_000 + i, since + i * MINUTE_US // 4)
    files = {option: tmp_path / option for option in ("findings.jsonl", "page.html")}
    result = cluster.command(
        "check", name, "--findings", str(files["findings.jsonl"]), "--html", str(files["page.html"])
    )
    assert result.returncode == 1, result.stderr
    said = f"{cluster.name(3)} lacks what others hold in 100% ({ROWS} of {ROWS}) of the differing rows"
    assert said in " ".join(result.stdout.split())
    page = files["page.html"].read_text("utf-8")
    assert said in page
    assert "id=100" not in page
    shelf = Shelf(files["findings.jsonl"])
    some = [entry.number for entry in shelf.matching(Choice(kind=Kind.MISSING))[:7]]
    marked = tmp_path / "marked"
    marked.mkdir()
    assert shelf.write(marked / "findings.jsonl", some) == 7
    made = Repairing(cluster, marked, "outage").plan()
    assert {tuple(row.ref.key_hex.items()) for row in made.rows} == {
        tuple(shelf.finding(shelf.entries[n - 1]).key_hex.items()) for n in some
    }


def test_a_raised_factor_without_repair_is_told_from_an_outage(cluster: RunningCluster, base_us: int) -> None:
    """Every node lacks all of some ranges and nothing of the others."""
    name = table(cluster, "raised", base_us, rf=2, rows=500)
    keyspace = name.partition(".")[0]
    cluster.ddl(f"ALTER KEYSPACE {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy', 'dc1': 3}}")
    report = cluster.check("raised")
    (cause,) = report.likely_causes
    assert cause.kind is CauseKind.REPLICATION_RAISED, summary(report)
    assert cause.replicas == tuple(sorted(cluster.name(n) for n in (1, 2, 3)))
    assert cause.rows == 500


def test_rows_torn_by_one_client_name_no_node(cluster: RunningCluster, base_us: int) -> None:
    """What one client wrote in a minute lies now on these nodes, now on those."""
    name = table(cluster, "torn", base_us)
    for i in range(ROWS):
        lacking = i % 3 + 1
        nodes = tuple(n for n in (1, 2, 3) if n != lacking)
        write_on(cluster, nodes, name, 10_000 + i, base_us + 1000 * MINUTE_US + i * 1_000_000)
    (cause,) = cluster.check("torn").likely_causes
    assert (cause.kind, cause.rows, cause.replicas) == (CauseKind.TORN_WRITES, ROWS, ())


def test_a_few_rows_are_no_pattern(cluster: RunningCluster, base_us: int) -> None:
    """Five rows on one node prove nothing."""
    name = table(cluster, "few", base_us)
    for i in range(5):
        write_on(cluster, (1, 2), name, 10_000 + i, base_us)
    report = cluster.check("few")
    assert sum(report.findings_by_kind.values()) == 5
    assert report.likely_causes == ()
