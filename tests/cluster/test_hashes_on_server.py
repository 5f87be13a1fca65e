"""What the servers hash adds up, however it is cut: by range, by partition, by row, and over any number of pages."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from cassandra import InvalidRequest

from consistency.cluster.pinned import ReadLimits
from consistency.cluster.session import open_cluster
from consistency.model.tokens import TokenRange
from consistency.results.verdict import ExitCode
from consistency.rows.names import RowName, named_key
from consistency.rows.read import read_state, read_states
from tests.support import hashing
from tests.support.cluster import RunningCluster, summary
from tests.support.figures import LONG

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def filled(cluster: RunningCluster) -> RunningCluster:
    """The tables of these tests."""
    hashing.fill(cluster)
    return cluster


@pytest.mark.parametrize("page_rows", [3 if LONG else 12, 50, 50_000])
@pytest.mark.parametrize("name", hashing.TABLES)
def test_ranges_partitions_and_rows_have_the_same_sum(filled: RunningCluster, name: str, page_rows: int) -> None:
    """On each node, and the count with it; also where a page ends within a partition."""
    asyncio.run(hashing.sums_add_up(filled, name, page_rows))


def test_equal_replicas_have_one_digest(cluster: RunningCluster) -> None:
    """Whatever the page size, the files that rows lie in, and the order in which they came; TTLs and ties included."""
    hashing.plant_clean(cluster)
    for kind in hashing.PARTITION:
        asyncio.run(hashing.replicas_are_alike(cluster, kind))
    report = cluster.check("clean")
    assert report.exit_code is ExitCode.CONSISTENT, summary(report)


def test_what_weak_sums_cannot_tell_apart(cluster: RunningCluster) -> None:
    """Rows and bytes that were exchanged, moved, emptied or reordered: the digests differ where the rows do."""
    hashing.plant_stories(cluster)
    for kind in hashing.PARTITION:
        asyncio.run(hashing.stories_differ(cluster, kind))


@pytest.mark.parametrize("name", hashing.TABLES)
def test_rows_read_together_are_those_read_alone(filled: RunningCluster, name: str) -> None:
    """Rows of one partition, of one clustering key, and with nothing in common; some are not there."""

    async def main() -> None:
        async with open_cluster(filled.settings, ReadLimits()) as (reader, clock):
            ring, reading = await reader.ring(), await hashing.reading_of(reader, "hashes", name)
            now_s = clock.server_time().expiry_s
            rows = await hashing.rows_of(reader.row_hashes(ring.nodes[0], reading, TokenRange.full_ring(), now_s))
            rng = random.Random(2)
            found = [
                RowName(hashing.number(row[0]), named_key(row[reading.layout.key])) for row in rng.sample(rows, 150)
            ]
            width = len(reading.table.partition_key)
            pairs = zip(found[:40], found[40:80], strict=True)
            missing = [RowName(a.token, (*a.key[:width], *b.key[width:])) for a, b in pairs]
            names = list(dict.fromkeys(found + missing))
            together = await read_states(reader, reading, names, ring.nodes, now_s)
            for row_name, (states, unread) in zip(names, together, strict=True):
                assert not unread
                assert states == {node: await read_state(reader, reading, row_name, node, now_s) for node in ring.nodes}

    asyncio.run(main())


def test_functions_of_a_keyspace_are_not_taken_for_the_servers_own(cluster: RunningCluster, tmp_path: Path) -> None:
    """From 5.0 on their bare names would make all digests alike, and an aggregate one value for each row."""
    cluster.keyspace("hiding")
    cluster.ddl("CREATE TABLE hiding.t (id int PRIMARY KEY, v text)")
    for function in (
        "blob_as_varint(b blob) CALLED ON NULL INPUT RETURNS varint LANGUAGE java AS 'return null;'",
        "max(t bigint) CALLED ON NULL INPUT RETURNS bigint LANGUAGE java AS 'return 0L;'",
    ):
        try:
            cluster.ddl(f"CREATE FUNCTION hiding.{function}")
        except InvalidRequest as error:
            if cluster.sandbox is not None:
                raise
            pytest.skip(f"this cluster allows no functions: {error}")
    cluster.load("INSERT INTO hiding.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(20)))
    cluster.on(1, "UPDATE hiding.t SET v = 'w' WHERE id = 7")
    report, findings = cluster.findings(tmp_path / "f.jsonl", "hiding")
    assert [found.key for found in findings] == [{"id": 7}], summary(report)
