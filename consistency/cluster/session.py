"""Open a cluster for reading: connection, ring, how each node can be read, and the servers' time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from consistency.cluster.clock import SystemClock
from consistency.cluster.connection import Connection
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.server_clocks import read_clocks
from consistency.cluster.settings import ConnectionSettings
from consistency.model.reading import Locality


@asynccontextmanager
async def open_cluster(
    settings: ConnectionSettings, limits: ReadLimits | None = None, *, locality: Locality | None = None
) -> AsyncGenerator[tuple[CqlReader, SystemClock], None]:
    """Yield a reader and a clock set by the servers; close the connection afterwards.

    Raises ConnectError or TopologyError with one line that says what is wrong and what to do.
    """
    connection = await Connection.open(settings)
    try:
        async with _opened(connection, limits or ReadLimits(), locality) as opened:
            yield opened
    finally:
        await connection.close()


@asynccontextmanager
async def open_anew(reader: CqlReader) -> AsyncGenerator[tuple[CqlReader, SystemClock], None]:
    """Yield another reader, which sees the ring as it is now, over the connections of one that stays open.

    A server that limits connections may allow an address no second one.
    """
    async with _opened(reader.access.connection, ReadLimits(), None) as opened:
        yield opened


@asynccontextmanager
async def _opened(
    connection: Connection, limits: ReadLimits, locality: Locality | None
) -> AsyncGenerator[tuple[CqlReader, SystemClock], None]:
    reader = await CqlReader.open(connection, limits, locality=locality)
    watching = asyncio.create_task(reader.throttle.watch())
    try:
        up = [node for node in (await reader.ring()).nodes if node.up]
        yield reader, SystemClock(await read_clocks(connection, up))
    finally:
        watching.cancel()
        await asyncio.wait({watching})
