"""The replica reader over CQL: one replica's digests and rows, each answer shown to be its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import xxhash

from consistency.cluster import selects
from consistency.cluster.by_token import RowsByToken, paged_by_range
from consistency.cluster.clock import SystemClock
from consistency.cluster.connection import Connection
from consistency.cluster.guardrails import Guardrails, read_guardrails
from consistency.cluster.key_batches import Batch, batches, partition_lists
from consistency.cluster.liveness import with_liveness
from consistency.cluster.locality import TracesLeft
from consistency.cluster.masks import sees_masked
from consistency.cluster.pinned import PinnedAccess, ReadLimits, probe
from consistency.cluster.port import Key
from consistency.cluster.query_size import Piece, PieceSize, in_pieces
from consistency.cluster.row_sizes import RowSizes
from consistency.cluster.schemas import read_schema
from consistency.cluster.server_clocks import longest_write_s
from consistency.cluster.server_digest import ServerDigest, bigint, lanes, newest_time
from consistency.cluster.silence import silence
from consistency.cluster.snapshot import Describer
from consistency.cluster.throttle import Throttle
from consistency.cluster.throttle_probe import CqlNodeWatch
from consistency.cluster.wire import ONE, Page, Statement
from consistency.errors import ReplicaError, ReplicaTimeout, ReplicaUnavailable, TooMuchToScan
from consistency.model.reading import Capabilities, Locality, RawRow, Reading, Route
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest

_SMALL_PAGE_ROWS = 2_000  # a few milliseconds' worth, of small rows


class CqlReader:
    """Reads one replica at a time over CQL. Open it with `CqlReader.open`, close its connection after."""

    def __init__(
        self,
        connection: Connection,
        ring: Ring,
        localities: Mapping[Node, Locality],
        limits: ReadLimits,
        describer: Describer | None = None,
    ) -> None:
        self.throttle = Throttle(ring.nodes, limits.politeness, SystemClock(), CqlNodeWatch(connection))
        self._connection = connection
        self._describer = describer or Describer(connection)
        self._ring = ring
        self.access = PinnedAccess(connection, localities, limits)
        self._limits = limits
        self._by_token = RowsByToken(self._named)
        self._lanes = {node: lanes(limits.lanes) for node in ring.nodes}
        self._streams = {node: asyncio.Semaphore(limits.streams) for node in ring.nodes}
        self._single = {node: asyncio.Semaphore(8) for node in ring.nodes}
        self._pieces: dict[tuple[Node, str], PieceSize] = defaultdict(PieceSize)
        self._sizes = RowSizes(self.access)

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

    @property
    def capabilities(self) -> Capabilities:
        """What every node can do."""
        oldest = min(node.version for node in self._ring.nodes if node.release)
        return Capabilities(
            hashes=oldest >= (5, 0),
            collection_times=oldest >= (5, 0),
            timed=self._connection.protocol_version >= 5 and oldest >= (4, 0),
        )

    async def ring(self) -> Ring:
        """Return the snapshot taken at opening."""
        return self._ring

    async def ring_now(self) -> Ring:
        """Ask all nodes anew."""
        return await self._describer.ring()

    async def guardrails(self, table: Table) -> dict[Node, Guardrails]:
        """Ask every node that is up."""
        return await read_guardrails(self._connection, [node for node in self._ring.nodes if node.up], table)

    async def write_timeout_s(self) -> float | None:
        """Return how long a write may be under way on the most patient node; None where no node tells."""
        return await longest_write_s(self._connection, [node for node in self._ring.nodes if node.up])

    async def sees_masked(self, table: Table) -> bool:
        """Whether our role reads the masked columns of a table as they are stored."""
        return await sees_masked(self._connection, self._ring.nodes, table)

    async def schema(self) -> dict[str, Keyspace]:
        """Read every keyspace as all nodes describe it that answer."""
        asked = sorted(self._ring.nodes, key=lambda n: not (n.up and self.access.answers(n)))
        return await read_schema(self._connection, asked, patient=not self._describer.schemas_differ)

    def locality(self, node: Node) -> Locality:
        """Say how answers of this node are known to be its own."""
        return self.access.locality(node)

    def _traced(self, node: Node) -> bool:
        return self.locality(node) is Locality.TRACED

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers so far."""
        return replace(self.access.traces)

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        """Digest a range by the route asked for."""
        if route is Route.CLIENT:
            digest = await self._client_digest(node, reading, token_range, now_s)
            if not (newest and selects.newest_terms(reading)):
                return digest
            newest_us = await self._newest_time(node, reading, token_range, now_s, digest.rows)
            return replace(digest, newest_us=newest_us)
        asked = ServerDigest(reading, newest)

        async def piece(part: TokenRange) -> Piece:
            row, busy_s = await self._aggregate(node, reading, lambda name: asked.query(part, name), now_s)
            return Piece(asked.decode(row), busy_s, self._sizes.stored(reading))

        size = self._pieces[node, reading.table.full_name]
        return await in_pieces(token_range, size, piece, asked.add, lambda: self._small(node))

    def _small(self, node: Node) -> bool:
        """Whether a node is asked for little at once: while others work, unless each answer takes a trace to prove."""
        wanted = self._limits.politeness.in_pieces and not self._traced(node)
        return wanted and self.throttle.crowded

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
            async for rows in self.rows(node, reading, token_range, now_s):
                newest = max((t for t in (newest, *map(reading.newest_us, rows)) if t is not None), default=None)
            return newest

    async def _aggregate(
        self, node: Node, reading: Reading, text: Callable[[str], str], now_s: int, *, rows: int | None = None
    ) -> tuple[RawRow, float]:
        """Run an aggregate in one of the node's lanes: `text` is given the lane's spelling of the algorithm.

        Its first cell counts the rows it read, unless `rows` tells how many these are. Return its cells, and how
        many seconds it kept the node busy.
        """
        await self._sizes.learn(node, reading)
        spelling = await self._lanes[node].get()
        try:
            async with self.throttle.turn(node) as turn:
                statement = self._digest_statement(reading, text(spelling), now_s)
                row: RawRow = (await self.access.ask(node, statement, turn)).rows()[0]
                turn.rows = bigint(row[0]) if rows is None else rows
                # The server pages for itself, and its trace names the partition that each further page begins in.
                self.access.traces.with_keys += self._traced(node) and turn.rows >= statement.page_size
        finally:
            self._lanes[node].put_nowait(spelling)
        return row, turn.busy_s

    def _digest_statement(self, reading: Reading, text: str, now_s: int, values: tuple[bytes, ...] = ()) -> Statement:
        page = self._sizes.digest_page_rows(reading)
        return Statement(text, values, page_size=page, now_s=_now(reading, now_s), timeout_s=self._limits.timeout_s)

    async def _client_digest(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Digest:
        """Hash a range's rows as the bytes they arrive in; where pages are cut does not matter."""
        state = xxhash.xxh3_128()
        rows = 0
        async with aclosing(self._row_pages(node, reading, token_range, now_s)) as pages:
            async for page in pages:
                state.update(page.body)
                rows += page.row_count
        return Digest(rows, state.digest())

    async def rows(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Stream a range's rows."""
        async with aclosing(self._row_pages(node, reading, token_range, now_s)) as pages:
            async for page in pages:
                yield page.rows()

    def row_hashes(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Stream the hashes of a range's rows."""

        def pages(name: str) -> AsyncGenerator[Page, None]:
            ask = partial(selects.hash_rows, reading, algorithm=name)
            return self._range_pages(node, token_range, lambda part: self._digest_statement(reading, ask(part), now_s))

        return self._hashed(node, reading, pages)

    def row_hashes_of(
        self, node: Node, reading: Reading, partitions: Sequence[Key], now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Stream the hashes of the rows of some partitions."""

        async def pages(name: str) -> AsyncGenerator[Page, None]:
            text = selects.hash_rows_of_partitions(reading, name)
            for values in partition_lists(partitions):
                statement = self._digest_statement(reading, text, now_s, values)
                async with aclosing(self._pages(node, statement)) as found:
                    async for page in found:
                        yield page

        return self._hashed(node, reading, pages)

    def partition_digests(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> AsyncGenerator[list[RawRow], None]:
        """Stream the digests of a range's partitions."""
        counts = 1 + len(reading.table.partition_key)

        def pages(name: str) -> AsyncGenerator[Page, None]:
            text = selects.partition_digests(reading, token_range, name, newest=newest)
            statement = self._digest_statement(reading, text, now_s)
            return self._pages(node, statement, lambda page: sum(bigint(row[counts]) for row in page.rows()))

        return self._hashed(node, reading, pages)

    async def _hashed(
        self, node: Node, reading: Reading, pages: Callable[[str], AsyncGenerator[Page, None]]
    ) -> AsyncGenerator[list[RawRow], None]:
        """Page through what a node hashes, in a lane of its own from the first page to the last.

        `pages` is given the lane's spelling of the algorithm.
        """
        await self._sizes.learn(node, reading)
        spelling = await self._lanes[node].get()
        try:
            async with aclosing(pages(spelling)) as found:
                async for page in found:
                    yield page.rows()
        finally:
            self._lanes[node].put_nowait(spelling)

    async def _row_pages(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[Page, None]:
        """Page through a range's rows."""
        await self._sizes.learn(node, reading)

        def statement(part: TokenRange) -> Statement:
            return Statement(
                selects.select_rows(reading, part),
                page_size=self._sizes.page_rows(reading),
                now_s=_now(reading, now_s),
                timeout_s=self._limits.timeout_s,
            )

        async with aclosing(self._range_pages(node, token_range, statement)) as pages:
            async for page in pages:
                self._sizes.saw(reading, page)
                yield page

    def _range_pages(
        self, node: Node, token_range: TokenRange, statement: Callable[[TokenRange], Statement]
    ) -> AsyncGenerator[Page, None]:
        """Page through a range of which every row begins with its token."""
        if self._traced(node):
            return paged_by_range(lambda one: self._pages(node, one), token_range, statement)
        return self._pages(node, statement(token_range))

    async def _pages(
        self, node: Node, statement: Statement, rows: Callable[[Page], int] = lambda page: page.row_count
    ) -> AsyncGenerator[Page, None]:
        """Page through an answer; a page that is too much for the server is asked again at a quarter of the size."""
        while True:
            async with self._streams[node], self.throttle.turn(node) as turn:
                size = statement.page_size
                if self._small(node):
                    size = max(1, min(size // 8, _SMALL_PAGE_ROWS))
                try:
                    page = await self.access.ask(node, replace(statement, page_size=size), turn)
                    turn.rows = rows(page)
                except (ReplicaTimeout, TooMuchToScan):
                    if size == 1:
                        raise
                    statement = replace(statement, page_size=max(1, size // 4))
                    continue
            if page.row_count:
                yield page
            if page.paging_state is None:
                return
            statement = replace(statement, paging_state=page.paging_state)

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row."""
        if self._traced(node):
            return (await self._by_token.rows(node, reading, [key], now_s)).get(key)
        return await self._one(node, Statement(selects.select_row(reading), key, now_s=_now(reading, now_s)))

    async def rows_by_key(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        """Read rows by key in batches; where a trace must prove each answer, by token.

        The server may name a row by other bytes than we do (the decimals 1.0 and 1.00 are one clustering key): of
        such keys, and where a batch brings what was not asked for, each that it lacks is asked for alone.
        """
        if self._traced(node):
            return await self._by_token.rows(node, reading, keys, now_s)
        found: dict[Key, RawRow] = {}
        alone: list[Key] = []
        made = batches(reading, keys, page_rows=self._sizes.page_rows(reading))
        batched = await asyncio.gather(*(self._batch(node, reading, batch, now_s) for batch in made))
        for batch, rows in batched:
            found.update((key, rows[key]) for key in batch.keys if key in rows)
            if reading.table.respelled or not batch.expects(rows.keys()):
                alone += [key for key in batch.keys if key not in rows]
        rows_alone = await asyncio.gather(*(self.row(node, reading, key, now_s) for key in alone))
        found.update((key, row) for key, row in zip(alone, rows_alone, strict=True) if row is not None)
        return found

    async def _batch(
        self, node: Node, reading: Reading, batch: Batch, now_s: int
    ) -> tuple[Batch, dict[tuple[bytes | None, ...], RawRow]]:
        pages = self._named(node, reading, batch.cql, batch.values, now_s)
        return batch, {row[reading.key_slice]: row async for rows in pages for row in rows}

    async def _named(
        self, node: Node, reading: Reading, text: str, values: Key, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Page through rows that were asked for by key or token; a page of a token's may be too much for the server."""
        statement = Statement(
            text,
            values,
            page_size=self._sizes.page_rows(reading),
            now_s=_now(reading, now_s),
            timeout_s=self._limits.timeout_s,
        )
        while True:
            try:
                async with self._single[node]:
                    page = await self.access.ask(node, statement)
            except (ReplicaTimeout, TooMuchToScan):
                if values or statement.page_size == 1:
                    raise
                statement = replace(statement, page_size=max(1, statement.page_size // 4))
                continue
            yield page.rows()
            if page.paging_state is None:
                break
            statement = replace(statement, paging_state=page.paging_state)

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one partition's static cells."""
        if self._traced(node):
            return await self._by_token.static_row(node, reading, key, now_s)
        return await self._one(node, Statement(selects.select_static(reading), key, now_s=_now(reading, now_s)))

    async def _one(self, node: Node, statement: Statement) -> RawRow | None:
        async with self._single[node]:
            page = await self.access.ask(node, replace(statement, timeout_s=self._limits.timeout_s))
        return next(iter(page.rows()), None)

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        """Count a range's rows, for an estimate: whichever replica answers will do."""
        page = await self.access.retrying(node, Statement(selects.count_rows(table, token_range), consistency=ONE))
        return bigint(page.rows()[0][0])


async def _probed(connection: Connection, node: Node, forced: Locality | None) -> Locality | ReplicaError:
    """Find out how a node can be read; the error where it does not answer, or did not describe the ring."""
    return await probe(connection, node, forced) if node.up else ReplicaUnavailable(node.silence)


def _now(reading: Reading, now_s: int) -> int | None:
    return now_s if reading.capabilities.timed else None
