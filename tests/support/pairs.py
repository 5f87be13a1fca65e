"""Two clusters as the tests use them: the same rows on both, damage on either side, clients that write to both."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from consistency import Compare, CompareOptions, Comparison, InnerFinding, PairFinding, Side, compare, read_compared
from consistency.checking.scan import ScanOptions
from repair import ApplyOptions, SyncApplyOptions, SyncOptions, Tally, sync_apply, sync_plan
from tests.support.cluster import RunningCluster

Found = tuple[str, str, str]
"""Table, kind, and the key as canonical JSON."""
TABLES = (
    "CREATE TABLE {0}.flat (id int PRIMARY KEY, v text, w int)",
    "CREATE TABLE {0}.wide (p int, c int, s text static, v text, m map<text, int>, l list<text>, PRIMARY KEY (p, c))",
    "CREATE TABLE {0}.hits (id int PRIMARY KEY, n counter)",
)


@dataclass
class Both:
    """The same tables on both clusters, and what must be found between them."""

    source: RunningCluster
    target: RunningCluster
    then_us: int = field(default_factory=lambda: time.time_ns() // 1000 - 3_600_000_000)
    expected: set[Found] = field(default_factory=set)

    def make(self, name: str) -> None:
        """Make the tables, empty."""
        for cluster, rf in ((self.source, 3), (self.target, 1)):
            cluster.keyspace(name, rf=rf)
            cluster.tables(statement.format(name) for statement in TABLES)

    def everywhere(self, cql: str) -> None:
        """Write on both sides; `@` stands for the write time of long ago."""
        self.write(Side.SOURCE, cql)
        self.write(Side.TARGET, cql)

    def write(self, side: Side, cql: str, later_us: int = 0) -> None:
        """Write on all replicas of a side, so much later than long ago."""
        cluster = self.source if side is Side.SOURCE else self.target
        cluster.everywhere(cql.replace("@", str(self.then_us + later_us)))

    def expect(self, table: str, kind: str, **key: Any) -> None:
        """Say what must be found of a row."""
        self.expected.add((table, kind, json.dumps(key, sort_keys=True)))

    def compare(self, *names: str, settle_s: float = 0.3, **options: Any) -> Comparison:
        """Compare as the library does."""
        chosen = CompareOptions(settle_window_s=settle_s, **options)
        return compare(*names, settings=self.source.settings, target_settings=self.target.settings, options=chosen)


def named(path: Path) -> tuple[set[Found], set[Found]]:
    """Return what was found between the sides, and on the source by itself."""
    pairs, inner = set(), set()
    for found in read_compared(path):
        if isinstance(found, PairFinding):
            pairs.add((found.table, found.kind.value, json.dumps(dict(found.key), sort_keys=True)))
        elif isinstance(found, InnerFinding):
            assert found.side is Side.SOURCE
            finding = found.finding
            inner.add((finding.table, finding.kind.value, json.dumps(dict(finding.key), sort_keys=True)))
    return pairs, inner


@final
class DualWrites:
    """A client that writes the same to both clusters, one after the other, for as long as a test wants it to."""

    def __init__(self, pair: Both, table: str, first: int = 1_000) -> None:
        self.written = 0
        self._first = first
        self._stop = threading.Event()
        cql = f"INSERT INTO {table} (id, v, w) VALUES (?, ?, ?) USING TIMESTAMP ?"
        self._sides = [(cluster.session, cluster.session.prepare(cql)) for cluster in (pair.source, pair.target)]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.written += 1
            values = (self._first + self.written % 150, f"w{self.written}", self.written, time.time_ns() // 1000)
            for session, statement in self._sides:
                session.execute(statement, values)
                time.sleep(0.002)

    def __enter__(self) -> DualWrites:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


COPIED = (
    "CREATE TYPE {0}.pair (x int, y text)",
    "CREATE TABLE {0}.flat (id int PRIMARY KEY, v text, w int)",
    (
        "CREATE TABLE {0}.wide (p int, c int, s text static, v text, m map<text, int>, t set<int>, u pair,"
        " f frozen<pair>, PRIMARY KEY (p, c))"
    ),
    "CREATE TABLE {0}.left (id int PRIMARY KEY, l list<int>, v text)",
)
CELLS = {
    "flat": "id, v, writetime(v), w, writetime(w)",
    "wide": "p, c, s, writetime(s), v, writetime(v), m, writetime(m), t, writetime(t), u, writetime(u), writetime(f)",
    "left": "id, l, writetime(l), v, writetime(v)",
}


def copied(pair: Both, name: str, rows: int = 300) -> None:
    """Make tables with rows on both sides that are the same."""
    for cluster in (pair.source, pair.target):
        cluster.keyspace(name, rf=min(3, len(cluster.hosts)))
        cluster.tables(statement.format(name) for statement in COPIED)
    for at in range(0, rows, 50):
        flat = [f"INSERT INTO {name}.flat (id, v, w) VALUES ({i}, 'v{i}', {i})" for i in range(at, at + 50)]
        wide = [
            f"INSERT INTO {name}.wide (p, c, s, v, m, t, u, f) VALUES ({i // 10}, {i % 10}, 's', 'v', {{'a': {i}}},"
            f" {{1, 2}}, {{x: 1, y: 'y'}}, {{x: 1, y: 'f'}})"
            for i in range(at, at + 50)
        ]
        pair.everywhere(f"BEGIN UNLOGGED BATCH USING TIMESTAMP @ {'; '.join([*flat, *wide])}; APPLY BATCH")


def held(cluster: RunningCluster, name: str) -> dict[str, set[str]]:
    """Return every row with its write times, as text."""
    return {
        table: {repr(row) for row in cluster.quorum(f"SELECT {cells} FROM {name}.{table}")}
        for table, cells in CELLS.items()
    }


def synced(pair: Both, name: str, folder: Path, *, max_deletes: int | None = None, **options: Any) -> Tally:
    """Compare, plan and apply as the library does."""
    number = len(list(folder.iterdir()))
    findings, plan, journal = (folder / f"{number}.{what}" for what in ("findings", "plan", "journal"))
    pair.compare(name, findings=findings, compare=Compare.EXPIRIES, scan=ScanOptions(max_findings=5))
    reach = {"settings": pair.source.settings, "target_settings": pair.target.settings}
    sync_plan(findings, plan, options=SyncOptions(settle_s=0.3, **options), **reach)
    return sync_apply(plan, journal, options=SyncApplyOptions(ApplyOptions(max_deletes=max_deletes)), **reach)
