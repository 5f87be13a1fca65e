"""How many of a table's rows that differ are listed one by one: beyond that they are counted by range."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MAX_FINDINGS = 10_000
"""Of the commands: a row that is listed costs the client a millisecond, and a person cannot look at so many.

The library lists all, as its callers take row after row.
"""
_REFUSED = 4
"""So many leaves on end that have more rows than there is room for end a listing: the next is hardly another."""


@dataclass(slots=True)
class Listing:
    """What room is left, None: for all; and how many leaves on end had more rows than that."""

    room: int | None = None
    refused: int = 0

    @property
    def full(self) -> bool:
        """Whether no row more is listed."""
        return self.room is not None and (self.room <= 0 or self.refused >= _REFUSED)

    def takes(self, rows: int) -> bool:
        """Whether so many rows can be listed; they then are."""
        if self.room is None:
            return True
        if self.full or rows > self.room:
            self.refused += 1
            return False
        self.room -= rows
        self.refused = 0
        return True
