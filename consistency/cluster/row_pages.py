"""The rows of one replica, a page at a time: those of a range in ring order, or those that a statement names."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from consistency.cluster import selects
from consistency.cluster.by_token import token_of
from consistency.cluster.gate import Gate
from consistency.cluster.locality import TracedPartition, tombstones_in
from consistency.cluster.packed_rows import MARK, PackedPages, cut
from consistency.cluster.port import Key, Pages
from consistency.cluster.row_sizes import RowSizes
from consistency.cluster.wire import Page, Statement
from consistency.model.reading import RawRow, Reading
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange

_RECENT = 6
"""Pages that are kept: a few replicas' of a few ranges that are read side by side."""


class RowPages:
    """Pages through rows as they are stored, and learns from each page how large they are."""

    def __init__(self, gate: Gate, sizes: RowSizes) -> None:
        self._gate = gate
        self._sizes = sizes
        self._recent = _RecentPages()

    async def undecoded(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, mark: bytes | None = None
    ) -> AsyncGenerator[Page, None]:
        """Page through a range's rows as the bytes they arrive in; with a mark that is the last cell of each."""
        await self._sizes.learn(node, reading)

        def statement(part: TokenRange) -> Statement:
            return self._sizes.sent(reading, selects.select_rows(reading, part, mark), now_s)

        async with aclosing(self._gate.range_pages(node, token_range, statement)) as pages:
            async for page in pages:
                self._sizes.saw(reading, page)
                yield page

    async def of_range(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Pages:
        """Page through a range's rows."""
        async with aclosing(self.undecoded(node, reading, token_range, now_s)) as pages:
            async for page in pages:
                yield self._recent.rows(page)

    async def packed(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> PackedPages:
        """Page through a range's rows, none of which is taken apart."""
        async with aclosing(self.undecoded(node, reading, token_range, now_s, MARK)) as pages:
            async for page in pages:
                yield cut(page)

    async def named(self, node: Node, reading: Reading, text: str, values: Key, now_s: int) -> Pages:
        """Page through the rows of a statement that asks for them by key or token."""
        async with aclosing(self._gate.named_pages(node, self._sizes.sent(reading, text, now_s, values))) as pages:
            async for page in pages:
                yield page.rows()

    async def traced_partition(
        self, node: Node, reading: Reading, partition: Key, now_s: int
    ) -> TracedPartition | None:
        """Read a partition by its token, with how many tombstones the node met; None if it is larger than a page."""
        text = selects.select_rows_at(reading, token_of(partition))
        page, events = await self._gate.named_traced(node, self._sizes.sent(reading, text, now_s))
        tombstones = tombstones_in(events)
        if page.paging_state is not None or tombstones is None:
            return None
        rows = tuple(row for row in page.rows() if row[reading.layout.partition] == partition)
        return TracedPartition(rows, tombstones)


class _RecentPages:
    """The last pages that were taken apart: replicas that hold the same rows send the same bytes, one after another.

    Who reads a page must not change its list, as it may be that of another replica too.
    """

    def __init__(self) -> None:
        self._pages: deque[tuple[bytes, list[RawRow]]] = deque(maxlen=_RECENT)

    def rows(self, page: Page) -> list[RawRow]:
        """Return the rows of a page; those of an equal one that was taken apart just now are the same objects."""
        for body, rows in self._pages:
            if body == page.body and len(rows) == page.row_count:
                return rows
        rows = page.rows()
        self._pages.append((page.body, rows))
        return rows
