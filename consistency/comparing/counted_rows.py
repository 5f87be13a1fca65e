"""The rows of a leaf on which two clusters differ, as arrays: who counts rows wants no names, and no objects.

Where each side's replicas hold the same bytes of a row, which is nearly always, these bytes tell how the sides differ.
Any other row is judged as one that is listed is (rows.py). A row takes some 40 bytes until it is settled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consistency.checking.joined_rows import joined_rows, windowed_rows
from consistency.checking.plan import Leaf
from consistency.cluster.table_reader import TableReader
from consistency.comparing.rows import agreed, by_side, compare_row
from consistency.comparing.terms import Compare, Terms
from consistency.errors import InternalError
from consistency.model.reading import CellColumn, RawRow, Reading
from consistency.model.ring import Node
from consistency.model.row_arrays import NO_TIME, Flags, Numbers
from consistency.model.sides import Side, on_side
from consistency.results.pair_findings import GRAVEST_FIRST, PairKind
from consistency.results.strip import one_of_each_cell
from consistency.rows.merge_join import JoinCounts
from consistency.rows.names import named_key
from consistency.rows.read import States
from consistency.rows.windows import KeyCells, RawCopies, Window, WindowTooWide

_NONE = -1
_PLACE = {kind: place for place, kind in enumerate(GRAVEST_FIRST)}
_BIT = {side: 1 << place for place, side in enumerate(Side)}
_NO_TIME_BYTES = NO_TIME.to_bytes(8, "big", signed=True)

Small = NDArray[np.int8]
_TYPES = (np.int64, np.int64, np.int8, np.int8, np.int64, np.int64)
"""Of the columns of CountedRows."""


@dataclass(frozen=True, eq=False)
class CountedRows:
    """Rows that differ: by which kind between the sides, if by any, and which sides disagree with themselves.

    `names` are hashes of keys, `held` hashes of what every replica holds, both of this process; `newest` is the newest
    write time of any copy, NO_TIME if none is told.
    """

    names: Numbers
    tokens: Numbers
    kinds: Small
    inner: Small
    held: Numbers
    newest: Numbers

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def joined(cls, parts: Sequence[CountedRows]) -> CountedRows:
        """Return the rows of several parts of a leaf."""
        columns = [[getattr(part, each.name) for part in parts] for each in fields(cls)]
        return cls(*(np.concatenate([np.zeros(0, of), *column]) for of, column in zip(_TYPES, columns, strict=True)))

    def take(self, which: Flags | Numbers) -> CountedRows:
        """Return some of the rows."""
        return CountedRows(*(getattr(self, field.name)[which] for field in fields(self)))

    def known_to(self, earlier: CountedRows) -> tuple[Numbers, Numbers]:
        """Return the places of the rows that differed earlier too, here and there."""
        _, mine, theirs = np.intersect1d(self.names, earlier.names, assume_unique=True, return_indices=True)
        return mine, theirs

    @property
    def by_kind(self) -> Counter[PairKind]:
        """How many rows differ between the sides, by kind."""
        counted = np.bincount(self.kinds[self.kinds != _NONE], minlength=len(GRAVEST_FIRST)).tolist()
        return Counter({kind: counted[place] for kind, place in _PLACE.items() if counted[place]})

    @property
    def by_side(self) -> Counter[Side]:
        """On how many rows each side disagrees with itself."""
        counted = {side: int(np.count_nonzero(self.inner & bit)) for side, bit in _BIT.items()}
        return Counter({side: rows for side, rows in counted.items() if rows})

    @property
    def spread_tokens(self) -> list[int]:
        """A token of each cell of a strip in which a row differs."""
        return one_of_each_cell(self.tokens)


class UnlikeRows:
    """Reads the rows of one leaf on which the sides, or the replicas of a side, differ: each time as of one instant."""

    def __init__(self, table: TableReader, leaf: Leaf, terms: Terms) -> None:
        """Read all of every row; `terms` say what is compared of it."""
        self._table = table
        self._leaf = leaf
        self._terms = terms
        self._now_s = table.now_s()
        # Rows of a window are matched by the bytes of their keys, and statics stand in every row of a partition.
        self._windowed = not (table.reading.statics or table.reading.table.respelled)

    async def read(self) -> CountedRows:
        """Read them; raises a ReplicaError if a replica does not answer, InternalError if rows make no sense."""
        try:
            rows = await (self._by_windows() if self._windowed else self._joined())
        except WindowTooWide:
            self._windowed = False  # what was counted before looks changed once, and is read once more
            rows = await self._joined()
        if len(np.unique(rows.names)) < len(rows):
            raise InternalError("two rows of one range have one hash; the range cannot be compared")
        return rows

    async def _by_windows(self) -> CountedRows:
        judging = _Judging(self._table.reading, self._leaf, self._terms, self._now_s)
        async with aclosing(windowed_rows(self._table, self._leaf, JoinCounts(), self._now_s)) as windows:
            return CountedRows.joined([judging.judged(window) async for window in windows])

    async def _joined(self) -> CountedRows:
        reading, rows = self._table.reading, _Rows()
        async with aclosing(joined_rows(self._table, self._leaf, JoinCounts(), self._now_s)) as differences:
            async for each in differences:
                held = hash(tuple(each.states.values()))
                columns = reading.statics if each.name.static else reading.regulars
                named = (hash((each.name.key, each.name.static)), each.name.token, held)
                rows.judge(columns, self._terms, each.states, named)
        return rows.counted()


class _Rows:
    """Rows that differ, gathered one by one."""

    def __init__(self) -> None:
        self._columns: tuple[list[int], ...] = ([], [], [], [], [], [])

    def add(self, *row: int) -> None:
        """Enter a row: hash of its name, token, kind, inner, hash of what is held, newest write time."""
        for column, cell in zip(self._columns, row, strict=True):
            column.append(cell)

    def judge(self, columns: Sequence[CellColumn], terms: Terms, states: States, named: tuple[int, int, int]) -> None:
        """Enter a row by its copies, if it differs; `named`: hash of its name, token, hash of its copies."""
        facts = compare_row(columns, states, terms).facts
        inner = sum(_BIT[side] for side, copies in by_side(states).items() if not agreed(copies))
        if facts or inner:
            newest = [s.newest_us for s in states.values() if s is not None and s.newest_us is not None]
            name, token, held = named
            self.add(name, token, _PLACE[facts[0]] if facts else _NONE, inner, held, max(newest, default=NO_TIME))

    def counted(self) -> CountedRows:
        """Return them as arrays."""
        names, tokens, kinds, inner, held, newest = self._columns
        return CountedRows(
            np.array(names, np.int64),
            np.array(tokens, np.int64),
            np.array(kinds, np.int8),
            np.array(inner, np.int8),
            np.array(held, np.int64),
            np.array(newest, np.int64),
        )


def _name(key: KeyCells) -> int:
    return hash((key, False))


class _Judging:
    """Judges the rows of windows of one leaf."""

    def __init__(self, reading: Reading, leaf: Leaf, terms: Terms, now_s: int) -> None:
        self._reading = reading
        self._nodes = leaf.replicas
        self._terms = terms
        self._now_s = now_s
        self._bytes = RawKinds(reading, terms)
        self._sides = Picked(leaf.replicas)

    def judged(self, window: Window) -> CountedRows:
        """Return the rows of a window that differ by more than may differ."""
        agreed, kind_of, same = self._sides.agreed, self._bytes.kind, self._bytes.same
        others = _Rows()
        names: list[int] = []
        tokens: list[int] = []
        kinds: list[int] = []
        held: list[int] = []
        ones: list[RawRow | None] = []
        twos: list[RawRow | None] = []
        for token, (key, copies) in zip(window.tokens.tolist(), window.differing.items(), strict=True):
            if None in key:
                named_key(key)  # which says what is wrong with it
            both = agreed(copies)
            kind = None if both is None else kind_of(*both)
            if both is None or kind is None:
                self._by_states(others, key, copies, token)
            elif kind != same:
                names.append(_name(key))
                tokens.append(token)
                kinds.append(kind)
                held.append(hash(copies))
                ones.append(both[0])
                twos.append(both[1])
        newest = np.maximum(self._bytes.newest(ones), self._bytes.newest(twos))
        plain = CountedRows(
            np.array(names, np.int64),
            np.array(tokens, np.int64),
            np.array(kinds, np.int8),
            np.zeros(len(names), np.int8),
            np.array(held, np.int64),
            newest,
        )
        return CountedRows.joined([plain, others.counted()])

    def _by_states(self, rows: _Rows, key: KeyCells, copies: RawCopies, token: int) -> None:
        """Judge a row whose bytes do not tell enough; InternalError if they differ and nobody can say how."""
        states = {raw: self._reading.row_state(raw, self._now_s, key) for raw in copies if raw is not None}
        if None not in copies and len(set(states.values())) == 1:
            raise InternalError("two rows differ in a way that cannot be named; the range cannot be compared")
        held = {n: None if raw is None else states[raw] for n, raw in zip(self._nodes, copies, strict=True)}
        rows.judge(self._reading.regulars, self._terms, held, (_name(key), token, hash(copies)))


class Picked:
    """Tells the raw copies of the two sides apart, in the order of the replicas."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Take the replicas of both sides."""
        places = {side: [n for n, node in enumerate(nodes) if on_side(node, side)] for side in Side}
        self._source, self._target = (_picking(places[side]) for side in Side)

    def agreed(self, copies: RawCopies) -> tuple[RawRow | None, RawRow | None] | None:
        """Return what all replicas of the source hold, and all of the target; None if those of a side disagree."""
        mine, theirs = self._source(copies), self._target(copies)
        one, two = mine[0], theirs[0]
        return (one, two) if mine.count(one) == len(mine) and theirs.count(two) == len(theirs) else None


def _picking(places: Sequence[int]) -> Callable[[RawCopies], RawCopies]:
    """Return what picks the copies of one side; a side without a replica holds nothing."""
    if len(places) == 1:
        (only,) = places
        return lambda copies: (copies[only],)
    return itemgetter(*places) if places else lambda _: (None,)


class RawKinds:
    """Says how two sides differ by the raw rows that all their replicas hold, and how old such rows are."""

    same = _NONE
    """Stands for no kind: the sides hold the same, by the terms."""

    def __init__(self, reading: Reading, terms: Terms) -> None:
        """Read rows as a reading lays them out."""
        self._reading = reading
        self._terms = terms
        values: list[int] = []
        times: list[int] = []
        expiries: list[int] = []
        at = reading.layout.regulars.start
        for column in reading.regulars:
            for found, told in ((values, column.value), (times, column.writetime), (expiries, column.ttl)):
                if told:
                    found.append(at)
                    at += 1
        self._values, self._times, self._expiries = (_cells(places) for places in (values, times, expiries))
        self._time_places = times
        self._simple = not any(c.writetime and c.column.type.is_multicell for c in reading.regulars)

    def kind(self, source: RawRow | None, target: RawRow | None) -> int | None:
        """Return the kind by its place in GRAVEST_FIRST, or `same`; None if the bytes alone do not tell."""
        if source is None or target is None:
            return _PLACE[PairKind.ONLY_SOURCE if target is None else PairKind.ONLY_TARGET]
        if self._values(source) != self._values(target):
            return _PLACE[PairKind.VALUE]
        return _NONE if self._terms.compare is Compare.VALUES else self._kind_of_times(source, target)

    def _kind_of_times(self, source: RawRow, target: RawRow) -> int | None:
        if self._times(source) != self._times(target):
            return None if self._terms.tolerated_us else _PLACE[PairKind.WRITETIME]
        if self._terms.compare is Compare.EXPIRIES and self._expiries(source) != self._expiries(target):
            return None
        return _NONE

    def newest(self, rows: Sequence[RawRow | None]) -> Numbers:
        """Return the newest write time of each row, NO_TIME if it shows none."""
        found = np.full(len(rows), NO_TIME)
        if not self._simple:
            told = (None if row is None else self._reading.newest_us(row) for row in rows)
            return np.fromiter((NO_TIME if time is None else time for time in told), np.int64, len(rows))
        for place in self._time_places if rows else ():
            raw = b"".join(_column(rows, place))
            found = np.maximum(found, np.frombuffer(raw, ">i8").astype(np.int64))
        return found


def _column(rows: Sequence[RawRow | None], place: int) -> Iterator[bytes]:
    return (_NO_TIME_BYTES if row is None else row[place] or _NO_TIME_BYTES for row in rows)


def _cells(places: Sequence[int]) -> Callable[[RawRow], Any]:
    """Return what picks some cells of a row."""
    return itemgetter(*places) if places else lambda _: None
