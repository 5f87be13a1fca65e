"""The port through which replicas are read: CQL in production, a seeded in-memory cluster in simulation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from consistency.cluster.guardrails import Guardrails
from consistency.cluster.locality import TracedPartition, TracesLeft
from consistency.cluster.packed_rows import PackedPages
from consistency.model.reading import Capabilities, Locality, RawRow, Reading, Route
from consistency.model.ring import Node, Ring
from consistency.model.row_arrays import HashedRows, Shown
from consistency.model.schema import Keyspace, Table
from consistency.model.servertime import ClockReading, ServerTime
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest

Key = tuple[bytes, ...]
"""The serialized primary key, column by column; of a static row the partition key alone."""

Pages = AsyncGenerator[list[RawRow], None]
"""What one replica sends, a page at a time. Whoever asked for it reads it within `aclosing`, to the end or not."""


class ReplicaReader(Protocol):
    """Answers questions about one replica, and only from that replica.

    Every method raises a ReplicaError if the answer was not had or not proven; it never guesses.
    """

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        """Digest the rows of a range; equal rows give equal digests on every node.

        With `newest` the digest also carries the newest write time in the range.
        """

    def rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Stream the rows of a range in ring order, a page at a time."""

    def packed_rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> PackedPages:
        """Stream the same rows, none of them taken apart."""

    def row_hashes(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Stream token, primary key and hash of the rows of a range in ring order (if servers can hash)."""

    def row_hashes_of(self, node: Node, reading: Reading, partitions: Sequence[Key], now_s: int) -> Pages:
        """Stream the same of the rows of some partitions, in no order."""

    def partition_digests(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Pages:
        """Stream token, partition key, count of rows and sum of row hashes of a range's partitions, in ring order.

        With `newest` the newest write times of a partition follow, in as many cells as the server has for them.
        """

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
        """Read hashes of the rows of a range as arrays (if servers can hash), and what else is to be shown of them.

        Of a range with more than `most` rows a page more than that is read.
        """

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row by primary key."""

    async def rows_by_key(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> Mapping[Key, RawRow]:
        """Read several rows by primary key, in as few requests as that takes; a row that is not there is left out."""

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one partition's static cells by partition key: token, partition key, static cells."""

    async def traced_partition(
        self, node: Node, reading: Reading, partition: Key, now_s: int
    ) -> TracedPartition | None:
        """Read one partition, with how many tombstones the node met; None if it is too large, or is not told."""

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        """Count the rows of a range."""

    def locality(self, node: Node) -> Locality:
        """Say how answers of this node are known to be its own."""


class Clock(Protocol):
    """Time, so that simulations can own it."""

    def now_us(self) -> int:
        """Microseconds since the epoch, by the most advanced of the servers' clocks."""

    def server_time(self) -> ServerTime:
        """Return what time it is for the servers: what one decision is made by, from its first look to its last."""

    @property
    def readings(self) -> Sequence[ClockReading]:
        """Each server's clock as it was read; a server that did not answer is not among them."""

    def monotonic(self) -> float:
        """Seconds, for measuring."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class ClusterReader(ReplicaReader, Protocol):
    """A reader that also describes the cluster."""

    @property
    def capabilities(self) -> Capabilities:
        """What every node can do."""

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers so far."""

    async def sees_masked(self, table: Table) -> bool:
        """Whether our role reads the masked columns of a table as they are stored."""

    async def ring(self) -> Ring:
        """Return the snapshot taken when the reader was opened."""

    async def ring_now(self) -> Ring:
        """Take a new one."""

    async def schema(self) -> dict[str, Keyspace]:
        """Read every keyspace."""

    async def schema_again(self) -> dict[str, Keyspace]:
        """Read it if any node has another version of it than all had when it was read last."""

    async def guardrails(self, table: Table) -> Mapping[Node, Guardrails]:
        """Find out what each node, as a coordinator, forbids our role to do with a table's rows."""

    async def write_timeout_s(self) -> float | None:
        """Return how long a write may be under way on the most patient node; None if no node tells."""
