"""What the servers hash adds up, however it is cut: by range, by partition, by row, and over any number of pages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest

from consistency.checking.narrow_partitions import Partitions, digest_by_partition
from consistency.checking.plan import Leaf
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.port import Clock
from consistency.cluster.session import open_cluster
from consistency.cluster.table_reader import TableReader
from consistency.model.reading import Depth, RawRow, Reading, Route
from consistency.model.tokens import TokenRange
from consistency.rows.names import RowName, named_key
from consistency.rows.read import read_state, read_states
from tests.support.cluster import RunningCluster
from tests.support.figures import LONG

pytestmark = pytest.mark.cluster

WIDEST = 3_000 if LONG else 800
TABLES = {
    "plain": "p int, c int, v text, n bigint, PRIMARY KEY (p, c)",
    "composite": "p text, q int, c int, d text, v text, m map<text, int>, PRIMARY KEY ((p, q), c, d)",
}


@pytest.fixture(scope="module")
def filled(cluster: RunningCluster) -> RunningCluster:
    """Partitions of one row and of very many, with deleted rows, rows that expire, and a replica that lags."""
    cluster.keyspace("hashes")
    cluster.ddl(*(f"CREATE TABLE hashes.{name} ({columns})" for name, columns in TABLES.items()))
    rng = random.Random(4)
    sizes = [WIDEST, 257, 50, 49, 51, *(rng.randrange(1, 20) for _ in range(100))]
    keys = [(p, c) for p, size in enumerate(sizes) for c in range(size)]
    cluster.load("INSERT INTO hashes.plain (p, c, v, n) VALUES (?, ?, ?, ?)", ((p, c, f"{p}", c) for p, c in keys))
    cluster.load(
        "INSERT INTO hashes.composite (p, q, c, d, v, m) VALUES (?, ?, ?, ?, ?, ?) USING TTL 86400",
        ((f"p{p % 9}", p, c, "d'" * (c % 3), f"{p}", {"k": c}) for p, c in keys if p),
    )
    cluster.everywhere("DELETE FROM hashes.plain WHERE p = 1 AND c > 5 AND c < 70")
    for p in (0, 1, 7, 100):
        cluster.on(1 + p % 3, f"DELETE FROM hashes.plain WHERE p = {p} AND c = 0")
    return cluster


@pytest.mark.parametrize("page_rows", [3, 50, 50_000])
@pytest.mark.parametrize("name", TABLES)
def test_ranges_partitions_and_rows_have_the_same_sum(filled: RunningCluster, name: str, page_rows: int) -> None:
    """On each node, and the count with it; also where a page ends within a partition."""

    async def main() -> None:
        limits = ReadLimits(page_rows=page_rows, digest_page_rows=page_rows)
        async with open_cluster(filled.settings, limits) as (reader, clock):
            ring, schema = await reader.ring(), await reader.schema()
            reading = Reading(schema["hashes"].tables[name], Depth.CONTENT, reader.capabilities)
            partitions, everything = len(reading.table.partition_key), TokenRange.full_ring()
            when = clock.server_time()
            now_s, still = when.expiry_s, cast("Clock", SimpleNamespace(server_time=lambda: when))
            for node in ring.nodes:
                whole = await reader.digest(node, reading, Route.SERVER, everything, now_s)
                digests = await rows_of(reader.partition_digests(node, reading, everything, now_s))
                rows = await rows_of(reader.row_hashes(node, reading, everything, now_s))
                keys = [named_key(row[1 : 1 + partitions]) for row in digests]
                assert len(set(keys)) == len(keys) == len({row[reading.layout.partition] for row in rows})
                assert sum(number(row[1 + partitions]) for row in digests) == whole.rows == len(rows)
                for hashes in (digests, rows):
                    total = sum(number(row[-1]) for row in hashes)
                    assert total % 2**160 == int.from_bytes(whole.value, "big")
                leaf = Leaf(everything, (node,))
                newest = await reader.digest(node, reading, Route.SERVER, everything, now_s, newest=True)
                table = TableReader(reader, reading, Route.SERVER, still)
                parts = await digest_by_partition(table, leaf, Partitions(), leaf_rows=35_000)
                assert parts.digests[node] == whole
                assert parts.newest_us == newest.newest_us
                some = random.Random(1).sample(keys, 60)
                again = await rows_of(reader.row_hashes_of(node, reading, some, now_s))
                assert sorted(again) == sorted(row for row in rows if row[reading.layout.partition] in set(some))

    asyncio.run(main())


@pytest.mark.parametrize("name", TABLES)
def test_rows_read_together_are_those_read_alone(filled: RunningCluster, name: str) -> None:
    """Rows of one partition, of one clustering key, and with nothing in common; some are not there."""

    async def main() -> None:
        async with open_cluster(filled.settings, ReadLimits()) as (reader, clock):
            ring, schema = await reader.ring(), await reader.schema()
            reading = Reading(schema["hashes"].tables[name], Depth.CONTENT, reader.capabilities)
            now_s = clock.server_time().expiry_s
            rows = await rows_of(reader.row_hashes(ring.nodes[0], reading, TokenRange.full_ring(), now_s))
            rng = random.Random(2)
            found = [RowName(number(row[0]), named_key(row[reading.layout.key])) for row in rng.sample(rows, 150)]
            width = len(reading.table.partition_key)
            pairs = zip(found[:40], found[40:80], strict=True)
            missing = [RowName(a.token, (*a.key[:width], *b.key[width:])) for a, b in pairs]
            names = list(dict.fromkeys(found + missing))
            together = await read_states(reader, reading, names, ring.nodes, now_s)
            for row_name, (states, unread) in zip(names, together, strict=True):
                assert not unread
                assert states == {node: await read_state(reader, reading, row_name, node, now_s) for node in ring.nodes}

    asyncio.run(main())


async def rows_of(pages: AsyncIterator[list[RawRow]]) -> list[RawRow]:
    """Read all pages."""
    return [row async for page in pages for row in page]


def number(raw: bytes | None) -> int:
    """Read a signed number."""
    return int.from_bytes(raw or b"", "big", signed=True)
