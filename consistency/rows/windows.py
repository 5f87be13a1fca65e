"""The rows of one token range that not all of its replicas hold alike, a window of tokens at a time.

Where many rows differ, walking through them in order costs more than sorting out the equal ones by their bytes: each
replica's rows of a window are a set, what all sets hold is equal everywhere, and only the rest is taken apart and
matched by its key. So nothing need be known of the order of rows within a token. A window ends between two tokens, as
the rows of a partition belong together; who reads a partition that is larger than a window can be walks through it
(`merge_join.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

import numpy as np

from consistency.cluster.packed_rows import PackedPages, PackedRow, keys_of, tokens_of, unpacked
from consistency.errors import InternalError
from consistency.model.layout import RowLayout
from consistency.model.reading import RawRow
from consistency.model.row_arrays import Numbers
from consistency.rows.merge_join import JoinCounts

KeyCells = tuple[bytes | None, ...]
"""The cells of a primary key as a server sends them."""
RawCopies = tuple[RawRow | None, ...]
"""One row as each replica holds it, in the order of the replicas."""

_TWICE = "a replica sent one row twice; the range cannot be compared"


class WindowTooWide(Exception):
    """The rows of one token are too many to be kept in memory together."""


@dataclass(frozen=True, eq=False)
class Window:
    """The rows up to a token: those that differ by key, in ring order with their tokens, and those that are alike."""

    end: int
    tokens: Numbers
    differing: dict[KeyCells, RawCopies]
    alike: Sequence[PackedRow]

    @property
    def rows(self) -> int:
        """How many distinct rows the window has."""
        return len(self.differing) + len(self.alike)


class _Ahead:
    """One replica's rows that were read and are not in a window yet, with their tokens."""

    def __init__(self, pages: PackedPages, counts: JoinCounts) -> None:
        self._pages = pages
        self._counts = counts
        self._page = 0
        self.rows: list[PackedRow] = []
        self.tokens: Numbers = np.zeros(0, np.int64)
        self.done = False
        self._weighed = self._weight = 0

    async def more(self) -> None:
        """Read a page."""
        try:
            page = await anext(self._pages)
        except StopAsyncIteration:
            self.done = True
            return
        self._page = len(page)
        self._counts.largest_page = max(self._counts.largest_page, len(page))
        self.rows += page
        self.tokens = np.concatenate([self.tokens, tokens_of(page)])
        if (self.tokens[1:] < self.tokens[:-1]).any():  # their difference may be larger than a number holds
            raise InternalError("rows did not arrive in ring order; the range cannot be compared")

    @property
    def few(self) -> bool:
        """Whether less than half a page is left."""
        return 2 * len(self.rows) <= self._page

    @property
    def whole_to(self) -> int | None:
        """The token up to which no more rows will come; None if nothing more comes at all."""
        if self.done:
            return None
        return int(self.tokens[-1]) - 1 if self.rows else np.iinfo(np.int64).min

    def take(self, end: int) -> list[PackedRow]:
        """Return the rows up to a token, and forget them."""
        count = int(np.searchsorted(self.tokens, end, side="right"))
        if not count:
            return []
        taken, self.rows, self.tokens = self.rows[:count], self.rows[count:], self.tokens[count:]
        self._weighed = self._weight = 0
        return taken

    def weigh(self) -> int:
        """Return how many bytes the rows take; those that were weighed already are not looked at again."""
        self._weight += sum(map(len, self.rows[self._weighed :]))
        self._weighed = len(self.rows)
        return self._weight


async def windows(
    layout: RowLayout, streams: Sequence[PackedPages], end: int, counts: JoinCounts, most: int, most_bytes: int
) -> AsyncGenerator[Window, None]:
    """Yield the range's windows up to its end in ring order; `counts.rows` has counted a window's rows by then.

    Raises WindowTooWide if a replica has more than `most` rows, or `most_bytes` of them, of which none can be told
    to be the last of its token, InternalError if rows come out of order or twice.
    """
    ahead = [_Ahead(stream, counts) for stream in streams]
    while True:
        await _read_on(ahead)
        cut = _least(ahead)
        until = end if cut is None else cut
        window = _window(layout, [each.take(until) for each in ahead], until)
        counts.rows += window.rows
        if window.rows or cut is None:
            yield window
        elif any(len(each.rows) > most or each.weigh() > most_bytes for each in ahead):
            raise WindowTooWide
        if cut is None:
            return


async def _read_on(ahead: Sequence[_Ahead]) -> None:
    """Read a page of each replica that has few rows left, or keeps the others waiting; all end before one fails."""
    least = _least(ahead)
    asked = [each for each in ahead if not each.done and (each.few or each.whole_to == least)]
    for failed in await asyncio.gather(*(each.more() for each in asked), return_exceptions=True):
        if failed is not None:
            raise failed


def _least(ahead: Sequence[_Ahead]) -> int | None:
    """Return the token up to which the rows of all replicas are there; None if all of the range is."""
    return min((to for each in ahead if (to := each.whole_to) is not None), default=None)


def _window(layout: RowLayout, parts: Sequence[list[PackedRow]], end: int) -> Window:
    unlike, places = _told_apart(parts)
    first, *others = unlike
    if not others:
        return Window(end, np.zeros(0, np.int64), {}, first)
    common = set(first).intersection(*others)
    rest = [[row for row in part if row not in common] if common else part for part in unlike]
    rows, one_of_each = _by_key(layout, rest)
    begin = layout.key.stop
    if not set(keys_of(one_of_each, begin)).isdisjoint(keys_of([*common], begin)):
        raise InternalError(_TWICE)
    alike = [row for row in first if row in common] if common else []
    tokens = tokens_of(one_of_each)
    order = np.argsort(tokens, kind="stable")
    keys, copies = list(rows), list(rows.values())
    of_each: Callable[[list[RawRow | None]], RawCopies] = itemgetter(*places)
    ordered = {keys[n]: of_each(copies[n]) for n in order.tolist()}
    return Window(end, tokens[order], ordered, alike)


def _by_key(
    layout: RowLayout, parts: Sequence[Sequence[PackedRow]]
) -> tuple[dict[KeyCells, list[RawRow | None]], list[PackedRow]]:
    """Take rows apart, and return the copies of each by its key; and one of the copies of each, as it was sent.

    What several replicas sent is one object.
    """
    apart = list(dict.fromkeys(chain.from_iterable(parts)))
    raws = dict(zip(apart, unpacked(apart, layout.regulars.stop), strict=True))
    key_of: Callable[[RawRow], KeyCells] = itemgetter(layout.key)
    rows: dict[KeyCells, list[RawRow | None]] = {}
    one_of_each: list[PackedRow] = []
    for place, part in enumerate(parts):
        for row in part:
            raw = raws[row]
            key = key_of(raw)
            held = rows.get(key)
            if held is None:
                held = rows[key] = [None] * len(parts)
                one_of_each.append(row)
            if held[place] is not None:
                raise InternalError(_TWICE)
            held[place] = raw
    return rows, one_of_each


def _told_apart(parts: Sequence[list[PackedRow]]) -> tuple[list[list[PackedRow]], list[int]]:
    """Return the parts that are not the same, and which of them each replica sent: most hold what another one does."""
    unlike: list[list[PackedRow]] = []
    places: list[int] = []
    for part in parts:
        place = next((place for place, other in enumerate(unlike) if other == part), len(unlike))
        if place == len(unlike):
            unlike.append(part)
        places.append(place)
    return unlike, places


def by_key(layout: RowLayout, rows: Sequence[PackedRow]) -> dict[KeyCells, RawRow]:
    """Return rows taken apart, by the cells of their keys."""
    raws = unpacked(rows, layout.regulars.stop)
    return dict(zip(map(itemgetter(layout.key), raws), raws, strict=True))


def bytes_of(rows: Sequence[RawRow | None]) -> int:
    """Return how many bytes the cells of rows take."""
    return sum(map(len, filter(None, chain.from_iterable(filter(None, rows)))))
