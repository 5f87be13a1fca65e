"""Rows of a range whose evidence shows at once that the servers' own merge is all there is to do, as arrays.

Nearly all rows that differ after an outage are like that. What decides about a row (decide.py, forecast.py) is decided
here about thousands by the same rules, from write times alone; what is not plain by them becomes a case of its own.
No such row is an object, so a range of which every row differs costs little more than reading it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import eq, itemgetter
from typing import NamedTuple

import numpy as np

from consistency.cluster.packed_rows import PackedRow, packed
from consistency.model.reading import RawRow, Reading
from consistency.model.ring import Node
from consistency.model.row_arrays import NO_TIME, Flags, Numbers
from consistency.model.servertime import ServerTime
from consistency.rows.windows import KeyCells, RawCopies
from repair.deciding.policy import Policy

_NO_TIME_BYTES = NO_TIME.to_bytes(8, "big", signed=True)
_CELLS = 3
"""Cells of a raw row for a column that is one cell: value, write time, TTL."""
_NO_CELL = (None,) * _CELLS


@dataclass(frozen=True, eq=False)
class PlainRows:
    """Some rows in ring order: the token and key of each, and its raw copies in the order of the replicas.

    `may_vanish` tells of which rows, that most replicas hold, a merge may leave nothing (repair/deciding/forecast.py).
    `newest` is the place of the copy whose every column is as new as any other's, -1 if there is none such.
    """

    tokens: Numbers
    keys: Sequence[KeyCells]
    copies: Sequence[RawCopies]
    may_vanish: Flags
    newest: Numbers

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def none(cls) -> PlainRows:
        """Return no rows."""
        return cls(np.zeros(0, np.int64), (), (), np.zeros(0, np.bool_), np.zeros(0, np.int64))

    @classmethod
    def joined(cls, parts: Sequence[PlainRows]) -> PlainRows:
        """Return the rows of parts that follow each other in ring order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(part.tokens for part in parts)]),
            [key for part in parts for key in part.keys],
            [held for part in parts for held in part.copies],
            np.concatenate([np.zeros(0, np.bool_), *(part.may_vanish for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.newest for part in parts)]),
        )

    def take(self, which: Flags) -> PlainRows:
        """Return some of the rows."""
        if which.all():
            return self
        places = np.flatnonzero(which).tolist()
        keys, copies = self.keys, self.copies
        return PlainRows(
            self.tokens[which],
            [keys[n] for n in places],
            [copies[n] for n in places],
            self.may_vanish[which],
            self.newest[which],
        )

    def foreseen(self, place: int, regulars: slice) -> PackedRow:
        """Return a row as every replica sends it once the servers have merged it: each column's newest cell.

        A delete that some replica knows of may take them, whole or in part: then that is not what is found.
        """
        held, newest = self.copies[place], int(self.newest[place])
        row = held[newest] if newest >= 0 else None
        if row is None:
            first = next(filter(None, held))
            row = (*first[: regulars.start], *merged(held, regulars))
        return packed(row)


def can_be_plain(reading: Reading) -> bool:
    """Whether the rows of a table can be judged as arrays: each column is one cell, whose age and expiry are told."""
    columns = reading.regulars
    if not columns or reading.table.statics or reading.table.is_counter:
        return False
    return all(c.value and c.writetime and c.ttl and not c.column.type.is_multicell for c in columns)


class Sorted(NamedTuple):
    """Which rows are plain; of which a merge may leave nothing though most replicas hold them; each one's newest copy.

    Shapes (n,); `newest` as in PlainRows.
    """

    plain: Flags
    may_vanish: Flags
    newest: Numbers


class Sorter:
    """Tells plain rows from others, by the evidence of one instant."""

    def __init__(self, reading: Reading, owners: Sequence[Node], policy: Policy, when: ServerTime) -> None:
        self._gc_grace_s = reading.table.gc_grace_seconds
        self._values = range(reading.layout.regulars.start, reading.layout.regulars.stop, _CELLS)
        self._groups = _groups(owners)
        self._policy = policy
        self._when = when

    def told_apart(self, copies: Sequence[RawCopies]) -> Sorted:
        """Judge rows by their copies."""
        rows = _Columns(copies, self._values)
        newest = rows.times.max(axis=(1, 2))
        policy, when = self._policy, self._when
        settled = newest <= min(when.future_us(policy.max_skew_s), when.in_flight_us(policy.window_s))
        newer = ~_all(rows.present, 1) | rows.times_differ
        plain = settled & newer & ~rows.some_bare & ~rows.timeless & ~rows.tied & ~self._suspected(rows)
        everywhere = _all(rows.present, 1)
        stays = everywhere & _any(_all(rows.held, 1), 1)
        vanishing = ~stays & (2 * rows.present.sum(axis=1) > rows.present.shape[1])
        return Sorted(plain, vanishing, rows.newest)

    def _suspected(self, rows: _Columns) -> Flags:
        """Return which rows hold a cell that may be a zombie's: old, and held by a minority (rows/zombies.py)."""
        old_us = self._when.purged_us(self._gc_grace_s)
        young = _any(rows.held & (rows.times >= old_us), 1)
        held = _any(rows.held, 1)
        minority: Flags = np.zeros(held.shape, np.bool_)
        for group in self._groups:
            holders = rows.held[:, group].sum(axis=1)
            minority |= 2 * holders <= len(group)
        return _any(held & ~young & minority, 1)


def _any(flags: Flags, axis: int) -> Flags:
    found: Flags = np.logical_or.reduce(flags, axis=axis)
    return found


def _all(flags: Flags, axis: int) -> Flags:
    found: Flags = np.logical_and.reduce(flags, axis=axis)
    return found


def _groups(owners: Sequence[Node]) -> list[list[int]]:
    """Return the places of all replicas, and of those of each data centre where there are several."""
    dcs = {node.dc for node in owners}
    of_dcs = [[place for place, node in enumerate(owners) if node.dc == dc] for dc in sorted(dcs)]
    return [list(range(len(owners))), *(of_dcs if len(dcs) > 1 else [])]


class _Columns:
    """Raw copies of n rows on r replicas with c columns, as arrays (n, r, c)."""

    def __init__(self, copies: Sequence[RawCopies], values: Sequence[int]) -> None:
        replicas = list(zip(*copies, strict=True))
        self._parts = [[_cells(held, at, at + _CELLS) for at in values] for held in replicas]
        self.present: Flags = np.array([[raw is not None for raw in held] for held in replicas], np.bool_).T
        self.times: Numbers = np.stack(
            [np.stack([_times(cells) for cells in parts], axis=1) for parts in self._parts], axis=1
        )

    @cached_property
    def held(self) -> Flags:
        """Which columns each copy holds."""
        held: Flags = self.times != NO_TIME
        return held

    @property
    def newest(self) -> Numbers:
        """The place of the copy of each row whose every column is as new as any other's, -1 if there is none."""
        newest = self.times.max(axis=1, keepdims=True)
        whole = _all(self.times == newest, 2) & self.present
        return np.where(_any(whole, 1), whole.argmax(axis=1), -1)

    @property
    def some_bare(self) -> Flags:
        """Which rows have a copy that shows nothing but its key."""
        return _any(self.present & ~_any(self.held, 2), 1)

    @property
    def timeless(self) -> Flags:
        """Which rows have a cell whose write time is not told, as the least of all is not: nobody knows its age."""
        found: Flags = np.zeros(len(self.present), np.bool_)
        for place, parts in enumerate(self._parts):
            for column, cells in enumerate(parts):
                untold = ~self.held[:, place, column]
                if untold.sum() != cells.count(_NO_CELL):  # hardly ever, so the rows are looked at only then
                    found |= untold & np.fromiter((cell != _NO_CELL for cell in cells), np.bool_, len(cells))
        return found

    @property
    def times_differ(self) -> Flags:
        """Of which rows copies show unlike write times of a column."""
        present = self.present[:, :, np.newaxis]
        newest = np.where(present, self.times, NO_TIME).max(axis=1)
        oldest = np.where(present, self.times, np.iinfo(np.int64).max).min(axis=1)
        return _any(newest != oldest, 1)

    @property
    def tied(self) -> Flags:
        """Of which rows copies show one write time of a column and otherwise unlike cells."""
        tied: Flags = np.zeros(len(self.present), np.bool_)
        for place, mine in enumerate(self._parts):
            for other, theirs in enumerate(self._parts[:place]):
                for column, (cells, others) in enumerate(zip(mine, theirs, strict=True)):
                    same = np.fromiter(map(eq, cells, others), np.bool_, len(tied))
                    times = self.times[:, place, column]
                    tied |= ~same & (times == self.times[:, other, column]) & (times != NO_TIME)
        return tied


def _cells(held: Sequence[RawRow | None], start: int, stop: int) -> list[RawRow]:
    none = (None,) * (stop - start)
    return [none if raw is None else raw[start:stop] for raw in held]


def _times(cells: Sequence[RawRow]) -> Numbers:
    raw = b"".join([_NO_TIME_BYTES if cell is None else cell for cell in map(itemgetter(1), cells)])
    return np.frombuffer(raw, ">i8").astype(np.int64)


def merged(copies: RawCopies, regulars: slice) -> RawRow:
    """Return the cells that every replica holds of a plain row once the servers have merged it: each column's newest.

    A delete that some replica knows of may take them, whole or in part: then they are not what is found.
    """
    held = [raw[regulars] for raw in copies if raw is not None]
    first, *others = held
    if all(cells == first for cells in others):
        return first
    columns = zip(*(_apart(cells) for cells in held), strict=True)
    newest = [max(cells, key=_time) for cells in columns]
    return tuple(part for cells in newest for part in cells)


def _apart(cells: RawRow) -> list[RawRow]:
    return [cells[at : at + _CELLS] for at in range(0, len(cells), _CELLS)]


def _time(cells: RawRow) -> int:
    return NO_TIME if cells[1] is None else int.from_bytes(cells[1], "big", signed=True)
