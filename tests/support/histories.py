"""Random histories on a real cluster: each mutation on some replicas of one table, and on all of its twin."""

from __future__ import annotations

import random

from tests.support.cluster import RunningCluster

_ROW = "p int PRIMARY KEY, v text, w int, m map<text, int>, e set<int>"
_WIDE = "p int, c int, s text static, v text, w int, m map<text, int>, e set<int>, PRIMARY KEY (p, c)"
SHAPES = {
    "rows": (_ROW, ""),
    "wide": (_WIDE, ""),
    "descending": (_WIDE, "WITH CLUSTERING ORDER BY (c DESC)"),
    "unrepaired": (_ROW, "WITH read_repair = 'NONE'"),
}
"""By table name: its columns and its options."""


def play(cluster: RunningCluster, keyspace: str, base_us: int, *, per_shape: int, seed: int = 1) -> int:
    """Make the tables and their twins, and play a history in each partition; return how many were played."""
    played = 0
    for name, (columns, options) in SHAPES.items():
        for table in (name, f"{name}_twin"):
            cluster.ddl(f"CREATE TABLE {keyspace}.{table} ({columns}) {options}")
        rng = random.Random(f"{seed} {name}")
        for partition in range(per_shape):
            at_us = base_us
            for _ in range(rng.randint(2, 8)):
                at_us += rng.choice((0, 1, 1, 1000))
                nodes = rng.sample((1, 2, 3), rng.choice((1, 1, 2, 3)))
                cql = _mutation(rng, partition, at_us, wide=columns == _WIDE)
                for node in nodes:
                    cluster.on(node, cql.replace("$", f"{keyspace}.{name}"))
                cluster.everywhere(cql.replace("$", f"{keyspace}.{name}_twin"))
            played += 1
    return played


def _mutation(rng: random.Random, p: int, at_us: int, *, wide: bool) -> str:
    c = rng.randrange(3)
    key = f"p = {p} AND c = {c}" if wide else f"p = {p}"
    names, values = ("p, c", f"{p}, {c}") if wide else ("p", f"{p}")
    at = f"USING TIMESTAMP {at_us}"
    until = f"{at} AND TTL 90000" if rng.random() < 0.2 else at
    text, number, letter = rng.choice("xyz"), rng.randrange(9), rng.choice("abc")
    choices = [
        f"INSERT INTO $ ({names}, v, w) VALUES ({values}, '{text}', {number}) {until}",
        f"INSERT INTO $ ({names}, m, e) VALUES ({values}, {{'{letter}': {number}}}, {{{number}}}) {until}",
        f"UPDATE $ {until} SET v = '{text}' WHERE {key}",
        f"UPDATE $ {until} SET m['{letter}'] = {number}, e = e + {{{number}}} WHERE {key}",
        f"DELETE v FROM $ {at} WHERE {key}",
        f"DELETE m['{letter}'] FROM $ {at} WHERE {key}",
        f"DELETE FROM $ {at} WHERE {key}",
    ]
    if wide:
        choices += [
            f"UPDATE $ {until} SET s = '{text}' WHERE p = {p}",
            f"DELETE FROM $ {at} WHERE p = {p} AND c >= {c}",
            f"DELETE FROM $ {at} WHERE p = {p}",
        ]
    return rng.choice(choices)
