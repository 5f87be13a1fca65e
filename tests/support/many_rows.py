"""Two clusters of which the source alone holds rows, very many of them: answers are made when they are asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, final

import numpy as np

from consistency.cluster.by_token import token_of
from consistency.cluster.clock import SystemClock
from consistency.comparing.opening import Cluster, Pair
from consistency.model.reading import RawRow, Reading, Route
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.sides import Side
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from tests.unit.fake_cluster import US, FakeCluster, port

PAGE = 5_000
_VALUE = b"x" * 80
_WRITTEN = US.to_bytes(8, "big")


@final
class ManyRows(FakeCluster):
    """Rows of some 100 bytes with the keys 0, 1, 2 and so on, the same on every replica."""

    def __init__(self, rows: int, nodes: int, name: str) -> None:
        """Hold so many rows."""
        super().__init__(node_count=nodes, factor=str(nodes), cluster=name)
        tokens = np.fromiter((token_of((_key(i),)) for i in range(rows)), np.int64, rows)
        self._order = np.argsort(tokens)
        self._tokens = tokens[self._order]

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        """Digest a range."""
        first, end = self._places(token_range)
        return Digest(end - first, b"%d %d" % (first, end) if end > first else b"", US if newest else None)

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        """Count a range's rows."""
        first, end = self._places(token_range)
        return end - first

    async def rows_of(
        self, node: Node, reading: Reading, token_range: TokenRange
    ) -> AsyncGenerator[list[RawRow], None]:
        """Page through a range's rows."""
        first, end = self._places(token_range)
        for at in range(first, end, PAGE):
            yield [self._row(place) for place in range(at, min(at + PAGE, end))]

    async def row_hashes(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Page through the hashes of a range's rows."""
        async for page in self.rows_of(node, reading, token_range):
            yield [(*row[:2], row[1]) for row in page]

    async def rows_by_key(
        self, node: Node, reading: Reading, keys: Sequence[tuple[bytes, ...]], now_s: int
    ) -> dict[tuple[bytes, ...], RawRow]:
        """Read rows by key."""
        return {key: self._cells(token_of(key), key[0]) for key in keys if self._number(key) < len(self._tokens)}

    async def row(self, node: Node, reading: Reading, key: tuple[bytes, ...], now_s: int) -> RawRow | None:
        """Read one row."""
        return (await self.rows_by_key(node, reading, [key], now_s)).get(key)

    def _places(self, token_range: TokenRange) -> tuple[int, int]:
        first, end = np.searchsorted(self._tokens, [token_range.start, token_range.end], side="right").tolist()
        return first, end

    def _row(self, place: int) -> RawRow:
        return self._cells(int(self._tokens[place]), _key(int(self._order[place])))

    @staticmethod
    def _number(key: tuple[bytes, ...]) -> int:
        return int.from_bytes(key[0], "big", signed=True)

    @staticmethod
    def _cells(token: int, key: bytes) -> RawRow:
        return token.to_bytes(8, "big", signed=True), bytes(key), _VALUE + key, bytes(_WRITTEN), None


def _key(number: int) -> bytes:
    return number.to_bytes(4, "big", signed=True)


def lacking(rows: int) -> Pair:
    """Return a source of three nodes with so many rows, and a target of one node with none."""
    source: Any = port(ManyRows(rows, 3, "old"))
    target: Any = port(ManyRows(0, 1, "new"))
    return Pair(Cluster(Side.SOURCE, source, SystemClock()), Cluster(Side.TARGET, target, SystemClock()))
