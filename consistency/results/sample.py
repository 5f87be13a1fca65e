"""What a sample proves: how much may differ where nothing that was read did.

Ranges are drawn at random within each set of replicas, so that no set is left out. If D ranges of a set hold a row
that differs and a share s of the set's ranges is read, the chance to read none of the D is at most (1 - s) ** D: a draw
without replacement does not read the same range twice (hypergeometric against binomial; Thompson, Sampling, 3rd ed.,
chapter 2). The smallest D that makes this chance no more than 1 - confidence is the bound. It holds wherever
the differences lie, as the least share of any set is taken.

Partitions lie on the ring by a hash of their key. Rows that were lost one by one are therefore anywhere with equal
chance, whatever their keys are, and for them each row read is a draw of its own: the same formula, by rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from consistency.errors import UsageError
from consistency.results.figures import counted

CONFIDENCE = 0.95


def fewer_than(share: float, confidence: float = CONFIDENCE) -> int:
    """Return the smallest number of differing units that a sample without a difference rules out at this confidence.

    `share` is the part of the units that was read, above 0 and at most 1. If so many or more of them differed, a
    sample would show one with a probability of at least `confidence`. Raises UsageError for figures that are no share.
    """
    if not 0 < share <= 1 or not 0 < confidence < 1:
        msg = f"a sample has a share above 0 and up to 1, and a confidence between both: {share}, {confidence}"
        raise UsageError(msg)
    if share == 1:
        return 1
    # Rounded a little: of 5% and 95% the quotient may come out a billionth above a whole number.
    return max(1, math.ceil(math.log(1 - confidence) / math.log1p(-share) - 1e-9))


@dataclass(frozen=True, slots=True)
class SampledTable:
    """How much of one table a sample has read.

    `share` is the least part of the ranges of any set of replicas that was read whole, 0 if one was not reached.
    `left_out` counts the digests that were not asked for, none if a set was not reached: then they are lacking.
    `rows` estimates all rows of the table.
    """

    share: float
    left_out: int
    rows: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a sample was asked for, so that another run can draw the same one."""

    asked: str
    seed: int

    def as_json(self, proven: Bound | None) -> dict[str, Any]:
        """Return the JSON form, with what the sample has proven."""
        return {"asked": self.asked, "seed": self.seed, "bound": proven and proven.as_json()}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a sample without a difference proves of everything in scope, at 95% confidence.

    Fewer than `ranges` of `of_ranges` hold a row that differs, wherever such rows lie. Fewer than `per_million` rows in
    a million differ, if they were lost one by one.
    """

    ranges: int
    of_ranges: int
    rows_read: int
    rows: int
    per_million: float

    @property
    def sentence(self) -> str:
        """Say it."""
        ranges = self.ranges <= self.of_ranges
        rows = self.per_million <= 1e6
        lost = f"fewer than {_figure(self.per_million)} rows in a million differ if they were lost one by one"
        if ranges and rows:
            return (
                f"With 95% confidence rows differ in fewer than {self.ranges:,} of"
                f" {counted(self.of_ranges, 'token range')}, wherever they lie, and {lost}."
            )
        said = f"With 95% confidence {lost}. " if rows else ""
        more = "in how many token ranges rows differ" if rows else "how many rows differ"
        return f"{said}The sample is too small to say {more}: give it a larger share or more time."

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "confidence": CONFIDENCE,
            "ranges": self.ranges,
            "of_ranges": self.of_ranges,
            "rows_read": self.rows_read,
            "rows": self.rows,
            "rows_per_million": round(self.per_million, 3),
        }


def bound(tables: Sequence[SampledTable], *, ranges: int, rows_read: int) -> Bound | None:
    """Return what a sample of some tables proves that found no difference; None if it read nothing of one.

    `ranges` are all ranges of these tables, and `rows_read` are the rows in those that were read.
    """
    share = min((table.share for table in tables), default=0.0)
    if share <= 0 or not rows_read:
        return None
    rows = max(rows_read, sum(table.rows for table in tables))
    by_row = 1.0 if share == 1 else fewer_than(min(rows_read / rows, 1.0))
    return Bound(min(fewer_than(share), ranges + 1), ranges, rows_read, rows, 1e6 * by_row / rows)


def _figure(number: float) -> str:
    return f"{math.ceil(number):,}" if number >= 1 else f"{number:.2g}"
