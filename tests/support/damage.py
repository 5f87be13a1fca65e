"""Tables of every shape, rows in them, and damage planted on single replicas with what a check must say of it.

`plant` returns the exact findings to expect as `(table, kind, key)`; nothing else may be reported.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from consistency.results.findings import Finding
from tests.support.cluster import RunningCluster

Expected = tuple[str, str, str]
"""Table, kind, and the key as canonical JSON."""
_AT_ONCE = 30


def expected(table: str, kind: str, key: dict[str, Any]) -> Expected:
    """Name a finding to expect."""
    return table, kind, json.dumps(key, sort_keys=True)


def as_expected(finding: Finding) -> Expected:
    """Name a finding that was reported, in the same form."""
    return finding.table, finding.kind.value, json.dumps(dict(finding.key), sort_keys=True)


@dataclass
class Planter:
    """Plants damage in one keyspace and keeps the list of what must be found at each depth."""

    cluster: RunningCluster
    keyspace: str
    base_us: int = field(default_factory=lambda: time.time_ns() // 1000 - 60_000_000)
    content: set[Expected] = field(default_factory=set)
    versions: set[Expected] = field(default_factory=set)

    def all(self, cql: str, at: int = 0) -> None:
        """Write on every replica at `base + at` µs; the statement names its table `$`-first, time `@`."""
        self.cluster.everywhere(self._text(cql, at))

    def many(self, statements: Iterable[str]) -> None:
        """Write on every replica, in batches: a node that was just started takes long over each request."""
        waiting = iter(statements)
        while some := list(islice(waiting, _AT_ONCE)):
            self.all(f"BEGIN UNLOGGED BATCH {'; '.join(some)}; APPLY BATCH")

    def on(self, n: int, cql: str, at: int = 0) -> None:
        """Write on one replica only."""
        self.cluster.on(n, self._text(cql, at))

    def expect(self, table: str, kind: str, key: dict[str, Any], *, versions: bool = True) -> None:
        """Expect a finding at depth content, and at depth versions unless that cannot see it."""
        self.content.add(expected(table, kind, key))
        if versions:
            self.versions.add(expected(table, kind, key))

    def _text(self, cql: str, at: int) -> str:
        return cql.replace("$", self.keyspace + ".").replace("@", f"USING TIMESTAMP {self.base_us + at}")


Shape = Callable[[Planter], None]
SHAPES: dict[str, Shape] = {}


def shape(function: Shape) -> Shape:
    """Register a table shape."""
    SHAPES[function.__name__] = function
    return function


@shape
def plain(p: Planter) -> None:
    """One int key: every kind of damage there is."""
    p.cluster.ddl(f"CREATE TABLE {p.keyspace}.plain (id int PRIMARY KEY, a text, b int)")
    p.many(f"INSERT INTO $plain (id, a, b) VALUES ({i}, 'value {i}', {i}) @" for i in range(300))
    p.on(1, "DELETE FROM $plain @ WHERE id = 1", 1)
    p.expect("plain", "missing", {"id": 1})
    p.on(2, "INSERT INTO $plain (id, a) VALUES (1001, 'one only') @")
    p.expect("plain", "missing", {"id": 1001})
    p.on(3, "UPDATE $plain @ SET a = 'newer' WHERE id = 2", 1)
    p.expect("plain", "stale", {"id": 2})
    p.on(1, "UPDATE $plain @ SET a = 'zzz' WHERE id = 3")
    p.expect("plain", "tie", {"id": 3}, versions=False)
    p.on(2, "UPDATE $plain @ AND TTL 90000 SET a = 'value 4' WHERE id = 4")
    p.expect("plain", "expiry", {"id": 4})
    p.all("INSERT INTO $plain (id, b) VALUES (1005, 5) @")
    p.on(3, "UPDATE $plain @ SET a = 'was null' WHERE id = 1005")
    p.expect("plain", "stale", {"id": 1005})
    p.on(1, "DELETE b FROM $plain @ WHERE id = 6", 1)
    p.expect("plain", "stale", {"id": 6})
    p.on(2, "INSERT INTO $plain (id, a) VALUES (1007, 'old') @", 1_000_000_000 - p.base_us)
    p.expect("plain", "zombie_suspect", {"id": 1007})
    p.on(3, "INSERT INTO $plain (id, a) VALUES (1008, 'late') @", 10**13)
    p.expect("plain", "future_write_time", {"id": 1008})
    p.on(3, "UPDATE $plain @ SET a = 'late' WHERE id = 9", 10**13)
    p.expect("plain", "future_write_time", {"id": 9})
    p.all("INSERT INTO $plain (id, a) VALUES (1010, 'late everywhere') @", 10**13)
    p.expect("plain", "future_write_time", {"id": 1010})


@shape
def wide(p: Planter) -> None:
    """Many rows a partition, two clustering columns, the second descending; a range and a partition delete."""
    p.cluster.ddl(
        f"CREATE TABLE {p.keyspace}.wide (p text, c int, d decimal, v text, w text, PRIMARY KEY (p, c, d))"
        " WITH CLUSTERING ORDER BY (c ASC, d DESC)"
    )
    p.many(
        f"INSERT INTO $wide (p, c, d, v, w) VALUES ('{part}', {c}, {d}, 'v', 'w') @"
        for part in ("a", "b", "ç")
        for c in range(30)
        for d in ("-1.5", "0", "2.50")
    )
    p.on(1, "DELETE FROM $wide @ WHERE p = 'a' AND c >= 3 AND c < 5", 1)
    for c in (3, 4):
        for d in ("-1.5", "0", "2.50"):
            p.expect("wide", "missing", {"p": "a", "c": c, "d": d})
    # Two rows swapped at one write time: each replica's multiset of cells is the same.
    p.on(2, "UPDATE $wide @ SET v = 'x' WHERE p = 'b' AND c = 7 AND d = 0", 5)
    p.on(3, "UPDATE $wide @ SET v = 'x' WHERE p = 'b' AND c = 8 AND d = 0", 5)
    p.expect("wide", "stale", {"p": "b", "c": 7, "d": "0"})
    p.expect("wide", "stale", {"p": "b", "c": 8, "d": "0"})
    p.on(1, "UPDATE $wide @ SET v = 'x', w = 'y' WHERE p = 'ç' AND c = 1 AND d = 0")
    p.expect("wide", "tie", {"p": "ç", "c": 1, "d": "0"}, versions=False)


@shape
def statics(p: Planter) -> None:
    """Static columns, partitions that hold nothing else, and a partition missing as a whole."""
    p.cluster.ddl(
        f"CREATE TABLE {p.keyspace}.statics (p int, c int, s text static, n int static, v text, PRIMARY KEY (p, c))"
    )
    p.many(f"INSERT INTO $statics (p, s) VALUES ({i}, 'static') @" for i in range(40))
    p.many(f"INSERT INTO $statics (p, c, v) VALUES ({i}, {c}, 'v') @" for i in range(40) for c in range(i % 4))
    p.on(1, "UPDATE $statics @ SET s = 'newer' WHERE p = 3", 1)
    p.expect("statics", "stale", {"p": 3})
    p.on(2, "UPDATE $statics @ SET s = 'newer' WHERE p = 4", 1)
    p.expect("statics", "stale", {"p": 4})
    p.on(3, "UPDATE $statics @ SET s = 'tttt' WHERE p = 5")
    p.expect("statics", "tie", {"p": 5}, versions=False)
    p.on(1, "INSERT INTO $statics (p, s) VALUES (1000, 'alone') @")
    p.expect("statics", "missing", {"p": 1000})
    p.on(2, "DELETE FROM $statics @ WHERE p = 7", 1)
    p.expect("statics", "missing", {"p": 7})
    for c in range(3):
        p.expect("statics", "missing", {"p": 7, "c": c})
    p.all("UPDATE $statics @ SET s = 'late' WHERE p = 1", 10**13)
    p.expect("statics", "future_write_time", {"p": 1})
    p.on(3, "DELETE FROM $statics @ WHERE p = 6 AND c = 0", 1)
    p.expect("statics", "missing", {"p": 6, "c": 0})


@shape
def collections(p: Planter) -> None:
    """Non-frozen and frozen collections, a UDT of each, tuples and a vector: one element differs.

    Before 5.0 there are no vectors, and no server tells when an element was written.
    """
    new = p.cluster.version >= (5, 0)
    changed = "stale" if new else "tie"
    p.cluster.ddl(
        f"CREATE TYPE {p.keyspace}.place (street text, tags frozen<set<text>>)",
        f"CREATE TABLE {p.keyspace}.collections (id uuid PRIMARY KEY, m map<text, int>, l list<int>, s set<text>,"
        f" fm frozen<map<int, text>>, fl frozen<list<int>>, u place, fu frozen<place>, t tuple<int, text>,"
        f" v {'vector<float, 3>' if new else 'frozen<list<float>>'})",
    )
    ids = [f"00000000-0000-4000-8000-{i:012d}" for i in range(40)]
    p.many(
        "INSERT INTO $collections (id, m, l, s, fm, fl, u, fu, t, v) VALUES ("
        f"{text}, {{'a': 1, 'b': 2}}, [1, 2, 3], {{'x', 'y'}}, {{1: 'one'}}, [4, 5],"
        " {street: 'A', tags: {'t'}}, {street: 'B', tags: {'q'}}, (1, 'one'), [1, 2, 3]) @"
        for text in ids
    )
    changes = [
        (1, "m['a'] = 9", 1, changed, new),
        (2, "m['c'] = 3", 1, changed, new),
        (3, "l = [3, 2, 1]", 5, changed, new),
        (1, "s = s + {'z'}", 1, changed, new),
        (2, "fm = {1: 'two'}", 1, "stale", True),
        (3, "fl = [4, 6]", 0, "tie", False),
        (1, "u.street = 'C'", 1, changed, new),
        (2, "fu = {street: 'B', tags: {'r'}}", 0, "tie", False),
        (3, "t = (1, 'two')", 0, "tie", False),
        (1, "v = [1, 2, 4]", 0, "tie", False),
        (2, "m['a'] = 7", 0, "tie", False),
    ]
    for text, (n, change, at, kind, visible) in zip(ids, changes, strict=False):
        p.on(n, f"UPDATE $collections @ SET {change} WHERE id = {text}", at)
        p.expect("collections", kind, {"id": text}, versions=visible)
    p.on(1, f"DELETE m['b'] FROM $collections @ WHERE id = {ids[20]}", 1)
    p.expect("collections", changed, {"id": ids[20]}, versions=new)
    p.on(2, f"DELETE s FROM $collections @ WHERE id = {ids[21]}", 1)
    p.expect("collections", changed, {"id": ids[21]}, versions=new)


@shape
def names(p: Planter) -> None:
    """Reserved words, case, blanks and quotes in names; a composite partition key."""
    p.cluster.ddl(
        f'CREATE TABLE {p.keyspace}."Select" ("from" text, "Token" int, "a ""b" int, "é" text,'
        ' PRIMARY KEY (("from", "Token"), "a ""b"))'
    )
    for i in range(20):
        p.all(f"""INSERT INTO $"Select" ("from", "Token", "a ""b", "é") VALUES ('it''s', {i}, 1, 'v') @""")
    p.on(1, """UPDATE $"Select" @ SET "é" = 'w' WHERE "from" = 'it''s' AND "Token" = 1 AND "a ""b" = 1""", 1)
    p.expect("Select", "stale", {"from": "it's", "Token": 1, 'a "b': 1})
    p.on(2, """DELETE FROM $"Select" @ WHERE "from" = 'it''s' AND "Token" = 2 AND "a ""b" = 1""", 1)
    p.expect("Select", "missing", {"from": "it's", "Token": 2, 'a "b': 1})


@shape
def keys_only(p: Planter) -> None:
    """Nothing but a primary key: a row is there or it is not."""
    p.cluster.ddl(
        f"CREATE TABLE {p.keyspace}.keys_only (p blob, c inet, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (c DESC)",
        f"CREATE TABLE {p.keyspace}.key_only (p bigint PRIMARY KEY)",
    )
    p.many(f"INSERT INTO $keys_only (p, c) VALUES (0x{i % 5:04x}, '10.0.0.{i}') @" for i in range(60))
    p.many(f"INSERT INTO $key_only (p) VALUES ({i}) @" for i in range(60))
    p.on(1, "DELETE FROM $keys_only @ WHERE p = 0x0003 AND c = '10.0.0.3'", 1)
    p.expect("keys_only", "missing", {"p": "0x0003", "c": "10.0.0.3"})
    p.on(2, "INSERT INTO $keys_only (p, c) VALUES (0x0003, '::1') @", 1)
    p.expect("keys_only", "missing", {"p": "0x0003", "c": "::1"})
    p.on(3, "DELETE FROM $key_only @ WHERE p = 30", 1)
    p.expect("key_only", "missing", {"p": 30})


@shape
def typed_keys(p: Planter) -> None:
    """A clustering column of every type that can be one, ascending and descending by turns."""
    types = {
        "ascii": "'a'", "bigint": "-5", "blob": "0x00ff", "boolean": "true", "date": "'2024-02-29'",
        "decimal": "1.50", "double": "1e300", "float": "0.1", "inet": "'::1'", "smallint": "-2", "text": "'ü'",
        "time": "'10:00:00.000000001'", "timestamp": "'2024-01-01 00:00:00.123+0000'",
        "timeuuid": "00000000-0000-1000-8000-000000000000", "tinyint": "-1",
        "uuid": "00000000-0000-4000-8000-000000000001", "varint": "123456789012345678901234567890",
        "frozen<list<int>>": "[1, 2]", "frozen<set<text>>": "{'a'}", "frozen<map<int, text>>": "{1: 'a'}",
        "frozen<tuple<int, text>>": "(1, 'a')",
    }  # fmt: skip
    columns = ", ".join(f"c{i} {cql}" for i, cql in enumerate(types))
    order = ", ".join(f"c{i} {'DESC' if i % 2 else 'ASC'}" for i in range(len(types)))
    key = ", ".join(f"c{i}" for i in range(len(types)))
    p.cluster.ddl(
        f"CREATE TABLE {p.keyspace}.typed_keys (p int, {columns}, v int, PRIMARY KEY (p, {key}))"
        f" WITH CLUSTERING ORDER BY ({order})"
    )
    for i in range(20):
        p.all(f"INSERT INTO $typed_keys (p, {key}, v) VALUES ({i}, {', '.join(types.values())}, 1) @")
    p.on(1, "UPDATE $typed_keys @ SET v = 2 WHERE p = 5 AND " + _where(types), 1)
    json_key = {
        "p": 5, "c0": "a", "c1": -5, "c2": "0x00ff", "c3": True, "c4": "2024-02-29", "c5": "1.50", "c6": 1e300,
        "c7": 0.1, "c8": "::1", "c9": -2, "c10": "ü", "c11": "10:00:00.000000001",
        "c12": "2024-01-01 00:00:00.123000+0000", "c13": "00000000-0000-1000-8000-000000000000", "c14": -1,
        "c15": "00000000-0000-4000-8000-000000000001", "c16": 123456789012345678901234567890, "c17": [1, 2],
        "c18": "{'a'}", "c19": "{1: 'a'}", "c20": "(1, 'a')",
    }  # fmt: skip
    p.expect("typed_keys", "stale", json_key)


def _where(types: dict[str, str]) -> str:
    return " AND ".join(f"c{i} = {value}" for i, value in enumerate(types.values()))


@shape
def typed_values(p: Planter) -> None:
    """A regular column of every type; in each row another one differs at the same write time.

    The planted value is the greater one: a replica that already holds the greater value would keep it.
    """
    types = {
        "ascii": ("'a'", "'b'"), "bigint": ("1", "2"), "blob": ("0x", "0x00"), "boolean": ("false", "true"),
        "date": ("'2024-01-01'", "'2024-01-02'"), "decimal": ("1.0", "1.00"), "double": ("0.0", "-0.0"),
        "duration": ("30d", "1mo"), "float": ("1.25", "1.5"), "inet": ("'1.2.3.4'", "'1.2.3.5'"),
        "int": ("1", "2"), "smallint": ("1", "2"), "text": ("''", "' '"), "time": ("'10:00:00'", "'10:00:01'"),
        "timestamp": ("0", "1"), "timeuuid": ("00000000-0000-1000-8000-000000000000",
        "00000001-0000-1000-8000-000000000000"), "tinyint": ("1", "2"),
        "uuid": ("00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000001"),
        "varint": ("1", "340282366920938463463374607431768211457"),
    }  # fmt: skip
    columns = ", ".join(f"v{i} {cql}" for i, cql in enumerate(types))
    p.cluster.ddl(f"CREATE TABLE {p.keyspace}.typed_values (id int PRIMARY KEY, {columns})")
    fields = ", ".join(f"v{i}" for i in range(len(types)))
    values = ", ".join(first for first, _ in types.values())
    ids = range(len(types) + 20)
    p.many(f"INSERT INTO $typed_values (id, {fields}) VALUES ({i}, {values}) @" for i in ids)
    p.many(f"INSERT INTO $typed_values (id, v0) VALUES ({i + 1000}, null) @" for i in ids)
    for i, (_, second) in enumerate(types.values()):
        p.on(i % 3 + 1, f"UPDATE $typed_values @ SET v{i} = {second} WHERE id = {i}")
        p.expect("typed_values", "tie", {"id": i}, versions=False)


@shape
def counters(p: Planter) -> None:
    """Counters, one of them static: a total differs because one replica lost a shard."""
    p.cluster.ddl(f"CREATE TABLE {p.keyspace}.counters (p int, c int, n counter, t counter static, PRIMARY KEY (p, c))")
    for i in range(40):
        p.all(f"UPDATE $counters SET n = n + 1 WHERE p = {i} AND c = 0")
        p.all(f"UPDATE $counters SET t = t + 1 WHERE p = {i}")
    p.on(1, "DELETE FROM $counters WHERE p = 3 AND c = 0")
    p.expect("counters", "missing", {"p": 3, "c": 0})
    p.on(2, "DELETE t FROM $counters WHERE p = 4")
    p.expect("counters", "missing", {"p": 4})


@shape
def expiring(p: Planter) -> None:
    """TTLs that run out during the checks are no difference; an empty table is none either."""
    p.cluster.ddl(
        f"CREATE TABLE {p.keyspace}.expiring (id int PRIMARY KEY, v text)",
        f"CREATE TABLE {p.keyspace}.empty (id int PRIMARY KEY, v text)",
    )
    p.many(f"INSERT INTO $expiring (id, v) VALUES ({i}, 'v') USING TTL {10 + i}" for i in range(120))
