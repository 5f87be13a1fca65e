"""Two clusters at scale: damage of every kind on either side of every shape of table is found, named and synced.

CONSISTENCY_SOAK: 200,000 rows and 500 damages, also from 4.1 to 5.0 and from 5.0 to 4.1, and clients that write 200
rows a second to both for CONSISTENCY_SOAK_SECONDS.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cassandra import ConsistencyLevel
from cassandra.concurrent import execute_concurrent
from cassandra.query import SimpleStatement

from consistency import Compare, CompareOptions, Comparison, Verdict, compare
from consistency.checking.scan import ScanOptions
from consistency.model.sides import Side
from repair import Extra, Result, SyncOptions, Tally, sync_apply, sync_plan
from tests.support.cluster import RunningCluster, sandbox_cluster
from tests.support.figures import LONG, SOAK, Figures
from tests.support.pairs import Both, DualWrites, Found, named

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3_600)]

ROWS = int(os.environ.get("CONSISTENCY_ROWS", "200000" if LONG else "800"))
DAMAGES = int(os.environ.get("CONSISTENCY_DAMAGES", "500" if LONG else "60"))
SECONDS = float(os.environ.get("CONSISTENCY_SOAK_SECONDS", "300"))
WRITERS = 4
A_DAY_S = 86_400


@dataclass(frozen=True)
class Shape:
    """A table: how it is made, the key of its i-th row, and what a row holds, as `column = literal`."""

    name: str
    made: str
    key: Callable[[int], dict[str, Any]]
    cells: Mapping[str, Callable[[int], str]]
    timeless: bool = False
    """Whether servers before 5.0 do not tell when its cells were written and expire, but for those of `f`."""

    def insert(self, i: int, *columns: str, ttl: int = 0) -> str:
        """Return the statement that writes a row, `@` for the write time of long ago."""
        key = self.key(i)
        names = [*key, *(columns or self.cells)]
        values = [_literal(value) for value in key.values()] + [self.cells[c](i) for c in columns or self.cells]
        using = f"USING TIMESTAMP @ AND TTL {ttl}" if ttl else "USING TIMESTAMP @"
        return f"INSERT INTO scale.{self.name} ({', '.join(names)}) VALUES ({', '.join(values)}) {using}"


def _literal(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def one(i: int) -> dict[str, Any]:
    """The key of a table with one key column."""
    return {"id": i}


TEXT: Mapping[str, Callable[[int], str]] = {"v": lambda i: f"'v{i}'", "w": str}
SYNCED = (
    Shape("flat", "id int PRIMARY KEY, v text, w int", one, TEXT),
    Shape(
        "wide",
        "p int, c int, v text, w int, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (c DESC",
        lambda i: {"p": i // 50, "c": i % 50},
        TEXT,
    ),
    Shape(
        "keyed",
        "k text, n bigint, c int, v blob, w decimal, PRIMARY KEY ((k, n), c)",
        lambda i: {"k": f"k é {i}", "n": i * 10_000_000_000, "c": -i},
        {"v": lambda i: f"0x{i:08x}", "w": lambda i: f"{i}.50"},
    ),
    Shape(
        "nested",
        "id int PRIMARY KEY, v map<text, int>, w set<int>, u pair, f frozen<list<int>>",
        one,
        {
            "v": lambda i: f"{{'a': {i}, 'b': 1}}",
            "w": lambda i: f"{{{i}, -1}}",
            "u": lambda i: f"{{x: {i}, y: 'y'}}",
            "f": lambda i: f"[{i}, 2]",
        },
        timeless=True,
    ),
)
LEFT = (
    Shape("lists", "id int PRIMARY KEY, v list<int>", one, {"v": lambda i: f"[{i}, {i}]"}, timeless=True),
    Shape("keys", "a int, b int, PRIMARY KEY (a, b)", lambda i: {"a": i // 10, "b": i % 10}, {}),
)
"""Whose differences a sync names and leaves."""


@dataclass
class Damage:
    """What was damaged: what must be found, and what a sync leaves."""

    both: Both
    older: Side | None = None
    """The side, if any, that does not tell when the cells of collections were written."""
    in_vain: int = 0
    """Rows whose cells are newer in the target, which does not tell: they are written, and lose."""
    found: set[Found] = field(default_factory=set)
    left: set[Found] = field(default_factory=set)

    def add(self, shape: Shape, kind: str, i: int, *, left: bool = False) -> None:
        """Enter a row."""
        row = (shape.name, kind, json.dumps(shape.key(i), sort_keys=True))
        self.found.add(row)
        if left:
            self.left.add(row)

    def plant(self, shape: Shape, number: int, *, left: bool) -> None:
        """Damage one row, in the way of its number."""
        i, new, source, target = number * 3, ROWS + number, Side.SOURCE, Side.TARGET
        way = number % 7
        older = self.older if shape.timeless else None
        if way == 0 or not shape.cells:
            self.both.write(source, shape.insert(new))
            self.add(shape, "only_source", new, left=left or older is source)
        elif way == 1:
            self.both.write(target, shape.insert(new))
            self.add(shape, "only_target", new, left=older is target)  # else it is deleted whatever its columns are
        elif way == 2:
            self.both.write(source, self._other(shape, i), 5)
            self.add(shape, "value", i, left=left or older is source)
        elif way == 3:
            self.both.write(target, self._other(shape, i), 5)
            self.add(shape, "value", i, left=True)
            self.in_vain += older is target
        elif way == 4:
            self.both.write(source, shape.insert(i, "v"), 2_000_000)
            if older is None:  # else it is the same as far as can be told
                self.add(shape, "writetime", i, left=left)
        elif way == 5:
            for side in Side:  # the target lacks a cell
                self.both.write(side, shape.insert(new, *([] if side is source else [*shape.cells][:1])))
            if len(shape.cells) > 1:
                self.add(shape, "value", new, left=left or older is source)
        else:
            for side, ttl in ((source, 5 * A_DAY_S), (target, 3 * A_DAY_S)):
                self.both.write(side, shape.insert(new, ttl=ttl))
            self.add(shape, "expiry", new, left=left)  # that of `f` is told by all

    def _other(self, shape: Shape, i: int) -> str:
        """Return the statement that gives a row other values in its first column."""
        changed = {**shape.cells, "v": lambda _: shape.cells["v"](i + 1)}
        return Shape(shape.name, shape.made, shape.key, changed).insert(i, "v")


def load(cluster: RunningCluster, shape: Shape, then_us: int, rows: int) -> None:
    """Write the rows of a table."""
    waiting: list[str] = []

    def batches() -> Iterator[str]:
        for i in range(rows):
            waiting.append(shape.insert(i).replace("@", str(then_us)))
            if len(waiting) == 50 or i == rows - 1:
                yield f"BEGIN UNLOGGED BATCH {'; '.join(waiting)}; APPLY BATCH"
                waiting.clear()

    left = [(SimpleStatement(batch, consistency_level=ConsistencyLevel.ALL), ()) for batch in batches()]
    for at_once in (4, 2, 1):  # what a busy machine gave up on is written again
        done = execute_concurrent(cluster.session, left, concurrency=at_once, raise_on_first_error=at_once == 1)
        left = [each for each, result in zip(left, done, strict=True) if not result.success]


@pytest.fixture(scope="module")
def both(cluster: RunningCluster, target: RunningCluster) -> Both:
    """Both clusters with the same rows in every shape of table."""
    return filled(Both(cluster, target))


def filled(pair: Both) -> Both:
    """Make the tables on both sides, and write their rows."""
    for each, rf in ((pair.source, 3), (pair.target, 1)):
        each.keyspace("scale", rf=rf)
        tables = [f"CREATE TABLE scale.{s.name} ({s.made})" for s in (*SYNCED, *LEFT)]
        hits = "CREATE TABLE scale.hits (id int PRIMARY KEY, n counter)"
        each.tables(["CREATE TYPE scale.pair (x int, y text)", *tables, hits])
        for shape in SYNCED:
            load(each, shape, pair.then_us, ROWS // len(SYNCED))
        for shape in LEFT:
            load(each, shape, pair.then_us, 100)
        for i in range(20):
            each.everywhere(f"UPDATE scale.hits SET n = n + {i} WHERE id = {i}")
    return pair


def compared(both: Both, path: Path, names: Iterable[str] = ("scale",)) -> Comparison:
    """Compare all of it, listing every row that differs."""
    options = CompareOptions(
        compare=Compare.EXPIRIES, findings=path, settle_window_s=0.5, scan=ScanOptions(max_findings=None)
    )
    reach = {"settings": both.source.settings, "target_settings": both.target.settings}
    return compare(*names, options=options, **reach)


def synced(both: Both, findings: Path, folder: Path, number: int, **options: Any) -> Tally:
    """Plan and apply."""
    reach = {"settings": both.source.settings, "target_settings": both.target.settings}
    plan, journal = folder / f"{number}.plan", folder / f"{number}.journal"
    sync_plan(findings, plan, options=SyncOptions(settle_s=0.3, **options), **reach)
    return sync_apply(plan, journal, **reach)


def held(cluster: RunningCluster, *, timed: bool) -> dict[str, dict[str, str]]:
    """Return every row of every table by its key, with values and what is told of write times, as text."""
    found: dict[str, dict[str, str]] = {}
    for shape in (*SYNCED, *LEFT):
        key = [*shape.key(0)]
        told = [name for name in shape.cells if timed or name == "f" or not shape.timeless]
        cells = "".join(f", {name}" for name in shape.cells)
        cells += "".join(f", writetime({name}) AS at_{name}" for name in told)
        rows = cluster.quorum(f"SELECT {', '.join(key)}{cells} FROM scale.{shape.name}")
        found[shape.name] = {json.dumps({k: row[k] for k in key}, sort_keys=True): repr(row) for row in rows}
    return found


def test_every_damage_on_either_side_is_found_by_name_and_what_can_be_is_synced(
    both: Both, tmp_path: Path, figures: Figures
) -> None:
    """Exactly those; then equal at the depth compared, but for what a sync leaves, and no other row was touched."""
    found_and_synced(both, tmp_path, figures)


@pytest.fixture(scope="module", params=["4.1 to 5.0", "5.0 to 4.1"])
def between(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Both]]:
    """Two clusters of two versions, of three nodes and of one, with the same rows."""
    name: str = request.param
    newer = request.getfixturevalue("target" if name.startswith("4.1") else "cluster")
    options = {"nodes": 3} if name.startswith("4.1") else {"nodes": 1, "num_tokens": 4, "heap": "512m"}
    clusters = sandbox_cluster(tmp_path_factory.mktemp("older"), "4.1", cassandra="4.1", **options)
    with closing(clusters):  # type: ignore[type-var]
        older = next(clusters)
        yield name, filled(Both(older, newer) if name.startswith("4.1") else Both(newer, older))


@SOAK
def test_clusters_of_unlike_versions_are_compared(between: tuple[str, Both], tmp_path: Path, figures: Figures) -> None:
    """The same from 4.1 to 5.0 and back, but that servers of 4.1 do not tell when a collection was written."""
    name, both = between
    older = Side.SOURCE if name.startswith("4.1") else Side.TARGET
    found_and_synced(both, tmp_path, figures, older=older, name=f"{name}: ")


def found_and_synced(
    both: Both, tmp_path: Path, figures: Figures, *, older: Side | None = None, name: str = ""
) -> None:
    """Damage, compare, sync, and compare again; one side may be of an older version."""
    damage, timed = Damage(both, older), older is None
    for number in range(DAMAGES):
        shape = SYNCED[number // 7 % len(SYNCED)]
        damage.plant(shape, number, left=False)
    for number in (0, 1, 2):
        damage.plant(LEFT[0], number, left=True)
    damage.plant(LEFT[1], 0, left=True)
    both.write(Side.TARGET, "UPDATE scale.hits SET n = n + 1 WHERE id = 2")
    damage.left.add(("hits", "value", '{"id": 2}'))
    damage.found.add(("hits", "value", '{"id": 2}'))
    before = {
        side: held(cluster, timed=timed) for side, cluster in ((Side.SOURCE, both.source), (Side.TARGET, both.target))
    }
    began = time.monotonic()
    path = tmp_path / "findings"
    result = compared(both, path)
    took = time.monotonic() - began
    pairs, inner = named(path)
    assert (pairs - damage.found, damage.found - pairs) == (set(), set())
    assert inner == set()
    assert result.coverage.complete
    tally = synced(both, path, tmp_path, 0, extra=Extra.DELETE)
    assert set(tally.results) <= {Result.VERIFIED, Result.LEFT, Result.DIVERGENT}, tally
    assert tally.results.get(Result.DIVERGENT, 0) == damage.in_vain, tally
    compared(both, path)
    pairs, inner = named(path)
    assert inner == set()
    left = {(table, key) for table, _, key in damage.left}
    assert {(table, key) for table, _, key in pairs} == left, "what a sync leaves still differs, and nothing else does"
    assert held(both.source, timed=timed) == before[Side.SOURCE], "nothing is written to the source"
    touched = {(table, key) for table, _, key in damage.found}
    for table, rows in held(both.target, timed=timed).items():
        was = before[Side.TARGET][table]
        for key in rows.keys() | was.keys():
            if (table, key) not in touched:
                assert rows.get(key) == was.get(key), (table, key)
    rows = sum(table.report.rows for table in result.tables)
    figures.add(f"two clusters, {name}{len(damage.found)} damages among {rows:,} rows, compared in", f"{took:.0f} s")


@SOAK
def test_clients_that_write_to_both_all_the_while_raise_no_alarm_and_lose_nothing(
    cluster: RunningCluster, target: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """200 writes a second to both while clusters are compared and synced; what is planted meanwhile is found."""
    both = Both(cluster, target)
    both.make("busy")
    for i in range(1_000):
        both.everywhere(f"INSERT INTO busy.flat (id, v, w) VALUES ({i}, 'v', 1) USING TIMESTAMP @")
    deadline, rounds, path = time.monotonic() + SECONDS, 0, tmp_path / "findings"
    options = CompareOptions(findings=path, settle_window_s=1.5)
    reach = {"settings": cluster.settings, "target_settings": target.settings}
    with ExitStack() as stack:
        writers = [stack.enter_context(DualWrites(both, "busy.flat", first=2_000 * n)) for n in range(1, WRITERS + 1)]
        pace = threading.Event()
        while time.monotonic() < deadline:
            rounds += 1
            planted = {("flat", "only_source", json.dumps({"id": 100_000 + rounds}))}
            both.write(
                Side.SOURCE, f"INSERT INTO busy.flat (id, v) VALUES ({100_000 + rounds}, 'lost') USING TIMESTAMP @"
            )
            result = compare("busy.flat", options=options, **reach)
            assert named(path) == (planted, set())
            assert result.verdict is Verdict.DIVERGENT
            assert result.tables[0].report.unsettled_rows == 0
            tally = synced(both, path, tmp_path, rounds)
            assert dict(tally.results) == {Result.VERIFIED: 1}, tally
            pace.wait(1.0)
        written = sum(writer.written for writer in writers)
    cells = "SELECT id, v, writetime(v) AS vt, w, writetime(w) AS wt FROM busy.flat"
    rows = [{row["id"]: repr(row) for row in each.quorum(cells)} for each in (cluster, target)]
    assert rows[0] == rows[1]
    figures.add(f"dual writes in {SECONDS:.0f} s beside {rounds} comparisons and syncs, none lost", f"{written:,}")
