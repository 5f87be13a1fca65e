"""A page of rows taken apart: by walking through it or all at once, the same rows come out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.cluster.wire import INT, Page

Rows = list[tuple[bytes | None, ...]]


def page(rows: Rows) -> Page:
    """Serialize rows as a server does."""
    body = b"".join(INT.pack(-1) if cell is None else INT.pack(len(cell)) + cell for row in rows for cell in row)
    return Page(len(rows), len(rows[0]) if rows else 0, body)


@given(st.data(), st.integers(1, 5), st.integers(0, 80))
def test_rows_come_out_as_they_were_put_in(data: st.DataObject, width: int, count: int) -> None:
    """Nulls, empty cells, and cells of one size or of several."""
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=width, max_size=width))
    odd = data.draw(st.booleans())
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    rows: Rows = [tuple(rng.randbytes(size) for size in sizes) for _ in range(count)]
    if odd and rows:
        for _ in range(rng.randint(1, 3)):
            i, j = rng.randrange(count), rng.randrange(width)
            changed = rng.choice([None, b"", rng.randbytes(rng.randrange(8))])
            rows[i] = (*rows[i][:j], changed, *rows[i][j + 1 :])
    assert page(rows).rows() == rows


def test_lengths_that_only_look_alike_are_walked_through() -> None:
    """The body is as long as rows of the first one's layout would be, and is something else."""
    rows: Rows = [(b"ab", b"cd"), *[(b"a", b"bcd"), (b"abc", b"d")] * 20]
    assert page(rows).rows() == rows


@pytest.mark.parametrize("ways", [2, 7, 300])
def test_rows_of_several_layouts(ways: int) -> None:
    """Texts of other lengths, nulls, and lengths that look like another layout's from where that would have them."""
    rng = random.Random(ways)
    kinds = [(8, rng.randrange(20), rng.choice((None, 4)), rng.choice((None, 0, 3))) for _ in range(ways)]
    rows: Rows = [
        tuple(None if size is None else bytes(rng.choices(b"\x00\x04", k=size)) for size in rng.choice(kinds))
        for _ in range(2_000)
    ]
    assert page(rows).rows() == rows
    assert page([row[:1] for row in rows] + [(None,)]).rows() == [*(row[:1] for row in rows), (None,)]


@pytest.mark.parametrize("count", [31, 32, 5_000])
def test_rows_of_one_layout(count: int) -> None:
    """As hashes come: a token, a key, sixteen bytes."""
    rng = random.Random(count)
    rows: Rows = [(rng.randbytes(8), rng.randbytes(4), rng.randbytes(16)) for _ in range(count)]
    assert page(rows).rows() == rows
    assert bool(page(rows)._uniform()) == (count > 31)
