"""Apply a plan: which of its rows go through the pipeline together, and side by side. Also what resume does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from consistency.cluster.port import Clock
from repair.actions import Actor
from repair.breaker import SPARE, Breaker
from repair.case import CaseReader
from repair.decide import Action
from repair.forecast import Change, Forecast, most_held
from repair.guard import Guard
from repair.journal import Entry, Journal
from repair.outcomes import Tally
from repair.pace import ApplyOptions, Throttle
from repair.planfile import Plan
from repair.run import Outcomes, Pipeline
from repair.still_right import Row

_LANES = 4
_MOST_OF_PARTITION = 500
"""Rows of one partition that are read and kept in memory together."""


class Applier:
    """Applies one plan through its ports."""

    def __init__(
        self, plan: Plan, cases: CaseReader, actor: Actor, guard: Guard, clock: Clock, journal: Journal
    ) -> None:
        self._plan = plan
        self._cases = cases
        self._clock = clock
        self._pipeline = Pipeline(plan, cases, actor, guard, clock, journal)

    async def run(
        self,
        entries: Mapping[int, Entry],
        options: ApplyOptions,
        stop: asyncio.Event,
        progress: Callable[[Tally], None],
    ) -> Tally:
        """Bring every row of the plan that is open to an outcome; ends early, between rows, when `stop` is set."""
        tally = Tally(len(self._plan.rows))
        for entry in entries.values():
            if entry.result is not None and not entry.open:
                tally.add(entry.result, entry.reason, entry.change)
        throttle = Throttle(self._clock, options, stop, self._breaker(entries, options.max_deletes))
        rows = [Row(n, planned, entries.get(n, Entry())) for n, planned in enumerate(self._plan.rows)]
        self._pipeline.merged_before(rows)
        batches = iter(self._batched([row for row in rows if row.entry.open], most=throttle.few))

        async def lane() -> None:
            for batch in batches:
                if not throttle.may_begin() or throttle.breaker.open:
                    return
                for outcome in (await self._outcomes(batch, throttle)).values():
                    tally.add(outcome.result, outcome.reason, outcome.change)
                progress(tally)

        lanes = [asyncio.create_task(lane()) for _ in range(_LANES)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        tally.interrupted, tally.out_of_time = throttle.interrupted, throttle.out_of_time
        tally.stopped_at = throttle.breaker.vanished if throttle.breaker.open else None
        return tally

    def _breaker(self, entries: Mapping[int, Entry], most: int | None) -> Breaker:
        """Count what vanished in earlier runs of the journal too; what was planned to be purged is no surprise."""
        vanished = sum(
            entry.change is Change.DELETED
            and self._plan.rows[number].forecast is not Forecast.DELETE
            and most_held(entry.before or {})
            for number, entry in entries.items()
        )
        return Breaker(SPARE if most is None else most, vanished)

    def _batched(self, rows: Sequence[Row], *, most: int) -> list[list[Row]]:
        """Cut rows into batches: a partition's rows together, as its delete that reaches one row reaches all."""
        partitions: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in rows:
            partitions[row.partition].append(row)
        batches: list[list[Row]] = []
        lone: dict[str, list[Row]] = defaultdict(list)
        for (table, _), of_one in sorted(partitions.items()):
            if len(of_one) > 1:
                batches.append(of_one)
            else:
                lone[table] += of_one
        for of_table in lone.values():
            of_table.sort(key=lambda row: self._cases.together(row.planned.ref))
            batches += [of_table[at : at + most] for at in range(0, len(of_table), most)]
        return batches

    async def _outcomes(self, rows: Sequence[Row], throttle: Throttle) -> Outcomes:
        """Take some rows from evidence to outcome side by side."""
        resting = [row for row in rows if row.planned.action is Action.NONE]
        acting = [row for row in rows if row.planned.action is not Action.NONE]
        outcomes: Outcomes = {}
        for part in _parts(resting):
            outcomes |= await self._pipeline.leave(part)
        parts = _parts(acting)
        if len(parts) > 1:
            return outcomes | await self._pipeline.repair_partition(parts, throttle)
        return outcomes | await self._pipeline.repair(acting, throttle) if acting else outcomes


def _parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[at : at + _MOST_OF_PARTITION] for at in range(0, len(rows), _MOST_OF_PARTITION)]
