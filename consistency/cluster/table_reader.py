"""One table as a check reads it: through which reader, what of each row, by which route, and by whose clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from consistency.cluster.packed_rows import PackedPages
from consistency.cluster.port import Clock, Key, Pages, ReplicaReader
from consistency.cluster.row_hash import scheme
from consistency.model.reading import Locality, Reading, Route
from consistency.model.ring import Node
from consistency.model.row_arrays import HashedRows, Shown
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest


@dataclass(frozen=True, slots=True)
class TableReader:
    """Asks replicas about the ranges of one table, all of them in the same way.

    A row that is asked for by name needs no route, and is read at the instant that decides about it (`rows/read.py`).
    `now_s` of a question is the instant that TTLs are judged at: answers that are compared were asked with one.
    """

    reader: ReplicaReader
    reading: Reading
    route: Route
    clock: Clock

    def now_s(self) -> int:
        """Return the instant to judge TTLs at, for what is asked now."""
        return self.clock.server_time().expiry_s

    def by(self, route: Route) -> TableReader:
        """Return the same by another route."""
        return replace(self, route=route)

    def reads(self, reading: Reading) -> TableReader:
        """Return the same with something else read of every row."""
        return replace(self, reading=reading)

    @property
    def full(self) -> TableReader:
        """The same at depth content: how single rows are read before a difference is claimed."""
        return self.reads(self.reading.full)

    @property
    def scheme(self) -> str:
        """What digests are made of, where and how: those of different schemes cannot be compared."""
        return scheme(self.reading, self.route)

    @property
    def hashes_rows(self) -> bool:
        """Whether rows can be told apart by hashes: not with statics, which every row of a partition repeats."""
        return self.route is Route.SERVER and not self.reading.statics

    def provable(self, nodes: Sequence[Node]) -> bool:
        """Whether answers about several partitions are known to be each node's own: a trace proves nothing of them."""
        return all(self.reader.locality(node) is Locality.NODE_LOCAL for node in nodes)

    async def digest(self, node: Node, token_range: TokenRange, now_s: int, *, newest: bool = False) -> Digest:
        """Digest a range; with `newest` its newest write time is told as well."""
        return await self.reader.digest(node, self.reading, self.route, token_range, now_s, newest=newest)

    def rows(self, node: Node, token_range: TokenRange, now_s: int) -> Pages:
        """Stream the rows of a range in ring order."""
        return self.reader.rows(node, self.reading, token_range, now_s)

    def packed_rows(self, node: Node, token_range: TokenRange, now_s: int) -> PackedPages:
        """Stream the same rows, none of them taken apart."""
        return self.reader.packed_rows(node, self.reading, token_range, now_s)

    def row_hashes(self, node: Node, token_range: TokenRange, now_s: int) -> Pages:
        """Stream the hashes of a range's rows."""
        return self.reader.row_hashes(node, self.reading, token_range, now_s)

    def row_hashes_of(self, node: Node, partitions: Sequence[Key], now_s: int) -> Pages:
        """Stream the hashes of the rows of some partitions."""
        return self.reader.row_hashes_of(node, self.reading, partitions, now_s)

    async def hashed_rows(
        self, node: Node, token_range: TokenRange, now_s: int, shown: Shown, *, most: int | None = None
    ) -> HashedRows:
        """Read hashes of a range's rows as arrays, of more than `most` a page more than that."""
        return await self.reader.hashed_rows(node, self.reading, token_range, now_s, shown, most=most)

    def partition_digests(self, node: Node, token_range: TokenRange, now_s: int, *, newest: bool = False) -> Pages:
        """Stream the digests of a range's partitions."""
        return self.reader.partition_digests(node, self.reading, token_range, now_s, newest=newest)
