"""What the rows of one replica come to: digests of ranges, of partitions, and of rows, hashed there or here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import xxhash

from consistency.cluster import selects
from consistency.cluster.gate import Gate
from consistency.cluster.hashed_columns import HashedColumns
from consistency.cluster.key_batches import partition_lists
from consistency.cluster.lanes import Look
from consistency.cluster.page_arrays import hashed_rows
from consistency.cluster.port import Key, Pages
from consistency.cluster.query_size import Piece, PieceSize, in_pieces
from consistency.cluster.row_pages import RowPages
from consistency.cluster.row_sizes import RowSizes
from consistency.cluster.server_digest import ServerDigest, bigint, newest_time
from consistency.cluster.wire import Page, Statement
from consistency.errors import ReplicaTimeout, TooMuchToScan
from consistency.model.reading import RawRow, Reading, Route
from consistency.model.ring import Node
from consistency.model.row_arrays import HashedRows, Shown
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest


class Digests:
    """Has rows hashed: by the servers in their lanes, or here as the bytes they arrive in."""

    def __init__(self, gate: Gate, sizes: RowSizes, rows: RowPages) -> None:
        self._gate = gate
        self._sizes = sizes
        self._rows = rows
        self._pieces: dict[tuple[Node, str], PieceSize] = defaultdict(PieceSize)

    async def of_range(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool
    ) -> Digest:
        """Digest a range by the route asked for."""
        if route is Route.SERVER:
            return await self._by_server(node, reading, token_range, now_s, newest=newest)
        digest = await self._by_client(node, reading, token_range, now_s)
        if not (newest and selects.newest_terms(reading)):
            return digest
        newest_us = await self._newest_time(node, reading, token_range, now_s, digest.rows)
        return replace(digest, newest_us=newest_us)

    async def _by_server(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool
    ) -> Digest:
        """Have the server hash a range's rows, a piece at a time while others work with it."""
        asked = ServerDigest(reading, newest)

        async def piece(part: TokenRange) -> Piece:
            row, busy_s = await self._aggregate(node, reading, lambda name: asked.query(part, name), now_s)
            return Piece(asked.decode(row), busy_s, self._sizes.stored(reading))

        size = self._pieces[node, reading.table.full_name]
        return await in_pieces(token_range, size, piece, asked.add, lambda: self._gate.asks_little(node))

    async def _by_client(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Digest:
        """Hash a range's rows as the bytes they arrive in; where pages are cut does not matter."""
        state = xxhash.xxh3_128()
        rows = 0
        async with aclosing(self._rows.undecoded(node, reading, token_range, now_s)) as pages:
            async for page in pages:
                state.update(page.body)
                rows += page.row_count
        return Digest(rows, state.digest())

    async def _newest_time(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, count: int
    ) -> int | None:
        """Ask the server for the newest write time of a range, or look for it here where that is too much for it."""
        text = selects.newest_times(reading, token_range)
        try:
            row, _ = await self._aggregate(node, reading, lambda _: text, now_s, rows=count)
            return newest_time(row)
        except (ReplicaTimeout, TooMuchToScan):
            newest: int | None = None
            async with aclosing(self._rows.of_range(node, reading, token_range, now_s)) as pages:
                async for rows in pages:
                    newest = max((t for t in (newest, *map(reading.newest_us, rows)) if t is not None), default=None)
            return newest

    async def _aggregate(
        self, node: Node, reading: Reading, text: Callable[[str], str], now_s: int, *, rows: int | None = None
    ) -> tuple[RawRow, float]:
        """Run an aggregate in one of the node's lanes: `text` is given the lane's spelling of the algorithm."""
        await self._sizes.learn(node, reading)
        async with self._gate.lane(node, Look.RANGE) as spelling:
            return await self._gate.aggregate(node, self._sizes.hashed(reading, text(spelling), now_s), rows=rows)

    def of_rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Stream the hashes of a range's rows."""

        def pages(name: str) -> AsyncGenerator[Page, None]:
            ask = partial(selects.hash_rows, reading, spelling=name)
            return self._gate.range_pages(node, token_range, lambda part: self._sizes.hashed(reading, ask(part), now_s))

        return self._streamed(node, reading, Look.ROWS, pages)

    def of_rows_in(self, node: Node, reading: Reading, partitions: Sequence[Key], now_s: int) -> Pages:
        """Stream the hashes of the rows of some partitions."""

        async def pages(name: str) -> AsyncGenerator[Page, None]:
            text = selects.hash_rows_of_partitions(reading, name)
            for values in partition_lists(reading.table, partitions):
                statement = self._sizes.hashed(reading, text, now_s, values)
                async with aclosing(self._gate.pages(node, statement)) as found:
                    async for page in found:
                        yield page

        return self._streamed(node, reading, Look.ROWS, pages)

    def of_partitions(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool
    ) -> Pages:
        """Stream the digests of a range's partitions, a piece at a time while others work with the node."""
        count = reading.partition_layout.count
        size = self._pieces[node, reading.table.full_name]

        async def pages(name: str) -> AsyncGenerator[Page, None]:
            left: TokenRange | None = token_range
            while left is not None:
                # A page holds so many partitions, of however many rows: it would keep the node for longer.
                part, left = size.cut(left, token_range) if self._gate.asks_little(node) else (left, None)
                text = selects.partition_digests(reading, part, name, newest=newest)
                asked = self._gate.pages(node, self._sizes.hashed(reading, text, now_s), rows_read)
                async with aclosing(asked) as found:
                    async for page in found:
                        yield page

        taken: list[list[RawRow]] = []

        def rows_read(page: Page) -> int:
            taken.append(page.rows())
            return sum(bigint(row[count]) for row in taken[-1])

        return self._streamed(node, reading, Look.PARTITIONS, pages, lambda _: taken.pop())

    async def arrays_of_rows(
        self,
        node: Node,
        reading: Reading,
        token_range: TokenRange,
        now_s: int,
        shown: Shown,
        *,
        most: int | None = None,
    ) -> HashedRows:
        """Read hashes of a range's rows as arrays, and what else is to be shown; of more than `most` a page more."""
        await self._sizes.learn(node, reading)
        asked = HashedColumns.of(reading, shown)
        parts: list[HashedRows] = []
        async with self._gate.lane(node, Look.ROWS) as name:

            def statement(part: TokenRange) -> Statement:
                return self._sizes.hashed(reading, selects.hashed_rows(reading, part, name, asked), now_s)

            async with aclosing(self._gate.range_pages(node, token_range, statement)) as pages:
                async for page in pages:
                    parts.append(hashed_rows(page, asked))
                    if most is not None and sum(map(len, parts)) > most:
                        break
        return HashedRows.joined(parts, len(asked.written))

    async def _streamed(
        self,
        node: Node,
        reading: Reading,
        look: Look,
        pages: Callable[[str], AsyncGenerator[Page, None]],
        rows: Callable[[Page], list[RawRow]] = Page.rows,
    ) -> Pages:
        """Page through what a node hashes, in a lane of its own from the first page to the last.

        `pages` is given the lane's spelling of the algorithm; `rows` takes each page apart as it comes.
        """
        await self._sizes.learn(node, reading)
        async with self._gate.lane(node, look) as spelling, aclosing(pages(spelling)) as found:
            async for page in found:
                yield rows(page)
