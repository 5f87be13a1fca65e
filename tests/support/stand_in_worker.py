"""A local worker as its driver starts it, but for the cluster, which is a stand-in of its own process.

    python -m tests.support.stand_in_worker ROWS DELAY_S [DAMAGED...]

`DAMAGED` are numbers of rows of which one replica holds another version.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

from consistency.cli.worker import main
from consistency.cluster import session
from tests.unit.fake_cluster import FakeCluster, Version, opener


def cluster(rows: int, delay_s: float, damaged: list[int]) -> FakeCluster:
    """Return the cluster: each digest takes a while."""

    async def wait() -> None:
        await asyncio.sleep(delay_s)

    made: Any = FakeCluster(on_digest=wait).fill(rows)
    for number in damaged:
        made.rows["10.0.0.2:9042"][number] = Version("another", writetime=1)
    made.access = SimpleNamespace(connection=SimpleNamespace(counts=None))
    stand_in: FakeCluster = made
    return stand_in


if __name__ == "__main__":
    session.open_cluster = opener(cluster(int(sys.argv[1]), float(sys.argv[2]), [*map(int, sys.argv[3:])]))  # type: ignore[assignment]
    main()
