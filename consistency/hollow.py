"""Replicas that hold next to nothing of token ranges they own, as the digests of a scan tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from consistency.leaves import LeafResult
from consistency.tokens import TokenRange, merged

FEWEST_ROWS = 20
"""A leaf of fewer rows may be empty on one replica by chance."""
NEXT_TO_NOTHING = 50
"""A replica that holds less than one row in so many has only what was written since."""


@dataclass(frozen=True, slots=True)
class Hollow:
    """One replica's hollow ranges: `held` of their `rows`; `everywhere` where it has no range that is full."""

    replica: str
    ranges: int
    rows: int
    held: int
    everywhere: bool


def hollow_replicas(tables: Iterable[Iterable[LeafResult]]) -> tuple[Hollow, ...]:
    """Find the hollow ranges of every replica in the leaves of several tables."""
    ranges: dict[str, int] = defaultdict(int)
    rows: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    full: set[str] = set()
    for results in tables:
        found: dict[str, list[TokenRange]] = defaultdict(list)
        for result in results:
            if result.rows < FEWEST_ROWS:
                continue
            for node, digest in result.digests.items():
                if digest.rows * NEXT_TO_NOTHING > result.rows:
                    full.add(node.name)
                    continue
                found[node.name].append(result.leaf.token_range)
                rows[node.name] += result.rows
                held[node.name] += digest.rows
        for name, pieces in found.items():
            ranges[name] = max(ranges[name], len(merged(pieces)))
    return tuple(Hollow(name, ranges[name], rows[name], held[name], name not in full) for name in sorted(ranges))
