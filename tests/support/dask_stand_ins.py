"""A Dask scheduler, or a worker whose Cassandra is a stand-in, each in a process of its own.

python -m tests.support.dask_stand_ins scheduler PORT
python -m tests.support.dask_stand_ins worker PORT ROWS DELAY_S [DAMAGED...]
"""

from __future__ import annotations

import asyncio
import sys

from distributed import Scheduler, Worker

from consistency.cluster import session
from consistency.comparing import opening
from repair.deciding import case
from tests.support.stand_in_worker import cluster, clusters, opener_of_two
from tests.unit.fake_cluster import opener


async def _scheduler(port: int) -> None:
    async with Scheduler(host="127.0.0.1", port=port, dashboard=False) as scheduler:
        await scheduler.finished()


async def _worker(port: int) -> None:
    async with Worker(f"tcp://127.0.0.1:{port}", host="127.0.0.1", nthreads=2, dashboard=False) as worker:
        await worker.finished()


if __name__ == "__main__":
    if sys.argv[1] == "scheduler":
        asyncio.run(_scheduler(int(sys.argv[2])))
    else:
        given = (int(sys.argv[3]), float(sys.argv[4]), [*map(int, sys.argv[5:])])
        session.open_cluster = opener(cluster(*given))  # type: ignore[assignment]
        opening.open_cluster = opener_of_two(clusters(*given))
        case._require_own_token = lambda _: None  # the tokens of a stand-in are made up
        asyncio.run(_worker(int(sys.argv[2])))
