"""What holds of the hashes that a real cluster's servers compute, whatever their version."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from consistency.checking.narrow_arrays import digest_by_arrays
from consistency.checking.narrow_partitions import Partitions, digest_by_partition
from consistency.checking.narrow_rows import digest_by_row
from consistency.checking.plan import Leaf
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.row_hash import Form, form_of
from consistency.cluster.session import open_cluster
from consistency.cluster.table_reader import TableReader
from consistency.model.reading import CHECKED_DEPTHS, Depth, RawRow, Reading, Route
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from consistency.rows.names import named_key
from tests.support.cluster import RunningCluster
from tests.support.exchanges import STORIES, Row
from tests.support.figures import LONG

EVERYTHING = TokenRange.full_ring()
WIDEST = 3_000 if LONG else 800
TABLES = {
    "plain": "p int, c int, v text, n bigint, PRIMARY KEY (p, c)",
    "composite": "p text, q int, c int, d text, v text, m map<text, int>, PRIMARY KEY ((p, q), c, d)",
    "texts": "p text, c int, v text, PRIMARY KEY (p, c)",
}


def fill(cluster: RunningCluster) -> None:
    """Make partitions of one row and of very many, with deleted rows, rows that expire, and a replica that lags."""
    cluster.keyspace("hashes")
    cluster.ddl(*(f"CREATE TABLE hashes.{name} ({columns})" for name, columns in TABLES.items()))
    rng = random.Random(4)
    sizes = [WIDEST, 257, 50, 49, 51, *(rng.randrange(1, 20) for _ in range(100))]
    keys = [(p, c) for p, size in enumerate(sizes) for c in range(size)]
    cluster.load("INSERT INTO hashes.plain (p, c, v, n) VALUES (?, ?, ?, ?)", ((p, c, f"{p}", c) for p, c in keys))
    cluster.load("INSERT INTO hashes.texts (p, c, v) VALUES (?, ?, ?)", ((f"p{p}", c, f"é{c}") for p, c in keys if p))
    cluster.load(
        "INSERT INTO hashes.composite (p, q, c, d, v, m) VALUES (?, ?, ?, ?, ?, ?) USING TTL 86400",
        ((f"p{p % 9}", p, c, "d'" * (c % 3), f"{p}", {"k": c}) for p, c in keys if p),
    )
    cluster.everywhere("DELETE FROM hashes.plain WHERE p = 1 AND c > 5 AND c < 70")
    for p in (0, 1, 7, 100):
        cluster.on(1 + p % 3, f"DELETE FROM hashes.plain WHERE p = {p} AND c = 0")


async def sums_add_up(cluster: RunningCluster, name: str, page_rows: int) -> None:
    """Assert that a range's digest is the sum of its partitions' and its rows', on each node."""
    limits = ReadLimits(page_rows=page_rows, digest_page_rows=page_rows)
    async with open_cluster(cluster.settings, limits) as (reader, clock):
        ring, reading = await reader.ring(), await reading_of(reader, "hashes", name)
        partitions = len(reading.table.partition_key)
        when = clock.server_time()
        now_s, still = when.expiry_s, cast("Clock", SimpleNamespace(server_time=lambda: when))
        for node in ring.nodes:
            whole = await reader.digest(node, reading, Route.SERVER, EVERYTHING, now_s)
            digests = await rows_of(reader.partition_digests(node, reading, EVERYTHING, now_s))
            rows = await rows_of(reader.row_hashes(node, reading, EVERYTHING, now_s))
            keys = [named_key(row[1 : 1 + partitions]) for row in digests]
            assert len(set(keys)) == len(keys) == len({row[reading.layout.partition] for row in rows})
            assert sum(number(row[1 + partitions]) for row in digests) == whole.rows == len(rows)
            for total in (sum(number(row[-1]) for row in digests), sum(map(summand(reading), rows))):
                assert total % 2**160 == int.from_bytes(whole.value, "big")
            leaf = Leaf(EVERYTHING, (node,))
            newest = await reader.digest(node, reading, Route.SERVER, EVERYTHING, now_s, newest=True)
            table = TableReader(reader, reading, Route.SERVER, still)
            parts = await digest_by_partition(table, leaf, Partitions(), leaf_rows=35_000)
            assert parts.digests[node] == whole
            assert parts.newest_us == newest.newest_us
            by_row = await digest_by_row(table, leaf, Partitions(), leaf_rows=35_000)
            assert replace(by_row.digests[node], newest_us=None) == whole
            assert by_row.newest_us == newest.newest_us
            by_arrays = await digest_by_arrays(table, leaf, Partitions(), leaf_rows=35_000)
            assert by_arrays.digests[node] == whole
            assert by_arrays.newest_us == newest.newest_us
            some = random.Random(1).sample(keys, 60)
            again = await rows_of(reader.row_hashes_of(node, reading, some, now_s))
            assert sorted(again) == sorted(row for row in rows if row[reading.layout.partition] in set(some))


def summand(reading: Reading) -> Callable[[RawRow], int]:
    """Return what tells the number that a row adds to a digest from the row's own hash."""
    fixed = 2**126 if form_of(reading.table, reading.capabilities) is Form.REMAINDER else 0
    return lambda row: number(row[-1]) - fixed


def plant_clean(cluster: RunningCluster) -> None:
    """Bring three replicas to one state on three ways.

    Each is told the rows and their later versions in an order of its own. Node 1 has them in memory, node 2 in memory
    and a file, node 3 in one file. Some cells have expired, some will.
    """
    cluster.keyspace("clean")
    told = []
    for kind, key in PARTITION.items():
        table = f"clean.by_{kind}"
        cluster.ddl(
            f"CREATE TABLE {table} (p {kind}, c int, s text static, v text, n int, m map<text, int>,"
            " f frozen<set<int>>, PRIMARY KEY (p, c))"
        )
        for ttl in (1, 86_400):
            new = f"INSERT INTO {table} (p, c, v) VALUES"
            some = (f"{new} ({key.format(8)}, {ttl + i}, 'w') USING TTL {ttl}" for i in range(9))
            cluster.everywhere(f"BEGIN UNLOGGED BATCH {'; '.join(some)}; APPLY BATCH")
        told += _versions_of_rows(table, key)
    half = len(told) // 2
    for n in (1, 2, 3):
        random.Random(n).shuffle(told)
        for part in (told[:half], told[half:]):
            for i in range(0, len(part), 60):
                cluster.on(n, f"BEGIN UNLOGGED BATCH {'; '.join(part[i : i + 60])}; APPLY BATCH")
            if n > 1 and part[0] == told[0]:
                _nodetool(cluster, n, "flush", "clean")
    _nodetool(cluster, 3, "compact", "clean")


def _versions_of_rows(table: str, key: str) -> list[str]:
    """Return writes whose order does not matter: rows, later cells, ties of map elements, statics, deletes."""
    at = "USING TIMESTAMP 17000000000000"
    rows = [(key.format(i % 7), i) for i in range(120)]
    new = f"INSERT INTO {table} (p, c, v, n, f) VALUES"
    told = [f"{new} ({p}, {i}, 'v{i}', {i}, {{3, {i}}}) {at}00" for p, i in rows]
    told += [f"INSERT INTO {table} (p, s) VALUES ({key.format(p)}, 's') {at}00" for p in range(9)]
    told += [f"UPDATE {table} {at}01 SET v = 'later', n = null WHERE p = {p} AND c = {i}" for p, i in rows[::3]]
    told += [f"UPDATE {table} {at}0{i % 5} SET m['k{i % 5}'] = {i} WHERE p = {p} AND c = 5" for p, i in rows]
    told += [f"DELETE FROM {table} {at}02 WHERE p = {p} AND c = {i}" for p, i in rows[::10]]
    return told


def _nodetool(cluster: RunningCluster, n: int, *words: str) -> None:
    if cluster.sandbox is not None:
        cluster.sandbox.nodetool(n, *words)


async def replicas_are_alike(cluster: RunningCluster, kind: str) -> None:
    """Assert that equal replicas have one digest at each depth, whatever the page size, and tell no expired row."""
    digests: dict[Depth, set[Digest]] = {depth: set() for depth in CHECKED_DEPTHS}
    now_s = 0
    for page_rows in (3, 50, 50_000):
        limits = ReadLimits(page_rows=page_rows, digest_page_rows=page_rows)
        async with open_cluster(cluster.settings, limits) as (reader, clock):
            now_s = now_s or clock.server_time().expiry_s
            for depth, found in digests.items():
                reading = await reading_of(reader, "clean", f"by_{kind}", depth)
                for node in (await reader.ring()).nodes:
                    found.add(await reader.digest(node, reading, Route.SERVER, EVERYTHING, now_s))
    assert {depth: len(found) for depth, found in digests.items()} == dict.fromkeys(CHECKED_DEPTHS, 1)
    assert {digest.rows for found in digests.values() for digest in found} == {120 - 12 + 6 + 9 + 1}


PARTITION = {"int": "{0}", "text": "'p{0:03d}'"}
"""By the type of the partition key, which decides about the form: partition number so and so."""


def plant_stories(cluster: RunningCluster) -> None:
    """Tell node 1 and node 2 the two halves of every story, and node 3 the first once more, the other way round."""
    cluster.keyspace("stories")
    for kind in PARTITION:
        cluster.ddl(
            f"CREATE TABLE stories.by_{kind} (p {kind}, c int, a text, b text, m map<text, int>, PRIMARY KEY (p, c))"
        )
        for i, (one, other) in enumerate(STORIES.values()):
            for n, rows in ((1, one), (2, other), (3, one[::-1])):
                for row in rows:
                    for cql in _told(row, i, kind, upwards=n == 1):
                        cluster.on(n, cql)
    if cluster.sandbox is not None:  # of node 3 the rows lie in one file, of the others in memory
        for command in ("flush", "compact"):
            cluster.sandbox.nodetool(3, command, "stories")


def _told(row: Row, i: int, kind: str, *, upwards: bool) -> list[str]:
    """Return what writes a row; the same in the end, whether its map is written upwards or downwards."""
    p, c, a, b, m = row
    table, at = f"stories.by_{kind}", "USING TIMESTAMP 1700000000000000"
    where = f"WHERE p = {_partition(kind, i, p)} AND c = {c}"
    cells = {"a": a, "b": b}
    names = "".join(f", {name}" for name, value in cells.items() if value is not None)
    values = "".join(f", '{value}'" for value in cells.values() if value is not None)
    insert = f"INSERT INTO {table} (p, c{names}) VALUES ({_partition(kind, i, p)}, {c}{values}) {at}"
    elements = sorted((m or {}).items(), reverse=not upwards)
    updates = [f"UPDATE {table} {at} SET m['{key}'] = {value} {where}" for key, value in elements]
    return [insert, *updates][:: 1 if upwards else -1]


def _partition(kind: str, i: int, p: int) -> str:
    return PARTITION[kind].format(10 * i + p)


async def stories_differ(cluster: RunningCluster, kind: str) -> None:
    """Assert that node 1 and node 2 have another digest for every story, and node 1 and node 3 the same for all."""
    async with open_cluster(cluster.settings, ReadLimits()) as (reader, clock):
        ring, reading = await reader.ring(), await reading_of(reader, "stories", f"by_{kind}")
        now_s = clock.server_time().expiry_s
        nodes = {node.name: node for node in ring.nodes}
        first, second, third = (nodes[cluster.name(n)] for n in (1, 2, 3))
        held = {}
        for node in (first, second, third):
            found = await rows_of(reader.partition_digests(node, reading, EVERYTHING, now_s))
            held[node] = Counter[int]()
            for row in found:
                held[node][_number_of(kind, row[1] or b"") // 10] += number(row[-1])
        alike = [name for i, name in enumerate(STORIES) if held[first][i] == held[second][i]]
        assert not alike, f"{kind}: {alike}"
        assert held[first] == held[third]
        whole = [await reader.digest(node, reading, Route.SERVER, EVERYTHING, now_s) for node in (first, third)]
        assert whole[0] == whole[1]
        hashes = set[int]()
        for node in (first, second):
            hashes.update(map(summand(reading), await rows_of(reader.row_hashes(node, reading, EVERYTHING, now_s))))
        random_sets_have_sums_of_their_own(sorted(hashes))


def _number_of(kind: str, key: bytes) -> int:
    return number(key) if kind == "int" else int(key[1:])


def random_sets_have_sums_of_their_own(hashes: Sequence[int]) -> None:
    """Assert that of 20,000 random sets of rows no two have the same sum, modulo 2^64 too."""
    rng, sums = random.Random(5), dict[int, frozenset[int]]()
    for _ in range(20_000):
        rows = frozenset(rng.sample(range(len(hashes)), rng.randint(1, min(40, len(hashes)))))
        assert sums.setdefault(sum(hashes[row] for row in rows) % 2**64, rows) == rows


async def reading_of(reader: ClusterReader, keyspace: str, name: str, depth: Depth = Depth.CONTENT) -> Reading:
    """Return how a table is read."""
    return Reading((await reader.schema())[keyspace].tables[name], depth, reader.capabilities)


async def rows_of(pages: AsyncIterator[list[RawRow]]) -> list[RawRow]:
    """Read all pages."""
    return [row async for page in pages for row in page]


def number(raw: bytes | None) -> int:
    """Read a signed number."""
    return int.from_bytes(raw or b"", "big", signed=True)
