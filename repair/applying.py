"""Apply a plan row by row: guard, journal, act, verify, journal. Also what resume does with a row half done."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from consistency.cluster.guardrails import Refusal
from consistency.cluster.port import Clock
from consistency.rows.cells import atoms, winners
from repair.actions import Acted, Actor
from repair.case import Case, CaseReader
from repair.copies import Copies, copies, digests, state_digest
from repair.decide import Action, Decision, Rule, decide
from repair.guard import Guard
from repair.journal import Entry, Fate, Journal, Outcome, Result
from repair.outcomes import Tally, failed, left_alone, proven, refused, settled, untouched
from repair.pace import DEFAULT_RATE, Pace
from repair.planfile import Plan, PlannedRow

_OLD_US = 2_000_000
"""Evidence older than this is read again before anything is done."""
_VERIFY_AFTER_S = (0.0, 0.1, 0.5, 1.5)
_LANES = 4
_MOST_AT_ONCE = 50
_MOST_OF_PARTITION = 500


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How hard to write, and for how long."""

    rate: float | None = DEFAULT_RATE
    """Rows begun a second; None: as fast as they go."""
    at_once: int = 16
    """Rows under way at once."""
    until: float | None = None
    """`time.monotonic()` after which no more rows are begun."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A row that was not acted on after all: nothing of this attempt is there to be verified or undone."""

    result: Result
    reason: str


@dataclass(frozen=True, slots=True)
class _Work:
    """What all batches of one run share."""

    entries: Mapping[int, Entry]
    options: ApplyOptions
    stop: asyncio.Event
    pace: Pace
    gate: asyncio.Semaphore


class Applier:
    """Applies one plan through its ports."""

    def __init__(
        self, plan: Plan, evidence: CaseReader, actor: Actor, guard: Guard, clock: Clock, journal: Journal
    ) -> None:
        self._plan = plan
        self._evidence = evidence
        self._actor = actor
        self._guard = guard
        self._clock = clock
        self._journal = journal

    async def run(
        self,
        entries: dict[int, Entry],
        options: ApplyOptions,
        stop: asyncio.Event,
        progress: Callable[[Tally], None],
    ) -> Tally:
        """Bring every row of the plan that is open to an outcome; ends early, between rows, when `stop` is set."""
        tally = Tally(len(self._plan.rows))
        for entry in entries.values():
            if entry.result is not None and not entry.open:
                tally.add(entry.result, entry.reason)
        open_rows = [n for n in range(len(self._plan.rows)) if entries.get(n, Entry()).open]
        batches = iter(self._batched(open_rows, most=_batch_size(options.rate)))
        work = _Work(entries, options, stop, Pace(self._clock, options.rate), asyncio.Semaphore(options.at_once))

        async def lane() -> None:
            for batch in batches:
                if not self._may_begin(work, tally):
                    return
                for result, reason in await self._batch(batch, work, tally):
                    tally.add(result, reason)
                progress(tally)

        lanes = [asyncio.create_task(lane()) for _ in range(_LANES)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return tally

    def _batched(self, numbers: Sequence[int], *, most: int) -> list[list[int]]:
        """Cut rows into batches: a partition's rows together, as its delete that reaches one row reaches all."""
        partitions: dict[tuple[str, int], list[int]] = defaultdict(list)
        for number in numbers:
            ref = self._plan.rows[number].ref
            partitions[ref.full_name, ref.token].append(number)
        batches: list[list[int]] = []
        lone: dict[str, list[int]] = defaultdict(list)
        for (table, _), rows in sorted(partitions.items()):
            if len(rows) > 1:
                batches += [rows[at : at + _MOST_OF_PARTITION] for at in range(0, len(rows), _MOST_OF_PARTITION)]
            else:
                lone[table] += rows
        for rows in lone.values():
            rows.sort(key=lambda number: self._evidence.together(self._plan.rows[number].ref))
            batches += [rows[at : at + most] for at in range(0, len(rows), most)]
        return batches

    def _may_begin(self, work: _Work, tally: Tally) -> bool:
        tally.interrupted |= work.stop.is_set()
        tally.out_of_time |= work.options.until is not None and self._clock.monotonic() > work.options.until
        return not (tally.interrupted or tally.out_of_time)

    async def _batch(self, numbers: Sequence[int], work: _Work, tally: Tally) -> list[tuple[Result, str]]:
        """Take some rows from evidence to outcome side by side; return the outcomes, which are durable."""
        outcomes: dict[int, Outcome] = {}
        acting = [n for n in numbers if self._plan.rows[n].action is not Action.NONE]
        resting = [n for n in numbers if self._plan.rows[n].action is Action.NONE]
        agreed = [n for n in resting if untouched(self._plan.rows[n]) is Result.VERIFIED]
        now = dict(zip(agreed, await self._read(agreed), strict=True)) if agreed else {}
        for number in resting:
            outcomes[number] = left_alone(self._plan.rows[number], now.get(number))
        await self._record(outcomes)
        if acting:
            await self._guard.check()
            evidence = dict(zip(acting, await self._read(acting), strict=True))
            outcomes |= await self._act_and_verify(evidence, work, tally)
        return [(outcome.result, outcome.reason) for outcome in outcomes.values()]

    async def _read(self, numbers: Sequence[int]) -> Sequence[Case]:
        return await self._evidence.read_many([self._plan.rows[number].ref for number in numbers])

    async def _act_and_verify(self, evidence: Mapping[int, Case], work: _Work, tally: Tally) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = {}
        decided: dict[int, Decision] = {}
        for number, found in evidence.items():
            ended = self._looked_at(number, found, work.entries.get(number, Entry()))
            if isinstance(ended, Decision):
                decided[number] = ended
            else:
                outcomes[number] = ended
        await asyncio.gather(*(self._journal.intent(number, copies(evidence[number])) for number in decided))
        await self._record(outcomes)
        few = _batch_size(work.options.rate)
        numbers = list(decided)
        for some in (numbers[at : at + few] for at in range(0, len(numbers), few)):
            done = await self._acted(some, decided, evidence, work, tally)
            ended_now = {
                n: _untouched(work.entries.get(n, Entry()), evidence[n], Outcome(r.result, r.reason))
                for n, r in done.items()
                if isinstance(r, _Refused)
            }
            acted = {n: each for n, each in done.items() if isinstance(each, Acted)}
            for number, outcome in (await self._verify(evidence, acted)).items():
                entry, before = work.entries.get(number, Entry()), copies(evidence[number])
                fate = acted[number].fate if _known(entry, before) else Fate.UNKNOWN
                ended_now[number] = proven(outcome, entry.pre_image or before, fate)
            await self._record(ended_now)
            outcomes |= ended_now
        return outcomes

    def _looked_at(self, number: int, found: Case, entry: Entry) -> Decision | Outcome:
        """Return what to do with a row, or what came of it where nothing is to be done, or may be."""
        if found.agreed and not found.unread:
            return _untouched(entry, found, Outcome(Result.VERIFIED, "the replicas agree"))
        decision, refusal = self._still_right(self._plan.rows[number], entry, found)
        if decision is None:
            return _untouched(entry, found, Outcome(_left_as(self._plan.rows[number], entry, found), refusal))
        if decision.refused:
            return _untouched(entry, found, Outcome(Result.REFUSED, refused(Refusal(decision.refused))))
        return decision

    async def _acted(
        self,
        numbers: Sequence[int],
        decided: Mapping[int, Decision],
        evidence: Mapping[int, Case],
        work: _Work,
        tally: Tally,
    ) -> dict[int, Acted | _Refused]:
        """Act on some rows side by side; return how that ended for each."""

        async def act(number: int) -> tuple[int, Acted | _Refused] | None:
            async with work.gate:
                await work.pace.wait(work.stop)
                if not self._may_begin(work, tally):
                    return None
                entry = work.entries.get(number, Entry())
                return number, await self._act(number, entry, decided[number], evidence[number])

        return dict([item for item in await asyncio.gather(*map(act, numbers)) if item is not None])

    async def _record(self, outcomes: Mapping[int, Outcome]) -> None:
        by_us = self._clock.server_time().latest_us  # no server has stamped a later write by now
        await asyncio.gather(*(self._journal.outcome(number, outcome, by_us) for number, outcome in outcomes.items()))

    async def _act(self, number: int, entry: Entry, decision: Decision, evidence: Case) -> Acted | _Refused:
        """Carry out a decision; return how that ended, or why it was not carried out."""
        row = self._plan.rows[number]
        moved = False  # since the intent: what others did by then cannot be told from ours
        if self._clock.now_us() - evidence.now_us > _OLD_US:
            again = await self._evidence.read(row.ref)
            fresh, refusal = self._still_right(row, entry, again)
            if fresh is None:
                return _Refused(_left_as(row, entry, again), refusal)
            if fresh.refused:
                return _Refused(Result.REFUSED, refused(Refusal(fresh.refused)))
            moved, decision, evidence = copies(again) != copies(evidence), fresh, again
        acted = await self._actor.act(decision, evidence, lambda: self._evidence.read(row.ref))
        return replace(acted, fate=Fate.UNKNOWN) if moved and acted.fate is Fate.DONE else acted

    def _still_right(self, row: PlannedRow, entry: Entry, evidence: Case) -> tuple[Decision | None, str]:
        """Return the decision to carry out, or None and why the row must be left as it is now."""
        decision = decide(evidence, self._plan.policy)
        if entry.pre_image is not None:
            return _redo(row, entry.pre_image, evidence, decision)
        if not _as_planned(row, evidence, self._plan.salt):
            why = next(iter(evidence.unread.values()), "it does not answer")
            return None, f"{_NOT_READ}: {why}" if _unread_since(row, evidence) else _CHANGED
        if (decision.rule, decision.action) != (row.rule, row.action):
            return None, _otherwise(decision)
        return decision, ""

    async def _verify(self, before: Mapping[int, Case], acted: Mapping[int, Acted]) -> dict[int, Outcome]:
        """Read every replica again, a few times: an acknowledged repair can take a moment on the others."""
        outcomes: dict[int, Outcome] = {}
        now: dict[int, Case] = {}
        for delay in _VERIFY_AFTER_S:
            waiting = [number for number in acted if number not in outcomes]
            if not waiting:
                break
            await self._clock.sleep(delay)
            now.update(zip(waiting, await self._read(waiting), strict=True))
            for number in waiting:
                outcome = settled(now[number])
                if outcome is None and _in_vain(acted[number]):
                    outcome = failed(self._plan.rows[number], before[number], now[number], acted[number].refusal)
                if outcome is not None:
                    outcomes[number] = outcome
        for number in acted.keys() - outcomes.keys():
            outcomes[number] = failed(self._plan.rows[number], before[number], now[number], acted[number].refusal)
        return outcomes


def _untouched(entry: Entry, now: Case, outcome: Outcome) -> Outcome:
    """Carry over what is known of earlier attempts at a row that this one did nothing with."""
    if entry.pre_image is None or copies(now) == entry.pre_image:
        return outcome
    if entry.fate is Fate.DONE and copies(now) == entry.after:
        return replace(outcome, after=entry.after, fate=Fate.DONE, changed=entry.changed)
    # After a kill the write may have been ours, or somebody else's: that cannot be told any more.
    return replace(outcome, after=copies(now), fate=Fate.UNKNOWN)


def _in_vain(acted: Acted) -> bool:
    """Whether nothing of ours was done: then there is nothing to wait for."""
    return acted.fate is Fate.NONE and acted.refusal is not None


def _known(entry: Entry, before: Copies) -> bool:
    """Whether nothing of an earlier attempt can be among the copies that this one began with, but what is known."""
    if entry.pre_image is None or before == entry.pre_image:
        return True
    return entry.fate is Fate.DONE and before == entry.after


def _batch_size(rate: float | None) -> int:
    """Return how many rows may wait for their turn after they were read: a tenth of a second's."""
    return _MOST_AT_ONCE if rate is None else max(1, min(_MOST_AT_ONCE, int(rate / 10)))


def _as_planned(row: PlannedRow, evidence: Case, salt: str) -> bool:
    """Whether every replica holds what it held for the plan.

    For a merge by the servers a replica may also hold what another one held, or nothing: repairing another row
    of the partition spreads its delete. Anything that no replica held is a newer write.
    """
    seen = digests(copies(evidence), salt)
    if seen == dict(row.seen):
        return True
    known = {*row.seen.values(), digests, state_digest(None, salt)}
    return row.action is Action.RECONCILE and set(seen) == set(row.seen) and set(seen.values()) <= known


def _unread_since(row: PlannedRow, evidence: Case) -> bool:
    """Whether a replica that was read for the plan is not read now."""
    return not set(row.seen) <= {node.host_id for node in evidence.states}


def _left_as(row: PlannedRow, entry: Entry, evidence: Case) -> Result:
    """Return what comes of a row that is not as planned; where it could not be read for now, resume goes on with it."""
    return Result.UNKNOWN if entry.pre_image is None and _unread_since(row, evidence) else Result.SKIPPED


_NOT_READ = "a replica that was read for the plan is not read now"
_CHANGED = "it has changed since the plan was made: plan again"


def _redo(row: PlannedRow, before: Copies, evidence: Case, decision: Decision) -> tuple[Decision | None, str]:
    """Do again what a killed run had begun, unless something is there now that was not there before.

    Our own half-done work only moves known cells between replicas or hides them under tombstones; a cell
    that no replica had is somebody else's write.
    """
    known = {item for state in before.values() for item in atoms(evidence.columns, state).items()}
    present = {item for held in evidence.copies.values() for item in held.items()}
    if present - known:
        return None, _CHANGED
    # A zombie that was to be restored is none any more once most replicas hold it again: what is left of that is done.
    suspected_since = decision.rule is Rule.ZOMBIE and row.rule is not Rule.ZOMBIE
    if decision.action is not row.action or suspected_since:
        return None, _otherwise(decision)
    return decision, ""


def is_merge(evidence: Case, before: Copies) -> bool:
    """Whether the copies show what the copies before merge to; what else all agree on is somebody else's write."""
    merged = winners({host: atoms(evidence.columns, state) for host, state in before.items()})
    return all(state is not None and evidence.copies[node] == merged for node, state in evidence.states.items())


def _otherwise(decision: Decision) -> str:
    return f"it would be decided otherwise now: {decision.rule.value}, {decision.action.value}; plan again"
