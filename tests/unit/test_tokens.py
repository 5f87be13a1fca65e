"""Token ranges: what they hold, and that no cut, join or difference loses or doubles a token."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.errors import InternalError, TopologyError
from consistency.model.tokens import (
    MAX_TOKEN,
    MIN_TOKEN,
    RING_SIZE,
    TokenRange,
    assert_tiles,
    merged,
    unwrapped,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKENS = st.one_of(
    st.integers(MIN_TOKEN, MAX_TOKEN),
    st.integers(-6, 6),
    st.sampled_from([MIN_TOKEN, MIN_TOKEN + 1, MAX_TOKEN - 1, MAX_TOKEN]),
)


@st.composite
def token_ranges(draw: st.DrawFn) -> TokenRange:
    """Any range inside the ring, wide or a single token."""
    start, end = sorted(draw(st.lists(TOKENS, min_size=2, max_size=2, unique=True)))
    return TokenRange(start, end)


@st.composite
def disjoint_ranges(draw: st.DrawFn) -> list[TokenRange]:
    """Sorted disjoint ranges; some touch."""
    cuts = sorted(draw(st.lists(TOKENS, max_size=12, unique=True)))
    every = [TokenRange(a, b) for a, b in pairwise(cuts)]
    keep = draw(st.lists(st.booleans(), min_size=len(every), max_size=len(every)))
    return [piece for piece, kept in zip(every, keep, strict=True) if kept]


def width(ranges: Iterable[TokenRange]) -> int:
    """Count the tokens in disjoint ranges."""
    return sum(r.width for r in ranges)


def test_a_range_holds_its_end_but_not_its_start() -> None:
    """Bounds are `(start, end]`, as in Cassandra."""
    piece = TokenRange(10, 20)
    assert 20 in piece
    assert 10 not in piece
    assert 21 not in piece
    assert "20" not in piece
    assert str(piece) == "(10, 20]"


@pytest.mark.parametrize(
    ("start", "end"), [(5, 5), (6, 5), (MIN_TOKEN - 1, 0), (0, MAX_TOKEN + 1), (MAX_TOKEN, MIN_TOKEN)]
)
def test_a_range_neither_wraps_nor_is_empty_nor_leaves_the_ring(start: int, end: int) -> None:
    """Two equal tokens mean neither nothing nor everything: they are refused."""
    with pytest.raises(TopologyError, match="not a token range"):
        TokenRange(start, end)


def test_the_full_ring_holds_every_token_that_a_partition_can_have() -> None:
    """All tokens but the smallest, which Murmur3Partitioner never gives to a partition."""
    ring = TokenRange.full_ring()
    assert ring.width == RING_SIZE
    assert ring.share == 1.0
    assert MAX_TOKEN in ring
    assert MIN_TOKEN not in ring


@given(token_ranges(), st.integers(-1, 300))
def test_split_tiles_its_range_evenly(piece: TokenRange, parts: int) -> None:
    """Pieces join to the whole, no more of them than asked for or than tokens, widths within one."""
    pieces = piece.split(parts)
    assert merged(pieces) == (piece,)
    assert len(pieces) == max(1, min(parts, piece.width))
    widths = {p.width for p in pieces}
    assert max(widths) - min(widths) <= 1


def test_a_single_token_cannot_be_cut() -> None:
    """Splitting one token gives it back."""
    assert TokenRange(7, 8).split(16) == (TokenRange(7, 8),)


@given(TOKENS, TOKENS, TOKENS)
def test_unwrapped_holds_what_the_wrapping_range_holds(start: int, end: int, token: int) -> None:
    """Going clockwise from start to end over the end of the ring meets the same tokens."""
    pieces = unwrapped(start, end)
    if token == MIN_TOKEN:
        inside = False
    elif start < end:
        inside = start < token <= end
    else:
        inside = token > start or token <= end
    assert any(token in piece for piece in pieces) is inside
    assert width(merged(pieces)) == width(pieces)


def test_unwrapped_at_the_ends_of_the_ring() -> None:
    """No piece is made of nothing where a range starts at the last token or ends at the first."""
    assert unwrapped(MAX_TOKEN, MIN_TOKEN) == ()
    assert unwrapped(MAX_TOKEN, 5) == (TokenRange(MIN_TOKEN, 5),)
    assert unwrapped(5, MIN_TOKEN) == (TokenRange(5, MAX_TOKEN),)
    assert unwrapped(5, 5) == (TokenRange.full_ring(),)


@given(disjoint_ranges())
def test_merged_joins_what_touches_and_keeps_every_token(ranges: list[TokenRange]) -> None:
    """The joined ranges are as wide together, in order, and never touch."""
    joined = merged(reversed(ranges))
    assert width(joined) == width(ranges)
    assert all(a.end < b.start for a, b in pairwise(joined))
    assert all(any(j.covers(piece) for j in joined) for piece in ranges)


@pytest.mark.parametrize("other", [TokenRange(19, 30), TokenRange(10, 20), TokenRange(12, 13), TokenRange(0, 11)])
def test_merged_refuses_an_overlap(other: TokenRange) -> None:
    """A token that is there twice would be counted twice."""
    with pytest.raises(TopologyError, match="overlap"):
        merged([TokenRange(10, 20), other])


def test_assert_tiles_notices_a_lost_and_a_doubled_token() -> None:
    """A gap is our own error; an overlap is too, and neither passes."""
    whole = [TokenRange(0, 100)]
    assert_tiles([TokenRange(50, 100), TokenRange(0, 50)], whole)
    with pytest.raises(InternalError, match="do not tile"):
        assert_tiles([TokenRange(0, 50), TokenRange(51, 100)], whole)
    with pytest.raises(TopologyError, match="overlap"):
        assert_tiles([TokenRange(0, 51), TokenRange(50, 100)], whole)
