"""What is read of a table, and how: depth, route, locality, and the cells of one row."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from consistency.model.layout import HashLayout, PartitionLayout, RowLayout, StaticLayout
from consistency.model.schema import Column, Table

_COUNT = struct.Struct(">i")
_LONG = struct.Struct(">q")


class Depth(str, Enum):
    """What a digest covers, beside the keys: write times and expiries, or values too.

    `values` leaves out all times, `writetimes` only expiries: copies of rows in another cluster need not share them.
    """

    VERSIONS = "versions"
    CONTENT = "content"
    VALUES = "values"
    WRITETIMES = "writetimes"

    @property
    def with_values(self) -> bool:
        """Whether values are read."""
        return self is not Depth.VERSIONS

    @property
    def with_times(self) -> bool:
        """Whether write times are read."""
        return self is not Depth.VALUES

    @property
    def with_expiries(self) -> bool:
        """Whether it is read when cells expire."""
        return self in (Depth.VERSIONS, Depth.CONTENT)


CHECKED_DEPTHS = (Depth.VERSIONS, Depth.CONTENT)
"""What can be compared among the replicas of one cluster, which share all times."""


class Route(str, Enum):
    """Where a digest is computed."""

    SERVER = "server"
    CLIENT = "client"


class Locality(str, Enum):
    """What proves which replica answered, or that a quorum of them did."""

    NODE_LOCAL = "node-local"
    TRACED = "traced"
    QUORUM = "quorum"
    """A node answers for a quorum of its data centre: nothing is proven of any replica alone, and reads may write."""


ONE_REPLICA = (Locality.NODE_LOCAL, Locality.TRACED)
"""How one replica is read by itself."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What every node of the cluster can do, so that all replicas are read in the same way.

    `hashes`: mask_hash (5.0). `arithmetic`: operators on numbers of any size, and type hints (4.0).
    `unchecked_text`: blobAsVarchar takes any bytes (before 5.0).
    `collection_times`: writetime and ttl of a non-frozen collection or UDT (5.0).
    `timed`: servers judge TTLs at an instant that we choose (native protocol v5).
    """

    hashes: bool = True
    arithmetic: bool = True
    unchecked_text: bool = False
    collection_times: bool = True
    timed: bool = True


Times = int | None | tuple[int | None, ...]
"""One number for a simple cell, one per element for a non-frozen collection or UDT, None without a cell."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell, or all of a non-frozen column: serialized value, write times in µs, expiry in s since the epoch."""

    value: bytes | None
    writetimes: Times = None
    expires: Times = None


@dataclass(frozen=True, slots=True)
class RowState:
    """The cells of one row (or of a partition's static row) on one replica, in the order of the columns read.

    `spelling` is the primary key on this replica, if its bytes differ from those that the row was asked for by:
    the decimals 1.0 and 1.00 are one clustering key to Cassandra, and two rows to an application.
    """

    cells: tuple[Cell, ...]
    spelling: tuple[bytes | None, ...] | None = None

    @property
    def newest_us(self) -> int | None:
        """The newest write time of any cell, or None if no cell has one."""
        newest: int | None = None
        for cell in self.cells:
            times = cell.writetimes
            time = max(each_time(times), default=None) if isinstance(times, tuple) else times
            if time is not None and (newest is None or time > newest):
                newest = time
        return newest

    @property
    def oldest_us(self) -> int | None:
        """The oldest write time of any cell, or None if one does not tell its own, or is of many elements."""
        oldest: int | None = None
        for cell in self.cells:
            if cell.value is None:
                continue
            if not isinstance(cell.writetimes, int):
                return None
            if oldest is None or cell.writetimes < oldest:
                oldest = cell.writetimes
        return oldest


def each_time(times: Times) -> Iterator[int]:
    """Yield the numbers in `times` without nulls."""
    if isinstance(times, int):
        yield times
    elif times is not None:
        yield from (t for t in times if t is not None)


@dataclass(frozen=True, slots=True)
class CellColumn:
    """A static or regular column with what is read of it."""

    column: Column
    value: bool
    writetime: bool
    ttl: bool

    @property
    def width(self) -> int:
        """How many cells of the raw row it takes."""
        return self.value + self.writetime + self.ttl


RawRow = tuple[bytes | None, ...]
"""token, primary key, then the cells of each static and each regular column, as its CellColumn says."""


@dataclass(frozen=True)
class Reading:
    """A table with what is read of each row; it is the same for all replicas."""

    table: Table
    depth: Depth
    capabilities: Capabilities
    hidden: frozenset[str] = frozenset()
    """Columns whose value cannot be read as stored (masked for our role)."""

    @cached_property
    def statics(self) -> tuple[CellColumn, ...]:
        """What is read of the static columns."""
        return tuple(map(self._cell_column, self.table.statics))

    @cached_property
    def regulars(self) -> tuple[CellColumn, ...]:
        """What is read of the regular columns."""
        return tuple(map(self._cell_column, self.table.regulars))

    def _cell_column(self, column: Column) -> CellColumn:
        told = self._tells_times(column)
        timed = told and not self.table.is_counter and self.capabilities.timed
        return CellColumn(
            column,
            value=self.depth.with_values,
            writetime=told and self.depth.with_times,
            ttl=timed and self.depth.with_expiries,
        )

    def _tells_times(self, column: Column) -> bool:
        """Whether the servers tell when the cells of a column were written."""
        return not column.type.is_multicell or self.capabilities.collection_times

    @cached_property
    def full(self) -> Reading:
        """The same at depth content, for reading single rows before a difference is claimed."""
        return Reading(self.table, Depth.CONTENT, self.capabilities, self.hidden)

    @cached_property
    def layout(self) -> RowLayout:
        """The layout of a raw row."""
        return RowLayout.of(
            partition=len(self.table.partition_key),
            clustering=len(self.table.clustering),
            statics=sum(c.width for c in self.statics),
            regulars=sum(c.width for c in self.regulars),
        )

    @cached_property
    def static_layout(self) -> StaticLayout:
        """The layout of a static row that is read by itself."""
        return self.layout.of_static_row

    @cached_property
    def hash_layout(self) -> HashLayout:
        """The layout of a row's hash."""
        return self.layout.of_hash

    @cached_property
    def partition_layout(self) -> PartitionLayout:
        """The layout of a partition's digest."""
        return self.layout.of_partition_digest

    def as_read(self, state: RowState | None, *, static: bool) -> RowState | None:
        """Return what is read here of a copy that was read in full."""
        if state is None:
            return None
        columns = self.statics if static else self.regulars
        pairs = zip(columns, state.cells, strict=True)
        return RowState(tuple(_only_read(column, cell) for column, cell in pairs), state.spelling)

    def has_row(self, raw: RawRow) -> bool:
        """Whether the raw row is a row of the table, and not a partition with statics only.

        A row of a COMPACT STORAGE table may lack its last clustering columns and still is a row.
        """
        return not self.table.statics or raw[self.layout.clustering.start] is not None

    def row_state(self, raw: RawRow, now_s: int | None, key: Sequence[bytes | None] | None = None) -> RowState:
        """Return the regular cells of a raw row; `now_s` is the instant its TTLs count from, `key` the row's name."""
        state = _state(self.regulars, raw[self.layout.regulars], now_s)
        spelling = raw[self.layout.key]
        return state if key is None or spelling == tuple(key) else replace(state, spelling=spelling)

    def static_state(self, raw: RawRow, now_s: int | None) -> RowState | None:
        """Return the static cells of a raw row, or None if all are null: then there is no static row."""
        cells = raw[self.layout.statics]
        if all(cell is None for cell in cells):
            return None
        return _state(self.statics, cells, now_s)

    def static_row_state(self, raw: RawRow, now_s: int | None) -> RowState | None:
        """Return the static cells of a row as `static_row` reads it: token, partition key, static cells."""
        cells = raw[self.static_layout.statics]
        if all(cell is None for cell in cells):
            return None
        return _state(self.statics, cells, now_s)

    def newest_us(self, raw: RawRow) -> int | None:
        """Return the newest write time in a raw row, or None if it shows none."""
        states = (self.static_state(raw, None), self.row_state(raw, None))
        return max((s.newest_us for s in states if s is not None and s.newest_us is not None), default=None)

    @cached_property
    def blind(self) -> tuple[str, ...]:
        """What this reading cannot see, a sentence each."""
        out = ["deletes that left no live row on any replica (CQL does not show tombstones)"]
        if not self.depth.with_values:
            out.append("values: different values written at the same time look alike (use --depth content)")
        if not self.depth.with_times and not self.table.is_counter:
            out.append("when cells were written (--compare writetimes)")
        if not self.depth.with_expiries and not self.table.is_counter:
            out.append("when cells expire (--compare expiries)")
        names = [c.column.name for c in self.statics + self.regulars if not self._tells_times(c.column)]
        if names and self.depth.with_times:
            unseen = "when elements of {} were written or expire" if self.depth.with_values else "changes inside {}"
            out.append(f"{unseen.format(', '.join(names))}: this server does not tell a collection's write times")
        if not self.capabilities.timed and self.depth.with_expiries:
            out.append("cells that differ only in their expiry (needs native protocol v5)")
        if self.table.is_counter:
            out.append("counter shards: only totals are compared")
        else:
            out.append("row markers: when a row itself, apart from its cells, was inserted or expires (not in CQL)")
        return tuple(out)


def _only_read(column: CellColumn, cell: Cell) -> Cell:
    if column.value and column.writetime and (column.ttl or cell.expires is None):
        return cell
    return Cell(
        cell.value if column.value else None,
        cell.writetimes if column.writetime else None,
        cell.expires if column.ttl else None,
    )


def _state(columns: tuple[CellColumn, ...], cells: RawRow, now_s: int | None) -> RowState:
    out: list[Cell] = []
    at = 0
    for column in columns:
        value = cells[at] if column.value else None
        at += column.value
        writetimes: Times = None
        expires: Times = None
        if column.writetime:
            writetimes = _times(cells[at], column.column.type.is_multicell, _LONG)
            at += 1
        if column.ttl:
            expires = _expiry(_times(cells[at], column.column.type.is_multicell, _COUNT), now_s)
            at += 1
        out.append(Cell(value, writetimes, expires))
    return RowState(tuple(out))


def _times(raw: bytes | None, multicell: bool, number: struct.Struct) -> Times:  # noqa: FBT001
    if raw is None:
        return None
    if not multicell:
        return int(number.unpack(raw)[0])
    count = _COUNT.unpack_from(raw)[0]
    at = _COUNT.size
    out: list[int | None] = []
    for _ in range(count):
        length = _COUNT.unpack_from(raw, at)[0]
        at += _COUNT.size
        out.append(None if length < 0 else int(number.unpack_from(raw, at)[0]))
        at += max(length, 0)
    return tuple(out)


def _expiry(ttls: Times, now_s: int | None) -> Times:
    if ttls is None or now_s is None:
        return None
    if isinstance(ttls, int):
        return now_s + ttls
    if all(ttl is None for ttl in ttls):
        return None
    return tuple(None if ttl is None else now_s + ttl for ttl in ttls)
