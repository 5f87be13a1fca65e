"""The pipeline of a sync: guard, read both sides, still right?, intent, write, verify, outcome.

Rows are streamed from the plan, some of them go through it together, and a few such groups side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from consistency.cluster.guardrails import Refusal
from consistency.cluster.port import Clock
from consistency.cluster.waits import side_by_side
from consistency.errors import ReplicaError
from repair.applying.actions import Acted
from repair.applying.breaker import Breaker
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Throttle
from repair.deciding.copies import copies
from repair.deciding.permitted import writing_at
from repair.keeping.entries import Fate, Outcome
from repair.sync.cases import PairCaseReader
from repair.sync.guards import Guards
from repair.sync.journal import SyncJournal, SyncRecord
from repair.sync.planfile import SyncPlan
from repair.sync.policy import DEFAULT_MAX_DELETES, Level
from repair.sync.still_right import Begun, Row, look, untouched
from repair.sync.verify import verify
from repair.writing.statements import Write, batches, delete_cell, delete_row, write_cells
from repair.writing.writer import RowWriter

_LANES = 4
_LEFT_TOGETHER = 500
"""Rows that nothing is done with, whose outcomes share a write to the disk."""

Outcomes = dict[int, Outcome]


@dataclass(frozen=True, slots=True)
class SyncApplyOptions:
    """How hard to write, at which level, and how many rows may be deleted, or lose cells."""

    apply: ApplyOptions = field(default_factory=ApplyOptions)
    level: Level = Level.LOCAL_QUORUM

    @property
    def max_deletes(self) -> int:
        """Of how many rows something may be deleted, those of earlier runs of the journal among them."""
        return DEFAULT_MAX_DELETES if self.apply.max_deletes is None else self.apply.max_deletes


@dataclass(frozen=True)
class Ports:
    """Through what a sync reads, writes and keeps its journal."""

    cases: PairCaseReader
    writer: RowWriter
    guards: Guards
    clock: Clock
    journal: SyncJournal


class Syncer:
    """Brings the rows of one plan to their outcomes, which are durable before anybody hears of them."""

    def __init__(self, plan: SyncPlan, ports: Ports, options: SyncApplyOptions) -> None:
        """Apply a plan through these ports."""
        self._plan = plan
        self._ports = ports
        self._options = options

    async def run(self, known: SyncRecord, stop: asyncio.Event, progress: Callable[[Tally], None]) -> Tally:
        """Bring every row that is open to an outcome; ends early, between rows, when `stop` is set."""
        tally = Tally(self._plan.summary.rows, known.account(with_open=False))
        breaker = Breaker(self._options.max_deletes, known.deletes_begun())
        throttle = Throttle(self._ports.clock, self._options.apply, stop, breaker)
        groups = self._groups(known, throttle.few)

        async def lane() -> None:
            for group in groups:
                if not throttle.may_begin() or breaker.open:
                    return
                for outcome in (await self._outcomes(group, throttle)).values():
                    tally.add(outcome.result, outcome.reason, outcome.change)
                progress(tally)

        await side_by_side(lane, _LANES)
        tally.interrupted, tally.out_of_time = throttle.interrupted, throttle.out_of_time
        tally.stopped_at = breaker.vanished if breaker.open else None
        return tally

    def _groups(self, known: SyncRecord, few: int) -> Iterator[list[Row]]:
        """Cut the rows that are open into groups of a few, or of many that nothing is done with."""
        group: list[Row] = []
        acting = 0
        for number, planned in enumerate(self._plan.rows()):
            if not known.is_open(number):
                continue
            group.append(Row(number, planned, known.entry(number)))
            acting += untouched(planned) is None
            if acting == few or len(group) == _LEFT_TOGETHER:
                yield group
                group, acting = [], 0
        if group:
            yield group

    async def _outcomes(self, rows: Sequence[Row], throttle: Throttle) -> Outcomes:
        """Take some rows from evidence to outcome; a row that finds no turn has none."""
        await self._ports.guards.check()
        outcomes = {row.number: left for row in rows if (left := untouched(row.planned)) is not None}
        acting = [row for row in rows if row.number not in outcomes]
        begun: list[Begun] = []
        cases = await self._ports.cases.read_many([row.planned.ref for row in acting])
        for row, case in zip(acting, cases, strict=True):
            found = look(row, case, self._plan)
            if isinstance(found, Outcome):
                outcomes[row.number] = found
            else:
                begun.append(Begun(row, case, found))
        await self._record(outcomes)
        return outcomes | await self._with_leave(begun, throttle)

    async def _with_leave(self, begun: Sequence[Begun], throttle: Throttle) -> Outcomes:
        """Act on rows, on those of which something is deleted only as the breaker lets them begin."""
        breaker = throttle.breaker
        free: list[Begun] = []
        waiting: list[Begun] = []
        for each in begun:
            waits = each.needs_leave and not breaker.may_begin(1)
            (waiting if waits else free).append(each)
        outcomes = await self._carry_out(free, throttle)
        for each in waiting:
            if not await breaker.let_begin(1):
                break
            outcomes |= await self._carry_out([each], throttle)
        return outcomes

    async def _carry_out(self, begun: Sequence[Begun], throttle: Throttle) -> Outcomes:
        """Have the journal hold the taker's copies, then act on rows side by side, and prove what came of them."""
        journal = self._ports.journal
        await asyncio.gather(*(journal.intent(each.row.number, copies(each.case.taker)) for each in begun))

        async def one(each: Begun) -> Acted | None:
            async with throttle.next() as may_begin:
                return await self._act_on(each) if may_begin else None

        ended = dict(zip(begun, await asyncio.gather(*map(one, begun)), strict=True))
        if deletes := sum(each.needs_leave for each in begun):
            await throttle.breaker.ended(deletes, deletes, 0)
        acted = {each: how for each, how in ended.items() if how is not None}
        outcomes = await verify(self._ports.cases.taker, self._ports.clock, acted, self._plan.policy)
        await self._record(outcomes)
        return outcomes

    async def _act_on(self, begun: Begun) -> Acted:
        """Write what was decided: first the giver's cells, so that a row never vanishes in between."""
        taker, decision, level = begun.case.taker, begun.decision, self._options.level.code
        way, fate = writing_at(taker, decision.times, level), Fate.NONE
        if way.refused:
            return Acted(fate, Refusal(way.refused))
        for write in _writes(begun):
            try:
                await self._ports.writer.at(way.node, write, level)
            except ReplicaError as error:
                refusal = Refusal.of(error)
                return Acted(fate if refusal.certain else Fate.UNKNOWN, refusal)
            fate = Fate.DONE
        return Acted(fate)

    async def _record(self, outcomes: Outcomes) -> None:
        by_us = self._ports.clock.server_time().latest_us  # no server has stamped a later write by now
        journal = self._ports.journal
        await asyncio.gather(*(journal.outcome(number, outcome, by_us) for number, outcome in outcomes.items()))


def _writes(begun: Begun) -> list[Write]:
    taker, decision = begun.case.taker, begun.decision
    if decision.delete_row_us is not None:
        return [delete_row(taker, decision.delete_row_us)]
    deletes = [
        delete_cell(taker, taker.columns[place], path, atom.writetime)
        for (place, path), atom in decision.delete.items()
        if atom.writetime is not None
    ]
    return [*write_cells(taker, decision.write), *batches(deletes)]
