"""The pipeline of a repair: guard, read, still right?, intent, act, verify, outcome.

Rows go through it some at a time, as one reading and one write to the disk serve many of them. Which rows go together
is told by applier.py, and when by pace.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from consistency.cluster.port import Clock
from consistency.results.forecast import Forecast
from repair.applying.actions import Acted, Actor
from repair.applying.bystanders import Bystander, after_others, as_left, can_be_taken, may_vanish, merged_partitions
from repair.applying.guard import Guard
from repair.applying.outcomes import has_stayed, left_alone, may_have_vanished, untouched
from repair.applying.pace import Throttle
from repair.applying.still_right import (
    OLD_US,
    Begun,
    Row,
    carried_over,
    look,
    proven_since,
    still_right,
    taken_along,
)
from repair.applying.verify import verify
from repair.deciding.case import Case, CaseReader
from repair.deciding.copies import copies
from repair.deciding.decide import Action
from repair.deciding.forecast import Change
from repair.keeping.entries import Entry, Fate, Outcome, Place, Result
from repair.keeping.journal import Journal
from repair.keeping.planfile import Plan

_TOGETHER = 100
"""Rows that are left alone and read at once."""

Outcomes = dict[int, Outcome]
"""By the row's number in the plan."""


@dataclass(frozen=True, slots=True)
class _Intended:
    """A row whose intent is durable: where the journal has it, and whether the row may vanish."""

    row: Row
    place: Place
    may_vanish: bool


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
        self._merged: set[tuple[str, int]] = set()

    def merged_before(self, rows: Sequence[Row]) -> None:
        """Take note of which of the rows earlier runs of the journal have merged."""
        done = (row for row in rows if row.entry.fate is Fate.DONE and row.planned.action is Action.RECONCILE)
        self._merged.update(row.partition for row in done)

    async def leave(self, rows: Sequence[Row]) -> Outcomes:
        """Bring rows that nothing is to be done with to their outcome; those that agreed must agree now."""
        agreed = [row for row in rows if untouched(row.planned) is Result.VERIFIED]
        now = dict(zip(agreed, await self._read(agreed), strict=True))
        outcomes = {row.number: left_alone(row.planned, now.get(row)) for row in rows}
        await self._record(outcomes)
        return outcomes

    async def repair(self, rows: Sequence[Row], throttle: Throttle, beside: Sequence[Row] = ()) -> Outcomes:
        """Bring rows that something is to be done with to their outcome; a row that finds no turn has none.

        All rows of the plan that are of one of their partitions are among them, or `beside`: rows that nothing is to be
        done with, which have their outcome after the others.
        """
        await self._guard.check()
        cases = await self._read(rows)
        begun, outcomes = self._looked_at(rows, cases)
        await self._intend(begun)
        merged = merged_partitions(begun)
        standing = await self._standing(rows, cases, outcomes, merged)
        for at in range(0, len(beside), _TOGETHER):
            standing += await self._left(beside[at : at + _TOGETHER], outcomes, merged)
        await self._record(outcomes)
        crowded = dict.fromkeys(each.row.partition for each in standing)
        free = [each for each in begun if each.row.partition not in crowded]
        outcomes |= await self._in_groups(free, throttle)
        for partition in crowded:
            of_it = [each for each in begun if each.row.partition == partition]
            doubtful = [each.row.number for each in of_it if each.risk.may_vanish]
            others = [each for each in standing if each.row.partition == partition]
            acting = self._few_by_few(of_it, throttle)
            of_plan = [row for row in rows if row.partition == partition]
            outcomes |= await self._as_one(acting, of_plan, doubtful, others, throttle)
        return outcomes

    async def _in_groups(self, begun: Sequence[Begun], throttle: Throttle) -> Outcomes:
        """Act on rows whose intents are durable, those that may vanish as the breaker lets them begin."""
        outcomes: Outcomes = {}
        async for some in throttle.groups(begun, lambda each: each.risk):
            ended = await self._carry_out(some, throttle)
            doubtful = [ended.get(each.row.number) for each in some if each.risk.may_vanish]
            vanished, stayed = sum(map(may_have_vanished, doubtful)), sum(map(has_stayed, doubtful))
            await throttle.breaker.ended(len(doubtful), vanished, stayed)
            await throttle.breaker.surprised(_surprises([each.row for each in some], ended))
            outcomes |= ended
        return outcomes

    async def _few_by_few(self, begun: Sequence[Begun], throttle: Throttle) -> AsyncGenerator[Outcomes, None]:
        for at in range(0, len(begun), throttle.few):
            yield await self._carry_out(begun[at : at + throttle.few], throttle)

    async def _as_one(
        self,
        acting: AsyncGenerator[Outcomes, None],
        rows: Sequence[Row],
        doubtful: Sequence[int],
        standing: Sequence[Bystander],
        throttle: Throttle,
    ) -> Outcomes:
        """Act on rows of a partition once the breaker lets all begin that may vanish, those left alone among them."""
        outcomes: Outcomes = {}
        at_risk = len(doubtful) + sum(each.may_vanish for each in standing)
        async with aclosing(acting):
            if not await throttle.breaker.let_begin(at_risk):
                return outcomes
            async for ended in acting:
                outcomes |= ended
        outcomes |= (left := await self._after_others(standing))
        vanished = sum(may_have_vanished(outcomes.get(n)) for n in doubtful) + _vanished(standing, left)
        await throttle.breaker.ended(at_risk, vanished, sum(has_stayed(outcomes.get(n)) for n in doubtful))
        await throttle.breaker.surprised(_surprises(rows, outcomes))
        return outcomes

    async def _standing(
        self, rows: Sequence[Row], cases: Sequence[Case], outcomes: Outcomes, merged: Collection[tuple[str, int]]
    ) -> list[Bystander]:
        """Take, of rows that have their outcome, those that a merge of others may take; their pre-image is durable."""
        found = [
            (row, case)
            for row, case in zip(rows, cases, strict=True)
            if row.number in outcomes and row.partition in merged and can_be_taken(case)
        ]
        places = await asyncio.gather(*(self._journal.intent(row.number, copies(case)) for row, case in found))
        return [
            Bystander(row, outcomes.pop(row.number), place, may_vanish(case))
            for (row, case), place in zip(found, places, strict=True)
        ]

    async def _left(
        self, rows: Sequence[Row], outcomes: Outcomes, merged: Collection[tuple[str, int]]
    ) -> list[Bystander]:
        """Enter what comes of rows that nothing is to be done with, but for those that a merge of others may take."""
        cases = await self._read(rows)
        left = {row.number: self._left_so(row, case) for row, case in zip(rows, cases, strict=True)}
        standing = await self._standing(rows, cases, left, merged)
        outcomes |= left
        return standing

    def _left_so(self, row: Row, case: Case) -> Outcome:
        outcome = as_left(row, case)
        if row.entry.pre_image is None or row.entry.fate is not None:
            return outcome
        merged = row.partition in self._merged
        return after_others(outcome, row.entry.pre_image, case, merged=merged)  # a killed run may have taken it

    async def _after_others(self, standing: Sequence[Bystander]) -> Outcomes:
        """Read rows again that were left alone while others of their partition were merged."""
        outcomes: Outcomes = {}
        for at in range(0, len(standing), _TOGETHER):
            some = standing[at : at + _TOGETHER]
            cases = await self._read([each.row for each in some])
            for each, case in zip(some, cases, strict=True):
                before = each.row.entry.pre_image or self._journal.intended(each.place)
                merged = each.row.partition in self._merged
                outcomes[each.row.number] = after_others(each.outcome, before, case, merged=merged)
        await self._record(outcomes)
        return outcomes

    async def repair_partition(
        self, parts: Sequence[Sequence[Row]], throttle: Throttle, beside: Sequence[Sequence[Row]] = ()
    ) -> Outcomes:
        """Bring the rows of one large partition to their outcome, a part at a time.

        Merging one row passes the partition's delete on to all replicas, and that takes rows of any part. So the
        intents of all parts are durable before anything is done with the first one, and all parts are finished.
        """
        await self._guard.check()
        outcomes: Outcomes = {}
        intended: list[list[_Intended]] = []
        standing: list[Bystander] = []
        merged = {row.partition for row in parts[0]}
        for part in parts:
            cases = await self._read(part)
            begun, ended = self._looked_at(part, cases)
            places = await self._intend(begun)
            standing += await self._standing(part, cases, ended, merged)
            await self._record(ended)
            outcomes |= ended
            intended.append([_Intended(b.row, at, b.risk.may_vanish) for b, at in zip(begun, places, strict=True)])
        for part in beside:
            left: Outcomes = {}
            standing += await self._left(part, left, merged)
            await self._record(left)
            outcomes |= left
        doubtful = [each.row.number for part in intended for each in part if each.may_vanish]
        rows = [row for part in parts for row in part]
        return outcomes | await self._as_one(self._in_parts(intended, throttle), rows, doubtful, standing, throttle)

    async def _in_parts(
        self, intended: Sequence[Sequence[_Intended]], throttle: Throttle
    ) -> AsyncGenerator[Outcomes, None]:
        """Read each part again, act and verify; a row is told from its own intent by what the journal holds."""
        for part in intended:
            rows = [self._as_intended(each) for each in part]
            begun, ended = self._looked_at(rows, await self._read(rows))
            await self._record(ended)
            yield ended
            async for some in self._few_by_few(begun, throttle):
                yield some

    def _as_intended(self, each: _Intended) -> Row:
        """Return a row with its pre-image; one that an earlier run has begun with has it already."""
        if each.row.entry.pre_image is not None:
            return each.row
        return replace(each.row, entry=Entry(self._journal.intended(each.place)))

    async def _carry_out(self, begun: Sequence[Begun], throttle: Throttle) -> Outcomes:
        """Act on rows whose intents are durable, and prove what came of them."""
        acted, ended = await self._act(begun, throttle)
        ended |= await self._verify(acted)
        await self._record(ended)
        return ended

    async def _read(self, rows: Sequence[Row]) -> Sequence[Case]:
        return await self._cases.read_many([row.planned.ref for row in rows]) if rows else ()

    def _looked_at(self, rows: Sequence[Row], cases: Sequence[Case]) -> tuple[list[Begun], Outcomes]:
        """Tell the rows that are as planned from those that have their outcome already."""
        begun: list[Begun] = []
        outcomes: Outcomes = {}
        for row, case in zip(rows, cases, strict=True):
            found = look(row, case, self._plan, merged=row.partition in self._merged)
            if isinstance(found, Outcome):
                outcomes[row.number] = found
            else:
                begun.append(Begun(row, case, found))
        return begun, outcomes

    async def _intend(self, begun: Sequence[Begun]) -> Sequence[Place]:
        """Have the journal hold every copy of the rows before anything is written to them."""
        return await asyncio.gather(*(self._journal.intent(each.row.number, copies(each.case)) for each in begun))

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
        if self._clock.now_us() - case.now_us > OLD_US:
            again = await self._cases.read(row.planned.ref)
            ours = taken_along(copies(case), again, merged=row.partition in self._merged)
            if ours and again.agreed and copies(again) != copies(case):
                return self._proven(begun, Outcome(Result.VERIFIED, "", copies(again)), Fate.DONE)
            found = still_right(row, again, self._plan)
            if isinstance(found, Outcome):
                return carried_over(row.entry, case, found)
            # What others did since the intent cannot be told from what is ours.
            moved, decision, case = copies(again) != copies(case) and not ours, found, again
        acted = await self._actor.act(decision, case, lambda: self._cases.read(row.planned.ref))
        if decision.action is Action.RECONCILE and acted.fate is Fate.DONE:
            self._merged.add(row.partition)
        return replace(acted, fate=Fate.UNKNOWN) if moved and acted.fate is Fate.DONE else acted

    async def _verify(self, acted: Mapping[Begun, Acted]) -> Outcomes:
        """Read every replica again, and tell what our writes have changed."""
        seen = await verify(self._cases, self._clock, acted)
        return {begun.row.number: self._proven(begun, outcome, acted[begun].fate) for begun, outcome in seen.items()}

    def _proven(self, begun: Begun, outcome: Outcome, fate: Fate) -> Outcome:
        """Say what our writes have changed of a row since it was first begun with."""
        return proven_since(begun, outcome, fate, self._clock, merged=begun.row.partition in self._merged)

    async def _record(self, outcomes: Outcomes) -> None:
        by_us = self._clock.server_time().latest_us  # no server has stamped a later write by now
        await asyncio.gather(*(self._journal.outcome(number, outcome, by_us) for number, outcome in outcomes.items()))


def _vanished(standing: Sequence[Bystander], outcomes: Outcomes) -> int:
    """Count the rows that most replicas held, that were left alone, and that are gone or may be."""
    return sum(each.may_vanish and may_have_vanished(outcomes.get(each.row.number)) for each in standing)


def _surprises(rows: Sequence[Row], outcomes: Outcomes) -> int:
    """Count the rows that most replicas held and that were forecast to come back, and have vanished."""
    held = [row for row in rows if 2 * len(row.planned.lacking) < len(row.planned.seen)]
    restored = [row.number for row in held if row.planned.forecast is Forecast.RESTORE]
    return sum(number in outcomes and outcomes[number].change is Change.DELETED for number in restored)
