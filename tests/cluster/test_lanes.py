"""Four digest queries at once on every node, each with its own spelling of the algorithm, never disturb each other."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from consistency.cluster.pinned import ReadLimits
from consistency.cluster.session import open_cluster
from consistency.model.reading import Depth, Reading, Route
from consistency.model.tokens import TokenRange
from tests.support.cluster import RunningCluster

pytestmark = pytest.mark.cluster

SECONDS = float(os.environ.get("CONSISTENCY_SOAK_SECONDS", "6"))
"""The full soak is 600."""
_RANGES = 16


def test_four_digests_at_once_per_node_are_all_right(cluster: RunningCluster) -> None:
    """Every digest of the soak equals the one taken alone before it; the count is printed."""
    cluster.keyspace("lanes")
    cluster.ddl("CREATE TABLE lanes.t (id int PRIMARY KEY, a text, b bigint)")
    cluster.load("INSERT INTO lanes.t (id, a, b) VALUES (?, ?, ?)", ((i, f"row {i}", i * 7) for i in range(8_000)))
    count = asyncio.run(_soak(cluster))
    print(f"{count} digests in {SECONDS:.0f} s, 4 at once on each of 3 nodes, 0 wrong")  # noqa: T201 - the figure
    assert count > SECONDS


async def _soak(cluster: RunningCluster) -> int:
    async with open_cluster(cluster.settings, ReadLimits(lanes=4)) as (reader, clock):
        ring, schema = await reader.ring(), await reader.schema()
        reading = Reading(schema["lanes"].tables["t"], Depth.CONTENT, reader.capabilities)
        now_s = clock.server_time().expiry_s
        ranges = TokenRange.full_ring().split(_RANGES)
        alone = {piece: await reader.digest(ring.nodes[0], reading, Route.SERVER, piece, now_s) for piece in ranges}
        assert sum(digest.rows for digest in alone.values()) == 8_000
        deadline = time.monotonic() + SECONDS
        count = 0
        while time.monotonic() < deadline:
            asked = [(piece, node) for piece in ranges for node in ring.nodes]
            digests = await asyncio.gather(
                *(reader.digest(node, reading, Route.SERVER, piece, now_s) for piece, node in asked)
            )
            wrong = [(piece, node) for (piece, node), d in zip(asked, digests, strict=True) if d != alone[piece]]
            assert not wrong, f"{len(wrong)} of {len(digests)} digests were wrong after {count} right ones"
            count += len(digests)
        return count
