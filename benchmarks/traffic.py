"""A steady foreground load in its own process: the latency of an application while something else runs.

    python -m benchmarks.traffic --hosts 127.0.40.1,127.0.40.2 --port 9042 --seconds 20 --json f.json

It alternates reads and writes at QUORUM, at a fixed rate. A request's latency counts from when it was due, not
from when it was sent, so that a stall counts for every request that it delayed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import struct
import time
from pathlib import Path

from benchmarks.bed import KEYSPACE, connected
from consistency.cluster.connection import Connection
from consistency.cluster.settings import ConnectionSettings
from consistency.cluster.wire import QUORUM, Statement
from consistency.errors import ReplicaError
from consistency.model.ring import Node

TABLE = f"{KEYSPACE}.traffic"
DDL = f"CREATE TABLE IF NOT EXISTS {TABLE} (id int PRIMARY KEY, v text)"
IDS = 50_000
_INT = struct.Struct(">i")


def percentile(values: list[float], share: float) -> float:
    """Return the percentile: `share` of the values lie below it."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def drive(settings: ConnectionSettings, seconds: float, per_second: float) -> dict[str, float]:
    """Send the load and return its percentiles in milliseconds."""
    async with connected(settings) as (connection, reader):
        nodes = (await reader.ring()).nodes
        lat: list[float] = []
        failed = 0
        rng = random.Random(1)

        async def one(due: float, node: Node, *, write: bool) -> None:
            nonlocal failed
            try:
                await _request(connection, node, rng.randrange(IDS), write=write)
            except ReplicaError:
                failed += 1
            lat.append((time.perf_counter() - due) * 1000)

        for i in range(200):  # the statements are prepared and the path is warm
            await _request(connection, nodes[i % len(nodes)], i, write=i % 2 == 0)
        running: set[asyncio.Task[None]] = set()
        start = time.perf_counter() + 0.1
        for i in range(int(seconds * per_second)):
            due = start + i / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(one(due, nodes[i % len(nodes)], write=i % 2 == 0))
            running.add(task)
            task.add_done_callback(running.discard)
        while running:
            await asyncio.wait(running)
    return {
        "requests": len(lat),
        "failed": failed,
        "p50_ms": percentile(lat, 0.5),
        "p99_ms": percentile(lat, 0.99),
        "max_ms": max(lat),
    }


async def _request(connection: Connection, node: Node, i: int, *, write: bool) -> None:
    key = _INT.pack(i)
    if write:
        cql = f"INSERT INTO {TABLE} (id, v) VALUES (?, ?)"
        await connection.execute(node, Statement(cql, (key, b"x" * 100), consistency=QUORUM))
    else:
        await connection.execute(node, Statement(f"SELECT v FROM {TABLE} WHERE id = ?", (key,), consistency=QUORUM))


def main() -> None:
    """Drive the load and write its percentiles as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description=__doc__)
    parser.add_argument("--hosts", required=True, help="addresses, separated by commas")
    parser.add_argument("--port", type=int, default=9042, help="the native port")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long")
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument("--json", required=True, help="write the percentiles here")
    options = parser.parse_args()
    points = tuple((host, options.port) for host in options.hosts.split(","))
    figures = asyncio.run(drive(ConnectionSettings(points), options.seconds, options.rate))
    Path(options.json).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
