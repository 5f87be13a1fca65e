"""Token ranges whose replicas differ between two rings, and arcs cut along such ranges."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from itertools import pairwise

from consistency.model.ring import Arc, Node, Replication, Ring
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange, merged

DISPUTED = "the nodes disagree on who owns this range; see: consistency audit"
"""The reason why rows of a range cannot be judged."""


def changed_ranges(one: Ring, other: Ring, replication: Replication) -> tuple[TokenRange, ...]:
    """Return the ranges whose replicas differ between two rings, in ring order."""
    bounds = sorted({MIN_TOKEN, MAX_TOKEN, *one.tokens, *other.tokens})
    return merged(
        TokenRange(start, end)
        for start, end in pairwise(bounds)
        if _hosts(one, end, replication) != _hosts(other, end, replication)
    )


def _hosts(ring: Ring, token: int, replication: Replication) -> frozenset[Node]:
    return frozenset(ring.replicas_of(token, replication))


def disputed_ranges(ring: Ring, replication: Replication) -> tuple[TokenRange, ...]:
    """Return the ranges for which some node sees other replicas than the agreed ring."""
    if ring.unplaced:
        return (TokenRange.full_ring(),)
    return joined(*(changed_ranges(ring, view, replication) for view in ring.views))


def lies_in(token: int, ranges: Sequence[TokenRange]) -> bool:
    """Return whether a token lies in one of some ranges, which are in ring order and do not overlap."""
    at = bisect.bisect_left(ranges, token, key=lambda r: r.end)
    return at < len(ranges) and token in ranges[at]


def overlap(token_range: TokenRange, ranges: Sequence[TokenRange]) -> bool:
    """Return whether a range has a token in one of some ranges, which are in ring order and do not overlap."""
    at = bisect.bisect_right(ranges, token_range.start, key=lambda r: r.end)
    return at < len(ranges) and token_range.overlaps(ranges[at])


def joined(*several: Iterable[TokenRange]) -> tuple[TokenRange, ...]:
    """Return the tokens of all the ranges as ranges that do not overlap."""
    out: list[TokenRange] = []
    for piece in sorted(piece for some in several for piece in some):
        if out and piece.start <= out[-1].end:
            out[-1] = TokenRange(out[-1].start, max(out[-1].end, piece.end))
        else:
            out.append(piece)
    return tuple(out)


def cut_arcs(arcs: Sequence[Arc], ranges: Sequence[TokenRange]) -> tuple[tuple[Arc, ...], tuple[Arc, ...]]:
    """Cut arcs into parts outside and parts inside some ranges, which do not overlap."""
    if not ranges:
        return tuple(arcs), ()
    outside: list[Arc] = []
    inside: list[Arc] = []
    for arc in arcs:
        kept = [piece for owned in arc.ranges for piece in _without(owned, ranges)]
        lost = [TokenRange(*ends) for owned in arc.ranges for cut in ranges if (ends := _common(owned, cut))]
        if kept:
            outside.append(Arc(arc.replicas, merged(kept)))
        if lost:
            inside.append(Arc(arc.replicas, merged(lost)))
    return tuple(outside), tuple(inside)


def _common(one: TokenRange, other: TokenRange) -> tuple[int, int] | None:
    start, end = max(one.start, other.start), min(one.end, other.end)
    return (start, end) if start < end else None


def _without(whole: TokenRange, ranges: Sequence[TokenRange]) -> list[TokenRange]:
    out: list[TokenRange] = []
    at = whole.start
    for cut in sorted(ranges):
        common = _common(TokenRange(at, whole.end), cut) if at < whole.end else None
        if common is None:
            continue
        if at < common[0]:
            out.append(TokenRange(at, common[0]))
        at = common[1]
    if at < whole.end:
        out.append(TokenRange(at, whole.end))
    return out
