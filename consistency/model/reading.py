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
    """What a digest covers: keys and write times, or values too."""

    VERSIONS = "versions"
    CONTENT = "content"


class Route(str, Enum):
    """Where a digest is computed."""

    SERVER = "server"
    CLIENT = "client"


class Locality(str, Enum):
    """What proves which replica answered."""

    NODE_LOCAL = "node-local"
    TRACED = "traced"


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
        """The oldest write time of any cell, or None where one does not tell its own, or is of many elements."""
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
        plain = not column.type.is_multicell or self.capabilities.collection_times
        timed = plain and not self.table.is_counter
        values = self.depth is Depth.CONTENT
        return CellColumn(column, value=values, writetime=plain, ttl=timed and self.capabilities.timed)

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
        if self.depth is Depth.VERSIONS:
            out.append("values: different values written at the same time look alike (use --depth content)")
        if names := [c.column.name for c in self.statics + self.regulars if not c.writetime]:
            unseen = (
                "when elements of {} were written or expire" if self.depth is Depth.CONTENT else "changes inside {}"
            )
            out.append(f"{unseen.format(', '.join(names))}: this server does not tell a collection's write times")
        if not self.capabilities.timed:
            out.append("cells that differ only in their expiry (needs native protocol v5)")
        if self.table.is_counter:
            out.append("counter shards: only totals are compared")
        else:
            out.append("row markers: when a row itself, apart from its cells, was inserted or expires (not in CQL)")
        return tuple(out)


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
