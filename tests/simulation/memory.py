"""The in-memory cluster as the scanner sees it: the port `ClusterReader` over raw bytes, with faults."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import xxhash

from consistency.cluster.by_token import RowsByToken
from consistency.cluster.guardrails import Guardrails
from consistency.cluster.hashed_columns import HashedColumns
from consistency.cluster.locality import TracedPartition, TracesLeft
from consistency.cluster.packed_rows import PackedPages
from consistency.cluster.page_arrays import hashed_rows
from consistency.errors import (
    NotProvenLocal,
    ReplicaError,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooMuchToScan,
)
from consistency.model.reading import Capabilities, CellColumn, Locality, RawRow, Reading, Route
from consistency.model.ring import Node, Replication, Ring
from consistency.model.row_arrays import HashedRows, Shown
from consistency.model.schema import Column, Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from tests.simulation.aggregates import hashed_columns, row_hash, server_digest
from tests.simulation.packed import all_packed
from tests.simulation.storage import Key, Mutation, Path, Stored, TableStorage, Visible, merge_row, token_of
from tests.simulation.values import SCALARS, int_bytes, long_bytes, sized
from tests.simulation.vclock import EPOCH_S, VirtualLoop

_AT_TOKEN = re.compile(r"token\([^)]*\) >= (-?\d+) AND token\([^)]*\) <= \1\b")


class Trouble(str, Enum):
    """What can be wrong with a node for a while."""

    SLOW = "slow"
    DOWN = "down"
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    TOO_MUCH = "too much to scan"
    ERROR = "server error"
    DISTURBED = "disturbed digest"
    FOREIGN = "answered by another replica"


_ERRORS: Mapping[Trouble, type[ReplicaError]] = {
    Trouble.DOWN: ReplicaUnavailable,
    Trouble.TIMEOUT: ReplicaTimeout,
    Trouble.OVERLOADED: ReplicaOverloaded,
    Trouble.TOO_MUCH: TooMuchToScan,
    Trouble.ERROR: ReplicaError,
    Trouble.FOREIGN: NotProvenLocal,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One node's trouble from `start_s` to `end_s` (virtual seconds), hitting each request with a probability."""

    trouble: Trouble
    node: Node
    start_s: float
    end_s: float
    rate: float = 1.0

    def __str__(self) -> str:
        return f"{self.node} {self.trouble.value} from {self.start_s:.2f} to {self.end_s:.2f} s at rate {self.rate:.2f}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast nodes answer and how large their pages are."""

    latency_s: float = 0.002
    jitter_s: float = 0.004
    page_rows: int = 7


def readdressed(ring: Ring, hosts: Sequence[str]) -> Ring:
    """Return a ring whose nodes have each other's addresses, the first the last one's; one alone has a new one."""
    found = {node.host_id: node for node in ring.nodes}
    at = {a: found[b].address for a, b in zip(hosts, (*hosts[-1:], *hosts), strict=False)}
    if len(hosts) == 1:
        at[hosts[0]] = f"{found[hosts[0]].address}9"
    nodes = (replace(n, address=at.get(n.host_id, n.address)) for n in ring.nodes)
    return replace(ring, nodes=tuple(sorted(nodes, key=lambda n: n.name)))


class SimCluster:
    """Nodes with storage, a ring, a schema, and the port through which the scanner reads them."""

    def __init__(
        self,
        loop: VirtualLoop,
        ring: Ring,
        schema: Mapping[str, Keyspace],
        capabilities: Capabilities,
        rng: random.Random,
        pace: Pace | None = None,
        faults: Sequence[Fault] = (),
        locality: Locality | Mapping[Node, Locality] = Locality.NODE_LOCAL,
    ) -> None:
        self._loop = loop
        self._localities = dict.fromkeys(ring.nodes, locality) if isinstance(locality, Locality) else locality
        self._by_token = RowsByToken(self._asked)
        self._ring = ring
        self._schema = dict(schema)
        self._capabilities = capabilities
        self._rng = {node: random.Random(rng.getrandbits(64)) for node in ring.nodes}
        self._pace = pace or Pace()
        self._faults = tuple(faults)
        self._stores = {
            node: {t.full_name: TableStorage(t) for ks in schema.values() for t in ks.tables.values()}
            for node in ring.nodes
        }
        self._unread: dict[Node, dict[str, TableStorage]] = {}
        self.skew_s: dict[Node, float] = {}
        self.guarded: dict[Node, Guardrails] = {}
        self.hit: Counter[Trouble] = Counter()
        self.asked: Counter[Node] = Counter()
        self.described_at: list[float] = []
        self.digested: set[tuple[Node, str, TokenRange]] = set()
        """What was digested, or hashed by partition or by row, to its end."""
        self.ring_later: Callable[[], Ring] | None = None
        self.no_longer_written_to: Callable[[], Node | None] = lambda: None
        """The node whose ranges have gone to one that nobody here reads: writes go there from then on."""
        self.change_schema: Callable[[dict[str, Keyspace]], dict[str, Keyspace]] | None = None

    @property
    def ring_before(self) -> Ring:
        """The ring as the simulation started with it."""
        return self._ring

    @property
    def replication(self) -> Replication:
        """How the one keyspace is replicated."""
        return self._schema["ks"].replication

    # What happens to the cluster, apart from being read.

    def store(self, node: Node, table: Table) -> TableStorage:
        """Return what a node holds of a table."""
        return self._stores[node][table.full_name]

    def replicas(self, table: Table, key: Key) -> tuple[Node, ...]:
        """Return the owners of a partition."""
        return self._ring.replicas_of(token_of(key), self._schema[table.keyspace].replication)

    def apply(self, table: Table, mutation: Mutation, nodes: Sequence[Node] | None = None) -> None:
        """Have a mutation on some replicas now, on all owners where none are named."""
        for node in self.replicas(table, mutation.key) if nodes is None else nodes:
            mutation.apply(self.store(node, table))
            if self._unread:
                mutation.apply(self._unread[node][table.full_name])

    def begin_reading(self) -> None:
        """From now on whatever changes a replica is a mutation that is applied here, or was made by a reader."""
        self._unread = self._copied()

    def changed_by_readers(self) -> list[str]:
        """Name what has changed since, but for the mutations."""
        return [
            f"a reader changed {name} on {node}"
            for node, tables in self._stores.items()
            for name, storage in tables.items()
            if storage.partitions != self._unread[node][name].partitions
        ]

    def _copied(self) -> dict[Node, dict[str, TableStorage]]:
        return {node: {name: held.copied() for name, held in of.items()} for node, of in self._stores.items()}

    # The port.

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def locality(self, node: Node) -> Locality:
        return self._localities[node]

    @property
    def traces(self) -> TracesLeft:
        return TracesLeft()

    async def guardrails(self, table: Table) -> Mapping[Node, Guardrails]:
        """What was set for the nodes."""
        return dict(self.guarded)

    async def write_timeout_s(self) -> float | None:
        """What is not told is the default."""
        return None

    async def sees_masked(self, table: Table) -> bool:
        """Nothing is masked here."""
        return True

    def rings(self, ring: Ring) -> None:
        """Have this ring from now on."""
        self._ring = ring

    def readdress(self, *hosts: str) -> None:
        """Have these nodes answer elsewhere from now on."""
        self._ring = readdressed(self._ring, hosts)

    async def ring(self) -> Ring:
        return self._ring

    async def ring_now(self) -> Ring:
        self.described_at.append(self._loop.now)
        await asyncio.sleep(0.001)
        return self.ring_later() if self.ring_later else self._ring

    async def schema(self) -> dict[str, Keyspace]:
        await asyncio.sleep(0.001)
        return self.change_schema(dict(self._schema)) if self.change_schema else dict(self._schema)

    async def schema_again(self) -> dict[str, Keyspace]:
        return await self.schema()

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        await self._serve(node, table, scans=True)
        now_s = EPOCH_S + int(self._loop.now)
        return sum(1 for _ in self._visible(node, table, token_range, now_s))

    async def digest(
        self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> Digest:
        digest = await self._digest(node, reading, route, token_range, now_s)
        return replace(digest, newest_us=self._newest(node, reading, token_range, now_s)) if newest else digest

    def _newest(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> int | None:
        """Return the newest write time that the reading shows of any cell in the range."""
        shown = {c.column.name for c in reading.statics + reading.regulars if c.writetime}
        rows = (row for seen, _ in self._seen(node, reading, token_range, now_s) for row in seen if row is not None)
        times = (c.ts for row in rows for name, cells in row.cells.items() if name in shown for c in cells.values())
        return max(times, default=None)

    async def _digest(self, node: Node, reading: Reading, route: Route, token_range: TokenRange, now_s: int) -> Digest:
        if route is Route.CLIENT:
            state, rows = xxhash.xxh3_128(), 0
            async for page in self.rows(node, reading, token_range, now_s):
                for raw in page:
                    state.update(_framed(raw))
                rows += len(page)
            self.digested.add((node, reading.table.name, token_range))
            return Digest(rows, state.digest())
        disturbed = await self._serve(node, reading.table, scans=True)
        raws = [self._raw(reading, seen, now) for seen, now in self._seen(node, reading, token_range, now_s)]
        digest = server_digest(reading, raws)
        self.digested.add((node, reading.table.name, token_range))
        return Digest(digest.rows, bytes(len(digest.value))) if disturbed else digest

    async def rows(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        after: tuple[int, bytes, bool, tuple[object, ...]] | None = None
        while True:
            await self._serve(node, reading.table, scans=True)
            size = self._rng[node].randint(1, self._pace.page_rows)
            page, after = self._page(node, reading, token_range, now_s, after, size)
            if page:
                yield page
            if after is None:
                return

    def packed_rows(self, node: Node, reading: Reading, token_range: TokenRange, now_s: int) -> PackedPages:
        return all_packed(self.rows(node, reading, token_range, now_s))

    def row_hashes(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        return self._row_hashes(node, reading, token_range, now_s)

    async def _row_hashes(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        after: tuple[int, bytes, bool, tuple[object, ...]] | None = None
        while True:
            disturbed = await self._serve(node, reading.table, scans=True)
            size = self._rng[node].randint(1, self._pace.page_rows)
            page, after = self._page(node, reading, token_range, now_s, after, size)
            if page:
                yield [(*raw[: reading.layout.key.stop], b"" if disturbed else row_hash(reading, raw)) for raw in page]
            if after is None:
                break
        self.digested.add((node, reading.table.name, token_range))

    async def row_hashes_of(
        self, node: Node, reading: Reading, partitions: Sequence[Key], now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        for key in partitions:
            token = token_of(key)
            async for page in self._row_hashes(node, reading, TokenRange(token - 1, token), now_s):
                if mine := [raw for raw in page if raw[reading.layout.partition] == key]:
                    yield mine

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
        disturbed = await self._serve(node, reading.table, scans=True)
        raws = [self._raw(reading, seen, now) for seen, now in self._seen(node, reading, token_range, now_s)]
        if most is None or len(raws) <= most:
            self.digested.add((node, reading.table.name, token_range))
        raws = raws[: None if most is None else most + 1]
        asked = HashedColumns.of(reading, shown)
        page = hashed_columns(reading, raws, asked)
        rows = hashed_rows(page, asked) if raws else HashedRows.none(len(asked.written))
        if not disturbed:
            return rows
        # Two queries that share a MessageDigest get hashes that nobody will see again.
        noise = [self._rng[node].getrandbits(64) for _ in range(rows.hashes.size)]
        return replace(rows, hashes=np.array(noise, np.uint64).reshape(rows.hashes.shape))

    async def partition_digests(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int, *, newest: bool = False
    ) -> AsyncGenerator[list[RawRow], None]:
        waiting = list(self.store(node, reading.table).between(token_range.start, token_range.end))
        while True:
            disturbed = await self._serve(node, reading.table, scans=True)
            size = self._rng[node].randint(1, self._pace.page_rows)
            page, waiting = waiting[:size], waiting[size:]
            digests = [self._partition_digest(node, reading, token, key, now_s) for token, _, key in page]
            found = [(*digest[:-1], b"") if disturbed else digest for digest in digests if digest]
            if found and newest:
                found = [(*row, self._newest_cell(node, reading, row[0] or b"", now_s)) for row in found]
            if found:
                yield found
            if not waiting:
                break
        self.digested.add((node, reading.table.name, token_range))

    def _newest_cell(self, node: Node, reading: Reading, token: bytes, now_s: int) -> bytes | None:
        at = int.from_bytes(token, "big", signed=True)
        newest_us = self._newest(node, reading, TokenRange(at - 1, at), now_s)
        return None if newest_us is None else long_bytes(newest_us)

    def _partition_digest(self, node: Node, reading: Reading, token: int, key: Key, now_s: int) -> RawRow | None:
        seen = list(self._seen(node, reading, TokenRange(token - 1, token), now_s))
        raws = [raw for raw in (self._raw(reading, *each) for each in seen) if raw[reading.layout.partition] == key]
        digest = server_digest(reading, raws)
        return (long_bytes(token), *key, long_bytes(digest.rows), digest.value) if raws else None

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        if self.locality(node) is Locality.TRACED:
            return await self._by_token.row(node, reading, key, now_s)
        await self._serve(node, reading.table)
        return self._row(node, reading, key, now_s)

    async def rows_by_key(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        if self.locality(node) is Locality.TRACED:
            return await self._by_token.rows(node, reading, keys, now_s)
        await self._serve(node, reading.table)
        found = ((key, self._row(node, reading, key, now_s)) for key in keys)
        return {key: row for key, row in found if row is not None}

    def _row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        split = len(reading.table.partition_key)
        now = self._now(node, reading, now_s)
        seen = self.store(node, reading.table).visible_row(key[:split], key[split:], now)
        return None if seen is None else self._raw(reading, (seen, self._static(node, reading, seen.key, now)), now)

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        if self.locality(node) is Locality.TRACED:
            return await self._by_token.static_row(node, reading, key, now_s)
        await self._serve(node, reading.table)
        return self._static_row(node, reading, key, now_s)

    def _static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        now = self._now(node, reading, now_s)
        store = self.store(node, reading.table)
        static = store.visible_static(key, now)
        if static is None and not store.visible_rows(key, now):
            return None
        return (long_bytes(token_of(key)), *key, *_cells(reading.statics, static.cells if static else {}, now))

    async def traced_partition(
        self, node: Node, reading: Reading, partition: Key, now_s: int
    ) -> TracedPartition | None:
        await self._serve(node, reading.table)
        token, now = token_of(partition), self._now(node, reading, now_s)
        raws = [
            self._raw(reading, seen, at) for seen, at in self._seen(node, reading, TokenRange(token - 1, token), now_s)
        ]
        rows = tuple(raw for raw in raws if raw[reading.layout.partition] == partition)
        clock_us = int((EPOCH_S + self._loop.now + self.skew_s.get(node, 0.0)) * 1e6)
        purged_us = clock_us - reading.table.gc_grace_seconds * 1_000_000
        return TracedPartition(rows, self.store(node, reading.table).tombstones(partition, now, purged_us))

    # Statements that ask for rows where a trace proves the answer.

    async def _asked(
        self, node: Node, reading: Reading, text: str, values: Key, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Answer a statement as a coordinator at LOCAL_ONE does: what names a partition may be speculated."""
        at = _AT_TOKEN.search(text)
        if at is not None and not values and "DISTINCT" not in text:
            async for page in self.rows(node, reading, TokenRange(int(at[1]) - 1, int(at[1])), now_s):
                yield page
            return
        await self._serve(node, reading.table)
        width = len(reading.table.partition_key)
        partitions = [values[:width]]
        if at is None:
            self._speculated(node, reading.table, values[:width], values[width:] if "DISTINCT" not in text else None)
        else:
            values = (*(b"" for _ in range(width)), *values)
            partitions = [key for _, _, key in self.store(node, reading.table).between(int(at[1]) - 1, int(at[1]))]
        one = self._static_row if "DISTINCT" in text else self._row
        found = (one(node, reading, (*key, *values[width:]), now_s) for key in partitions)
        yield [raw for raw in found if raw is not None]

    def _speculated(self, node: Node, table: Table, key: Key, clustering: Key | None) -> None:
        """Ask another replica too, now and then: where the two differ they are made to agree before the answer."""
        rng = self._rng[node]
        if table.read_repair != "BLOCKING" or rng.random() < 0.5:
            return
        both = (self.store(node, table), self.store(rng.choice(self.replicas(table, key)), table))
        for one, other in (both, both[::-1]):
            merge_row(one, other, key, clustering)

    # How it is done.

    async def _serve(self, node: Node, table: Table, *, scans: bool = False) -> bool:
        """Take the time an answer takes, or raise what a faulty node raises; return whether a digest is disturbed."""
        self.asked[node] += 1
        rng, now = self._rng[node], self._loop.now
        delay = self._pace.latency_s + rng.random() * self._pace.jitter_s
        disturbed = False
        for fault in self._faults:
            if fault.node != node or not fault.start_s <= now < fault.end_s or rng.random() >= fault.rate:
                continue
            if fault.trouble is Trouble.TOO_MUCH and not scans:
                continue
            self.hit[fault.trouble] += 1
            if fault.trouble is Trouble.SLOW:
                delay *= 200
            elif fault.trouble is Trouble.DISTURBED:
                disturbed = True
            else:
                await asyncio.sleep(5.0 + rng.random() if fault.trouble is Trouble.TIMEOUT else delay)
                msg = f"{node}: {fault.trouble.value}"
                raise _ERRORS[fault.trouble](msg)
        await asyncio.sleep(delay)
        if self.change_schema and table.name not in self.change_schema(dict(self._schema))[table.keyspace].tables:
            msg = f"{node}: unconfigured table {table.name}"
            raise ReplicaRefused(msg)
        return disturbed

    def _now(self, node: Node, reading: Reading, now_s: int) -> int:
        """Return the instant that TTLs are judged at: ours where the server takes it, else by the server's clock."""
        if reading.capabilities.timed:
            return now_s
        return EPOCH_S + int(self._loop.now + self.skew_s.get(node, 0.0))

    def _visible(
        self, node: Node, table: Table, token_range: TokenRange, now_s: int, start: tuple[int, bytes] | None = None
    ) -> Iterator[tuple[int, bytes, Visible]]:
        """Yield live rows in ring order; a partition with live static cells and no row yields its static row."""
        store = self.store(node, table)
        for token, raw_key, key in store.between(token_range.start, token_range.end):
            if start is not None and (token, raw_key) < start:
                continue
            rows = store.visible_rows(key, now_s)
            if not rows and (static := store.visible_static(key, now_s)) is not None:
                rows = [static]
            for row in rows:
                yield token, raw_key, row

    def _seen(
        self, node: Node, reading: Reading, token_range: TokenRange, now_s: int
    ) -> Iterator[tuple[tuple[Visible, Visible | None], int]]:
        now = self._now(node, reading, now_s)
        for _, _, row in self._visible(node, reading.table, token_range, now):
            yield (row, self._static(node, reading, row.key, now)), now

    def _static(self, node: Node, reading: Reading, key: Key, now_s: int) -> Visible | None:
        return self.store(node, reading.table).visible_static(key, now_s) if reading.statics else None

    def _page(
        self,
        node: Node,
        reading: Reading,
        token_range: TokenRange,
        now_s: int,
        after: tuple[int, bytes, bool, tuple[object, ...]] | None,
        size: int,
    ) -> tuple[list[RawRow], tuple[int, bytes, bool, tuple[object, ...]] | None]:
        """Return the rows after a place, as they are now, and the place to go on from; None at the end."""
        now = self._now(node, reading, now_s)
        order = self.store(node, reading.table).order
        page: list[RawRow] = []
        last = after
        for token, raw_key, row in self._visible(node, reading.table, token_range, now, after[:2] if after else None):
            place = (token, raw_key, row.clustering is not None, order(row.clustering or ()))
            if after is not None and not after < place:
                continue
            if len(page) == size:
                return page, last
            page.append(self._raw(reading, (row, self._static(node, reading, row.key, now)), now))
            last = place
        return page, None

    def _raw(self, reading: Reading, seen: tuple[Visible, Visible | None], now_s: int) -> RawRow:
        row, static = seen
        clustering: Sequence[bytes | None] = (
            row.clustering if row.clustering is not None else [None] * len(reading.table.clustering)
        )
        return (
            long_bytes(token_of(row.key)),
            *row.key,
            *clustering,
            *_cells(reading.statics, static.cells if static else {}, now_s),
            *_cells(reading.regulars, row.cells if row.clustering is not None else {}, now_s),
        )


def _cells(columns: Sequence[CellColumn], held: Mapping[str, dict[Path, Stored]], now_s: int) -> list[bytes | None]:
    out: list[bytes | None] = []
    for column in columns:
        cells = held.get(column.column.name, {})
        if column.column.type.is_multicell:
            out.extend(_collection(column, cells, now_s))
        else:
            out.extend(_simple(column, cells.get(None), now_s))
    return out


def _simple(column: CellColumn, cell: Stored | None, now_s: int) -> Iterator[bytes | None]:
    if column.value:
        yield cell.value if cell else None
    if column.writetime:
        yield long_bytes(cell.ts) if cell else None
    if column.ttl:
        yield int_bytes(cell.expires - now_s) if cell and cell.expires is not None else None


def _collection(column: CellColumn, cells: dict[Path, Stored], now_s: int) -> Iterator[bytes | None]:
    """Yield a collection's value, write times and TTLs, in the order of its elements."""
    paths = sorted(cells, key=path_order(column.column))
    held = [cells[path] for path in paths]
    if column.value:
        yield _collection_value(column.column, paths, held) if held else None
    if column.writetime:
        yield sized([long_bytes(cell.ts) for cell in held]) if held else None
    if column.ttl:
        ttls = [None if cell.expires is None else int_bytes(cell.expires - now_s) for cell in held]
        yield sized(ttls) if held else None


def path_order(column: Column) -> Callable[[Path], object]:
    """Return the order of a collection's elements by path."""
    if column.type.name == "list":
        return lambda path: path
    order = SCALARS[column.type.args[0].name].order
    return lambda path: order(path or b"")


def _collection_value(column: Column, paths: Sequence[Path], cells: Sequence[Stored]) -> bytes:
    kind = column.type.name
    if kind == "set":
        return sized(paths)
    if kind == "list":
        return sized([cell.value for cell in cells])
    pairs = [part for path, cell in zip(paths, cells, strict=True) for part in (path, cell.value)]
    return int_bytes(len(cells)) + sized(pairs)[4:]


def _framed(raw: RawRow) -> bytes:
    return sized(raw)
