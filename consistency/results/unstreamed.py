"""Finds ranges that a replica owns but never streamed: it lacks nearly all their rows, and no rows elsewhere.

Leaves are too coarse for that: if every node owns every range, a leaf covers the ranges of many tokens. So
missing rows are counted by the range between two tokens of the ring, which a node streams as a whole, and
compared with the average number of rows in such a range (Murmur3 spreads partitions evenly).
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange, merged

_NEARLY_ALL = 0.8
_MOST_OF_ESTIMATE = 2.0
"""A replica that lacks more rows than so many times what some ranges should hold lacks those of large partitions."""
_EVERYWHERE = 0.95


@dataclass(frozen=True, slots=True)
class Owned:
    """What a scan learned: each table's rows, and the part of the ring that each replica owns."""

    rows: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hollow:
    """One replica's hollow ranges: it lacks `lacking` of about `rows`; `everywhere` if that is all it owns."""

    replica: str
    ranges: int
    rows: int
    lacking: int
    everywhere: bool


class RangeCounts:
    """Counts missing rows by the ring's own ranges; its memory grows with the ring, not with the rows."""

    def __init__(self, tokens: Sequence[int]) -> None:
        ends = sorted({*tokens, MAX_TOKEN} - {MIN_TOKEN})
        self._ends = ends
        self._ranges = [TokenRange(a, b) for a, b in zip([MIN_TOKEN, *ends[:-1]], ends, strict=True)]
        self._missing: dict[str, Counter[int]] = defaultdict(Counter)
        self._tables: dict[str, set[str]] = defaultdict(set)

    def add(self, replica: str, table: str, token: int) -> None:
        """Count a row that a replica lacks."""
        self._missing[replica][bisect.bisect_left(self._ends, token)] += 1
        self._tables[replica].add(table)

    def hollow(self, owned: Owned) -> tuple[Hollow, ...]:
        """Return the replicas that lack nearly all rows of every range in which they lack one."""
        found = (self._judge(replica, owned) for replica in sorted(self._missing))
        return tuple(hollow for hollow in found if hollow is not None)

    def _judge(self, replica: str, owned: Owned) -> Hollow | None:
        counts = self._missing[replica]
        ranges = [self._ranges[i] for i in counts]
        share = sum(token_range.share for token_range in ranges)
        rows = round(share * sum(owned.rows.get(table, 0) for table in self._tables[replica]))
        lacking = sum(counts.values())
        if not _NEARLY_ALL * rows <= lacking <= _MOST_OF_ESTIMATE * rows:
            return None
        everywhere = share >= _EVERYWHERE * owned.shares.get(replica, 1.0)
        return Hollow(replica, len(merged(ranges)), rows, lacking, everywhere)
