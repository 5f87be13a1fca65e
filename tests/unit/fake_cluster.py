"""Three nodes and one table in memory, as a ClusterReader: enough cluster for the commands to run against."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from consistency.cluster.clock import SystemClock
from consistency.cluster.guardrails import Guardrails
from consistency.cluster.locality import TracesLeft
from consistency.cluster.packed_rows import PackedPages
from consistency.cluster.request_counts import RequestCounts
from consistency.errors import ReplicaError
from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities, Locality, RawRow, Reading, Route
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Column, Keyspace, Table
from consistency.model.tokens import MIN_TOKEN, RING_SIZE, TokenRange
from consistency.model.tree import Digest
from tests.simulation.packed import all_packed

TOKEN_STEP = 10**15
US = 1_700_000_000_000_000
"""A write time long past."""


@dataclass(frozen=True)
class Version:
    """What one replica has of one row: the value of `v`, its write time and the seconds it has left."""

    value: str
    writetime: int = US
    ttl: int | None = None


def nodes(count: int = 3) -> tuple[Node, ...]:
    """Return nodes with one token each, evenly spread over the ring."""
    return tuple(
        Node(f"host-{i}", f"10.0.0.{i}", 9042, "dc1", "r1", (MIN_TOKEN + RING_SIZE * i // count,), "5.0.8")
        for i in range(1, count + 1)
    )


def table(keyspace: str = "shop", name: str = "orders", value: str = "v", clustering: str = "") -> Table:
    """Return a table with a key `id`, a text column, and perhaps a clustering column with a static."""
    columns = [Column("id", "partition_key", 0, parse_type("int", {}))]
    if clustering:
        columns.append(Column(clustering, "clustering", 0, parse_type("int", {})))
        columns.append(Column("s", "static", -1, parse_type("text", {})))
    columns.append(Column(value, "regular", -1, parse_type("text", {})))
    return Table(keyspace, name, f"id-{name}", tuple(columns), 864_000, "BLOCKING", "UnifiedCompactionStrategy")


@dataclass
class FakeCluster:
    """`rows` maps node name to row id to version; `broken` maps node name to what it answers everything with."""

    rows: dict[str, dict[int, Version]] = field(default_factory=dict)
    broken: dict[str, ReplicaError] = field(default_factory=dict)
    factor: str = "3"
    cluster: str = "test"
    shop: Table = field(default_factory=table)
    extra: Mapping[str, Keyspace] = field(default_factory=dict)
    node_local: bool = True
    node_count: int = 3
    guarded: Mapping[Node, Guardrails] = field(default_factory=dict)
    on_digest: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        self._ring = Ring(self.cluster, MURMUR3, nodes(self.node_count))
        for node in self._ring.nodes:
            self.rows.setdefault(node.name, {})

    def fill(self, count: int) -> FakeCluster:
        """Give every replica the same rows."""
        for held in self.rows.values():
            held.update({i: Version(f"value {i}") for i in range(count)})
        return self

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def guardrails(self, table: Table) -> Mapping[Node, Guardrails]:
        """What was set for the nodes."""
        return self.guarded

    async def write_timeout_s(self) -> float | None:
        """What Cassandra has by default."""
        return 2.0

    @property
    def traces(self) -> TracesLeft:
        return TracesLeft() if self.node_local else TracesLeft(12, 1)

    async def sees_masked(self, table: Table) -> bool:
        """Nothing is masked here."""
        return True

    def count_with(self, counts: RequestCounts) -> None:
        """Send nothing that could be counted."""

    def rings(self, ring: Ring) -> None:
        """Have these nodes from now on."""
        self._ring = ring

    async def ring(self) -> Ring:
        return self._ring

    async def ring_now(self) -> Ring:
        return self._ring

    async def schema(self) -> dict[str, Keyspace]:
        replication = Replication.parse({"class": "NetworkTopologyStrategy", "dc1": self.factor})
        shop = Keyspace(self.shop.keyspace, replication, {self.shop.name: self.shop})
        local = Keyspace("system", Replication.parse({"class": "LocalStrategy"}), {})
        return {self.shop.keyspace: shop, "system": local, **self.extra}

    async def schema_again(self) -> dict[str, Keyspace]:
        return await self.schema()

    def locality(self, node: Node) -> Locality:
        return Locality.NODE_LOCAL if self.node_local else Locality.TRACED

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        if self.on_digest is not None:
            await self.on_digest()
        held = self._in(node, token_range)
        newest_us = max((version.writetime for _, version in held), default=None) if newest else None
        return Digest(len(held), hashlib.sha256(repr(held).encode()).digest(), newest_us)

    async def rows_of(
        self, node: Node, reading: Reading, token_range: TokenRange
    ) -> AsyncGenerator[list[RawRow], None]:
        yield [self._raw(reading, i, version) for i, version in self._in(node, token_range)]

    async def row_hashes(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        held = [(self._raw(reading, i, version), version) for i, version in self._in(node, token_range)]
        width = reading.layout.key.stop
        yield [(*raw[:width], hashlib.sha256(repr(version).encode()).digest()) for raw, version in held]

    async def row_hashes_of(
        self, node: Node, reading: Reading, partitions: Sequence[tuple[bytes, ...]], now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        raise NotImplementedError  # the shop's partitions hold one row each
        yield []

    async def partition_digests(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> AsyncGenerator[list[RawRow], None]:
        raise NotImplementedError
        yield []

    async def row(self, node: Node, reading: Reading, key: tuple[bytes, ...], now_s: int) -> RawRow | None:
        self._answer(node)
        number = int.from_bytes(key[0], "big", signed=True)
        version = self.rows[node.name].get(number)
        return None if version is None else self._raw(reading, number, version)

    async def rows_by_key(
        self, node: Node, reading: Reading, keys: Sequence[tuple[bytes, ...]], now_s: int
    ) -> dict[tuple[bytes, ...], RawRow]:
        found = [(key, await self.row(node, reading, key, now_s)) for key in keys]
        return {key: row for key, row in found if row is not None}

    async def static_row(self, node: Node, reading: Reading, key: tuple[bytes, ...], now_s: int) -> RawRow | None:
        self._answer(node)
        number = int.from_bytes(key[0], "big", signed=True)
        version = self.rows[node.name].get(number)
        return None if version is None else (*self._name(number), *_cell(version))

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        return len(self._in(node, token_range))

    def _answer(self, node: Node) -> None:
        if node.name in self.broken:
            raise self.broken[node.name]

    def _in(self, node: Node, token_range: TokenRange) -> list[tuple[int, Version]]:
        self._answer(node)
        return [(i, v) for i, v in sorted(self.rows[node.name].items()) if i * TOKEN_STEP in token_range]

    def _raw(self, reading: Reading, number: int, version: Version) -> RawRow:
        return (*self._name(number), *_cell(version)[: sum(c.width for c in reading.regulars)])

    @staticmethod
    def _name(number: int) -> tuple[bytes, bytes]:
        return (number * TOKEN_STEP).to_bytes(8, "big", signed=True), number.to_bytes(4, "big", signed=True)


def _cell(version: Version) -> tuple[bytes | None, ...]:
    ttl = None if version.ttl is None else version.ttl.to_bytes(4, "big")
    return version.value.encode(), version.writetime.to_bytes(8, "big"), ttl


def opener(cluster: FakeCluster) -> Callable[..., AbstractAsyncContextManager[tuple[Any, SystemClock]]]:
    """Return what stands in for `open_cluster`."""

    @asynccontextmanager
    async def open_fake(*_: Any, **__: Any) -> AsyncIterator[tuple[Any, SystemClock]]:
        yield _Port(cluster), SystemClock()

    return open_fake


class _Port:
    """The ClusterReader: everything is the cluster's, `rows` streams."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def rows(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        return self._cluster.rows_of(node, reading, token_range)

    def packed_rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> PackedPages:
        return all_packed(self.rows(node, reading, token_range, now_s))


def port(cluster: FakeCluster) -> Any:
    """Return the cluster as a ClusterReader."""
    return _Port(cluster)
