"""Where along the ring two clusters differ: rows that are listed at their tokens, those that are counted by range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from consistency.model.tokens import MIN_TOKEN, RING_SIZE, TokenRange
from consistency.results.findings import differing_replicas
from consistency.results.pair_findings import Compared, InnerFinding, PairFinding, PairRange
from consistency.results.strip import STRIP_CELLS, cells_of, strip_cell

MOST_LINES = 12


@dataclass(frozen=True, slots=True)
class TokenLine:
    """The rows of a table that differ, in each 1/64 of the ring; of them `counted` rows in `ranges` token ranges."""

    table: str
    bars: tuple[float, ...]
    rows: int
    counted: int
    ranges: int

    @property
    def highest(self) -> float:
        """The rows of the highest bar."""
        return max(self.bars)


class PairCollector:
    """Takes what a comparison finds, and keeps of it where the rows lie; its memory does not grow with the rows."""

    def __init__(self) -> None:
        self._bars: dict[str, list[float]] = {}
        self._rows: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        self._ranges: dict[str, int] = {}
        self.behind: Counter[str] = Counter()
        """In how many listed rows each replica, with its side, differs from the others of its side."""

    def take(self, found: Compared) -> None:
        """Take one finding."""
        if isinstance(found, PairFinding):
            self._line(found.full_name)[strip_cell(found.token)] += 1
            self._rows[found.full_name] += 1
        elif isinstance(found, PairRange) and found.rows:
            name = f"{found.keyspace}.{found.table}"
            line = self._line(name)
            for cell, share in _shares(found.token_range):
                line[cell] += found.rows * share
            self._rows[name] += found.rows
            self._counted[name] += found.rows
            self._ranges[name] += 1
        elif isinstance(found, InnerFinding):
            self.behind.update(f"{found.side} {name}" for name in differing_replicas(found.finding))

    @property
    def lines(self) -> tuple[TokenLine, ...]:
        """The tables that differ in most rows first, at most `MOST_LINES`."""
        first = sorted(self._rows, key=lambda name: (-self._rows[name], name))[:MOST_LINES]
        return tuple(
            TokenLine(name, tuple(self._bars[name]), self._rows[name], self._counted[name], self._ranges[name])
            for name in first
        )

    @property
    def more(self) -> int:
        """How many tables differ that have no line."""
        return max(0, len(self._rows) - MOST_LINES)

    def _line(self, name: str) -> list[float]:
        if name not in self._bars:
            self._bars[name] = [0.0] * STRIP_CELLS
            self._rows[name] = self._counted[name] = self._ranges[name] = 0
        return self._bars[name]


def _shares(token_range: TokenRange) -> Iterator[tuple[int, float]]:
    """Yield which part of a range lies in which cell; the parts add up to 1."""
    start = token_range.start
    for cell in cells_of(token_range.start, token_range.end):
        # The last token of a cell: the largest one for which `strip_cell` gives the cell.
        last = MIN_TOKEN + ((cell + 1) * (RING_SIZE + 1) - 1) // STRIP_CELLS
        end = min(last, token_range.end)
        yield cell, (end - start) / token_range.width
        start = end
