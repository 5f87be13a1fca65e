"""Apply a plan: which of its rows go through the pipeline together, and side by side. Also what resume does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from consistency.cluster.port import Clock
from consistency.cluster.waits import side_by_side
from consistency.errors import InternalError, ReplicaError
from consistency.results.forecast import Forecast
from repair.applying.actions import Actor
from repair.applying.breaker import SPARE, Breaker
from repair.applying.chunks import Limits
from repair.applying.guard import Guard
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Throttle
from repair.applying.range_merging import RangeMerger
from repair.applying.run import Outcomes, Pipeline
from repair.applying.still_right import Row
from repair.deciding.case import CaseReader
from repair.deciding.decide import Action
from repair.deciding.forecast import Change, most_held
from repair.keeping.chunk_lines import ChunkRecord
from repair.keeping.entries import Account, Entry, Outcome, Result
from repair.keeping.journal import Journal
from repair.keeping.planfile import Plan
from repair.keeping.record import Record

_LANES = 4
_LEFT = (Result.LEFT, Result.SKIPPED)
_RANGE_LANES = 2
_MOST_OF_PARTITION = 500
"""Rows of one partition that are read and kept in memory together."""


class Applier:
    """Applies one plan through its ports."""

    def __init__(
        self,
        plan: Plan,
        cases: CaseReader,
        actor: Actor,
        guard: Guard,
        clock: Clock,
        journal: Journal,
        limits: Limits | None = None,
    ) -> None:
        self._plan = plan
        self._cases = cases
        self._clock = clock
        self._limits = limits
        self._parts = (cases, actor, guard, clock, journal)
        self._pipeline = Pipeline(plan, *self._parts)

    async def run(
        self, known: Record, options: ApplyOptions, stop: asyncio.Event, progress: Callable[[Tally], None]
    ) -> Tally:
        """Bring every row and range of the plan that is open to an outcome, as far as `known` tells of earlier runs.

        Ends early, between rows or steps of a range, when `stop` is set.
        """
        entries = known.entries
        tally = Tally(len(self._plan.rows) + self._plan.rows_in_ranges, left_out=self._plan.left_out)
        for entry in entries.values():
            if entry.result is not None and not entry.open:
                tally.add(entry.result, entry.reason, entry.change)
        throttle = Throttle(self._clock, options, stop, self._breaker(known, options.max_deletes))
        await self._ranges(known, throttle, tally, progress)
        rows = [Row(n, planned, entries.get(n, Entry())) for n, planned in enumerate(self._plan.rows)]
        self._pipeline.merged_before(rows)
        begin = [row for row in rows if row.entry.open]
        batches = iter(self._batched([*begin, *_beside(begin, rows)], most=throttle.few))

        async def lane() -> None:
            for batch in batches:
                if not throttle.may_begin() or throttle.breaker.open:
                    return
                outcomes = await self._outcomes(batch, throttle)
                for row in batch:
                    if row.number in outcomes:
                        _count(tally, row.entry, outcomes[row.number])
                progress(tally)

        await side_by_side(lane, _LANES)
        tally.interrupted, tally.out_of_time = throttle.interrupted, throttle.out_of_time
        tally.stopped_at = throttle.breaker.vanished if throttle.breaker.open else None
        return tally

    async def _ranges(self, known: Record, throttle: Throttle, tally: Tally, progress: Callable[[Tally], None]) -> None:
        """Merge the planned ranges, a few of them side by side."""
        merger = RangeMerger(self._plan, *self._parts, known.rows_of, self._limits)
        # Before anything is begun: what a killed run has taken along is gone from the breaker's room.
        await throttle.breaker.ended(0, await merger.lost(list(known.chunks.values())), 0)
        numbers = iter(range(len(self._plan.ranges)))

        async def lane() -> None:
            for number in numbers:
                await self._range(merger, number, known.chunks_of(number), throttle, tally, progress)

        await side_by_side(lane, _RANGE_LANES)

    async def _range(
        self,
        merger: RangeMerger,
        number: int,
        chunks: Sequence[ChunkRecord],
        throttle: Throttle,
        tally: Tally,
        progress: Callable[[Tally], None],
    ) -> None:
        """Merge one range, and count its rows; a chunk of an earlier run counts unless it is gone on with."""
        planned = self._plan.ranges[number].rows
        counted = 0

        def ended(account: Account) -> None:
            nonlocal counted
            counted += account.rows
            tally.take(account)
            progress(tally)

        for chunk in chunks:
            if chunk.after is not None and not chunk.open:
                ended(chunk.account)
        try:
            whole = await merger.merge(number, chunks, throttle, ended)
        except (ReplicaError, InternalError) as error:
            # Rows that cannot be told apart or named are of this range alone: the others go on.
            tally.unread(f"rows of a range could not be read: {error}", max(1, planned - counted))
        else:
            if whole:
                tally.total += counted - planned

    def _breaker(self, known: Record, most: int | None) -> Breaker:
        """Count what vanished in earlier runs of the journal too; what was planned to be purged is no surprise."""
        vanished = sum(chunk.account.vanished for chunk in known.chunks.values())
        vanished += sum(
            entry.change is Change.DELETED
            and self._plan.rows[number].forecast is not Forecast.DELETE
            and most_held(entry.before or {})
            for number, entry in known.entries.items()
        )
        return Breaker(SPARE if most is None else most, vanished)

    def _batched(self, rows: Sequence[Row], *, most: int) -> list[list[Row]]:
        """Cut rows into batches: a partition's rows together, as its delete that reaches one row reaches all.

        A partition of which rows are left alone has a batch of its own, as one of more rows than a batch has.
        """
        partitions: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in rows:
            partitions[row.partition].append(row)
        apart: list[list[Row]] = []
        shared: dict[tuple[str, bool], list[list[Row]]] = defaultdict(list)
        for (table, _), of_one in sorted(partitions.items()):
            lone = len(of_one) == 1
            if lone or (len(of_one) <= most and all(map(_acted_on, of_one))):
                shared[table, lone].append(of_one)
            else:
                apart.append(of_one)
        for alike in shared.values():
            alike.sort(key=lambda of_one: self._cases.together(of_one[0].planned.ref))
        return apart + [batch for alike in shared.values() for batch in _packed(alike, most)]

    async def _outcomes(self, rows: Sequence[Row], throttle: Throttle) -> Outcomes:
        """Take some rows from evidence to outcome side by side."""
        acting = [row for row in rows if _acted_on(row)]
        resting = [row for row in rows if not _acted_on(row)]
        outcomes: Outcomes = {}
        if acting and len({row.partition for row in rows}) == 1:
            return await self._of_partition(acting, resting, throttle)
        for part in _parts(resting):
            outcomes |= await self._pipeline.leave(part)
        return outcomes | await self._pipeline.repair(acting, throttle) if acting else outcomes

    async def _of_partition(self, acting: Sequence[Row], resting: Sequence[Row], throttle: Throttle) -> Outcomes:
        """Take the rows of one partition to their outcome: what is done with some may take others along."""
        parts = _parts(acting)
        if len(parts) > 1:
            return await self._pipeline.repair_partition(parts, throttle, _parts(resting))
        return await self._pipeline.repair(acting, throttle, resting)


def _acted_on(row: Row) -> bool:
    """Whether something is to be done with a row."""
    return row.planned.action is not Action.NONE and row.entry.open


def _packed(partitions: Sequence[list[Row]], most: int) -> list[list[Row]]:
    """Put whole partitions into batches of at most that many rows."""
    batches: list[list[Row]] = []
    for of_one in partitions:
        if batches and len(batches[-1]) + len(of_one) <= most:
            batches[-1] += of_one
        else:
            batches.append([*of_one])
    return batches


def _beside(begin: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return rows that an earlier run has left alone, of partitions of which others are to be acted on."""
    acted_on = {row.partition for row in begin if row.planned.action is not Action.NONE}
    left = (row for row in rows if row.entry.result in _LEFT and row.entry.undoing_us is None)
    return [row for row in left if row.partition in acted_on]


def _count(tally: Tally, known: Entry, outcome: Outcome) -> None:
    """Count an outcome; of a row that had one already only what has become of it since."""
    if known.open:
        tally.add(outcome.result, outcome.reason, outcome.change)
    elif outcome.change is not None and outcome.change is not known.change:
        tally.changes[outcome.change] += 1


def _parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[at : at + _MOST_OF_PARTITION] for at in range(0, len(rows), _MOST_OF_PARTITION)]
