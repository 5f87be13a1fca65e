"""Let questions through to the nodes: so many at once, each in its turn, in pages that a node can bear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from consistency.cluster.by_token import paged_by_range
from consistency.cluster.lanes import Lanes, Look
from consistency.cluster.locality import TraceEvent
from consistency.cluster.pinned import PinnedAccess
from consistency.cluster.server_digest import bigint
from consistency.cluster.throttle import Throttle
from consistency.cluster.wire import Page, Statement
from consistency.errors import ReplicaTimeout, TooMuchToScan
from consistency.model.reading import RawRow
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange

_SMALL_PAGE_ROWS = 2_000  # a few milliseconds' worth, of small rows
_NAMED_AT_ONCE = 8
"""Reads of named rows that a node is sent at once: they are small, and wait for no turn."""

Ask = Callable[[Statement], Awaitable[Page | Statement]]
"""Asks for one page; returns the statement to try next where that was too much for the server."""


class Gate:
    """Holds each question back until its node may be asked.

    Digests wait for a lane and a turn, pages of rows for a stream and a turn, rows asked for by name for neither.
    """

    def __init__(self, access: PinnedAccess, throttle: Throttle, nodes: Iterable[Node]) -> None:
        limits, known = access.limits, tuple(nodes)
        self._access = access
        self._throttle = throttle
        self._in_pieces = limits.politeness.in_pieces
        self._lanes = {node: Lanes.shared(limits.lanes, limits.reader, limits.readers) for node in known}
        self._streams = {node: asyncio.Semaphore(limits.streams) for node in known}
        self._named = {node: asyncio.Semaphore(_NAMED_AT_ONCE) for node in known}

    def asks_little(self, node: Node) -> bool:
        """Whether a node is asked for little at once: while others work, unless each answer takes a trace to prove."""
        wanted = self._in_pieces and not self._access.traced(node)
        return wanted and self._throttle.crowded

    def lane(self, node: Node, look: Look) -> AbstractAsyncContextManager[str]:
        """Wait for one of the node's lanes and hold it; it yields its spelling of the hash, which nobody else uses."""
        return self._lanes[node].one(look)

    async def aggregate(self, node: Node, statement: Statement, *, rows: int | None = None) -> tuple[RawRow, float]:
        """Run an aggregate in a turn; return its cells, and for how many seconds it kept the node busy.

        Its first cell counts the rows it read, unless `rows` tells how many these are.
        """
        async with self._throttle.turn(node) as turn:
            row: RawRow = (await self._access.ask(node, statement, turn)).rows()[0]
            turn.rows = bigint(row[0]) if rows is None else rows
            self._access.paged_by_itself(node, statement, turn.rows)
        return row, turn.busy_s

    def pages(
        self, node: Node, statement: Statement, rows: Callable[[Page], int] = lambda page: page.row_count
    ) -> AsyncGenerator[Page, None]:
        """Page through an answer, each page in a turn; `rows` tells how many rows the node read for a page."""

        async def ask(wanted: Statement) -> Page | Statement:
            async with self._streams[node], self._throttle.turn(node) as turn:
                size = wanted.page_size
                if self.asks_little(node):
                    size = max(1, min(size // 8, _SMALL_PAGE_ROWS))
                try:
                    page = await self._access.ask(node, replace(wanted, page_size=size), turn)
                    turn.rows = rows(page)
                except (ReplicaTimeout, TooMuchToScan):
                    if size == 1:
                        raise
                    return replace(wanted, page_size=max(1, size // 4))
                return page

        return _paged(ask, statement)

    def range_pages(
        self, node: Node, token_range: TokenRange, statement: Callable[[TokenRange], Statement]
    ) -> AsyncGenerator[Page, None]:
        """Page through a range of which every row begins with its token."""
        if self._access.traced(node):
            return paged_by_range(lambda one: self.pages(node, one), token_range, statement)
        return self.pages(node, statement(token_range))

    def named_pages(self, node: Node, statement: Statement) -> AsyncGenerator[Page, None]:
        """Page through rows that were asked for by key or token; a page of a token's may be too much for the server."""

        async def ask(wanted: Statement) -> Page | Statement:
            try:
                return await self.named(node, wanted)
            except (ReplicaTimeout, TooMuchToScan):
                if wanted.values or wanted.page_size == 1:
                    raise
                return replace(wanted, page_size=max(1, wanted.page_size // 4))

        return _paged(ask, statement)

    async def named(self, node: Node, statement: Statement) -> Page:
        """Read one page of rows that were asked for by key or token."""
        async with self._named[node]:
            return await self._access.ask(node, statement)

    async def named_traced(self, node: Node, statement: Statement) -> tuple[Page, list[TraceEvent]]:
        """Read such a page, and what its trace tells."""
        async with self._named[node]:
            return await self._access.ask_traced(node, statement)


async def _paged(ask: Ask, statement: Statement) -> AsyncGenerator[Page, None]:
    """Page through an answer; a page that is too much for the server is asked for again at a quarter of the size."""
    while True:
        answer = await ask(statement)
        if isinstance(answer, Statement):
            statement = answer
            continue
        if answer.row_count:
            yield answer
        if answer.paging_state is None:
            return
        statement = replace(statement, paging_state=answer.paging_state)
