"""A run of bounded time: the ranges that were read longest ago come first, whatever table they are in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby

from consistency.checking.plan import Leaf, TablePlan
from consistency.checking.scan import Scan
from consistency.cluster.port import Clock
from consistency.ledger.port import Recorder
from consistency.results.report import PUT_OFF

_TOGETHER_US = 60_000_000
"""Ranges that were read within the same minute count as read together, so that a table's stay together."""


@dataclass(frozen=True)
class Slice:
    """Ranges of one table, to be digested together."""

    scan: Scan
    leaves: tuple[Leaf, ...]


def oldest_first(tables: Iterable[tuple[Scan, Sequence[Leaf], Sequence[int]]]) -> list[Slice]:
    """Order the leaves of all tables by when each was last tried, in microseconds; what never was comes first."""
    queue = [
        (tried_us // _TOGETHER_US, number, place, scan, leaf)
        for number, (scan, leaves, times) in enumerate(tables)
        for place, (leaf, tried_us) in enumerate(zip(leaves, times, strict=True))
    ]
    queue.sort(key=lambda entry: entry[:3])
    groups = groupby(queue, key=lambda entry: entry[1])
    entries = [list(group) for _, group in groups]
    return [Slice(group[0][3], tuple(entry[4] for entry in group)) for group in entries]


async def scan_slice(scans: Sequence[Scan], recorder: Recorder | None, clock: Clock, deadline: float) -> None:
    """Digest the oldest ranges until the time is over, then compare what was digested.

    The oldest range is read even if planning took all the time, or runs that are short for a busy cluster would never
    get anywhere. A range that was begun is finished; the others are entered as left for the next run.
    """
    try:
        await _scan_slice(scans, recorder, clock, deadline)
    finally:
        for scan in scans:
            await scan.close()


async def _scan_slice(scans: Sequence[Scan], recorder: Recorder | None, clock: Clock, deadline: float) -> None:
    at_least = 1
    for part in oldest_first([await _planned(scan, recorder) for scan in scans]):
        account = part.scan.account
        if account is not None and (at_least or clock.monotonic() < deadline):
            part.scan.observer.table_planned(part.scan.task.reading.table, _part(account.plan, part.leaves))
            later = until(deadline, clock, part.leaves[at_least:])
            await part.scan.digest(account, chain(part.leaves[:at_least], later))
            at_least = 0
    for scan in scans:
        if scan.account is not None:
            scan.account.put_off_rest(PUT_OFF)
            await scan.compare(scan.account)


async def _planned(scan: Scan, recorder: Recorder | None) -> tuple[Scan, Sequence[Leaf], Sequence[int]]:
    plan = (await scan.plan()).plan
    leaves = sorted(plan.leaves, key=lambda leaf: leaf.token_range)
    if recorder is None:
        return scan, leaves, [0] * len(leaves)
    ranges = [leaf.token_range for leaf in leaves]
    return scan, leaves, recorder.last_tried(plan.table, scan.task.reading.depth, ranges)


def _part(plan: TablePlan, leaves: tuple[Leaf, ...]) -> TablePlan:
    """Return the plan of a slice, for who watches."""
    return replace(plan, arcs=(leaves,))


def until(deadline: float, clock: Clock, leaves: Iterable[Leaf]) -> Iterator[Leaf]:
    """Yield leaves while there is time to begin one."""
    for leaf in leaves:
        if clock.monotonic() >= deadline:
            return
        yield leaf
