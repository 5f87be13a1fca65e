"""Keeps the findings that a page shows: the first ones, some of every kind, and counts of all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from consistency.checking.observer import Silent
from consistency.results.findings import Finding, differing_replicas
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding

MOST_ROWS = 10_000
MOST_OF_A_RARE_KIND = 200
"""Kept of every kind even if others came first and filled the page."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A finding with its number in the findings file, from 1."""

    number: int
    finding: Finding


class Collector(Silent):
    """An Observer that collects findings for a page in bounded memory."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._kinds: Counter[Kind] = Counter()
        self.rows: list[Numbered] = []
        self.total = 0
        self.counted = 0
        """Rows that are counted by range, and not listed."""
        self.behind: Counter[str] = Counter()
        """The number of rows in which each replica lacks or holds something else than the winner, of all findings."""

    def found_range(self, finding: RangeFinding) -> None:
        """Count the rows of a range."""
        self.counted += finding.rows
        for name, view in finding.replicas.items():
            self.behind[name] += view.missing + view.stale

    def found(self, finding: Finding) -> None:
        """Take one finding."""
        self.total += 1
        self.behind.update(differing_replicas(finding))
        if len(self.rows) < self._most or self._kinds[finding.kind] < MOST_OF_A_RARE_KIND:
            self._kinds[finding.kind] += 1
            self.rows.append(Numbered(self.total, finding))
