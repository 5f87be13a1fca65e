"""In which order a wrong program is tried on seeds."""

from __future__ import annotations

from collections.abc import Iterator


def telling_first(known: int, most: int) -> Iterator[int]:
    """Yield the seed that told of this wrong the last time, then `most` others: the simulation may have changed."""
    yield known
    yield from range(most)
