"""One of N parts of a run: a fixed piece of the ring, the same for whoever works it out and whenever.

The ring is cut into N pieces of equal width. They do not depend on nodes, tables or sizes, so processes that know
nothing of each other read everything exactly once. Murmur3 puts about as many rows into each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from consistency.errors import UsageError
from consistency.model.ownership import cut_arcs
from consistency.model.ring import Arc
from consistency.model.tokens import TokenRange

_TEXT = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)
MOST_PARTS = 100_000


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Part `number` of `of`, counted from 1."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST_PARTS:
            msg = f"there is no part {self.number} of {self.of}: parts are 1/N to N/N, of {MOST_PARTS:,} at most"
            raise UsageError(msg)

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `I/N`. 0/N is another name of N/N, so that counting from 0 and from 1 both name every part."""
        found = _TEXT.fullmatch(text)
        if found is None:
            msg = f"--part {text}: is not I/N, such as 1/4, the first of four parts"
            raise UsageError(msg)
        number, of = map(int, found.groups())
        return cls(number or of, of)

    def __str__(self) -> str:
        return f"{self.number} of {self.of}"

    @property
    def token_range(self) -> TokenRange:
        """The piece of the ring."""
        return TokenRange.full_ring().piece(self.number - 1, self.of)

    def of_arcs(self, arcs: Iterable[Arc]) -> tuple[Arc, ...]:
        """Return what of some arcs lies in the piece; ranges over its ends are cut there."""
        _, inside = cut_arcs(tuple(arcs), (self.token_range,))
        return inside

    def ending_in(self, arc: Arc) -> Arc | None:
        """Return the ranges of an arc that end in the piece, whole; None if none does."""
        piece = self.token_range
        ranges = tuple(owned for owned in arc.ranges if owned.end in piece)
        return Arc(arc.replicas, ranges) if ranges else None
