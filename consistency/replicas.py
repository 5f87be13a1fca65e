"""The replica reader over CQL: statements to one pinned node, proven local, retried within bounds."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xxhash
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from consistency import cql
from consistency.cqltype import quote_identifier
from consistency.driver import ALL, LOCAL_ONE, Connection
from consistency.errors import (
    NotProvenLocal,
    ReplicaError,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooMuchToScan,
)
from consistency.locality import TraceEvent, proves_local
from consistency.reader import Key
from consistency.reading import Capabilities, Locality, RawRow, Reading, Route
from consistency.ring import Node, Ring
from consistency.schema import Keyspace, SchemaRows, Table, build_schema
from consistency.tokens import TokenRange
from consistency.topology import read_ring
from consistency.tree import Digest
from consistency.wire import NODE_LOCAL, ONE, Page, Statement

_LONG = struct.Struct(">q")
_TRACE_POLLS = 60
_LOCAL_ATTEMPTS = 40


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How hard the cluster is asked.

    `lanes`: digest queries at once per node (at most one per spelling of the algorithm). `streams`: row
    reads at once per node. Page sizes are in rows; `page_bytes` bounds the memory one page takes.
    """

    lanes: int = 2
    streams: int = 2
    page_rows: int = 5_000
    page_bytes: int = 16 * 1024 * 1024
    digest_page_rows: int = 50_000
    timeout_s: float = 30.0
    probe_timeout_s: float = 5.0
    attempts: int = 4
    down_for_s: float = 10.0


class CqlReader:
    """Reads one replica at a time over CQL. Open it with `CqlReader.open`, close its connection after."""

    def __init__(
        self, connection: Connection, ring: Ring, localities: Mapping[Node, Locality], limits: ReadLimits
    ) -> None:
        self._connection = connection
        self._ring = ring
        self._localities = localities
        self._limits = limits
        self._lanes = {node: _lanes(limits.lanes) for node in ring.nodes}
        self._streams = {node: asyncio.Semaphore(limits.streams) for node in ring.nodes}
        self._single = {node: asyncio.Semaphore(8) for node in ring.nodes}
        self._down_until: dict[Node, float] = {}
        self._row_bytes: dict[str, int] = {}

    @classmethod
    async def open(cls, connection: Connection, limits: ReadLimits, *, locality: Locality | None = None) -> CqlReader:
        """Take a snapshot of the ring and find out how each node can be read; `locality` forces one."""
        ring = await read_ring(connection)
        localities = await asyncio.gather(*(_probe(connection, node, locality) for node in ring.nodes))
        up = [replace(node, up=found is not None) for node, found in zip(ring.nodes, localities, strict=True)]
        ring = replace(ring, nodes=tuple(up))
        known = {node: found or locality or Locality.NODE_LOCAL for node, found in zip(up, localities, strict=True)}
        return cls(connection, ring, known, limits)

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
        """Take a new snapshot."""
        return await read_ring(self._connection)

    async def sees_masked(self, table: Table) -> bool:
        """Whether our role holds UNMASK on a table, or is a superuser; without a login nothing is masked.

        Where the server will not say, the answer is no: a mask that is hashed hides every difference behind it.
        """
        role = self._connection.username
        if role is None:
            return True
        node = next(n for n in self._ring.nodes if n.up)
        name = quote_identifier(role)
        try:
            roles = await self._connection.select(node, f"LIST ROLES OF {name}")
            if any(row["super"] for row in roles):
                return True
            granted = await self._connection.select(node, f"LIST UNMASK PERMISSION ON TABLE {table.quoted} OF {name}")
        except ReplicaError:
            return False
        return bool(granted)

    async def schema(self) -> dict[str, Keyspace]:
        """Read every keyspace through a node that is up."""
        node = next(n for n in self._ring.nodes if n.up)
        return build_schema(await _schema_rows(self._connection, node))

    def locality(self, node: Node) -> Locality:
        """Say how answers of this node are known to be its own."""
        return self._localities[node]

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        """Digest a range by the route asked for."""
        times = len(cql.newest_terms(reading)) if newest else 0
        if route is Route.CLIENT:
            digest = await self._client_digest(node, reading, token_range, now_s)
            if not times:
                return digest
            text = cql.newest_times(reading, token_range)
            return replace(digest, newest_us=_newest(await self._aggregate(node, reading, lambda _: text, now_s)))
        if reading.capabilities.hashes:
            row = await self._aggregate(
                node, reading, lambda name: cql.hash_digest(reading, token_range, name, newest=newest), now_s
            )
            total = int.from_bytes(row[1] or b"", "big", signed=True) % 2**160
            return Digest(_bigint(row[0]), total.to_bytes(20, "big"), _newest(row[2:]))
        row = await self._aggregate(node, reading, lambda _: cql.sum_digest(reading, token_range, newest=newest), now_s)
        sums = row[1 : len(row) - times]
        value = b"".join(_bigint(s).to_bytes(8, "big", signed=True) for s in sums)
        return Digest(_bigint(row[0]), value, _newest(row[len(row) - times :]))

    async def _aggregate(self, node: Node, reading: Reading, text: Callable[[str], str], now_s: int) -> RawRow:
        """Run an aggregate in one of the node's lanes: `text` is given the lane's spelling of the algorithm."""
        spelling = await self._lanes[node].get()
        try:
            page = await self._ask(node, self._digest_statement(reading, text(spelling), now_s))
        finally:
            self._lanes[node].put_nowait(spelling)
        return page.rows()[0]

    def _digest_statement(self, reading: Reading, text: str, now_s: int) -> Statement:
        limits = self._limits
        row_bytes = self._row_bytes.get(reading.table.full_name, 200)
        page = max(100, min(limits.digest_page_rows, limits.page_bytes // row_bytes))
        return Statement(text, page_size=page, now_s=_now(reading, now_s), timeout_s=limits.timeout_s)

    async def _client_digest(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> Digest:
        """Hash a range's rows as the bytes they arrive in; where pages are cut does not matter."""
        state = xxhash.xxh3_128()
        rows = 0
        async for page in self._pages(node, reading, token_range, now_s):
            state.update(page.body)
            rows += page.row_count
        return Digest(rows, state.digest())

    async def rows(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Stream a range's rows."""
        async for page in self._pages(node, reading, token_range, now_s):
            yield page.rows()

    async def _pages(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[Page, None]:
        """Page through a range; a page that is too much for the server is asked again at half the size."""
        statement = Statement(
            cql.select_rows(reading, token_range),
            page_size=self._page_rows(reading),
            now_s=_now(reading, now_s),
            timeout_s=self._limits.timeout_s,
        )
        while True:
            async with self._streams[node]:
                try:
                    page = await self._ask(node, statement)
                except (ReplicaTimeout, TooMuchToScan):
                    if statement.page_size <= 10:
                        raise
                    statement = replace(statement, page_size=max(10, statement.page_size // 4))
                    continue
            if page.row_count:
                seen = max(1, len(page.body) // page.row_count)
                self._row_bytes[reading.table.full_name] = seen
                yield page
            if page.paging_state is None:
                return
            statement = replace(statement, paging_state=page.paging_state)

    def _page_rows(self, reading: Reading) -> int:
        row_bytes = self._row_bytes.get(reading.table.full_name, 1024)
        return max(10, min(self._limits.page_rows, self._limits.page_bytes // 4 // row_bytes))

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row."""
        return await self._one(node, Statement(cql.select_row(reading), key, now_s=_now(reading, now_s)))

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one partition's static cells."""
        return await self._one(node, Statement(cql.select_static(reading), key, now_s=_now(reading, now_s)))

    async def _one(self, node: Node, statement: Statement) -> RawRow | None:
        async with self._single[node]:
            page = await self._ask(node, replace(statement, timeout_s=self._limits.timeout_s))
        return page.rows()[0] if page.row_count else None

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        """Count a range's rows, for an estimate: whichever replica answers will do."""
        page = await self._retrying(node, Statement(cql.count_rows(table, token_range), consistency=ONE))
        return _bigint(page.rows()[0][0])

    async def sample(self, node: Node, reading: Reading, token_range: TokenRange) -> None:
        """Learn how large the rows are, which sizes the pages; whichever replica answers will do."""
        text = cql.select_rows(reading, token_range) + " LIMIT 100"
        page = await self._retrying(node, Statement(text, consistency=ONE, page_size=100))
        if page.row_count:
            self._row_bytes[reading.table.full_name] = max(1, len(page.body) // page.row_count)

    async def _tell_slow_from_silent(self, node: Node) -> None:
        """After a timeout, ask the node something easy: one that does not answer that is down, not busy."""
        easy = Statement("SELECT key FROM system.local", timeout_s=self._limits.probe_timeout_s)
        try:
            await self._connection.execute(node, easy)
        except ReplicaError as error:
            self._down_until[node] = time.monotonic() + self._limits.down_for_s
            msg = f"{node}: up but silent: it does not even answer a read of system.local"
            raise ReplicaUnavailable(msg) from error

    async def _ask(self, node: Node, statement: Statement) -> Page:
        """Run a statement so that the answer is this node's own."""
        if self._localities[node] is Locality.NODE_LOCAL:
            return await self._retrying(node, replace(statement, consistency=NODE_LOCAL))
        return await self._proven(node, replace(statement, consistency=LOCAL_ONE, trace=True))

    async def _proven(self, node: Node, statement: Statement) -> Page:
        for attempt in range(_LOCAL_ATTEMPTS):
            page = await self._retrying(node, statement)
            events = await self._trace(node, page.trace_id)
            if events is not None and proves_local(events, node.broadcast):
                return page
            await asyncio.sleep(min(0.02 * (attempt + 1), 0.5))
        msg = f"{node}: {_LOCAL_ATTEMPTS} reads in turn were not shown to be its own; allow NODE_LOCAL on the servers"
        raise NotProvenLocal(msg)

    async def _trace(self, node: Node, trace_id: bytes | None) -> list[TraceEvent] | None:
        """Return a finished trace's events, or None where it did not finish in time.

        The coordinator writes its events in order and the duration last, so a trace that has its duration
        has all of the coordinator's events. Reading at ALL finds them whichever replica holds them.
        """
        if trace_id is None:
            return None
        session = Statement("SELECT duration FROM system_traces.sessions WHERE session_id = ?", (trace_id,), ALL)
        events = Statement(
            "SELECT activity, source, source_port FROM system_traces.events WHERE session_id = ?",
            (trace_id,),
            ALL,
        )
        for poll in range(_TRACE_POLLS):
            await asyncio.sleep(min(0.005 * (poll + 1), 0.1))
            try:
                found = (await self._connection.execute(node, session)).rows()
                if found and found[0][0] is not None:
                    return [_event(row) for row in (await self._connection.execute(node, events)).rows()]
            except ReplicaUnavailable:
                session, events = replace(session, consistency=ONE), replace(events, consistency=ONE)
            except ReplicaError:
                continue
        return None

    async def _retrying(self, node: Node, statement: Statement) -> Page:
        """Run a statement, trying again while the node is overloaded or away, then fail fast for a while."""
        if self._down_until.get(node, 0.0) > time.monotonic():
            msg = f"{node}: down, last tried a moment ago"
            raise ReplicaUnavailable(msg)
        attempts = AsyncRetrying(
            retry=retry_if_exception(_passing),
            stop=stop_after_attempt(self._limits.attempts),
            wait=wait_random_exponential(multiplier=0.2, max=3.0),
            reraise=True,
        )
        try:
            page: Page = await attempts(self._connection.execute, node, statement)
        except ReplicaUnavailable:
            self._down_until[node] = time.monotonic() + self._limits.down_for_s
            raise
        except ReplicaTimeout:
            await self._tell_slow_from_silent(node)
            raise
        self._down_until.pop(node, None)
        return page


def _passing(error: BaseException) -> bool:
    """Whether asking again may help: overload, a lost connection, or an error inside the server.

    The last is what a disturbed mask_hash looks like when it does not merely give a wrong hash.
    """
    return isinstance(error, ReplicaOverloaded | ReplicaUnavailable) or type(error) is ReplicaError


def _lanes(count: int) -> asyncio.Queue[str]:
    lanes: asyncio.Queue[str] = asyncio.Queue()
    for spelling in cql.HASH_SPELLINGS[:count]:
        lanes.put_nowait(spelling)
    return lanes


def _now(reading: Reading, now_s: int) -> int | None:
    return now_s if reading.capabilities.timed else None


def _newest(cells: Sequence[bytes | None]) -> int | None:
    return max((_bigint(cell) for cell in cells if cell), default=None)


def _bigint(raw: bytes | None) -> int:
    return _LONG.unpack(raw)[0] if raw else 0


def _event(row: RawRow) -> TraceEvent:
    activity, source, port = row
    address = str(ipaddress.ip_address(source or b""))
    return TraceEvent((activity or b"").decode("utf-8", "replace"), f"{address}:{int.from_bytes(port or b'', 'big')}")


async def _probe(connection: Connection, node: Node, forced: Locality | None) -> Locality | None:
    """Find out how a node can be read; None where it does not answer."""
    attempts = AsyncRetrying(
        retry=retry_if_exception(_passing),
        stop=stop_after_attempt(4),
        wait=wait_random_exponential(multiplier=0.2, max=1.0),
        reraise=True,
    )
    ask = Statement("SELECT key FROM system.local", consistency=NODE_LOCAL, timeout_s=10.0)
    try:
        if forced is Locality.TRACED:
            ask = replace(ask, consistency=ONE)
        await attempts(connection.execute, node, ask)
    except ReplicaRefused:
        if forced is Locality.NODE_LOCAL:
            msg = (
                f"{node} refuses NODE_LOCAL: start it with -Dcassandra.enable_nodelocal_queries=true, "
                "or use --locality traced"
            )
            raise ReplicaRefused(msg) from None
        return Locality.TRACED
    except ReplicaError:
        return None
    return forced or Locality.NODE_LOCAL


async def _schema_rows(connection: Connection, node: Node) -> SchemaRows:
    async def rows(table: str) -> Sequence[Mapping[str, Any]]:
        return await connection.select(node, f"SELECT * FROM system_schema.{table}")

    masks: Sequence[Mapping[str, Any]] = ()
    if node.version >= (5, 0):
        masks = await rows("column_masks")
    return SchemaRows(
        keyspaces=await rows("keyspaces"),
        tables=await rows("tables"),
        columns=await rows("columns"),
        views=await rows("views"),
        types=await rows("types"),
        masks=masks,
    )
