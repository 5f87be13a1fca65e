"""Wide and odd data: the check neither runs out of memory nor of time, and finds exactly what is planted.

Each test runs `consistency check` as a process of its own and notes the most memory it held. The sizes are those
of a test that is run often; CONSISTENCY_SOAK=1 makes them those in docs/design/0019-what-was-tried.md, and adds the
slowest to fill. A partition of 100,000 rows (test_scale) and 5,000 tombstones (test_faults) are checked every time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cassandra import WriteTimeout

from consistency.results.findings import Finding, read_findings
from tests.support.cluster import RunningCluster, eventually, sandbox_cluster
from tests.support.damage import Expected, as_expected, expected
from tests.support.figures import FIGURES, LONG, SOAK
from tests.support.processes import Checker

pytestmark = pytest.mark.cluster

MEMORY_MB = 400
"""What a check may hold at most, whatever the data; an idle one holds about 60."""
WIDE_ROWS = 2_000_000
TABLES = 500 if LONG else 6
TOMBSTONES = 300_000
DIVERGENT = 200_000 if LONG else 1_000
COLUMNS = 200
BROAD_ROWS = 2_000 if LONG else 400
_BATCH = 100


@dataclass(frozen=True)
class Checked:
    """One run and what it cost."""

    code: int
    report: dict[str, Any]
    findings: list[Finding]
    seconds: float
    memory_mb: float

    @property
    def found(self) -> set[Expected]:
        """The findings, as the planter names them."""
        return set(map(as_expected, self.findings))

    def note(self, what: str, memory_mb: int = MEMORY_MB) -> None:
        """Keep the figures, and hold the run to its bounds."""
        coverage = self.report["coverage"]
        assert coverage["planned"] == coverage["completed"], json.dumps(self.report)[:3000]
        assert len(self.findings) == len(self.found)
        FIGURES.add(what, f"{self.seconds:.0f} s, {self.memory_mb:.0f} MB, {len(self.findings):,} findings")
        assert self.memory_mb < memory_mb


def check(cluster: RunningCluster, directory: Path, name: str, *options: str) -> Checked:
    """Check in a process of its own."""
    report, findings = directory / "report.json", directory / "findings.jsonl"
    started = time.monotonic()
    arguments = (name, "--json", str(report), "--findings", str(findings), "--settle", "0.3", "--quiet", *options)
    with Checker(cluster, *arguments) as checker:
        code = checker.wait(3_000 if LONG else 200)
    seconds = time.monotonic() - started
    assert code in (0, 1), checker.stderr
    return Checked(code, json.loads(report.read_text()), list(read_findings(findings)), seconds, checker.memory_mb)


@pytest.fixture(scope="module")
def odd(cluster: RunningCluster) -> RunningCluster:
    """The keyspace of odd tables."""
    cluster.keyspace("odd")
    return cluster


@pytest.fixture
def roomy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningCluster]:
    """Nodes with room for every table: each costs one about 2 MB of heap, and 500 are more than 1 GB holds."""
    if LONG:
        yield from sandbox_cluster(tmp_path / "roomy", "roomy", heap="3g")
    else:
        yield request.getfixturevalue("cluster")


def past_us() -> int:
    """An hour ago."""
    return time.time_ns() // 1000 - 3_600_000_000


def batch(cluster: RunningCluster, statement: str, *, node: int = 0) -> Any:
    """Prepare a hundred of a statement in an unlogged batch, for all replicas or for one node's storage alone."""
    text = f"BEGIN UNLOGGED BATCH {f'{statement}; ' * _BATCH} APPLY BATCH"
    prepared = cluster.session.prepare(text)
    prepared.consistency_level = 11 if node else 5
    return prepared


def hundreds(count: int) -> list[range]:
    """Cut `range(count)` into what goes into one batch."""
    return [range(i, i + _BATCH) for i in range(0, count, _BATCH)]


@SOAK
def test_one_partition_of_very_many_rows(odd: RunningCluster, tmp_path: Path) -> None:
    """Everything in one partition, which no token range can split: digested whole, read by pages, its damage found."""
    base = past_us()
    odd.ddl("CREATE TABLE odd.wide (p int, c int, v text, PRIMARY KEY (p, c))")
    insert = batch(odd, f"INSERT INTO odd.wide (p, c, v) VALUES (1, ?, ?) USING TIMESTAMP {base}")
    odd.load_prepared(insert, ([x for c in each for x in (c, f"value {c}")] for each in hundreds(WIDE_ROWS)))
    rows = {WIDE_ROWS // 2: 1, WIDE_ROWS - 1: 2, 0: 3}
    for c, n in rows.items():
        odd.on(n, f"DELETE FROM odd.wide USING TIMESTAMP {base + 1} WHERE p = 1 AND c = {c}")
    done = check(odd, tmp_path, "odd.wide")
    assert done.found == {expected("wide", "missing", {"p": 1, "c": c}) for c in rows}
    done.note(f"one partition of {WIDE_ROWS:,} rows")
    odd.ddl("DROP TABLE odd.wide")


def test_rows_of_eight_megabytes(odd: RunningCluster, tmp_path: Path) -> None:
    """Eight cells of a megabyte each in a few rows: pages are cut to what they weigh; a changed byte is found."""
    base, rows = past_us(), 10 if LONG else 3
    columns = [f"b{i}" for i in range(8)]
    odd.ddl(f"CREATE TABLE odd.heavy (id int PRIMARY KEY, {', '.join(f'{c} blob' for c in columns)})")
    insert = odd.session.prepare(
        f"INSERT INTO odd.heavy (id, {', '.join(columns)}) VALUES (?{', ?' * 8}) USING TIMESTAMP {base}"
    )
    insert.consistency_level = 5
    for i in range(rows):
        odd.session.execute(insert, (i, *(bytes([i, j]) * 524_288 for j in range(8))), timeout=60)
    odd.on(2, f"UPDATE odd.heavy USING TIMESTAMP {base} SET b7 = 0x{'ff' * 1_000} WHERE id = 2")
    for route in ("server", "client"):
        done = check(odd, tmp_path, "odd.heavy", "--route", route)
        assert done.found == {expected("heavy", "tie", {"id": 2})}, done.report
        # A page is one row, and a few of each replica are under way, in the driver's buffers too.
        done.note(f"{rows} rows of 8 MB, route {route}", memory_mb=700)
    odd.ddl("DROP TABLE odd.heavy")


def test_a_table_of_two_hundred_columns(odd: RunningCluster, tmp_path: Path) -> None:
    """Every column's value, write time and expiry in one digest: one cell in 200 columns is found by both routes."""
    base = past_us()
    names = [f"c{i:03d}" for i in range(COLUMNS)]
    odd.ddl(f"CREATE TABLE odd.broad (id int PRIMARY KEY, {', '.join(f'{n} int' for n in names)})")
    cql = f"INSERT INTO odd.broad (id, {', '.join(names)}) VALUES (?{', ?' * COLUMNS}) USING TIMESTAMP {base}"
    odd.load(cql, ((i, *range(COLUMNS)) for i in range(BROAD_ROWS)))
    odd.on(1, f"UPDATE odd.broad USING TIMESTAMP {base + 1} SET c199 = 0 WHERE id = 7")
    odd.on(2, f"UPDATE odd.broad USING TIMESTAMP {base + 1} SET c000 = 9 WHERE id = {BROAD_ROWS - 3}")
    for route in ("server", "client"):
        done = check(odd, tmp_path, "odd.broad", "--route", route)
        assert done.found == {expected("broad", "stale", {"id": 7}), expected("broad", "stale", {"id": BROAD_ROWS - 3})}
        done.note(f"{COLUMNS} columns, {BROAD_ROWS:,} rows, route {route}")
    odd.ddl("DROP TABLE odd.broad")


def _written(cluster: RunningCluster, table: str) -> bool:
    try:
        cluster.load(f"INSERT INTO {table} (id, v) VALUES (?, ?)", [(1, "v")])
    except WriteTimeout:
        return False
    return True


def test_each_of_very_many_tables_is_reported(roomy: RunningCluster, tmp_path: Path) -> None:
    """A keyspace of hundreds of small tables: each is in the report, and the one that differs is found."""
    roomy.keyspace("many")
    roomy.tables(f"CREATE TABLE many.t{i:03d} (id int PRIMARY KEY, v text)" for i in range(TABLES))
    for i in range(TABLES):
        eventually(partial(_written, roomy, f"many.t{i:03d}"), 120, "nodes that are done with so many new tables")
    roomy.on(3, f"DELETE FROM many.t{TABLES - 1:03d} WHERE id = 1")
    done = check(roomy, tmp_path, "many")
    assert done.found == {expected(f"t{TABLES - 1:03d}", "missing", {"id": 1})}
    assert len(done.report["tables"]) == TABLES
    done.note(f"{TABLES} tables")
    roomy.ddl("DROP KEYSPACE many")


@SOAK
def test_a_range_full_of_tombstones(odd: RunningCluster, tmp_path: Path) -> None:
    """More tombstones in one partition than a server reads at once: read in smaller pages, and the damage found."""
    base = past_us()
    odd.ddl("CREATE TABLE odd.grave (p int, c int, v text, PRIMARY KEY (p, c))")
    delete = batch(odd, f"DELETE FROM odd.grave USING TIMESTAMP {base} WHERE p = 1 AND c = ?")
    odd.load_prepared(delete, (list(each) for each in hundreds(TOMBSTONES)))
    living = range(0, TOMBSTONES, 500)
    odd.load(f"INSERT INTO odd.grave (p, c, v) VALUES (1, ?, 'v') USING TIMESTAMP {base + 1}", ((c,) for c in living))
    odd.on(2, f"DELETE FROM odd.grave USING TIMESTAMP {base + 2} WHERE p = 1 AND c = {living[-1]}")
    done = check(odd, tmp_path, "odd.grave")
    assert done.found == {expected("grave", "missing", {"p": 1, "c": living[-1]})}
    done.note(f"{TOMBSTONES:,} tombstones in one partition")
    odd.ddl("DROP TABLE odd.grave")


def test_very_many_divergent_rows(odd: RunningCluster, tmp_path: Path) -> None:
    """A replica that missed a day: every row of it is named, once, in bounded memory."""
    base = past_us()
    odd.ddl("CREATE TABLE odd.behind (p int, c int, v text, PRIMARY KEY (p, c))")
    insert = f"INSERT INTO odd.behind (p, c, v) VALUES (?, ?, 'v') USING TIMESTAMP {base}"
    odd.load_prepared(batch(odd, insert), ([x for c in each for x in (c // _BATCH, c)] for each in hundreds(DIVERGENT)))
    delete = batch(odd, f"DELETE FROM odd.behind USING TIMESTAMP {base + 1} WHERE p = ? AND c = ?", node=2)
    for each in hundreds(DIVERGENT):
        odd.session.execute(delete, [x for c in each for x in (c // _BATCH, c)], host=odd._host(2))
    done = check(odd, tmp_path, "odd.behind")
    assert {finding.key["c"] for finding in done.findings} == set(range(DIVERGENT))
    assert {finding.kind.value for finding in done.findings} == {"missing"}
    done.note(f"{DIVERGENT:,} divergent rows")
    odd.ddl("DROP TABLE odd.behind")
