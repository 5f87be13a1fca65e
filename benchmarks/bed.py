"""The cluster that is measured: three real nodes, and the tables of the benchmark loaded at ALL.

If a directory is given the data outlives the run, so that the next run starts in a minute.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import string
import struct
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tenacity import (
    retry,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    wait_fixed,
    wait_random_exponential,
)

from consistency.cluster.connection import Connection
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.settings import ConnectionSettings
from consistency.cluster.wire import ALL, NODE_LOCAL, Statement
from consistency.errors import ReplicaError
from consistency.model.ring import Node
from sandbox import Sandbox, SandboxOptions

KEYSPACE = "bench"
_WRITERS = 24
_AN_HOUR_US = 3_600_000_000
_PENDING_COMPACTIONS = re.compile(r"pending tasks:?\s+[1-9]")
_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")


@dataclass(frozen=True, slots=True)
class Shape:
    """A table of the benchmark: `rows` rows of about `row_bytes` bytes in partitions of `per_partition`.

    Two key columns and three others; `more_columns` adds bigints. `key` is the type of the partition key: int or text.
    """

    name: str
    rows: int
    row_bytes: int = 100
    per_partition: int = 100
    more_columns: int = 0
    key: str = "int"

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{KEYSPACE}.{self.name}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column, the key first."""
        return ("p", "c", "a", "b", "d", *(f"x{i}" for i in range(self.more_columns)))

    @property
    def ddl(self) -> str:
        """The CREATE TABLE statement."""
        more = "".join(f", x{i} bigint" for i in range(self.more_columns))
        return (
            f"CREATE TABLE {self.full_name} (p {self.key}, c int, a text, b bigint, d text{more}, PRIMARY KEY (p, c))"
        )

    def row(self, i: int, text: str) -> tuple[bytes, ...]:
        """Return the serialized cells of row `i`; `text` fills it up to its size."""
        p, c = divmod(i, self.per_partition)
        key = _INT.pack(p) if self.key == "int" else f"{p:08d}".encode()
        fixed = (key, _INT.pack(c), f"name-{i:030d}".encode(), _LONG.pack(i * 7), text.encode())
        return (*fixed, *(_LONG.pack(i + x) for x in range(self.more_columns)))

    def batches(self) -> Iterator[tuple[bytes, ...]]:
        """Yield the bound values of one batch per partition."""
        rng = random.Random(self.rows)
        filler = "".join(rng.choices(string.ascii_letters + string.digits, k=1_000_000))
        width = max(10, self.row_bytes - 64)
        for first in range(0, self.rows, self.per_partition):
            values: list[bytes] = []
            for i in range(first, min(first + self.per_partition, self.rows)):
                at = rng.randrange(len(filler) - width)
                values += self.row(i, filler[at : at + width])
            yield tuple(values)

    def insert(self, rows: int, timestamp_us: int) -> str:
        """Return a batch of that many inserts, to be prepared."""
        one = f"INSERT INTO {self.full_name} ({', '.join(self.columns)}) VALUES ({', '.join('?' * len(self.columns))})"
        return f"BEGIN UNLOGGED BATCH {f'{one} USING TIMESTAMP {timestamp_us}; ' * rows}APPLY BATCH"


class Bed:
    """A running cluster of three nodes, with the facts that the measurements need."""

    def __init__(
        self, directory: Path, address_base: str, *, num_tokens: int = 16, cassandra: str | None = None
    ) -> None:
        # Hints would repair, during the measurement, rows that are damaged on purpose.
        options = SandboxOptions(
            dir=directory,
            address_base=address_base,
            num_tokens=num_tokens,
            settings={"hinted_handoff_enabled": "false"},
        )
        if cassandra is not None:
            options = replace(options, cassandra=cassandra)
        self.num_tokens = num_tokens
        self.sandbox = Sandbox(options)

    @cached_property
    def settings(self) -> ConnectionSettings:
        """How the tool reaches the cluster."""
        return ConnectionSettings(tuple((n.address, n.port) for n in self.sandbox.nodes))

    @property
    def target(self) -> list[str]:
        """The options that name the cluster on our command line."""
        return ["--hosts", ",".join(self.sandbox.hosts), "--port", str(self.sandbox.nodes[0].port)]

    def ensure(self, *shapes: Shape, written_us: int | None = None) -> None:
        """Create, load and flush these tables, by default an hour in the past; an existing table is used as it is."""
        asyncio.run(self._ensure(shapes, written_us or time.time_ns() // 1000 - _AN_HOUR_US))

    async def _ensure(self, shapes: tuple[Shape, ...], written_us: int) -> None:
        async with connected(self.settings) as (connection, reader):
            ring, schema = await reader.ring(), await reader.schema()
            have = schema[KEYSPACE].tables if KEYSPACE in schema else {}
            for shape in shapes:
                if shape.name not in have:
                    await self._create(connection, ring.nodes, shape, written_us)

    async def _create(self, connection: Connection, nodes: tuple[Node, ...], shape: Shape, written_us: int) -> None:
        replication = "{'class': 'NetworkTopologyStrategy', 'dc1': 3}"
        for ddl in (f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = {replication}", shape.ddl):
            await alter(connection, nodes, ddl)
        started = time.perf_counter()
        await load(connection, nodes, shape, written_us)
        self.settle()
        print(f"loaded {shape.rows:,} rows of {shape.full_name} in {time.perf_counter() - started:.0f} s", flush=True)

    def settle(self) -> None:
        """Flush every node and wait for its compactions, so that they do not disturb the measurement."""
        for node in self.sandbox.nodes:
            self.sandbox.nodetool(node.n, "flush")
        for node in self.sandbox.nodes:
            while _PENDING_COMPACTIONS.search(self.sandbox.nodetool(node.n, "compactionstats").stdout):
                time.sleep(1.0)


@asynccontextmanager
async def connected(settings: ConnectionSettings) -> AsyncGenerator[tuple[Connection, CqlReader], None]:
    """Yield a connection, which can also write, and a reader over it."""
    connection = await Connection.open(settings)
    try:
        yield connection, await CqlReader.open(connection, ReadLimits())
    finally:
        await connection.close()


async def alter(connection: Connection, nodes: tuple[Node, ...], ddl: str) -> None:
    """Change the schema, and wait until gossip has brought it to every node."""
    await connection.execute(nodes[0], Statement(ddl, timeout_s=60.0))
    await _schema_versions(connection, nodes)


@retry(retry=retry_if_result(lambda versions: len(versions) > 1), stop=stop_after_attempt(600), wait=wait_fixed(0.2))
async def _schema_versions(connection: Connection, nodes: tuple[Node, ...]) -> set[object]:
    cql = "SELECT schema_version FROM system.local"
    return {row["schema_version"] for node in nodes for row in await connection.select(node, cql)}


async def load(connection: Connection, nodes: tuple[Node, ...], shape: Shape, written_us: int) -> None:
    """Write every row of a table at ALL, a batch per partition, all at one write time."""
    width = len(shape.columns)
    pending = iter(enumerate(shape.batches()))

    async def writer() -> None:
        for i, values in pending:
            cql = shape.insert(len(values) // width, written_us)
            await execute(connection, nodes[i % len(nodes)], Statement(cql, values, consistency=ALL))

    await asyncio.gather(*(writer() for _ in range(_WRITERS)))


def damage(bed: Bed, shape: Shape, rows: int) -> None:
    """Make `rows` rows, spread evenly, newer on one replica only, alternating between the nodes."""

    async def run() -> None:
        async with connected(bed.settings) as (connection, reader):
            await _damage(connection, (await reader.ring()).nodes, shape, rows)

    asyncio.run(run())


def empty(bed: Bed, shape: Shape, n: int) -> None:
    """Take all that one node holds of a table, as a disk does that is lost and replaced."""
    bed.sandbox.nodetool(n, "flush")
    node = next(node for node in bed.sandbox.nodes if node.n == n)
    bed.sandbox.stop(n)
    for held in (node.data / "data" / KEYSPACE).glob(f"{shape.name}-*"):
        shutil.rmtree(held)
    bed.sandbox.start(n)


async def _damage(connection: Connection, nodes: tuple[Node, ...], shape: Shape, rows: int) -> None:
    timestamp_us = time.time_ns() // 1000 - _AN_HOUR_US // 2
    cql = f"UPDATE {shape.full_name} USING TIMESTAMP {timestamp_us} SET b = ? WHERE p = ? AND c = ?"
    step = shape.rows // max(1, rows)
    pending = iter(range(rows))

    async def writer() -> None:
        for number in pending:
            # Another place in each partition, because rows are damaged anywhere.
            i = number * step + number * 7 % step
            p, c = divmod(i, shape.per_partition)
            values = (_LONG.pack(-i), _INT.pack(p), _INT.pack(c))
            node = nodes[number % len(nodes)]
            await execute(connection, node, Statement(cql, values, consistency=NODE_LOCAL))

    await asyncio.gather(*(writer() for _ in range(_WRITERS)))


@retry(retry=retry_if_exception_type(ReplicaError), stop=stop_after_attempt(8), wait=wait_random_exponential(max=5.0))
async def execute(connection: Connection, node: Node, statement: Statement) -> None:
    """Run a statement that may be repeated until the node has taken it."""
    await connection.execute(node, statement)
