"""Ranges laid over ranges: what is known of each token, against a model that looks at every token alone."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from consistency.ledger.spans import Age, Span, age, last_tried, overlay, owned_spans, owners_id, still_owned
from consistency.model.ring import Arc
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange
from tests.simulation.scenario import make_nodes

A, B, C = make_nodes(("dc1",) * 3)
WIDTH = 12


@st.composite
def spans(draw: st.DrawFn, newer: bool = False) -> list[Span]:
    """Draw some spans over the tokens 1 to WIDTH: sorted, free of overlaps, with gaps."""
    cuts = sorted(draw(st.sets(st.integers(0, WIDTH), min_size=2)))
    out = []
    for start, end in pairwise(cuts):
        if draw(st.booleans()):
            tried = draw(st.integers(10, 19) if newer else st.integers(1, 9))
            clean = draw(st.sampled_from((0, tried)))
            out.append(Span(start, end, draw(st.integers(1, 2)), tried, clean))
    return out


def at(known: list[Span], token: int) -> Span | None:
    """Return the span a token lies in."""
    return next((s for s in known if s.start < token <= s.end), None)


@given(spans(), spans(newer=True))
def test_an_overlay_is_new_where_it_was_read_and_old_elsewhere(old: list[Span], new: list[Span]) -> None:
    """No token is lost or known twice, and none becomes cleaner than its own last clean pass."""
    both = overlay(old, new)
    assert all(a.end <= b.start for a, b in pairwise(both))
    for token in range(1, WIDTH + 1):
        before, read, after = at(old, token), at(new, token), at(both, token)
        expected = read or before
        assert (after is None) == (expected is None)
        if after is None or expected is None:
            continue
        assert (after.tried_us, after.owners) == (expected.tried_us, expected.owners)
        inherited = before.clean_us if before and before.owners == after.owners else 0
        if read is None or read.clean_us:
            assert after.clean_us == expected.clean_us
        else:
            assert after.clean_us <= inherited


def test_a_range_that_was_not_clean_keeps_the_time_of_its_last_clean_pass() -> None:
    """The age of the last clean pass goes on, however the range is cut this time: the oldest part tells."""
    old = [Span(0, 4, 1, 5, 5), Span(4, 8, 1, 7, 7)]
    assert overlay(old, [Span(2, 6, 1, 9)]) == [Span(0, 2, 1, 5, 5), Span(2, 6, 1, 9, 5), Span(6, 8, 1, 7, 7)]
    assert overlay(old, [Span(0, 8, 1, 9)]) == [Span(0, 8, 1, 9, 5)]
    assert overlay(old, [Span(4, 9, 1, 9)]) == [Span(0, 4, 1, 5, 5), Span(4, 9, 1, 9, 0)]
    assert overlay(old, [Span(0, 8, 2, 9)]) == [Span(0, 8, 2, 9, 0)]


@given(spans(), spans(newer=True))
def test_what_other_nodes_own_now_is_known_no_more(known: list[Span], ring: list[Span]) -> None:
    """Each token keeps its times exactly where its owners are the same."""
    kept = still_owned(known, ring)
    for token in range(1, WIDTH + 1):
        before, now, after = at(known, token), at(ring, token), at(kept, token)
        if before is not None and now is not None and before.owners == now.owners:
            assert after is not None
            assert (after.tried_us, after.clean_us) == (before.tried_us, before.clean_us)
        else:
            assert after is None


@given(spans(), st.sets(st.integers(0, WIDTH), min_size=2))
def test_a_range_was_tried_when_its_oldest_part_was(known: list[Span], cuts: set[int]) -> None:
    """A range with a part that never was read is as good as never read."""
    places = sorted(cuts)
    ranges = [TokenRange(a, b) for a, b in pairwise(places)]
    for found, wanted in zip(last_tried(known, ranges), ranges, strict=True):
        held = [at(known, token) for token in range(wanted.start + 1, wanted.end + 1)]
        assert found == min(0 if span is None else span.tried_us for span in held)


@given(spans(), spans())
def test_an_age_is_that_of_the_oldest_of_the_youngest(one: list[Span], other: list[Span]) -> None:
    """Of two depths the younger pass counts for each token; what was never clean is counted, never lost."""
    found = age([one, other])
    youngest = [
        max((s.clean_us for s in (at(one, t), at(other, t)) if s is not None), default=0) for t in range(1, WIDTH + 1)
    ]
    times = [t for t in youngest if t]
    assert found.oldest_us == (min(times) if times else None)
    assert found.never > 0


def test_the_whole_ring_clean_leaves_nothing_never_clean() -> None:
    """And a single token that is missing shows."""
    whole = [Span(MIN_TOKEN, 0, 1, 5, 5), Span(0, MAX_TOKEN, 1, 6, 6)]
    assert age([whole]) == Age(5, 0.0, 2, 5)
    assert age([whole, []]) == Age(5, 0.0, 2, 5)
    assert age([[]]) == Age(None, 1.0, 0, 0)
    almost = age([[Span(MIN_TOKEN, MAX_TOKEN - 1, 1, 5, 5)]])
    assert almost.never > 0
    assert almost.tried_us == 0
    assert age([whole, [Span(MIN_TOKEN, 0, 1, 9, 0)]]) == Age(5, 0.0, 2, 6)
    assert RING_SIZE == MAX_TOKEN - MIN_TOKEN


def test_owners_are_a_set() -> None:
    """The order of replicas says nothing; their number and names do."""
    assert owners_id([A, B]) == owners_id([B, A]) != owners_id([A, C])
    assert owners_id([A]) != owners_id([A, B])
    arcs = [Arc((A,), (TokenRange(0, 5), TokenRange(9, 12))), Arc((B,), (TokenRange(5, 9),))]
    assert [(s.start, s.end, s.owners) for s in owned_spans(arcs)] == [
        (0, 5, owners_id([A])),
        (5, 9, owners_id([B])),
        (9, 12, owners_id([A])),
    ]
