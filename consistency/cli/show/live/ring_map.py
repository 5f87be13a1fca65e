"""What is known of each replica's ranges, table by table: 64 cells of the ring, as arrays.

A cell is the gravest of its ranges: elsewhere, agreed, ageing, not visited yet, due, unread or divergent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consistency.ledger.history import WARN_AT
from consistency.ledger.spans import Span
from consistency.model.tokens import MIN_TOKEN, RING_SIZE
from consistency.results.report import LEFT_OUT, TableReport
from consistency.results.strip import STRIP_CELLS, cells_of

MARKS = " =a.d?x"
"""From the least grave to the gravest; a strip of the report has ` `, `=`, `?` and `x` of them."""
_ELSEWHERE, _AGREED, _AGEING, _UNVISITED, _DUE, _UNREAD, _DIVERGENT = range(len(MARKS))
AGES_AT = 0.5
"""After this part of gc_grace_seconds an agreed range counts as ageing, and after `WARN_AT` as due."""

_CODES = np.full(256, _UNREAD, dtype=np.uint8)
for _code, _mark in enumerate(MARKS):
    _CODES[ord(_mark)] = _code

Codes = npt.NDArray[np.uint8]
Times = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Cells:
    """One table: `marks` has a row for each node; `clean_at_s` says when a cell was last clean, 0 for never."""

    marks: Codes
    strip: Codes
    clean_at_s: Times
    gc_grace_s: float
    visited: bool = True


class RingMap:
    """The cells of every table that was visited or that a ledger knows, for a watch that began at `began_s`."""

    def __init__(self, began_s: float = 0.0) -> None:
        self._began_s = began_s
        self._rows: dict[str, int] = {}
        self._tables: dict[str, _Cells] = {}

    def keep(self, names: Collection[str]) -> None:
        """Forget tables that are no longer in scope."""
        self._tables = {name: cells for name, cells in self._tables.items() if name in names}

    def visited(
        self, table: TableReport, at_s: float, gc_grace_s: float, spans: Sequence[Span] = (), *, mended: bool = False
    ) -> None:
        """Take the result of a visit; ranges that it left for the next one stay as they were.

        `spans` are what a ledger knows of the table: exact where a cell is read in parts.
        """
        for name in table.tracks:
            self._rows.setdefault(name, len(self._rows))
        old = self._grown(table.full_name)
        marks, strip = np.zeros_like(old.marks), codes_of(table.strip)
        for name, track in table.tracks.items():
            marks[self._rows[name]] = codes_of(track)
        put_off = (strip == _UNREAD) & ~_failed_cells(table)
        if not table.tracks and table.coverage.failed:
            strip[:], marks[:], put_off[:] = _UNREAD, _UNREAD, False
        clean_at_s = np.where(strip == _AGREED, at_s, old.clean_at_s)
        if spans:
            clean_at_s, tried_at_s, agreed = _cells_of(spans)
            old.marks[:, agreed], old.strip[agreed] = _AGREED, _AGREED
            # Read in parts by this watch: what had differed or failed would be marked.
            seen = tried_at_s >= self._began_s
            for known in (old.marks, old.strip):
                known[seen & (known <= _UNVISITED)] = _AGREED
        left = put_off & (marks == _UNREAD)
        marks[left] = np.where(old.marks == _ELSEWHERE, _UNVISITED, old.marks)[left]
        strip[put_off] = np.where(old.strip == _ELSEWHERE, _UNVISITED, old.strip)[put_off]
        if mended:
            marks[marks == _DIVERGENT], strip[strip == _DIVERGENT] = _AGREED, _AGREED
        self._tables[table.full_name] = _Cells(marks, strip, clean_at_s, gc_grace_s)

    def known(self, full_name: str, spans: Sequence[Span], gc_grace_s: float) -> None:
        """Take what a ledger knows of a table that was not visited yet: whose ranges they are is not known."""
        clean_at_s, _, agreed = _cells_of(spans)
        old = self._grown(full_name)
        strip = np.where(agreed, _AGREED, _UNVISITED).astype(np.uint8)
        self._tables[full_name] = _Cells(old.marks, strip, clean_at_s, gc_grace_s, visited=False)

    def _grown(self, full_name: str) -> _Cells:
        """Return a copy of a table's cells, with a row for every node that is known by now."""
        marks = np.zeros((len(self._rows), STRIP_CELLS), dtype=np.uint8)
        old = self._tables.get(full_name)
        if old is None:
            return _Cells(marks, np.zeros(STRIP_CELLS, dtype=np.uint8), np.zeros(STRIP_CELLS), 0.0)
        marks[: len(old.marks)] = old.marks
        return _Cells(marks, old.strip.copy(), old.clean_at_s.copy(), old.gc_grace_s)

    def failed(self, full_name: str) -> None:
        """Take note that nothing is known of a table any more but when it was last clean."""
        cells = self._tables.get(full_name)
        if cells is not None:
            cells.marks[cells.marks != _ELSEWHERE] = _UNREAD
            cells.strip[cells.strip != _ELSEWHERE] = _UNREAD

    def tracks(self, nodes: Iterable[str], names: Collection[str], now_s: float) -> dict[str, Codes]:
        """Return the cells of each node over all tables in scope; a table without a visit makes them unvisited."""
        height = len(self._rows)
        over_all = np.zeros((height, STRIP_CELLS), dtype=np.uint8)
        waiting = np.full(STRIP_CELLS, _UNVISITED if self._tables.keys() < set(names) else _ELSEWHERE, dtype=np.uint8)
        for cells in self._tables.values():
            marks = _aged(cells.marks, cells, now_s)
            np.maximum(over_all[: len(marks)], marks, out=over_all[: len(marks)])
            if not cells.visited:
                np.maximum(waiting, _aged(cells.strip, cells, now_s), out=waiting)
        out: dict[str, Codes] = {}
        for node in nodes:
            row = self._rows.get(node)
            track = over_all[row].copy() if row is not None else np.zeros(STRIP_CELLS, dtype=np.uint8)
            owned = track != _ELSEWHERE if track.any() else np.full(STRIP_CELLS, fill_value=True)
            track[owned] = np.maximum(track, waiting)[owned]
            out[node] = track
        return out

    def strip(self, full_name: str, now_s: float) -> str:
        """Return the cells of one table; empty before its first visit."""
        cells = self._tables.get(full_name)
        return "" if cells is None else text_of(_aged(cells.strip, cells, now_s))

    def clean_age_s(self, full_name: str, now_s: float) -> float | None:
        """Return the age of a table's oldest clean cell, infinite if one never was; None without anything to read."""
        cells = self._tables.get(full_name)
        if cells is None:
            return math.inf
        planned = cells.clean_at_s[cells.strip != _ELSEWHERE]
        if not planned.size:
            return None
        return math.inf if not planned.all() else max(0.0, now_s - float(planned.min()))


def merged(tracks: Sequence[Codes]) -> Codes:
    """Merge tracks; each cell shows its gravest mark."""
    return np.maximum.reduce(list(tracks))  # type: ignore[no-any-return]


def text_of(codes: Codes) -> str:
    """Return a track or strip as marks."""
    return "".join(MARKS[code] for code in codes)


def has_trouble(codes: Codes) -> bool:
    """Whether any cell is due, unread or divergent."""
    return bool((codes >= _DUE).any())


def codes_of(strip: str) -> Codes:
    """Return a strip's marks as codes."""
    read = np.frombuffer(strip.encode("ascii", "replace").ljust(STRIP_CELLS)[:STRIP_CELLS], dtype=np.uint8)
    return _CODES[read]


def _aged(marks: Codes, cells: _Cells, now_s: float) -> Codes:
    """Return marks with agreed cells by their age."""
    if not cells.gc_grace_s:  # no tombstone is kept, so no pass is late
        return marks
    part = (now_s - cells.clean_at_s) / cells.gc_grace_s
    by_age = np.where(part >= WARN_AT, _DUE, np.where(part >= AGES_AT, _AGEING, _AGREED)).astype(np.uint8)
    # Never clean, but agreed on this replica: another one differs, or was not read.
    by_age[cells.clean_at_s == 0] = _AGREED
    return np.where(marks == _AGREED, by_age, marks)


def _failed_cells(table: TableReport) -> npt.NDArray[np.bool_]:
    """Return the cells in which something failed, and was not only left for the next visit."""
    failed = np.zeros(STRIP_CELLS, dtype=np.bool_)
    for unread in table.unread:
        if unread.reason not in LEFT_OUT:
            for token_range in unread.ranges:
                failed[cells_of(token_range.start, token_range.end)] = True
    return failed


def _cells_of(spans: Sequence[Span]) -> tuple[Times, Times, npt.NDArray[np.bool_]]:
    """Return when each cell was last clean and last read in all its parts, 0 for never; and if all were clean then."""
    width = RING_SIZE / STRIP_CELLS
    clean_at_s, tried_at_s = np.full(STRIP_CELLS, np.inf), np.full(STRIP_CELLS, np.inf)
    covered, unclean = np.zeros(STRIP_CELLS), np.zeros(STRIP_CELLS, dtype=np.bool_)
    for span in spans:
        start, end = (span.start - MIN_TOKEN) / width, (span.end - MIN_TOKEN) / width
        for cell in cells_of(span.start, span.end):
            clean_at_s[cell] = min(clean_at_s[cell], span.clean_us / 1e6)
            tried_at_s[cell] = min(tried_at_s[cell], span.tried_us / 1e6)
            covered[cell] += min(end, cell + 1) - max(start, cell)
            unclean[cell] |= span.clean_us < span.tried_us
    gaps = covered < 1 - 1e-6
    clean_at_s[gaps], tried_at_s[gaps] = 0.0, 0.0
    return clean_at_s, tried_at_s, (clean_at_s > 0) & ~unclean
