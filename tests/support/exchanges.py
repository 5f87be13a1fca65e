"""Rows that two replicas hold, which weak sums cannot tell apart: exchanged, moved, emptied, reordered.

Each story is what one replica and what the other holds, as rows of (p, c, a, b, m): two texts and a map.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

Row = tuple[int, int, str | None, str | None, Mapping[str, int] | None]
Story = tuple[Sequence[Row], Sequence[Row]]


def _row(p: int, c: int, a: str | None = "a", b: str | None = "b", m: Mapping[str, int] | None = None) -> Row:
    return p, c, a, b, m


def _cube(flipped: int) -> list[Row]:
    """Return every other corner of a cube: any sum of squares is the same over either half of them."""
    return [_row(p, c, "xy"[(p + c + flipped) % 2]) for p, c in itertools.product((1, 2), repeat=2)]


STORIES: dict[str, Story] = {
    "two rows of a partition swapped": (
        [_row(1, 1, "x"), _row(1, 2, "y")],
        [_row(1, 1, "y"), _row(1, 2, "x")],
    ),
    "two rows of two partitions swapped": (
        [_row(1, 1, "x"), _row(2, 1, "y")],
        [_row(1, 1, "y"), _row(2, 1, "x")],
    ),
    "keys exchanged": (
        [_row(1, 1), _row(2, 2)],
        [_row(1, 2), _row(2, 1)],
    ),
    "a cycle of three within a partition": (
        [_row(1, 1, "x"), _row(1, 2, "y"), _row(1, 3, "z")],
        [_row(1, 1, "y"), _row(1, 2, "z"), _row(1, 3, "x")],
    ),
    "a cycle of three partitions": (
        [_row(1, 1, "x"), _row(2, 1, "y"), _row(3, 1, "z")],
        [_row(1, 1, "z"), _row(2, 1, "x"), _row(3, 1, "y")],
    ),
    "two cycles that run opposite ways": (
        [_row(1, 2), _row(2, 3), _row(3, 1)],
        [_row(2, 1), _row(3, 2), _row(1, 3)],
    ),
    "bytes swapped between two rows": (
        [_row(1, 1, "abcdefgh"), _row(1, 2, "ABCDEFGH")],
        [_row(1, 1, "abcDefgh"), _row(1, 2, "ABCdEFGH")],
    ),
    "null against empty": ([_row(1, 1, None)], [_row(1, 1, "")]),
    "a value moved to the next column": ([_row(1, 1, "x", None)], [_row(1, 1, None, "x")]),
    "an end moved to the next column": ([_row(1, 1, "xy", "z")], [_row(1, 1, "x", "yz")]),
    "two columns exchanged": ([_row(1, 1, "x", "y")], [_row(1, 1, "y", "x")]),
    "bytes 61 apart exchanged": (
        [_row(1, 1, "x" + "-" * 60 + "y")],
        [_row(1, 1, "y" + "-" * 60 + "x")],
    ),
    "bytes 31 apart exchanged": (
        [_row(1, 1, "x" + "-" * 30 + "y")],
        [_row(1, 1, "y" + "-" * 30 + "x")],
    ),
    "one up, one down": (
        [_row(1, 1, "b" + "-" * 60 + "b")],
        [_row(1, 1, "c" + "-" * 60 + "a")],
    ),
    "values of a map exchanged": (
        [_row(1, 1, m={"k": 1, "l": 2})],
        [_row(1, 1, m={"k": 2, "l": 1})],
    ),
    "a map moved into a text": ([_row(1, 1, None, "b", {"k": 1})], [_row(1, 1, "k", "b", None)]),
    "no cells against no row": ([_row(1, 1, None, None)], []),
    "corners of a square": (
        [_row(1, 1, "x", "x"), _row(1, 2, "y", "y"), _row(1, 3, "x", "y"), _row(1, 4, "y", "x")],
        [_row(1, 1, "x", "y"), _row(1, 2, "y", "x"), _row(1, 3, "x", "x"), _row(1, 4, "y", "y")],
    ),
    "corners of a cube": (_cube(0), _cube(1)),
}
