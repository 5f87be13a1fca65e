"""The replica reader over CQL: one replica's digests and rows, each answer shown to be its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from consistency.cluster import selects
from consistency.cluster.by_key import RowsByKey
from consistency.cluster.by_token import RowsByToken
from consistency.cluster.clock import SystemClock
from consistency.cluster.connection import Connection
from consistency.cluster.described import Described
from consistency.cluster.digests import Digests
from consistency.cluster.gate import Gate
from consistency.cluster.guardrails import Guardrails
from consistency.cluster.liveness import with_liveness
from consistency.cluster.locality import TracedPartition, TracesLeft
from consistency.cluster.packed_rows import PackedPages
from consistency.cluster.pinned import PinnedAccess, ReadLimits, probe
from consistency.cluster.port import Key, Pages
from consistency.cluster.request_counts import RequestCounts
from consistency.cluster.row_pages import RowPages
from consistency.cluster.row_sizes import RowSizes
from consistency.cluster.server_digest import bigint
from consistency.cluster.silence import silence
from consistency.cluster.snapshot import Describer
from consistency.cluster.throttle import Throttle
from consistency.cluster.throttle_probe import CqlNodeWatch
from consistency.cluster.wire import ONE, Statement
from consistency.errors import ReplicaError, ReplicaUnavailable
from consistency.model.reading import Capabilities, Locality, RawRow, Reading, Route
from consistency.model.ring import Node, Ring
from consistency.model.row_arrays import HashedRows, Shown
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest


class CqlReader:
    """Answers what the port asks, each question by the part whose duty it is.

    Open it with `CqlReader.open`, close its connection after.
    """

    def __init__(
        self,
        connection: Connection,
        ring: Ring,
        localities: Mapping[Node, Locality],
        limits: ReadLimits,
        describer: Describer | None = None,
    ) -> None:
        self.throttle = Throttle(ring.nodes, limits.politeness, SystemClock(), CqlNodeWatch(connection))
        self.access = PinnedAccess(connection, localities, limits)
        self._described = Described(connection, ring, self.access, describer or Describer(connection))
        gate, sizes = Gate(self.access, self.throttle, ring.nodes), RowSizes(self.access)
        self._pages = RowPages(gate, sizes)
        self._digests = Digests(gate, sizes, self._pages)
        self._by_key = RowsByKey(gate, sizes, self._pages)
        self._by_token = RowsByToken(self._pages.named)

    @classmethod
    async def open(cls, connection: Connection, limits: ReadLimits, *, locality: Locality | None = None) -> CqlReader:
        """Take a snapshot of the ring and find out how each node can be read; `locality` forces one."""
        describer = Describer(connection)
        ring = await describer.ring()
        answers = await asyncio.gather(*(_probed(connection, node, locality) for node in ring.nodes))
        known = dict(zip(ring.nodes, answers, strict=True))
        nodes = tuple(
            replace(node, up=False, silence=silence(found)) if isinstance(found, ReplicaError) and node.up else node
            for node, found in known.items()
        )
        ring = await with_liveness(connection, replace(ring, nodes=nodes))
        unread = locality or Locality.NODE_LOCAL
        localities = {node: unread if isinstance(found, ReplicaError) else found for node, found in known.items()}
        return cls(connection, ring, localities, limits, describer)

    # The cluster.

    def count_with(self, counts: RequestCounts) -> None:
        """Have requests counted together with those of others that read the cluster with us."""
        self.access.connection.counts = counts

    @property
    def capabilities(self) -> Capabilities:
        """What every node can do."""
        return self._described.capabilities

    async def ring(self) -> Ring:
        """Return the snapshot taken at opening."""
        return self._described.ring

    async def ring_now(self) -> Ring:
        """Ask all nodes anew."""
        return await self._described.ring_now()

    async def schema(self) -> dict[str, Keyspace]:
        """Read every keyspace as all nodes describe it that answer."""
        return await self._described.schema()

    async def schema_again(self) -> dict[str, Keyspace]:
        """Read it if any node has another version of it than all had the last time."""
        return await self._described.schema_again()

    async def guardrails(self, table: Table) -> dict[Node, Guardrails]:
        """Ask every node that is up."""
        return await self._described.guardrails(table)

    async def write_timeout_s(self) -> float | None:
        """Return how long a write may be under way on the most patient node; None if no node tells."""
        return await self._described.write_timeout_s()

    async def sees_masked(self, table: Table) -> bool:
        """Whether our role reads the masked columns of a table as they are stored."""
        return await self._described.sees_masked(table)

    def locality(self, node: Node) -> Locality:
        """Say how answers of this node are known to be its own."""
        return self.access.locality(node)

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers so far."""
        return self.access.traces

    # Digests.

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        """Digest a range by the route asked for."""
        return await self._digests.of_range(node, reading, route, token_range, now_s, newest=newest)

    def partition_digests(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Pages:
        """Stream the digests of a range's partitions."""
        return self._digests.of_partitions(node, reading, token_range, now_s, newest=newest)

    def row_hashes(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Stream the hashes of a range's rows."""
        return self._digests.of_rows(node, reading, token_range, now_s)

    def row_hashes_of(self, node: Node, reading: Reading, partitions: Sequence[Key], now_s: int) -> Pages:
        """Stream the hashes of the rows of some partitions."""
        return self._digests.of_rows_in(node, reading, partitions, now_s)

    async def hashed_rows(
        self,
        node: Node,
        reading: Reading,
        token_range: TokenRange,
        now_s: int,
        shown: Shown,
        *,
        most: int | None = None,
    ) -> HashedRows:
        """Read hashes of a range's rows as arrays, and what else is to be shown of them."""
        return await self._digests.arrays_of_rows(node, reading, token_range, now_s, shown, most=most)

    # Rows.

    def rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Stream a range's rows."""
        return self._pages.of_range(node, reading, token_range, now_s)

    def packed_rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> PackedPages:
        """Stream the same rows, none of them taken apart."""
        return self._pages.packed(node, reading, token_range, now_s)

    def _named(self, node: Node) -> RowsByKey | RowsByToken:
        """Return what reads a node's rows by name: by token where a trace must prove each answer."""
        return self._by_token if self.access.traced(node) else self._by_key

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row."""
        return await self._named(node).row(node, reading, key, now_s)

    async def rows_by_key(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        """Read rows by key; a row that is not there is left out."""
        return await self._named(node).rows(node, reading, keys, now_s)

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one partition's static cells."""
        return await self._named(node).static_row(node, reading, key, now_s)

    async def traced_partition(
        self, node: Node, reading: Reading, partition: Key, now_s: int
    ) -> TracedPartition | None:
        """Read one partition, with how many tombstones the node met; None if it is too large, or is not told."""
        return await self._pages.traced_partition(node, reading, partition, now_s)

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        """Count a range's rows, for an estimate: whichever replica answers will do."""
        page = await self.access.retrying(node, Statement(selects.count_rows(table, token_range), consistency=ONE))
        return bigint(page.rows()[0][0])


async def _probed(connection: Connection, node: Node, forced: Locality | None) -> Locality | ReplicaError:
    """Find out how a node can be read; the error if it does not answer, or did not describe the ring."""
    return await probe(connection, node, forced) if node.up else ReplicaUnavailable(str(node.silence))
