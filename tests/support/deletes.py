"""Rows that node 1, or nodes 1 and 2, lack: deleted there in every way there is, expired, or never arrived.

What a plan forecasts of them is held against what an apply then does, row by row.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from consistency.model.reading import Locality
from consistency.results.forecast import Forecast
from repair.applying.pace import ApplyOptions
from repair.deciding.forecast import Change
from repair.keeping.entries import Result
from tests.support.cluster import RunningCluster
from tests.support.repairing import Dump, Repairing

_LACKING = (1, 2)
"""The rows that some nodes lack; row 9 of each partition is older, and all nodes hold it."""

CASES: dict[str, tuple[str, ...]] = {
    "never arrived": (),
    "row": ("DELETE FROM $t @1 WHERE p = # AND c = 1",),
    "range": ("DELETE FROM $t @1 WHERE p = # AND c >= 1 AND c < 3",),
    "older range": ("DELETE FROM $t @-5 WHERE p = # AND c >= 1 AND c < 3",),
    "cells": ("DELETE v, m FROM $t @1 WHERE p = # AND c = 1", "DELETE v, m FROM $t @1 WHERE p = # AND c = 2"),
    "partition": ("DELETE FROM $t @1 WHERE p = #",),
    "partition, written since": ("DELETE FROM $t @1 WHERE p = #", "INSERT INTO $t (p, c, v) VALUES (#, 9, 'new') @2"),
    "older partition": ("DELETE FROM $t @-20 WHERE p = #",),
    "expired": ("INSERT INTO $t (p, c, v) VALUES (#, 1, 'short') @1 AND TTL 1",),
    "static": ("DELETE s FROM $t @1 WHERE p = #",),
    "map element": ("DELETE m[1] FROM $t @1 WHERE p = # AND c = 3", "DELETE v FROM $t @1 WHERE p = # AND c = 3"),
}
"""What happened on the nodes that lack the rows."""
_PROVABLE = frozenset({"never arrived", "older partition"})


class Deletes:
    """The matrix in one keyspace: each case known to node 1 alone, and to nodes 1 and 2."""

    def __init__(self, cluster: RunningCluster, keyspace: str, base_us: int) -> None:
        self.cluster = cluster
        self._base_us = base_us
        self.keyspace = keyspace
        cluster.keyspace(keyspace)
        cluster.ddl(
            f"CREATE TABLE {keyspace}.t (p int, c int, s text static, v text, m map<int, int>, PRIMARY KEY (p, c))",
            f"CREATE TABLE {keyspace}.one (p int PRIMARY KEY, v text)",
        )
        self.partitions = {
            p: (name, who) for p, (name, who) in enumerate((n, w) for n in CASES for w in ((1,), (1, 2)))
        }

    def plant(self) -> None:
        """Write and delete."""
        for p, (case, who) in self.partitions.items():
            others = [n for n in (1, 2, 3) if n not in who]
            self._run("INSERT INTO $t (p, c, v) VALUES (#, 9, 'old') @-10", p, (1, 2, 3))
            self._run("INSERT INTO $t (p, c, v, m) VALUES (#, 3, 'all', {1: 1}) @0", p, (1, 2, 3))
            self._run("UPDATE $t @0 SET s = 'static' WHERE p = #", p, (1, 2, 3) if case == "static" else others)
            for c in _LACKING:
                # Servers before 5.0 do not tell an element's age, so what a minority holds of a map is left alone.
                with_map = f"INSERT INTO $t (p, c, v, m) VALUES (#, {c}, 'v', {{1: 1, 2: 2}}) @0"
                plain = f"INSERT INTO $t (p, c, v) VALUES (#, {c}, 'v') @0"
                self._run(with_map if len(others) > 1 else plain, p, others)
            self._run("INSERT INTO $one (p, v) VALUES (#, 'v') @0", p, others)
            for statement in CASES[case]:
                self._run(statement, p, who)
            if case == "partition":
                self._run("DELETE FROM $one @1 WHERE p = #", p, who)

    def _run(self, statement: str, p: int, nodes: tuple[int, ...] | list[int]) -> None:
        text = statement.replace("$", f"{self.keyspace}.").replace("#", str(p))
        for delta in ("-20", "-10", "-5", "0", "1", "2"):
            text = text.replace(f"@{delta}", f"USING TIMESTAMP {self._base_us + int(delta)}")
        for n in nodes:
            self.cluster.on(n, text)

    def flush(self) -> None:
        """Have node 1 write what it holds to disk, and compact it with other rows of the table."""
        self.cluster.sandbox.nodetool(1, "flush", self.keyspace)
        self.cluster.everywhere(f"INSERT INTO {self.keyspace}.t (p, c, v) VALUES (1000, 1, 'other')")
        self.cluster.sandbox.nodetool(1, "flush", self.keyspace)
        self.cluster.sandbox.nodetool(1, "compact", self.keyspace)

    def held(self) -> dict[str, Dump]:
        """Read every replica alone: what it shows of each row, and of each partition's static row, by table and key."""
        held: dict[str, Dump] = {"t": {}, "one": {}}
        for n in (1, 2, 3):
            rows = self._read(n, "SELECT p, c, v, m, writetime(v) AS at FROM $t")
            statics = self._read(n, "SELECT DISTINCT p, s, writetime(s) AS at FROM $t")
            held["t"][n] = {str([row["p"], row["c"]]): str(row) for row in rows if row["c"] is not None}
            held["t"][n] |= {str([row["p"]]): str(row) for row in statics if row["s"] is not None}
            lone = self._read(n, "SELECT p, v, writetime(v) AS at FROM $one")
            held["one"][n] = {str([row["p"]]): str(row) for row in lone}
        return held

    def _read(self, n: int, statement: str) -> list[dict[str, Any]]:
        return list(self.cluster.on(n, statement.replace("$", f"{self.keyspace}.")))

    def provable(self) -> set[tuple[int, int]]:
        """Return the rows of which a trace can tell that they never arrived."""
        return {(p, c) for p, (case, _) in self.partitions.items() if case in _PROVABLE for c in _LACKING}


def told_and_done(deletes: Deletes, directory: Path, locality: Locality | None = None) -> Counter[Forecast | None]:
    """Check, plan and apply; every forecast is right, and the counts are what happened; return the forecasts.

    What can be proven to come back is forecast to, and nothing else of the table that has partitions of many rows.
    """
    repairing = Repairing(deletes.cluster, directory, deletes.keyspace, locality=locality)
    repairing.check()
    before = deletes.held()
    made = repairing.plan()
    assert restored(made) == deletes.provable()
    tally = repairing.apply(made, ApplyOptions(None, max_deletes=1_000))
    assert set(tally.results) <= {Result.VERIFIED, Result.LEFT}, tally
    after = deletes.held()
    counted: Counter[Change] = Counter()
    seen: Counter[Forecast | None] = Counter()
    for row in made.rows:
        key = str([int.from_bytes(bytes.fromhex(raw), "big", signed=True) for raw in row.ref.key_hex.values()])
        was, now = ({n: held[row.ref.table][n].get(key) for n in (1, 2, 3)} for held in (before, after))
        seen[row.forecast] += 1
        if row.forecast is None:
            if was != now:  # left alone, and taken with its partition by a merge of others
                counted[_what_happened(was, now)] += 1
            continue
        told = f"{row.ref.table} {key} {deletes.partitions.get(int(key.strip('[]').split(',')[0]))} {row.forecast}"
        gone = not any(now.values())
        assert len(set(now.values())) == 1, f"{told}: {now}"
        if row.forecast is not Forecast.UNKNOWN:
            assert gone is (row.forecast is Forecast.DELETE), f"{told}: {was} -> {now}"
        if row.forecast is Forecast.RESTORE:
            assert None in was.values(), f"{told}: {was} -> {now}"
        counted[_what_happened(was, now)] += 1
    assert {change: n for change, n in tally.changes.items() if n} == _without_cells(tally.changes, counted)
    return seen


def _what_happened(was: dict[int, str | None], now: dict[int, str | None]) -> Change:
    if any(was.values()) and not any(now.values()):
        return Change.DELETED
    return Change.RESTORED if None in was.values() else Change.UPDATED


def _without_cells(told: Counter[Change], counted: Counter[Change]) -> dict[Change, int]:
    """A row that stays and loses a cell is an updated one here."""
    cells = told[Change.CELLS_DELETED]
    out = {**counted, Change.UPDATED: counted[Change.UPDATED] - cells, Change.CELLS_DELETED: cells}
    return {change: n for change, n in out.items() if n}


def restored(made: Any) -> set[tuple[int, int]]:
    """Return the rows of a plan that are forecast to come back."""
    keys = (row.ref.key for row in made.rows if row.forecast is Forecast.RESTORE and "c" in row.ref.key)
    return {(int(str(key["p"])), int(str(key["c"]))) for key in keys}
