"""How many of a table's rows that differ are listed one by one: beyond that they are counted by range."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MAX_FINDINGS = 10_000
"""Of the commands: a row that is listed costs the client a millisecond, and a person cannot look at so many.

The library lists all, as its callers take row after row.
"""


@dataclass(slots=True)
class Listing:
    """What room is left; None: for all."""

    room: int | None = None

    @property
    def full(self) -> bool:
        """Whether no row more is listed."""
        return self.room is not None and self.room <= 0

    def takes(self, rows: int) -> bool:
        """Whether so many rows can be listed; they then are."""
        if self.room is None:
            return True
        if rows > self.room:
            return False
        self.room -= rows
        return True
