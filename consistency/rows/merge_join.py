"""Merge-join the rows of one token range on all its replicas, streaming, and tell which rows differ.

Each replica sends its rows in the server's own order. Whole chunks that are equal everywhere are passed
over by one comparison in C; only if they differ are rows put in order and matched one by one. Memory
is a page per replica, whatever the range or the partition holds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ne
from typing import Any

from consistency.cluster.port import Key, Pages
from consistency.errors import InternalError
from consistency.model.cqlbytes import partition_bytes
from consistency.model.cqlorder import key_function
from consistency.model.layout import token_in
from consistency.model.reading import RawRow, Reading, RowState
from consistency.model.ring import Node
from consistency.rows.names import RowName, named_key
from consistency.rows.read import States

_FIRST, _MOST = 32, 1024
"""So many rows are compared at once: where rows differ here and there, no more than a few are looked at twice."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same everywhere: its state by replica, None if there is no such row."""

    name: RowName
    states: States


@dataclass(slots=True)
class JoinCounts:
    """How many distinct rows a join has seen; a static row that differs counts as one.

    `largest_page`: the most rows that a replica has sent at once.
    """

    rows: int = 0
    largest_page: int = 0


async def join_rows(
    reading: Reading,
    streams: Mapping[Node, Pages],
    now_s: int,
    counts: JoinCounts | None = None,
) -> AsyncGenerator[Difference, None]:
    """Yield every row on which the replicas differ, in ring order.

    Raises InternalError if a replica's rows do not come in the order of Cassandra's comparators as we
    know them: then no pairing can be trusted, and the range is unknown.
    """
    counts = counts if counts is not None else JoinCounts()
    order = _Order(reading)
    cursors = {node: _Cursor(stream, order, counts) for node, stream in streams.items()}
    judged: tuple[int, bytes] | None = None
    while True:
        for cursor in cursors.values():
            await cursor.fill()
        live = [c for c in cursors.values() if not c.done]
        if not live:
            return
        if len(live) == len(cursors) and (skipped := _skip_equal(list(cursors.values()))):
            counts.rows += skipped
            continue
        lowest = min(c.sort_key for c in live)
        partition = lowest[:2]
        if reading.statics and partition != judged:
            judged = partition
            difference = _compare_statics(reading, cursors, partition, now_s)
            if difference:
                counts.rows += 1
                yield difference
        holders = {node: c for node, c in cursors.items() if not c.done and c.sort_key == lowest}
        difference = _compare_rows(reading, cursors, holders, now_s)
        if difference:
            yield difference
        counts.rows += lowest[2] != _STATIC_ONLY or not reading.statics
        for cursor in holders.values():
            cursor.step()


_STATIC_ONLY: tuple[Any, ...] = ()

SortKey = tuple[int, bytes, tuple[Any, ...]]


class _Order:
    """Turns a raw row into a key that sorts as the server does: token, partition key, clustering."""

    def __init__(self, reading: Reading) -> None:
        table = reading.table
        self._partition = reading.layout.partition
        self._clustering = reading.layout.clustering
        self._has_row = reading.has_row
        self._key: Callable[[Sequence[Any]], tuple[Any, ...]] = key_function(
            [(c.type, c.reversed) for c in table.clustering]
        )

    def __call__(self, row: RawRow) -> SortKey:
        clustering = self._key(row[self._clustering]) if self._has_row(row) else _STATIC_ONLY
        return token_in(row), partition_bytes(row[self._partition]), clustering


class _Cursor:
    """One replica's rows, with the row before the current one kept across pages."""

    def __init__(self, stream: Pages, order: _Order, counts: JoinCounts) -> None:
        self._stream = stream
        self._order = order
        self._counts = counts
        self._key: SortKey | None = None
        self._last: SortKey | None = None
        self.page: list[RawRow] = []
        self.at = 0
        self.previous: RawRow | None = None
        self.done = False

    async def fill(self) -> None:
        """Have a current row, unless the replica has no more."""
        while self.at >= len(self.page) and not self.done:
            if self.page:
                self.previous = self.page[-1]
            try:
                self.page = await anext(self._stream)
                self.at = 0
                self._counts.largest_page = max(self._counts.largest_page, len(self.page))
            except StopAsyncIteration:
                self.page, self.at, self.done = [], 0, True
            self._key = None

    @property
    def row(self) -> RawRow:
        """The current row."""
        return self.page[self.at]

    @property
    def before(self) -> RawRow | None:
        """The row before the current one."""
        return self.page[self.at - 1] if self.at else self.previous

    @property
    def sort_key(self) -> SortKey:
        """The current row's place in the order."""
        if self._key is None:
            self._key = self._order(self.row)
        return self._key

    def step(self) -> None:
        """Go to the next row; every row must come after the one before it."""
        key = self.sort_key
        if self._last is not None and key <= self._last:
            raise InternalError("rows did not arrive in Cassandra's order; the range cannot be compared")
        self._last = key
        self.at += 1
        self._key = None

    def skip(self, count: int) -> None:
        """Pass over rows that were found equal on all replicas."""
        self.at += count
        self._key = None


def _skip_equal(cursors: list[_Cursor]) -> int:
    """Pass over the longest run of rows, by chunks, that is the same on all replicas."""
    first, *others = cursors
    size = min(len(c.page) - c.at for c in cursors)
    total, most = 0, _FIRST
    while size > 0:
        chunk = min(size, most)
        mine = first.page[first.at : first.at + chunk]
        if any(c.page[c.at : c.at + chunk] != mine for c in others):
            chunk = size = _equal_prefix(cursors, chunk)
        most = min(4 * most, _MOST)
        for cursor in cursors:
            cursor.skip(chunk)
        total += chunk
        size -= chunk
    return total


def _equal_prefix(cursors: list[_Cursor], limit: int) -> int:
    """Return how many of the next rows, fewer than `limit`, are the same on all replicas; C finds the first other."""
    first, *others = cursors
    mine = first.page[first.at : first.at + limit]
    for cursor in others:
        differ = bytes(map(ne, mine, cursor.page[cursor.at : cursor.at + len(mine)]))
        at = differ.find(1)
        mine = mine if at < 0 else mine[:at]
    return len(mine)


def _compare_rows(
    reading: Reading, cursors: Mapping[Node, _Cursor], holders: Mapping[Node, _Cursor], now_s: int
) -> Difference | None:
    some = next(iter(holders.values()))
    if not reading.has_row(some.row):
        return None
    layout = reading.layout
    cells, key = some.row[layout.regulars], some.row[layout.key]
    alike = all(c.row[layout.regulars] == cells and c.row[layout.key] == key for c in holders.values())
    if alike and len(holders) == len(cursors):
        # Only static cells differ, which every row of the partition repeats.
        return None
    read: dict[RawRow, RowState] = {}
    states: dict[Node, RowState | None] = dict.fromkeys(cursors)
    for node, cursor in holders.items():
        raw = cursor.row
        if raw not in read:
            read[raw] = reading.row_state(raw, now_s, key)
        states[node] = read[raw]
    first, *others = states.values()
    if all(state == first for state in others):
        if any(c.row[layout.regulars] != cells for c in holders.values()):
            raise InternalError("two rows differ in a way that cannot be named; the range cannot be compared")
        return None
    return Difference(RowName(some.sort_key[0], named_key(key)), states)


def _compare_statics(
    reading: Reading, cursors: Mapping[Node, _Cursor], partition: tuple[int, bytes], now_s: int
) -> Difference | None:
    """Compare a partition's static cells once; a replica may have its current, last or no row in it."""
    states: dict[Node, RowState | None] = {}
    key: Key = ()
    for node, cursor in cursors.items():
        row = _row_in(cursor, partition, reading)
        states[node] = None if row is None else reading.static_state(row, now_s)
        if row is not None:
            key = named_key(row[reading.layout.partition])
    if len(set(states.values())) == 1:
        return None
    return Difference(RowName(partition[0], key, static=True), states)


def _row_in(cursor: _Cursor, partition: tuple[int, bytes], reading: Reading) -> RawRow | None:
    candidates = [cursor.before] if cursor.done else [cursor.row, cursor.before]
    for row in candidates:
        if row is None:
            continue
        if (token_in(row), partition_bytes(row[reading.layout.partition])) == partition:
            return row
    return None
