"""A check of a sample: some ranges of every table, drawn at random within each set of replicas, in bounded time."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from consistency.checking.oldest_first import until
from consistency.checking.plan import MAX_LEAVES, Leaf
from consistency.checking.scan import Scan
from consistency.cluster.port import Clock
from consistency.errors import UsageError
from consistency.results.report import NOT_IN_SAMPLE

_READ_AT_LEAST = 2_000
"""Ranges of a table that a sample should read: the more there are, the more it proves of rows that lie together."""
_FEWEST_ROWS = 8
"""Rows that a range should hold: to ask for a smaller one takes a server as long."""
_PASSES = 100
"""In so many rounds over all tables the whole of each is read, if there is time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A part of the ranges, or as many as can be read within some seconds; one of the two. Drawn by `seed`."""

    share: float | None = None
    within_s: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.share is None) == (self.within_s is None):
            raise UsageError("a sample is a share of the ranges, or what can be read within a time: give one")
        if self.share is not None and not 0 < self.share <= 1:
            raise UsageError("a sample is more than 0% and at most 100%")
        if self.within_s is not None and self.within_s <= 0:
            raise UsageError("a sample takes more than 0 seconds: otherwise nothing is read")

    @property
    def asked(self) -> str:
        """What was asked for, in words."""
        return f"{self.share:.4%}".rstrip("0%").rstrip(".") + "%" if self.share else f"within {self.within_s:g} s"

    def leaf_rows(self, rows: int, most: int) -> int:
        """Return the rows that a range of a table should hold, of which there are so many in all."""
        ranges = min(MAX_LEAVES, _READ_AT_LEAST / self.share) if self.share else MAX_LEAVES // 4
        return max(_FEWEST_ROWS, min(most, round(rows / ranges)))


async def scan_sample(scans: Sequence[Scan], sample: Sample, clock: Clock, started: float) -> None:
    """Digest the sample of every table, then compare what was digested; what was not reached is left out on purpose.

    `started` is when the check began (monotonic seconds).
    """
    deadline = math.inf if sample.within_s is None else started + sample.within_s
    try:
        drawn = [(scan, _drawn(await _planned(scan, sample), sample)) for scan in scans]
        for number in range(_PASSES):
            for scan, passes in drawn:
                if clock.monotonic() < deadline and scan.account is not None:
                    await scan.digest(scan.account, until(deadline, clock, passes[number]))
        for scan, _ in drawn:
            if scan.account is not None:
                if clock.monotonic() < deadline:
                    await scan.digest_again(scan.account)
                scan.account.put_off_rest(NOT_IN_SAMPLE)
                await scan.compare(scan.account)
    finally:
        for scan in scans:
            await scan.close()


async def _planned(scan: Scan, sample: Sample) -> tuple[tuple[Leaf, ...], ...]:
    """Plan a table and tell who watches; return its leaves by set of replicas."""
    plan = (await scan.plan(sample.leaf_rows)).plan
    share = sample.share or 1.0
    arcs = tuple(arc[: math.ceil(share * len(arc))] for arc in plan.arcs)
    scan.observer.table_planned(scan.task.reading.table, replace(plan, arcs=arcs))
    return plan.arcs


def _drawn(arcs: Sequence[Sequence[Leaf]], sample: Sample) -> list[list[Leaf]]:
    """Draw leaves of each set of replicas, and deal them out to the passes evenly."""
    dice = random.Random(f"{sample.seed} {[arc[0].token_range.start for arc in arcs if arc]}")  # noqa: S311
    passes: list[list[Leaf]] = [[] for _ in range(_PASSES)]
    for arc in arcs:
        leaves = dice.sample(arc, math.ceil((sample.share or 1.0) * len(arc)))
        for number, some in enumerate(_dealt(leaves)):
            passes[number] += some
    return passes


def _dealt(leaves: Sequence[Leaf]) -> Iterator[Sequence[Leaf]]:
    ends = [math.ceil(number * len(leaves) / _PASSES) for number in range(_PASSES + 1)]
    return (leaves[start:end] for start, end in itertools.pairwise(ends))
