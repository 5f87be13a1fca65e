"""Pages of hashed rows as arrays: of a page whose rows are all laid out alike no row is looked at by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import xxhash
from numpy.typing import NDArray

from consistency.cluster.hashed_columns import HashedColumns
from consistency.cluster.packed_rows import packed
from consistency.cluster.wire import Page
from consistency.model.row_arrays import Flags, HashedRows, Hashes, Numbers

Bytes = NDArray[np.uint8]
"""The bytes of one column's cells, a row each."""
_TOKEN_BYTES = _TIME_BYTES = 8
_TTL_BYTES = 4
_NULL = b"\x80"
"""What a null number begins with, zeros after it: the least number, which stands for no time and is no TTL."""


def hashed_rows(page: Page, asked: HashedColumns) -> HashedRows:
    """Return the rows of a page, whose cells are in the order of what was asked for."""
    cells = _Cells(page)
    tokens = _longs(cells.next(_TOKEN_BYTES))
    hashes = _hashes(cells.next())
    key = [cells.next_as_sent() for _ in asked.key]
    keys = _hashes(cells.next())[:, 0] if asked.hashed_key else _names(tokens, key, asked.widths)
    expiries, ages = (
        _hashes(cells.next())[:, 0] if elements else np.zeros(page.row_count, np.uint64)
        for elements in (asked.elements_expire, asked.elements_written)
    )
    expiries = _folded(expiries, [cells.next(_TTL_BYTES) for _ in asked.expire])
    times = [_longs(cells.next(_TIME_BYTES)) for _ in asked.written]
    stacked = np.stack(times, axis=1) if times else np.zeros((page.row_count, 0), np.int64)
    return HashedRows(tokens, keys, hashes, expiries, ages, stacked)


class _Cells:
    """The cells of a page, a column after the other."""

    def __init__(self, page: Page) -> None:
        self._count = page.row_count
        self._widths = page.widths()
        self._at = 0
        if self._widths is None:
            self._columns: Sequence[Sequence[bytes | None]] = list(zip(*page.rows(), strict=True))
        else:
            self._table = np.frombuffer(page.body, np.uint8).reshape(page.row_count, -1)
            self._starts = list(accumulate((4 + max(width, 0) for width in self._widths), initial=4))

    def next(self, null_width: int = 0) -> Bytes:
        """Return the next column, of which all cells have as many bytes; a null of so many is the least number."""
        null = _NULL.ljust(null_width, b"\0")
        if self._widths is not None and self._widths[self._at] < 0:
            self._at += 1
            return np.broadcast_to(np.frombuffer(null, np.uint8), (self._count, null_width))
        cells = self.next_as_sent()
        if isinstance(cells, np.ndarray):
            return cells
        return _joined([null if cell is None else cell for cell in cells])

    def next_as_sent(self) -> Bytes | Sequence[bytes | None]:
        """Return the next column: bytes where all of its cells have as many and none is a null."""
        at = self._at
        self._at += 1
        if self._widths is None:
            return self._columns[at]
        start, width = self._starts[at], self._widths[at]
        return self._table[:, start : start + width] if width >= 0 else [None] * self._count


def _joined(cells: Sequence[bytes]) -> Bytes:
    return np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), -1)


def _names(tokens: Numbers, key: Sequence[Bytes | Sequence[bytes | None]], widths: Sequence[int]) -> Hashes:
    """Return what names rows: the token, and the cells of the clustering key if there is one, as one number.

    The token alone tells partitions apart, as well as any hash of 64 bits. A row of which a cell has not the bytes of
    its type has its name made by itself: an empty int is one, and the last cells of a compact table may be null.
    """
    columns: list[Bytes] = []
    odd = np.zeros(len(tokens), np.bool_)
    for cells, width in zip(key, widths, strict=True):
        column, unlike = _of_width(cells, width)
        odd |= unlike
        columns.append(column)
    names = _folded(tokens.view(np.uint64), columns)
    for row in np.flatnonzero(odd).tolist():
        names[row] = _odd_name(int(tokens[row]), [cells[row] for cells in key])
    return names


def _of_width(cells: Bytes | Sequence[bytes | None], width: int) -> tuple[Bytes, Flags]:
    """Return a column as bytes, and which of its cells have another width: zeros stand for those."""
    if isinstance(cells, np.ndarray):
        alike = cells.shape[1] == width
        return (cells if alike else np.zeros((len(cells), width), np.uint8)), np.full(len(cells), not alike)
    zeros = bytes(width)
    found = [cell if cell is not None and len(cell) == width else zeros for cell in cells]
    unlike = [cell is not one for cell, one in zip(cells, found, strict=True)]
    return _joined(found), np.array(unlike, np.bool_)


def _odd_name(token: int, key: Sequence[Bytes | bytes | None]) -> int:
    written = packed(tuple(None if cell is None else bytes(cell) for cell in key))
    return xxhash.xxh3_64_intdigest(token.to_bytes(8, "big", signed=True) + written)


def _folded(numbers: Hashes, columns: Sequence[Bytes]) -> Hashes:
    """Return numbers that depend on others and on columns, all of whose cells there are; the others without columns."""
    if not columns:
        return numbers
    width = sum(column.shape[1] for column in columns)
    words = np.zeros((len(numbers), -(-width // 8)), ">u8")
    np.concatenate(columns, axis=1, out=words.view(np.uint8)[:, :width])
    numbers = _mixed(numbers)
    for word in words.T:
        numbers = _mixed(numbers ^ word.astype(np.uint64))
    return numbers


def _mixed(numbers: Hashes) -> Hashes:
    """Return numbers of which each bit depends on all of a number's: two of them never become one (splitmix64)."""
    mixed: Hashes = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _longs(cells: Bytes) -> Numbers:
    return np.ascontiguousarray(cells).view(">i8")[:, 0].astype(np.int64)


def _hashes(cells: Bytes) -> Hashes:
    """Return hashes of 16 bytes, or of 8, as two numbers each."""
    numbers = np.ascontiguousarray(cells).view(">u8")
    two = np.zeros((len(cells), 2), np.uint64)
    two[:, : numbers.shape[1]] = numbers
    return two
