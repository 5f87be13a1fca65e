"""The simulated servers as the repairer writes to them: its statements, merging reads, and compaction."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from consistency.cluster.guardrails import NO_GUARDRAILS
from consistency.cluster.wire import ALL, QUORUM
from consistency.errors import (
    ReplicaError,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooFewReplicas,
)
from consistency.model.cqlbytes import split_map, split_sequence, split_tuple
from consistency.model.ring import Node
from consistency.model.schema import Column, Table
from consistency.model.tokens import MIN_TOKEN, TokenRange
from repair.writing.statements import Write as Statement
from tests.simulation.memory import Fault, SimCluster, Trouble
from tests.simulation.storage import NEVER, Delete, Key, Place, TableStorage, Write, merge_partition, merge_row
from tests.simulation.vclock import VirtualLoop

_UPDATE = re.compile(r"UPDATE (\S+) USING TIMESTAMP \? AND TTL \? SET (.*) WHERE ")
_ADDED = re.compile(r"(\S+) = (\S+) \+ \?")
_BATCH = ("BEGIN UNLOGGED BATCH ", "APPLY BATCH")
_INSERT = re.compile(r"INSERT INTO (\S+) \((.*?)\) VALUES")
_DELETE = re.compile(r"DELETE (?:(\S+?)(\[\?\])? )?FROM (\S+) USING TIMESTAMP \? WHERE ")
_RANGE = re.compile(r"WHERE (?:token\([^)]*\) > (-?\d+) AND )?token\([^)]*\) <= (-?\d+)$")
_AT_TOKEN = re.compile(r"WHERE (?:token\([^)]*\) > (-?\d+) AND )?token\([^)]*\) <= (-?\d+) AND .* ALLOW FILTERING$")
_SELECT = re.compile(r"SELECT .* FROM (\S+) WHERE ")


def _long(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", "big", signed=True)


class Trick(str, Enum):
    """How a server fails a request, and what it did of it."""

    FORBIDDEN = "forbidden"
    """Refused before anything was done."""
    UNAVAILABLE = "too few replicas"
    """Not begun, as the server knew too few replicas to be alive."""
    OVERLOADED = "overloaded"
    """Nothing done, which cannot be told."""
    TIMEOUT = "timeout"
    """Done on some of the replicas, no answer."""
    LOST = "connection lost"
    """Done on all of them, no answer."""


_TRICKS: dict[Trick, type[ReplicaError]] = {
    Trick.FORBIDDEN: ReplicaRefused,
    Trick.OVERLOADED: ReplicaOverloaded,
    Trick.TIMEOUT: ReplicaTimeout,
    Trick.LOST: ReplicaUnavailable,
}


@dataclass(frozen=True, slots=True)
class Refusals:
    """Which of the repairer's requests are failed: those of these numbers, a share of all, every delete."""

    at: frozenset[int] = frozenset()
    rate: float = 0.0
    deletes: bool = False
    trick: Trick | None = None
    """How; None: drawn for each."""


class SimWriter:
    """The port `RowWriter` on simulated storage. What was sent is done, also if the sender dies meanwhile."""

    def __init__(
        self,
        cluster: SimCluster,
        loop: VirtualLoop,
        table: Table,
        faults: tuple[Fault, ...],
        refusals: Refusals | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._cluster = cluster
        self._loop = loop
        self._table = table
        self._faults = [fault for fault in faults if fault.trouble is Trouble.DOWN]
        self.refusals = refusals or Refusals()
        self._rng = rng or random.Random(0)
        self._asked = 0
        self.failed = 0
        self.ranges_read: list[TokenRange] = []
        self.truncations_us: dict[str, int] = {}

    async def schema_versions(self, nodes: tuple[Node, ...]) -> set[str]:
        return {"one"}

    async def truncated_us(self, nodes: tuple[Node, ...], table_id: str) -> int | None:
        return self.truncations_us.get(table_id)

    async def on(self, node: Node, write: Statement) -> None:
        await _to_its_end(self._on(node, write))

    async def through(self, node: Node, write: Statement, *, at_all: bool) -> None:
        await _to_its_end(self._through(node, write, at_all=at_all))

    async def at(self, node: Node, write: Statement, level: int) -> None:
        await _to_its_end(self._through(node, write, at_all=level == ALL))

    def _trick(self, write: Statement) -> Trick | None:
        """Say how this request is failed, if it is."""
        self._asked += 1
        by_chance = self._asked in self.refusals.at or self._rng.random() < self.refusals.rate
        is_delete = write.cql.removeprefix(_BATCH[0]).startswith("DELETE")
        if not by_chance and not (self.refusals.deletes and is_delete):
            return None
        self.failed += 1
        return self.refusals.trick or self._rng.choice(list(Trick))

    def _reached(self, trick: Trick | None, nodes: list[Node]) -> list[Node]:
        """Return the replicas that do what is asked for."""
        if trick is Trick.TIMEOUT:
            return self._rng.sample(nodes, self._rng.randint(0, len(nodes)))
        return nodes if trick in (None, Trick.LOST) else []

    @staticmethod
    def _answer(node: Node, trick: Trick | None) -> None:
        said = f"{node}: {trick.value}" if trick else ""
        if trick is Trick.UNAVAILABLE:
            raise TooFewReplicas(said, 1)
        if trick is not None:
            raise _TRICKS[trick](said)

    async def _on(self, node: Node, write: Statement) -> None:
        await asyncio.sleep(0.001)
        if self._is_down(node):
            msg = f"{node}: down"
            raise ReplicaUnavailable(msg)
        trick = self._trick(write)
        for reached in self._reached(trick, [node]):
            for mutation in self._mutations(write):
                mutation.apply(self._cluster.store(reached, self._table))
        self._answer(node, trick)

    def _is_down(self, node: Node) -> bool:
        return any(f.node == node and f.start_s <= self._loop.now < f.end_s for f in self._faults)

    async def _through(self, node: Node, write: Statement, *, at_all: bool) -> None:
        await asyncio.sleep(0.001)
        table = self._table
        self._guard(node, write, ALL if at_all else QUORUM)
        if not _SELECT.match(write.cql):
            trick = self._trick(write)
            for mutation in self._mutations(write):
                owners = self._cluster.replicas(table, mutation.key)
                up = [owner for owner in owners if not self._is_down(owner)]
                self._require(node, up, owners, at_all=at_all)
            # The statements of a batch are of one partition, which makes them one mutation.
            for owner in self._reached(trick, up):
                for mutation in self._mutations(write):
                    self._cluster.apply(table, mutation, [owner])
            self._answer(node, trick)
            return
        if found := _RANGE.search(write.cql):
            self._merge_range(node, int(found[1] or MIN_TOKEN), int(found[2]), at_all=at_all)
            return
        static = " IN ()" in write.cql
        trick = self._trick(write)
        if trick is Trick.FORBIDDEN:
            self._answer(node, trick)
        found = _AT_TOKEN.search(write.cql)
        for key in self._rows_at(found, write) if found else _rows_named(table, write):
            self._merge(node, key, trick, static=static, at_all=at_all, by_digest=not found)
        self._answer(node, trick)

    def _merge_range(self, node: Node, after: int, until: int, *, at_all: bool) -> None:
        """Read all rows of a range at their replicas, page by page: what fails may fail after some of the pages."""
        self.ranges_read.append(TokenRange(after, until))
        places = sorted({place for n in self._cluster.ring_before.nodes for place in self._between(n, after, until)})
        trick = self._trick(Statement("SELECT", ()))
        if trick is Trick.FORBIDDEN:
            self._answer(node, trick)
        if trick in (Trick.TIMEOUT, Trick.UNAVAILABLE, Trick.OVERLOADED):
            places = places[: self._rng.randint(0, len(places))]
        for _, _, key in places:
            owners = self._cluster.replicas(self._table, key)
            up = [owner for owner in owners if not self._is_down(owner)]
            self._require(node, up, owners, at_all=at_all)
            if self._table.read_repair != "BLOCKING":
                continue
            merged = TableStorage(self._table)
            for owner in up:
                merge_partition(self._cluster.store(owner, self._table), merged, key)
            for owner in self._reached(trick, up) if trick is Trick.TIMEOUT else up:
                merge_partition(merged, self._cluster.store(owner, self._table), key)
        self._answer(node, trick)

    def _between(self, node: Node, after: int, until: int) -> list[Place]:
        return list(self._cluster.store(node, self._table).between(after, until))

    def _guard(self, node: Node, write: Statement, level: int) -> None:
        """Refuse what a guardrail forbids: of the write times only that of a single statement is looked at."""
        rails = self._cluster.guarded.get(node, NO_GUARDRAILS)
        read = _SELECT.match(write.cql) is not None
        refused = (rails.reads if read else rails.writes).get(level, "")
        if not read and not write.cql.startswith(_BATCH[0]):
            refused = refused or rails.forbids_times([m.ts for m in self._mutations(write)])
        if refused:
            raise ReplicaRefused(refused)

    def _rows_at(self, found: re.Match[str], write: Statement) -> list[Key]:
        """Return the rows of one clustering key in all partitions of a range."""
        after, until = int(found[1] or MIN_TOKEN), int(found[2])
        places = {place for n in self._cluster.ring_before.nodes for place in self._between(n, after, until)}
        return [(*key, *(part or b"" for part in write.values)) for _, _, key in places]

    def _merge(self, node: Node, key: Key, trick: Trick | None, *, static: bool, at_all: bool, by_digest: bool) -> None:
        """Read one row at its replicas, which merges it on them; not where it is by digests, and these are alike."""
        table, split = self._table, len(self._table.partition_key)
        owners = self._cluster.replicas(table, key[:split])
        up = [owner for owner in owners if not self._is_down(owner)]
        self._require(node, up, owners, at_all=at_all)
        if table.read_repair != "BLOCKING":
            return
        clustering = None if static else key[split:]
        if by_digest and len({self._cluster.store(n, table).row_digest(key[:split], clustering) for n in up}) == 1:
            return
        merged = TableStorage(table)
        for owner in up:
            merge_row(self._cluster.store(owner, table), merged, key[:split], clustering)
        for owner in self._reached(trick, up):
            merge_row(merged, self._cluster.store(owner, table), key[:split], clustering)

    @staticmethod
    def _require(node: Node, up: list[Node], owners: tuple[Node, ...], *, at_all: bool) -> None:
        if len(up) < (len(owners) if at_all else len(owners) // 2 + 1):
            msg = f"{node}: too few replicas"
            raise ReplicaUnavailable(msg)

    def _mutations(self, write: Statement) -> list[Write | Delete]:
        if not write.cql.startswith(_BATCH[0]):
            return [self._mutation(write)]
        texts = write.cql.removeprefix(_BATCH[0]).removesuffix(_BATCH[1]).split("; ")[:-1]
        found, at = [], 0
        for text in texts:
            count = text.count("?")
            found.append(self._mutation(replace(write, cql=text, values=write.values[at : at + count])))
            at += count
        return found

    def _mutation(self, write: Statement) -> Write | Delete:
        if found := _INSERT.match(write.cql):
            return self._insert(found[2].split(", "), list(write.values), write.now_s or 0)
        if found := _UPDATE.match(write.cql):
            return self._update(found[2].split(", "), list(write.values), write.now_s or 0)
        return self._delete(write)

    def _insert(self, names: list[str], values: list[bytes | None], now_s: int) -> Write:
        ts, ttl = _long(values[-2]), _long(values[-1])
        keys = len(self._table.primary_key)
        key, clustering = self._key(self._table, values[:keys])
        cells, replaced = self._assigned(zip(names[keys:], values[keys:-2], strict=True), ts)
        return Write(key, clustering, ts, cells, replaced, now_s + ttl if ttl else None, insert=True)

    def _update(self, assignments: Sequence[str], values: list[bytes | None], now_s: int) -> Write:
        ts, ttl = _long(values[0]), _long(values[1])
        given = values[2 : 2 + len(assignments)]
        cells: list[tuple[str, bytes | None, bytes | None]] = []
        replaced: list[str] = []
        for text, value in zip(assignments, given, strict=True):
            if added := _ADDED.fullmatch(text):
                cells += [(added[1], path, part) for path, part in _elements(self._column(added[1]), value, ts)]
            else:
                some, whole = self._assigned([(text.removesuffix(" = ?"), value)], ts)
                cells += some
                replaced += whole
        key, clustering = self._key(self._table, values[2 + len(assignments) :])
        return Write(key, clustering, ts, tuple(cells), tuple(replaced), now_s + ttl if ttl else None)

    def _assigned(
        self, given: Iterable[tuple[str, bytes | None]], ts: int
    ) -> tuple[tuple[tuple[str, bytes | None, bytes | None], ...], tuple[str, ...]]:
        cells: list[tuple[str, bytes | None, bytes | None]] = []
        replaced = []
        for name, value in given:
            column = self._column(name)
            if column.type.is_multicell:
                replaced.append(name)
                cells += [(name, path, part) for path, part in _elements(column, value, ts)]
            else:
                cells.append((name, None, value))
        return tuple(cells), tuple(replaced)

    def _column(self, quoted: str) -> Column:
        return next(c for c in self._table.columns if c.quoted == quoted)

    def _delete(self, write: Statement) -> Write | Delete:
        values = list(write.values)
        found = _DELETE.match(write.cql)
        assert found, write.cql
        path = values.pop(0) if found[2] else None
        ts = _long(values.pop(0))
        key, clustering = self._key(self._table, values)
        if not found[1]:
            return Delete(key, ts, clustering, clustering)
        if path is None and self._column(found[1]).type.is_multicell:
            return Write(key, clustering, ts + 1, (), (found[1],))
        return Write(key, clustering, ts, ((found[1], path, None),))

    @staticmethod
    def _key(table: Table, values: list[bytes | None]) -> tuple[Key, Key | None]:
        key = tuple(part or b"" for part in values)
        split = len(table.partition_key)
        static = bool(table.clustering) and len(key) == split
        return key[:split], None if static else key[split:]


async def _to_its_end(request: Coroutine[Any, Any, None]) -> None:
    """Wait for a request that goes on where its sender dies."""
    task = asyncio.ensure_future(request)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.shield(task)


def _rows_named(table: Table, write: Statement) -> list[Key]:
    """Return the rows that a read names: one, those of one partition, or of one clustering key in several."""
    key = tuple(part or b"" for part in write.values)
    width = len(table.partition_key)
    if f"{table.partition_key[-1].quoted} IN ?" in write.cql:
        return [(*key[: width - 1], last or b"", *key[width:]) for last in split_sequence(key[width - 1])]
    if " IN ?" in write.cql:
        several = len(table.clustering) > 1
        found = [part or b"" for part in split_sequence(key[width])]
        rows = [
            tuple(c or b"" for c in split_tuple(row, len(table.clustering))) if several else (row,) for row in found
        ]
        return [(*key[:width], *row) for row in rows]
    return [key]


def _elements(column: Column, value: bytes | None, ts: int) -> list[tuple[bytes, bytes]]:
    if value is None:
        return []
    if column.type.name == "map":
        parts = [part or b"" for part in split_map(value)]
        return list(zip(parts[::2], parts[1::2], strict=True))
    items = [item or b"" for item in split_sequence(value)]
    if column.type.name == "set":
        return [(item, b"") for item in items]
    return [(ts.to_bytes(8, "big") + n.to_bytes(8, "big"), item) for n, item in enumerate(items)]


def collect_garbage(storage: TableStorage, before_us: int) -> None:
    """Compact: drop what deletions cover, then the deletions that are older than gc_grace."""
    for key, partition in storage.partitions.items():
        for row in [partition.static, *partition.rows.values()]:
            covered = max(partition.deleted_at(row) if row is not partition.static else partition.deleted, row.deleted)
            for (name, path), cell in list(row.cells.items()):
                reach = max(covered, row.complex_deleted.get(name, covered) if path is not None else covered)
                if cell.ts <= reach or (cell.value is None and cell.ts < before_us):
                    del row.cells[name, path]
            if row.liveness is not None and row.liveness.ts <= covered:
                row.liveness = None
            row.complex_deleted = {n: ts for n, ts in row.complex_deleted.items() if ts >= before_us}
            row.deleted = row.deleted if row.deleted >= before_us else NEVER
        partition.deleted = partition.deleted if partition.deleted >= before_us else NEVER
        partition.ranges = [r for r in partition.ranges if r.ts >= before_us]
        assert key == partition.key
