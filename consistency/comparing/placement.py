"""Who owns which tokens on both sides: one ring cut at the boundaries of two.

The tokens of a Murmur3 cluster do not depend on its nodes, so every range of tokens has replicas on either side,
whatever the number of nodes, racks, vnodes and copies.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from consistency.checking.plan import Aside
from consistency.model.ownership import DISPUTED, cut_arcs, disputed_ranges, joined
from consistency.model.ring import Arc, Node, Replication, Ring
from consistency.model.sides import Side, SidedNode, on_side
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange, assert_tiles, merged


@dataclass(frozen=True)
class Owners:
    """How one side places a keyspace: its ring, the replication, and the data centre that is read, or all.

    With `one_each` a range is asked of one of its replicas, which asks the others.
    """

    side: Side
    ring: Ring
    replication: Replication
    dc: str | None = None
    one_each: bool = False

    def of(self, token: int, known: Mapping[Node, SidedNode]) -> tuple[SidedNode, ...]:
        """Return the nodes of this side that are read for a token."""
        owners = self.ring.replicas_of(token, self.replication)
        owners = tuple(node for node in owners if self.dc in (None, node.dc))
        if self.one_each and owners:
            owners = (next((node for node in owners if node.up), owners[0]),)
        return tuple(known[node] for node in owners)


def sided(side: Side, ring: Ring) -> dict[Node, SidedNode]:
    """Return every node of a ring as one of a side."""
    return {node: SidedNode.of(side, node) for node in ring.nodes}


def joint_arcs(
    source: Owners, target: Owners, known: Mapping[Side, Mapping[Node, SidedNode]]
) -> tuple[tuple[Arc, ...], tuple[Aside, ...]]:
    """Return the arcs to compare, each owned by replicas of both sides, and those that cannot be, with the reason."""
    arcs = _cut(source, target, known)
    disputed = {owners: disputed_ranges(owners.ring, owners.replication) for owners in (source, target)}
    agreed, doubted = cut_arcs(arcs, joined(*disputed.values()))
    whose = " and ".join(f"the {owners.side}" for owners, ranges in disputed.items() if ranges)
    asides = [Aside(arc, f"{whose}: {DISPUTED}") for arc in doubted]
    both: list[Arc] = []
    for arc in agreed:
        lacking = [side for side in Side if not any(on_side(node, side) for node in arc.replicas)]
        if lacking:
            asides.append(Aside(arc, f"the {' and the '.join(lacking)} has no replica of it in scope", skipped=True))
        else:
            both.append(arc)
    return tuple(both), tuple(asides)


def _cut(source: Owners, target: Owners, known: Mapping[Side, Mapping[Node, SidedNode]]) -> tuple[Arc, ...]:
    bounds = sorted({MIN_TOKEN, MAX_TOKEN, *source.ring.tokens, *target.ring.tokens})
    owned: dict[tuple[SidedNode, ...], list[TokenRange]] = defaultdict(list)
    for start, end in pairwise(bounds):
        replicas = (*source.of(end, known[Side.SOURCE]), *target.of(end, known[Side.TARGET]))
        owned[replicas].append(TokenRange(start, end))
    arcs = [Arc(replicas, merged(ranges)) for replicas, ranges in owned.items()]
    assert_tiles([r for arc in arcs for r in arc.ranges], [TokenRange.full_ring()])
    return tuple(sorted(arcs, key=lambda arc: arc.ranges[0]))


class Owned:
    """Which nodes of both sides own a token, of one table."""

    def __init__(self, arcs: Sequence[Arc]) -> None:
        self._ranges = sorted(((r.end, arc.replicas) for arc in arcs for r in arc.ranges), key=lambda pair: pair[0])

    def of(self, token: int) -> tuple[Node, ...]:
        """Return them."""
        at = bisect.bisect_left(self._ranges, token, key=lambda pair: pair[0])
        return self._ranges[at][1]
