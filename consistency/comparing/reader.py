"""Two clusters as one to the pipeline of a check: a reader that asks each node of its own cluster, and their time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from consistency.cluster.locality import TracedPartition, TracesLeft
from consistency.cluster.packed_rows import PackedPages
from consistency.cluster.port import ClusterReader, Key, Pages
from consistency.comparing.opening import Pair
from consistency.errors import InternalError
from consistency.model.reading import Capabilities, Locality, RawRow, Reading, Route
from consistency.model.ring import Node
from consistency.model.row_arrays import HashedRows, Shown
from consistency.model.schema import Table
from consistency.model.servertime import ClockReading, ServerTime
from consistency.model.sides import Side, SidedNode
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest


def in_common(one: Capabilities, other: Capabilities) -> Capabilities:
    """Return what the nodes of both clusters can do, so that one digest can be made on either side."""
    return Capabilities(
        hashes=one.hashes and other.hashes,
        arithmetic=one.arithmetic and other.arithmetic,
        unchecked_text=one.unchecked_text and other.unchecked_text,
        collection_times=one.collection_times and other.collection_times,
        timed=one.timed and other.timed,
    )


class PairReader:
    """Asks the replicas of two clusters; tables go by their names in the source, whatever the target calls them."""

    def __init__(self, pair: Pair, targets: Mapping[str, Table]) -> None:
        self._readers = {cluster.side: cluster.reader for cluster in pair}
        self._targets = targets
        self._readings: dict[Reading, Reading] = {}

    def _asked(self, node: Node) -> tuple[ClusterReader, Node]:
        if not isinstance(node, SidedNode):
            msg = f"{node} is of neither side"
            raise InternalError(msg)
        return self._readers[node.side], node.node

    def _read(self, node: Node, reading: Reading) -> tuple[ClusterReader, Node, Reading]:
        """Return what is asked, whom it asks, and the reading by the names of that cluster."""
        reader, own = self._asked(node)
        if isinstance(node, SidedNode) and node.side is Side.TARGET:
            return reader, own, self._in_target(reading)
        return reader, own, reading

    def _in_target(self, reading: Reading) -> Reading:
        found = self._readings.get(reading)
        if found is None:
            found = self._readings[reading] = replace(reading, table=self._targets[reading.table.full_name])
        return found

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        """Digest a range on one node."""
        reader, own, read = self._read(node, reading)
        return await reader.digest(own, read, route, token_range, now_s, newest=newest)

    def rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Stream the rows of a range."""
        reader, own, read = self._read(node, reading)
        return reader.rows(own, read, token_range, now_s)

    def packed_rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> PackedPages:
        """Stream the same rows, none of them taken apart."""
        reader, own, read = self._read(node, reading)
        return reader.packed_rows(own, read, token_range, now_s)

    def row_hashes(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Stream the hashes of a range's rows."""
        reader, own, read = self._read(node, reading)
        return reader.row_hashes(own, read, token_range, now_s)

    def row_hashes_of(self, node: Node, reading: Reading, partitions: Sequence[Key], now_s: int) -> Pages:
        """Stream the hashes of the rows of some partitions."""
        reader, own, read = self._read(node, reading)
        return reader.row_hashes_of(own, read, partitions, now_s)

    def partition_digests(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Pages:
        """Stream the digests of a range's partitions."""
        reader, own, read = self._read(node, reading)
        return reader.partition_digests(own, read, token_range, now_s, newest=newest)

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
        """Read hashes of a range's rows, as arrays."""
        reader, own, read = self._read(node, reading)
        return await reader.hashed_rows(own, read, token_range, now_s, shown, most=most)

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row."""
        reader, own, read = self._read(node, reading)
        return await reader.row(own, read, key, now_s)

    async def rows_by_key(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> Mapping[Key, RawRow]:
        """Read rows by key."""
        reader, own, read = self._read(node, reading)
        return await reader.rows_by_key(own, read, keys, now_s)

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one partition's static cells."""
        reader, own, read = self._read(node, reading)
        return await reader.static_row(own, read, key, now_s)

    async def traced_partition(
        self, node: Node, reading: Reading, partition: Key, now_s: int
    ) -> TracedPartition | None:
        """Read one partition, with how many tombstones the node met."""
        reader, own, read = self._read(node, reading)
        return await reader.traced_partition(own, read, partition, now_s)

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        """Count a range's rows."""
        reader, own = self._asked(node)
        of_target = isinstance(node, SidedNode) and node.side is Side.TARGET
        return await reader.count(own, self._targets[table.full_name] if of_target else table, token_range)

    def locality(self, node: Node) -> Locality:
        """Say how answers of a node are known to be its own."""
        reader, own = self._asked(node)
        return reader.locality(own)

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers of both sides."""
        return sum((reader.traces for reader in self._readers.values()), TracesLeft())


class PairClock:
    """The time of the servers of both clusters: none of their clocks is outside of its bounds."""

    def __init__(self, pair: Pair) -> None:
        self._clocks = tuple(cluster.clock for cluster in pair)

    def now_us(self) -> int:
        """Microseconds since the epoch, by the most advanced of all clocks."""
        return self.server_time().latest_us

    def server_time(self) -> ServerTime:
        """Return what time it is for the servers."""
        times = [clock.server_time() for clock in self._clocks]
        return ServerTime(min(t.earliest_us for t in times), max(t.latest_us for t in times))

    @property
    def readings(self) -> Sequence[ClockReading]:
        """Each server's clock as it was read."""
        return [reading for clock in self._clocks for reading in clock.readings]

    def monotonic(self) -> float:
        """Seconds, for measuring."""
        return self._clocks[0].monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._clocks[0].sleep(seconds)
