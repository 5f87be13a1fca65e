"""The pipeline of a repair: guard, read, still right?, intent, act, verify, outcome.

Rows go through it some at a time, as one reading and one write to the disk serve many of them. Each stage is somebody
else's work: which rows go together, and when, is told by applying.py and pace.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from consistency.cluster.port import Clock
from repair.actions import Acted, Actor
from repair.case import Case, CaseReader
from repair.copies import copies
from repair.guard import Guard
from repair.journal import Fate, Journal, Outcome, Result
from repair.outcomes import left_alone, may_have_vanished, proven, untouched
from repair.pace import Throttle
from repair.planfile import Plan
from repair.still_right import Begun, Row, carried_over, known_as_ours, look, still_right
from repair.verify import verify

_OLD_US = 2_000_000
"""Evidence older than this is read again before anything is done."""

Outcomes = dict[int, Outcome]
"""By the row's number in the plan."""


class Pipeline:
    """Brings rows of one plan to their outcomes, which are durable before anybody hears of them."""

    def __init__(
        self, plan: Plan, cases: CaseReader, actor: Actor, guard: Guard, clock: Clock, journal: Journal
    ) -> None:
        self._plan = plan
        self._cases = cases
        self._actor = actor
        self._guard = guard
        self._clock = clock
        self._journal = journal

    async def leave(self, rows: Sequence[Row]) -> Outcomes:
        """Bring rows that nothing is to be done with to their outcome; those that agreed must agree now."""
        agreed = [row for row in rows if untouched(row.planned) is Result.VERIFIED]
        now = dict(zip(agreed, await self._read(agreed), strict=True))
        outcomes = {row.number: left_alone(row.planned, now.get(row)) for row in rows}
        await self._record(outcomes)
        return outcomes

    async def repair(self, rows: Sequence[Row], throttle: Throttle) -> Outcomes:
        """Bring rows that something is to be done with to their outcome; a row that finds no turn has none."""
        await self._guard.check()
        cases = await self._read(rows)
        begun, outcomes = self._looked_at(rows, cases)
        await self._intend(begun)
        await self._record(outcomes)
        async for some in throttle.groups(begun, lambda each: each.risk):
            acted, ended = await self._act(some, throttle)
            ended |= await self._verify(acted)
            await self._record(ended)
            doubtful = [ended.get(each.row.number) for each in some if each.risk.may_vanish]
            await throttle.breaker.ended(len(doubtful), sum(map(may_have_vanished, doubtful)))
            outcomes |= ended
        return outcomes

    async def _read(self, rows: Sequence[Row]) -> Sequence[Case]:
        return await self._cases.read_many([row.planned.ref for row in rows]) if rows else ()

    def _looked_at(self, rows: Sequence[Row], cases: Sequence[Case]) -> tuple[list[Begun], Outcomes]:
        """Tell the rows that are as planned from those that have their outcome already."""
        begun: list[Begun] = []
        outcomes: Outcomes = {}
        for row, case in zip(rows, cases, strict=True):
            found = look(row, case, self._plan)
            if isinstance(found, Outcome):
                outcomes[row.number] = found
            else:
                begun.append(Begun(row, case, found))
        return begun, outcomes

    async def _intend(self, begun: Sequence[Begun]) -> None:
        """Have the journal hold every copy of the rows before anything is written to them."""
        await asyncio.gather(*(self._journal.intent(each.row.number, copies(each.case)) for each in begun))

    async def _act(self, begun: Sequence[Begun], throttle: Throttle) -> tuple[Mapping[Begun, Acted], Outcomes]:
        """Act on rows side by side; return how that ended, and what came of those that were not acted on after all."""

        async def one(each: Begun) -> Acted | Outcome | None:
            async with throttle.next() as may_begin:
                return await self._act_on(each) if may_begin else None

        ended = dict(zip(begun, await asyncio.gather(*map(one, begun)), strict=True))
        acted = {each: how for each, how in ended.items() if isinstance(how, Acted)}
        return acted, {each.row.number: how for each, how in ended.items() if isinstance(how, Outcome)}

    async def _act_on(self, begun: Begun) -> Acted | Outcome:
        """Carry out a decision; of old evidence only if the row is read again and still the same."""
        row, case, decision, moved = begun.row, begun.case, begun.decision, False
        if self._clock.now_us() - case.now_us > _OLD_US:
            again = await self._cases.read(row.planned.ref)
            found = still_right(row, again, self._plan)
            if isinstance(found, Outcome):
                return carried_over(row.entry, case, found)
            # What others did since the intent cannot be told from what is ours.
            moved, decision, case = copies(again) != copies(case), found, again
        acted = await self._actor.act(decision, case, lambda: self._cases.read(row.planned.ref))
        return replace(acted, fate=Fate.UNKNOWN) if moved and acted.fate is Fate.DONE else acted

    async def _verify(self, acted: Mapping[Begun, Acted]) -> Outcomes:
        """Read every replica again, and tell what our writes have changed."""
        outcomes: Outcomes = {}
        for begun, outcome in (await verify(self._cases, self._clock, acted)).items():
            entry, before = begun.row.entry, copies(begun.case)
            fate = acted[begun].fate if known_as_ours(entry, before) else Fate.UNKNOWN
            first = entry.pre_image or before
            outcomes[begun.row.number] = proven(outcome, begun.case.columns, first, fate)
        return outcomes

    async def _record(self, outcomes: Outcomes) -> None:
        by_us = self._clock.server_time().latest_us  # no server has stamped a later write by now
        await asyncio.gather(*(self._journal.outcome(number, outcome, by_us) for number, outcome in outcomes.items()))
