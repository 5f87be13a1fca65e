"""Ranges that change hands between two rings, and arcs cut along them: no token lost, none twice."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from consistency.model.ownership import changed_ranges, cut_arcs, joined, lies_in, overlap
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange, merged


def ring(rng: random.Random, nodes: int) -> Ring:
    """Return a ring of some nodes with a few tokens each."""
    return Ring(
        "test",
        MURMUR3,
        tuple(
            Node(f"id-{n}", f"10.0.0.{n}", 9042, "dc1", f"r{n % 2}",
                 tuple(rng.randrange(MIN_TOKEN + 1, MAX_TOKEN) for _ in range(3)), "5.0.8")
            for n in range(nodes)
        ),
    )  # fmt: skip


def test_exactly_the_tokens_whose_replicas_differ_are_found() -> None:
    """Held against asking both rings for single tokens, near every boundary and anywhere."""
    rng = random.Random(5)
    for _ in range(60):
        one = ring(rng, 4)
        more = Node("id-9", "10.0.0.9", 9042, "dc1", "r9", (rng.randrange(MIN_TOKEN, MAX_TOKEN),), "5.0.8")
        other = Ring("test", MURMUR3, (*one.nodes, more)) if rng.random() < 0.7 else ring(rng, 3)
        replication = Replication("NetworkTopologyStrategy", (("dc1", rng.choice((1, 2, 3))),))
        ranges = changed_ranges(one, other, replication)
        bounds = [t + d for r in (one, other) for t, _ in r.owners for d in (-1, 0, 1)]
        for token in [*bounds, *(rng.randrange(MIN_TOKEN + 1, MAX_TOKEN) for _ in range(50))]:
            differ = set(one.replicas_of(token, replication)) != set(other.replicas_of(token, replication))
            assert any(token in r for r in ranges) == differ
        arcs = one.arcs(replication)
        outside, inside = cut_arcs(arcs, ranges)
        left, lost = (merged(owned for arc in some for owned in arc.ranges) for some in (outside, inside))
        assert joined(left, lost) == (TokenRange.full_ring(),)
        assert lost == merged(ranges)
        assert not any(a.overlaps(b) for a in left for b in ranges)


def test_one_ring_is_not_different_from_itself() -> None:
    """Whatever addresses its nodes have."""
    one = ring(random.Random(1), 4)
    replication = Replication("NetworkTopologyStrategy", (("dc1", 3),))
    assert changed_ranges(one, one, replication) == ()
    assert cut_arcs(one.arcs(replication), ()) == (one.arcs(replication), ())


_RANGES = st.tuples(st.integers(-9, 9), st.integers(1, 6)).map(lambda drawn: TokenRange(drawn[0], sum(drawn)))


@given(_RANGES, st.lists(_RANGES))
def test_a_range_overlaps_others_where_a_token_of_it_lies_in_one(one: TokenRange, some: list[TokenRange]) -> None:
    """Touching is not overlapping, and a range may begin before all of them or lie in between."""
    ranges = joined(some)
    tokens = range(one.start + 1, one.end + 1)
    assert overlap(one, ranges) == any(lies_in(token, ranges) for token in tokens)
    assert [lies_in(token, ranges) for token in tokens] == [overlap(TokenRange.at(token), ranges) for token in tokens]
