"""Rows as the bytes they arrive in: cut at the mark, taken apart, named by their keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.cluster import selects
from consistency.cluster.packed_rows import MARK, cut, keys_of, packed, tokens_of, unpacked
from consistency.cluster.wire import Page
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.tokens import TokenRange
from tests.simulation.values import int_bytes, long_bytes, make_table

CELLS = 4
CELL = st.none() | st.binary(max_size=40)
KEYS = st.tuples(st.integers(-(2**63), 2**63 - 1).map(long_bytes), st.binary(max_size=6))
ROWS = st.lists(st.tuples(KEYS, CELL, CELL).map(lambda parts: (*parts[0], *parts[1:])), max_size=80)


def _page(rows: list[RawRow], mark: bytes = MARK) -> Page:
    return Page(len(rows), CELLS + 1, b"".join(packed((*row, mark)) for row in rows))


@given(ROWS)
def test_a_page_is_cut_into_the_rows_that_were_sent(rows: list[RawRow]) -> None:
    """Empty cells and nulls are not mixed up, and each row names its token and key."""
    found = cut(_page(rows))
    assert found == [packed(row) for row in rows]
    assert unpacked(found, CELLS) == rows
    assert tokens_of(found).tolist() == [int.from_bytes(row[0] or b"", "big", signed=True) for row in rows]
    assert keys_of(found, 2) == [packed(row[:2]) for row in rows]


@given(st.integers(1, 60), st.integers(0, 59))
def test_a_value_that_holds_the_mark_cuts_no_row_in_two(count: int, at: int) -> None:
    """Whether it is a whole cell or the end of one, in one row or in the last of a page."""
    for value in (MARK, b"x" + packed((MARK,)), packed((MARK,)) * 2):
        rows: list[RawRow] = [(long_bytes(n), int_bytes(n), b"a", None) for n in range(count)]
        rows[at % count] = (long_bytes(5), int_bytes(5), value, value)
        assert cut(_page(rows)) == [packed(row) for row in rows]


@pytest.mark.parametrize("odd", [(b"", b"\0\0\0\1\0\0"), (b"\0\0\0\1\0", b"\0")])
def test_keys_that_are_laid_out_otherwise_are_told_apart(odd: tuple[bytes, bytes]) -> None:
    """A head that is as long as the others' may still have other cells in it."""
    rows: list[RawRow] = [(long_bytes(n), int_bytes(n), b"\0\0", b"v") for n in range(3)]
    rows.insert(1, (long_bytes(9), *odd, b"v"))
    assert keys_of([packed(row) for row in rows], 3) == [packed(row[:3]) for row in rows]


def test_the_mark_is_the_last_cell_of_each_row_and_of_nothing_else() -> None:
    """Rows that are hashed here as the bytes they arrive in have no mark, which is another in each process."""
    reading = Reading(make_table("t", ["int"], ["int"], regulars=["int"]), Depth.CONTENT, Capabilities())
    text = selects.select_rows(reading, TokenRange.full_ring(), MARK)
    assert f", (blob)0x{MARK.hex()} AS mark FROM" in text
    assert "mark" not in selects.select_rows(reading, TokenRange.full_ring())
    assert len(MARK) == 16
    assert len(np.unique(np.frombuffer(MARK, np.uint8))) > 4  # drawn, not a constant of zeros
