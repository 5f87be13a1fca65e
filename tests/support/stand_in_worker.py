"""A local worker as its driver starts it, but for the cluster, which is a stand-in of its own process.

    python -m tests.support.stand_in_worker ROWS DELAY_S [DAMAGED...]

`DAMAGED` are numbers of rows of which one replica holds another version. Of two clusters that are compared the source
is as if nothing was damaged, and all replicas of the target hold the other version.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Any

from consistency.cli.worker import main
from consistency.cluster import session
from consistency.cluster.settings import CONNECTION, TARGET
from consistency.comparing import opening
from consistency.model.ring import MURMUR3, Ring
from repair.deciding import case
from tests.unit.fake_cluster import FakeCluster, Version, nodes, opener


def cluster(rows: int, delay_s: float, damaged: list[int]) -> FakeCluster:
    """Return the cluster: each digest takes a while."""

    async def wait() -> None:
        await asyncio.sleep(delay_s)

    made = FakeCluster(on_digest=wait).fill(rows)
    for number in damaged:
        made.rows["10.0.0.2:9042"][number] = Version("another", writetime=1)
    return made


def clusters(rows: int, delay_s: float, damaged: list[int]) -> dict[str, FakeCluster]:
    """Return two clusters by the section that says how to connect."""
    source, target = cluster(rows, delay_s, []), cluster(rows, delay_s, [])
    target.rings(Ring("other", MURMUR3, tuple(replace(node, host_id=f"other-{node.host_id}") for node in nodes())))
    for held in target.rows.values():
        held.update({number: Version("another", writetime=1) for number in damaged})
    return {CONNECTION.table: source, TARGET.table: target}


def opener_of_two(made: dict[str, FakeCluster]) -> Any:
    """Return what stands in for `open_cluster` where two are opened."""
    return lambda settings, *_, **__: opener(made[settings.section.table])()


if __name__ == "__main__":
    words = (int(sys.argv[1]), float(sys.argv[2]), [*map(int, sys.argv[3:])])
    session.open_cluster = opener(cluster(*words))  # type: ignore[assignment]
    opening.open_cluster = opener_of_two(clusters(*words))
    case._require_own_token = lambda _: None  # the tokens of a stand-in are made up
    main()
