"""Open a cluster for reading: connection, ring, how each node can be read, and the servers' time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from consistency.access import ReadLimits
from consistency.clock import SystemClock
from consistency.connection import Connection
from consistency.errors import ReplicaError
from consistency.reading import Locality
from consistency.replicas import CqlReader
from consistency.ring import Node, Ring
from consistency.settings import ConnectionSettings


@asynccontextmanager
async def open_cluster(
    settings: ConnectionSettings, limits: ReadLimits | None = None, *, locality: Locality | None = None
) -> AsyncGenerator[tuple[CqlReader, SystemClock], None]:
    """Yield a reader and a clock set by the servers; close the connection afterwards.

    Raises ConnectError or TopologyError with one line that says what is wrong and what to do.
    """
    connection = await Connection.open(settings)
    try:
        reader = await CqlReader.open(connection, limits or ReadLimits(), locality=locality)
        watching = asyncio.create_task(reader.throttle.watch())
        try:
            yield reader, SystemClock(await _offset_us(connection, await reader.ring()))
        finally:
            await _ended(watching)
    finally:
        await connection.close()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task until it ends: an answer that arrives together with a cancel makes asyncio forget the cancel."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)


async def _offset_us(connection: Connection, ring: Ring) -> int:
    """Return how far the most advanced server's clock is ahead of ours, in microseconds."""
    offsets = await asyncio.gather(*(_ahead_us(connection, node) for node in ring.nodes if node.up))
    return max((offset for offset in offsets if offset is not None), default=0)


async def _ahead_us(connection: Connection, node: Node) -> int | None:
    sent = time.time_ns() // 1000
    try:
        rows = await connection.select(node, "SELECT toUnixTimestamp(now()) AS ms FROM system.local")
    except ReplicaError:
        return None
    received = time.time_ns() // 1000
    return int(rows[0]["ms"]) * 1000 - (sent + received) // 2
