"""Cut a table into leaves: token ranges, each owned by one set of replicas, each about as many rows.

Murmur3 spreads partitions evenly, so the rows in a small slice of the ring tell how many there are. The
slice grows until it holds enough rows to tell, or is the whole ring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from consistency.cluster.port import ReplicaReader
from consistency.model.ring import Arc, Node
from consistency.model.schema import Table
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange, assert_tiles

LEAF_ROWS = 40_000
"""Rows a leaf aims at: half as many cost the servers a tenth more, twice as many are more than a page."""
_LEAST_LEAF_ROWS = 1_000
MAX_LEAVES = 65_536
_STEPS = 4
"""The number of leaves doubles in so many steps: a table that grows a little is cut as it was yesterday, so that leaf
hashes can be compared with those that the ledger keeps."""
_SAMPLE_ROWS = 500
_FIRST_SHARE = 1 / 8192
_GROWTH = 8


def leaf_rows_at(rate: float | None) -> int:
    """Return the rows a leaf aims at where a node is to be read at `rate` rows a second: a second's worth at most."""
    return LEAF_ROWS if rate is None else max(_LEAST_LEAF_ROWS, min(LEAF_ROWS, round(rate)))


@dataclass(frozen=True, slots=True)
class Leaf:
    """One unit of hashing: a token range and the replicas that own it."""

    token_range: TokenRange
    replicas: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Aside:
    """Ranges of a table that are not compared, and why: `skipped` where there is nothing to compare them with."""

    arc: Arc
    reason: str
    skipped: bool = False

    @property
    def digests(self) -> int:
        """How many digests are not taken: one a range and replica."""
        return len(self.arc.ranges) * len(self.arc.replicas)


@dataclass(frozen=True)
class TablePlan:
    """Every leaf of one table by replica set, in ring order; `estimated_rows` is a guess for progress."""

    table: Table
    arcs: tuple[tuple[Leaf, ...], ...]
    estimated_rows: int

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """All leaves."""
        return tuple(leaf for arc in self.arcs for leaf in arc)

    @cached_property
    def digests(self) -> int:
        """How many digests the plan asks for: one per leaf and replica."""
        return sum(len(leaf.replicas) for leaf in self.leaves)


async def estimate_rows(reader: ReplicaReader, table: Table, arcs: Sequence[Arc]) -> int:
    """Estimate a table's rows from a growing slice of the ring, read from a replica that is up."""
    if all(token_range.width == 1 for arc in arcs for token_range in arc.ranges):
        return sum(len(arc.ranges) for arc in arcs)  # single partitions: there is nothing to extrapolate from
    share = _FIRST_SHARE
    while True:
        width = min(RING_SIZE, int(RING_SIZE * share))
        start = MIN_TOKEN if width >= RING_SIZE else -(width // 2)
        window = TokenRange(start, MAX_TOKEN if width >= RING_SIZE else start + width)
        rows = 0
        for token_range, node in _owners(window, arcs):
            rows += await reader.count(node, table, token_range)
        if rows >= _SAMPLE_ROWS or width >= RING_SIZE:
            return math.ceil(rows * RING_SIZE / width)
        share *= _GROWTH


def _owners(window: TokenRange, arcs: Sequence[Arc]) -> list[tuple[TokenRange, Node]]:
    out: list[tuple[TokenRange, Node]] = []
    for arc in arcs:
        node = next((n for n in arc.replicas if n.up), None)
        if node is None:
            continue
        for owned in arc.ranges:
            start, end = max(owned.start, window.start), min(owned.end, window.end)
            if start < end:
                out.append((TokenRange(start, end), node))
    return out


def _stepped(leaves: float) -> int:
    """Return a number of leaves near to this one that stays the same while a table grows a little; at least one."""
    return round(2 ** (round(_STEPS * math.log2(leaves)) / _STEPS)) if leaves > 1 else 1


def cut(table: Table, arcs: Sequence[Arc], rows: int, *, leaf_rows: int = LEAF_ROWS) -> TablePlan:
    """Cut the arcs into leaves of about `leaf_rows` rows; the leaves tile the arcs exactly."""
    wanted = min(MAX_LEAVES, _stepped(rows / leaf_rows))
    cut_arcs = tuple(
        tuple(
            Leaf(piece, arc.replicas)
            for token_range in arc.ranges
            for piece in token_range.split(max(1, round(wanted * token_range.share)))
        )
        for arc in arcs
    )
    assert_tiles([leaf.token_range for arc in cut_arcs for leaf in arc], [r for a in arcs for r in a.ranges])
    return TablePlan(table, cut_arcs, rows)
