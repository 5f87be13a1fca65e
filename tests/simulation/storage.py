"""What one node holds, with Cassandra's semantics: cells, liveness, TTLs, and tombstones of every reach.

Mutations commute: replicas that got the same ones in any order hold the same. What is deleted is kept as a
tombstone, which CQL does not show. Source of the rules: Cells.reconcile, Row.Merger, DeletionTime.deletes.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cassandra.metadata import Murmur3Token

from consistency.model.schema import Table
from tests.simulation.values import clustering_order

NEVER = -(2**63)
"""The time of a deletion that did not happen."""

Key = tuple[bytes, ...]
Path = bytes | None
CellName = tuple[str, Path]


@dataclass(frozen=True, slots=True)
class Stored:
    """One cell: its write time in µs, its value (None is a tombstone), its expiry in s since the epoch."""

    ts: int
    value: bytes | None
    expires: int | None = None

    def live(self, now_s: int) -> bool:
        """Whether a read at `now_s` shows it, deletions of the row aside."""
        return self.value is not None and (self.expires is None or now_s < self.expires)


def winner(left: Stored, right: Stored) -> Stored:
    """Return the cell that Cassandra keeps of two versions."""

    def rank(cell: Stored) -> tuple[Any, ...]:
        special = cell.value is None or cell.expires is not None
        return cell.ts, special, cell.value is None, cell.expires or 0, cell.value or b""

    return left if rank(left) >= rank(right) else right


@dataclass(slots=True)
class Row:
    """One row, or a partition's static row."""

    order: tuple[Any, ...] = ()
    liveness: Stored | None = None
    deleted: int = NEVER
    cells: dict[CellName, Stored] = field(default_factory=dict)
    complex_deleted: dict[str, int] = field(default_factory=dict)

    def put(self, name: CellName, cell: Stored) -> None:
        """Merge one cell in."""
        held = self.cells.get(name)
        self.cells[name] = cell if held is None else winner(held, cell)

    def put_liveness(self, cell: Stored) -> None:
        """Merge the mark that an INSERT leaves."""
        self.liveness = cell if self.liveness is None else winner(self.liveness, cell)

    def live_cells(self, deleted: int, now_s: int) -> dict[str, dict[Path, Stored]]:
        """Return what a read shows: by column, then by path; `deleted` is the newest deletion from above."""
        found: dict[str, dict[Path, Stored]] = {}
        for (name, path), cell in self.cells.items():
            newest = max(deleted, self.deleted, self.complex_deleted.get(name, NEVER) if path is not None else NEVER)
            if cell.ts > newest and cell.live(now_s):
                found.setdefault(name, {})[path] = cell
        return found

    def is_live(self, deleted: int, now_s: int) -> bool:
        """Whether the row has a live mark of its own, apart from its cells."""
        mark = self.liveness
        return mark is not None and mark.ts > max(deleted, self.deleted) and mark.live(now_s)

    def copied(self) -> Row:
        """Return a row of its own."""
        return replace(self, cells=dict(self.cells), complex_deleted=dict(self.complex_deleted))


@dataclass(frozen=True, slots=True)
class RangeTombstone:
    """A deletion of the rows from `low` to `high`, both included, in the server's order."""

    low: tuple[Any, ...]
    high: tuple[Any, ...]
    ts: int


@dataclass(slots=True)
class Partition:
    """One partition on one node."""

    key: Key
    deleted: int = NEVER
    static: Row = field(default_factory=Row)
    rows: dict[Key, Row] = field(default_factory=dict)
    ranges: list[RangeTombstone] = field(default_factory=list)

    def deleted_at(self, row: Row) -> int:
        """Return the newest deletion that covers the row from above."""
        return max([self.deleted, *(r.ts for r in self.ranges if not (row.order < r.low or r.high < row.order))])

    def copied(self) -> Partition:
        """Return a partition of its own."""
        rows = {clustering: row.copied() for clustering, row in self.rows.items()}
        return replace(self, static=self.static.copied(), rows=rows, ranges=list(self.ranges))


@dataclass(frozen=True, slots=True)
class Visible:
    """One row as a read shows it: live cells by column and path; `clustering` is None for the static row."""

    key: Key
    clustering: Key | None
    cells: dict[str, dict[Path, Stored]]


def token_of(key: Sequence[bytes]) -> int:
    """Return the Murmur3 token of a partition key."""
    return int(Murmur3Token.hash_fn(partition_bytes(key)))


def partition_bytes(key: Sequence[bytes]) -> bytes:
    """Serialize a partition key as the server does before it hashes it."""
    if len(key) == 1:
        return key[0]
    return b"".join(len(part).to_bytes(2, "big") + part + b"\0" for part in key)


Place = tuple[int, bytes, Key]


class TableStorage:
    """One table on one node."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.order: Callable[[Sequence[bytes]], tuple[Any, ...]] = clustering_order(table)
        self.partitions: dict[Key, Partition] = {}
        self.places: list[Place] = []

    def copied(self) -> TableStorage:
        """Return what it holds now, for later."""
        copy = TableStorage(self.table)
        copy.partitions = {key: partition.copied() for key, partition in self.partitions.items()}
        copy.places = list(self.places)
        return copy

    def partition(self, key: Key) -> Partition:
        """Return a partition, made where it was not there."""
        if key not in self.partitions:
            self.partitions[key] = Partition(key)
            bisect.insort(self.places, (token_of(key), partition_bytes(key), key))
        return self.partitions[key]

    def row(self, key: Key, clustering: Key) -> Row:
        """Return a row, made where it was not there."""
        rows = self.partition(key).rows
        if clustering not in rows:
            rows[clustering] = Row(self.order(clustering))
        return rows[clustering]

    def between(self, after: int, until: int) -> Iterator[Place]:
        """Yield the partitions of the tokens in `(after, until]` in ring order."""
        at = bisect.bisect_right(self.places, after, key=lambda place: place[0])
        while at < len(self.places) and self.places[at][0] <= until:
            yield self.places[at]
            at += 1

    def visible_static(self, key: Key, now_s: int) -> Visible | None:
        """Return the static row of a partition as a read shows it, None where no static cell lives."""
        partition = self.partitions.get(key)
        if partition is None:
            return None
        cells = partition.static.live_cells(partition.deleted, now_s)
        return Visible(key, None, cells) if cells else None

    def visible_row(self, key: Key, clustering: Key, now_s: int) -> Visible | None:
        """Return one row as a read shows it."""
        partition = self.partitions.get(key)
        row = partition.rows.get(clustering) if partition else None
        if partition is None or row is None:
            return None
        deleted = partition.deleted_at(row)
        cells = row.live_cells(deleted, now_s)
        return Visible(key, clustering, cells) if cells or row.is_live(deleted, now_s) else None

    def row_digest(self, key: Key, clustering: Key | None) -> Hashable:
        """Return what a digest tells of one row and its deletions: how long a cell was to live, not until when.

        Every cell is as if it had been written with the same TTL. Of the mark of an INSERT it tells the expiry.
        """
        partition = self.partitions.get(key)
        if partition is None:
            return None
        row = partition.static if clustering is None else partition.rows.get(clustering)
        if row is None:
            return partition.deleted, tuple(partition.ranges)
        above = partition.deleted if clustering is None else partition.deleted_at(row)
        cells = {(name, cell.ts, cell.value, cell.expires is not None) for name, cell in row.cells.items()}
        return above, row.deleted, row.liveness, frozenset(cells), frozenset(row.complex_deleted.items())

    def visible_rows(self, key: Key, now_s: int) -> list[Visible]:
        """Return the live rows of a partition in the server's order."""
        partition = self.partitions.get(key)
        if partition is None:
            return []
        ordered = sorted(partition.rows, key=lambda clustering: partition.rows[clustering].order)
        found = (self.visible_row(key, clustering, now_s) for clustering in ordered)
        return [row for row in found if row is not None]

    def tombstones(self, key: Key, now_s: int, purged_us: int) -> int:
        """Count what a trace counts of a partition: deletes of ranges, rows and cells, and expired cells.

        Not the delete of the partition, and nothing that is as old as gc_grace_seconds.
        """
        partition = self.partitions.get(key)
        if partition is None:
            return 0
        count = 2 * sum(tombstone.ts >= purged_us for tombstone in partition.ranges)
        for row in (partition.static, *partition.rows.values()):
            above = partition.deleted_at(row) if row is not partition.static else partition.deleted
            covered = max(above, row.deleted)
            dead = [cell for cell in row.cells.values() if cell.ts > covered and not cell.live(now_s)]
            counted = sum(cell.ts >= purged_us for cell in dead)
            deletes = [row.deleted, *row.complex_deleted.values()]
            hidden = not row.live_cells(above, now_s) and not row.is_live(above, now_s)
            newest = max((ts for ts in deletes if ts > above), default=NEVER)
            count += counted or (hidden and newest >= purged_us)
        return count


@dataclass(frozen=True, slots=True)
class Write:
    """An INSERT or UPDATE of one row, or of a partition's static row (`clustering` None).

    `cells` are (column, path, value), a value of None deletes; `replaced` are collections that are assigned as a
    whole, which deletes what was in them a microsecond before.
    """

    key: Key
    clustering: Key | None
    ts: int
    cells: tuple[tuple[str, Path, bytes | None], ...] = ()
    replaced: tuple[str, ...] = ()
    expires: int | None = None
    insert: bool = False

    def apply(self, storage: TableStorage) -> None:
        """Merge it into one node's storage."""
        partition = storage.partition(self.key)
        row = partition.static if self.clustering is None else storage.row(self.key, self.clustering)
        if self.insert:
            row.put_liveness(Stored(self.ts, b"", self.expires))
        for name in self.replaced:
            row.complex_deleted[name] = max(row.complex_deleted.get(name, NEVER), self.ts - 1)
        for name, path, value in self.cells:
            row.put((name, path), Stored(self.ts, value, self.expires if value is not None else None))


@dataclass(frozen=True, slots=True)
class Delete:
    """A DELETE of a partition (`low` None), or of the rows from `low` to `high`; one row where they are equal."""

    key: Key
    ts: int
    low: Key | None = None
    high: Key | None = None

    def apply(self, storage: TableStorage) -> None:
        """Merge it into one node's storage."""
        partition = storage.partition(self.key)
        if self.low is None or self.high is None:
            partition.deleted = max(partition.deleted, self.ts)
        elif self.low == self.high:
            row = storage.row(self.key, self.low)
            row.deleted = max(row.deleted, self.ts)
        else:
            partition.ranges.append(RangeTombstone(storage.order(self.low), storage.order(self.high), self.ts))


Mutation = Write | Delete


def merge_partition(source: TableStorage, target: TableStorage, key: Key) -> None:
    """Merge a partition's rows with every deletion that covers them, as a read of a token range at ALL does."""
    held = source.partitions.get(key)
    if held is None:
        return
    for clustering in list(held.rows):
        merge_row(source, target, key, clustering)
    into = target.partition(key)
    into.deleted = max(into.deleted, held.deleted)
    into.ranges += [each for each in held.ranges if each not in into.ranges]


def merge_row(source: TableStorage, target: TableStorage, key: Key, clustering: Key | None) -> None:
    """Merge one row with every deletion that covers it, as a read at ALL does."""
    held = source.partitions.get(key)
    if held is None:
        return
    into = target.partition(key)
    into.deleted = max(into.deleted, held.deleted)
    if clustering is None:
        theirs, ours = held.static, into.static
    else:
        if clustering not in held.rows and not held.ranges:
            return
        theirs, ours = source.row(key, clustering), target.row(key, clustering)
        covering = [r.ts for r in held.ranges if not (theirs.order < r.low or r.high < theirs.order)]
        ours.deleted = max([ours.deleted, *covering])
    ours.deleted = max(ours.deleted, theirs.deleted)
    if theirs.liveness is not None:
        ours.put_liveness(theirs.liveness)
    for name, cell in theirs.cells.items():
        ours.put(name, cell)
    for name, ts in theirs.complex_deleted.items():
        ours.complex_deleted[name] = max(ours.complex_deleted.get(name, ts), ts)
