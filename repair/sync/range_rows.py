"""The rows of a range that were counted and not listed: found by reading the range on all replicas of both sides.

Where each side's replicas hold the same bytes of a row, that reading is the evidence that decides about it. Any other
row is named alone, and read by its key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from consistency.checking.joined_rows import joined_rows, windowed_rows
from consistency.checking.plan import Leaf
from consistency.cluster.table_reader import TableReader
from consistency.comparing.counted_rows import Picked, RawKinds
from consistency.comparing.rows import compare_row
from consistency.comparing.terms import Terms
from consistency.model.reading import RawRow, RowState
from consistency.model.sides import Side
from consistency.model.tokens import TokenRange
from consistency.rows.merge_join import JoinCounts
from consistency.rows.names import RowName, named_key
from consistency.rows.windows import KeyCells, RawCopies, Window, WindowTooWide
from repair.sync.cases import PairCase

Make = Callable[[RowName, Mapping[Side, RowState | None]], PairCase]
Found = tuple[RowName, PairCase | None]
"""A row that differs between the sides, with its case where that is known already."""


class RangeRows:
    """Reads the rows of one range on which the sides differ, by the terms of the comparison."""

    def __init__(self, table: TableReader, leaf: Leaf, terms: Terms, make: Make | None) -> None:
        """Read all of every row; `make` makes its case, None if rows must be read by key."""
        self._table = table
        self._leaf = leaf
        self._terms = terms
        self._make = make
        self._bytes = RawKinds(table.reading, terms)
        self._sides = Picked(leaf.replicas)
        self._now_s = table.now_s()

    async def read(self) -> AsyncGenerator[Found, None]:
        """Yield them in ring order; raises a ReplicaError if a replica does not answer."""
        reading, done = self._table.reading, self._leaf.token_range.start
        if self._make is not None and not (reading.statics or reading.table.respelled):
            try:
                async with aclosing(windowed_rows(self._table, self._leaf, JoinCounts(), self._now_s)) as windows:
                    async for window in windows:
                        for found in self._of_window(window, self._make):
                            yield found
                        done = window.end
            except WindowTooWide:
                pass  # a partition that is walked through, with what comes after it
        if done < self._leaf.token_range.end:
            async with aclosing(self._joined(TokenRange(done, self._leaf.token_range.end))) as rest:
                async for found in rest:
                    yield found

    async def _joined(self, token_range: TokenRange) -> AsyncGenerator[Found, None]:
        leaf, reading = Leaf(token_range, self._leaf.replicas), self._table.reading
        async with aclosing(joined_rows(self._table, leaf, JoinCounts(), self._now_s)) as differences:
            async for each in differences:
                columns = reading.statics if each.name.static else reading.regulars
                if compare_row(columns, each.states, self._terms).facts:
                    yield each.name, None

    def _of_window(self, window: Window, make: Make) -> list[Found]:
        found: list[Found] = []
        for token, (key, copies) in zip(window.tokens.tolist(), window.differing.items(), strict=True):
            agreed = self._sides.agreed(copies)
            kind = None if agreed is None else self._bytes.kind(*agreed)
            name = RowName(token, named_key(key))
            if agreed is None or kind is None:
                if self._differs(key, copies):
                    found.append((name, None))
            elif kind != self._bytes.same:
                held = {side: self._state(key, raw) for side, raw in zip(Side, agreed, strict=True)}
                found.append((name, make(name, held)))
        return found

    def _state(self, key: KeyCells, raw: RawRow | None) -> RowState | None:
        return None if raw is None else self._table.reading.row_state(raw, self._now_s, key)

    def _differs(self, key: KeyCells, copies: RawCopies) -> bool:
        states = {node: self._state(key, raw) for node, raw in zip(self._leaf.replicas, copies, strict=True)}
        return bool(compare_row(self._table.reading.regulars, states, self._terms).facts)
