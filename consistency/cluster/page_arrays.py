"""Pages of hashed rows as arrays: of a page whose rows are all laid out alike no row is looked at by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from consistency.cluster.wire import Page
from consistency.model.row_arrays import NO_TIME, HashedRows

_TOKEN, _KEY, _HASH, _EXPIRY, _AGE, _TIMES = range(6)
_NO_TIME_BYTES = NO_TIME.to_bytes(8, "big", signed=True)


def hashed_rows(page: Page) -> HashedRows:
    """Return the rows of a page: token, hashes of key, row, expiries and ages, then a write time by column."""
    cells = _in_columns(page)
    return HashedRows(
        _longs(cells[_TOKEN]),
        _hashes(cells[_KEY])[:, 0],
        _hashes(cells[_HASH]),
        _hashes(cells[_EXPIRY])[:, 0],
        _hashes(cells[_AGE])[:, 0],
        np.stack([_longs(column) for column in cells[_TIMES:]], axis=1)
        if len(cells) > _TIMES
        else np.zeros((page.row_count, 0), np.int64),
    )


def _in_columns(page: Page) -> list[NDArray[np.uint8]]:
    """Return the bytes of each column's cells, a row each; a null is the least bigint."""
    widths = page.widths()
    if widths is None:
        return [_joined(column) for column in zip(*page.rows(), strict=True)]
    starts = accumulate((4 + max(width, 0) for width in widths), initial=4)
    table = np.frombuffer(page.body, np.uint8).reshape(page.row_count, -1)
    return [
        table[:, start : start + width] if width >= 0 else _joined([None] * page.row_count)
        for start, width in zip(starts, widths, strict=False)
    ]


def _joined(cells: Sequence[bytes | None]) -> NDArray[np.uint8]:
    raw = b"".join(_NO_TIME_BYTES if cell is None else cell for cell in cells)
    return np.frombuffer(raw, np.uint8).reshape(len(cells), -1)


def _longs(cells: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.ascontiguousarray(cells).view(">i8")[:, 0].astype(np.int64)


def _hashes(cells: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return hashes of 16 bytes, or of 8, as two numbers each."""
    numbers = np.ascontiguousarray(cells).view(">u8")
    two = np.zeros((len(cells), 2), np.uint64)
    two[:, : numbers.shape[1]] = numbers
    return two
