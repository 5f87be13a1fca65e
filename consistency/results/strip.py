"""The ring as a strip of cells: which of them a token or a range lies in, and the gravest mark of each.

Marks, the gravest last: blank if nothing was asked for, `=` read and agreed, `?` not read, `x` a row differs.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

import numpy as np

from consistency.model.row_arrays import Numbers
from consistency.model.tokens import MIN_TOKEN, RING_SIZE, TokenRange

STRIP_CELLS = 64
_CELL_BITS = 64 - (STRIP_CELLS - 1).bit_length()
"""A token shifted by so many bits tells in which cell it lies."""
_MARKS, _WEIGHTS = " =?x", "0123"
_BY_WEIGHT, _BY_MARK = str.maketrans(_MARKS, _WEIGHTS), str.maketrans(_WEIGHTS, _MARKS)


def strip_cell(token: int) -> int:
    """Return the cell in which a token lies, from 0."""
    return min(STRIP_CELLS - 1, (token - MIN_TOKEN) * STRIP_CELLS // (RING_SIZE + 1))


def cells_of(start: int, end: int) -> range:
    """Return the cells in which the tokens of `(start, end]` lie."""
    return range(strip_cell(start + 1), strip_cell(end) + 1)


def one_of_each_cell(tokens: Numbers) -> list[int]:
    """Return one of the tokens of each cell that has any."""
    _, first = np.unique(tokens >> _CELL_BITS, return_index=True)
    found: list[int] = tokens[first].tolist()
    return found


def fill(cells: list[str], token_range: TokenRange, mark: str) -> None:
    """Draw a range into cells: the graver mark wins."""
    for cell in cells_of(token_range.start, token_range.end):
        cells[cell] = max(cells[cell], mark, key=_MARKS.index)


def crossed(cells: Sequence[str], differing: Container[int]) -> str:
    """Return a strip of cells in some of which, by their numbers, a row differs."""
    return "".join("x" if number in differing else cell for number, cell in enumerate(cells))


def overlaid(strips: Iterable[str]) -> str:
    """Return one strip of several, with the gravest mark of each cell; strips that are empty do not count."""
    drawn = [strip.translate(_BY_WEIGHT) for strip in strips if strip]
    return "".join(map(max, *drawn, drawn[0])).translate(_BY_MARK) if drawn else ""
