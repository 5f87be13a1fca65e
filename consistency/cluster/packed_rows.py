"""Rows as the bytes they arrive in, each cell with its length in front: what is alike need not be taken apart.

Nothing in a page says where a row ends: that takes the length of each of its cells. So a mark is asked for as the last
cell of every row, and the page is cut where the mark is. It is drawn at random, so no value holds it but by chance;
then there is a piece too many, and the rows are taken apart after all.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from consistency.cluster.wire import INT, Page
from consistency.model.reading import RawRow
from consistency.model.row_arrays import Numbers

PackedRow = bytes
"""A row as a server sends it: each cell as a signed 32-bit length and its bytes; a null has the length -1."""
PackedPages = AsyncGenerator[list[PackedRow], None]
"""What one replica sends, a page at a time. Whoever asked for it reads it within `aclosing`, to the end or not."""

MARK = os.urandom(16)
"""The last cell of each row of a page that is cut into rows."""

_TOKEN = slice(4, 12)
_NULL = INT.pack(-1)


def packed(row: Sequence[bytes | None]) -> PackedRow:
    """Return the cells of a row, or some of them, as the bytes they would arrive in."""
    return b"".join([_NULL if cell is None else INT.pack(len(cell)) + cell for cell in row])


def unpacked(rows: Sequence[PackedRow], cells: int) -> list[RawRow]:
    """Return rows of so many cells taken apart."""
    return Page(len(rows), cells, b"".join(rows)).rows()


def cut(page: Page, mark: bytes = MARK) -> list[PackedRow]:
    """Return the rows of a page each of which ends with the mark, without it."""
    *rows, rest = page.body.split(packed((mark,)))
    if len(rows) == page.row_count and not rest:
        return rows
    return [packed(row[:-1]) for row in page.rows()]


def tokens_of(rows: Sequence[PackedRow]) -> Numbers:
    """Return the token that each row begins with."""
    return np.frombuffer(b"".join([row[_TOKEN] for row in rows]), ">i8").astype(np.int64)


def keys_of(rows: Sequence[PackedRow], cells: int) -> list[bytes]:
    """Return what each row begins with: its token and the cells of its primary key, so many together."""
    if not rows:
        return []
    starts = _starts(rows[0], cells)
    width = starts.pop()
    heads = [row[:width] for row in rows]
    table = np.frombuffer(b"".join(heads), np.uint8)
    if len(table) == width * len(rows):
        table = table.reshape(len(rows), width)
        if all((table[:, at : at + 4] == table[0, at : at + 4]).all() for at in starts):
            return heads  # all keys are laid out alike
    return [row[: _starts(row, cells)[-1]] for row in rows]


def _starts(row: PackedRow, cells: int) -> list[int]:
    """Return where the first cells of a row begin, and where they end."""
    starts = [0]
    for _ in range(cells):
        starts.append(starts[-1] + 4 + max(0, INT.unpack_from(row, starts[-1])[0]))
    return starts
