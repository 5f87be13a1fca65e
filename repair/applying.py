"""Apply a plan row by row: guard, journal, act, verify, journal. Also what resume does with a row half done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from consistency.errors import ReplicaError
from consistency.reader import Clock
from repair.actions import Actor
from repair.atoms import atoms
from repair.decide import Action, Decision, Rule, decide, zombie_suspects
from repair.evidence import Evidence, EvidenceReader, state_digest
from repair.guard import Guard
from repair.journal import Copies, Entry, Journal, Result
from repair.pace import DEFAULT_RATE, Pace
from repair.planfile import Plan, PlannedRow

_VERIFY_AFTER_S = (0.0, 0.1, 0.5, 1.5)


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How hard to write: rows begun a second (None: as fast as they go), rows under way at once.

    `until` is the clock's monotonic time in seconds after which no more rows are begun.
    """

    rate: float | None = DEFAULT_RATE
    at_once: int = 16
    until: float | None = None


@dataclass
class Tally:
    """What came of the rows so far, with a reason for each that is not verified."""

    total: int
    results: Counter[Result] = field(default_factory=Counter)
    reasons: Counter[tuple[Result, str]] = field(default_factory=Counter)
    interrupted: bool = False
    out_of_time: bool = False

    def add(self, result: Result, reason: str) -> None:
        """Count one row."""
        self.results[result] += 1
        if result is not Result.VERIFIED:
            self.reasons[result, reason] += 1

    @property
    def done(self) -> int:
        """How many rows have an outcome."""
        return sum(self.results.values())


class Applier:
    """Applies one plan through its ports."""

    def __init__(
        self, plan: Plan, evidence: EvidenceReader, actor: Actor, guard: Guard, clock: Clock, journal: Journal
    ) -> None:
        self._plan = plan
        self._evidence = evidence
        self._actor = actor
        self._guard = guard
        self._clock = clock
        self._journal = journal
        self._acting = Counter((row.ref.full_name, row.ref.token) for row in plan.to_do)

    async def run(
        self,
        entries: dict[int, Entry],
        options: ApplyOptions,
        stop: asyncio.Event,
        progress: Callable[[Tally], None],
    ) -> Tally:
        """Bring every row of the plan that has no outcome to one; ends early, between rows, when `stop` is set."""
        tally = Tally(len(self._plan.rows))
        for entry in entries.values():
            if entry.result is not None:
                tally.add(entry.result, entry.reason)
        open_rows = [n for n in range(len(self._plan.rows)) if entries.get(n, Entry()).result is None]
        partitions = iter(_by_partition(self._plan, open_rows))
        pace = Pace(self._clock, options.rate)

        async def lane() -> None:
            for number in (number for partition in partitions for number in partition):
                if stop.is_set():
                    tally.interrupted = True
                    return
                if options.until is not None and self._clock.monotonic() > options.until:
                    tally.out_of_time = True
                    return
                if self._plan.rows[number].action is not Action.NONE:
                    await pace.wait()
                result, reason = await self._row(number, entries.get(number, Entry()))
                tally.add(result, reason)
                progress(tally)

        lanes = [asyncio.create_task(lane()) for _ in range(options.at_once)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return tally

    async def _row(self, number: int, entry: Entry) -> tuple[Result, str]:
        row = self._plan.rows[number]
        after: Copies | None = None
        if row.action is Action.NONE:
            result = untouched(row)
            reason = row.rule.sentence if result is Result.VERIFIED else f"{row.rule.value}: {row.sentence}"
        else:
            await self._guard.check()
            evidence = await self._evidence.read(row.ref)
            result, reason, after = await self._repair(number, row, entry, evidence)
        await self._journal.outcome(number, result, reason, after)
        return result, reason

    async def _repair(
        self, number: int, row: PlannedRow, entry: Entry, evidence: Evidence
    ) -> tuple[Result, str, Copies | None]:
        if evidence.agreed and not evidence.unread:
            # After a kill the write may have been ours: undo then needs the copies as they are.
            return Result.VERIFIED, "the replicas agree", copies(evidence) if entry.before is not None else None
        decision, refusal = self._still_right(row, entry, evidence)
        if decision is None:
            return Result.SKIPPED, refusal, None
        if entry.before is None:
            await self._journal.intent(number, copies(evidence))
        failure = ""
        try:
            await self._actor.act(decision, evidence, lambda: self._evidence.read(row.ref))
        except ReplicaError as error:
            failure = str(error)  # it may have been done all the same: the replicas tell
        return await self._verify(row, evidence, failure)

    def _hidden_by_us(self, row: PlannedRow, decision: Decision) -> bool:
        """Whether a row looks like a zombie only because merging others of its partition spread their delete.

        A merge of the row itself then brings back what is newer than that delete, and nothing else.
        """
        if row.action is not Action.RECONCILE or decision.rule is not Rule.ZOMBIE or row.rule is Rule.ZOMBIE:
            return False
        return self._acting[row.ref.full_name, row.ref.token] > 1

    def _still_right(self, row: PlannedRow, entry: Entry, evidence: Evidence) -> tuple[Decision | None, str]:
        """Return the decision to carry out, or None and why the row must be left as it is now."""
        decision = decide(evidence, self._plan.policy)
        if entry.before is not None:
            return _redo(row, entry.before, evidence, decision)
        if not _as_planned(row, evidence, self._plan.salt):
            unread = set(row.seen) - {node.host_id for node in evidence.states}
            return None, "a replica that was read for the plan does not answer" if unread else _CHANGED
        if (decision.rule, decision.action) != (row.rule, row.action):
            if self._hidden_by_us(row, decision):
                return Decision(row.rule, Action.RECONCILE, row.sentence, at_all=not evidence.unread), ""
            return None, f"it would be decided otherwise now: {decision.rule.value}"
        return decision, ""

    async def _verify(self, row: PlannedRow, before: Evidence, failure: str) -> tuple[Result, str, Copies | None]:
        """Read every replica again, a few times: an acknowledged repair can take a moment on the others."""
        now = before
        for delay in _VERIFY_AFTER_S:
            await self._clock.sleep(delay)
            now = await self._evidence.read(row.ref)
            if now.agreed and not now.unread:
                return Result.VERIFIED, "", copies(now)
            if now.agreed and len(now.states) >= now.quorum:
                nodes = ", ".join(sorted(node.name for node in now.unread))
                return Result.WAITING, f"the replicas that can be read agree; not read: {nodes}", copies(now)
        if len(now.states) < len(before.states) or (failure and now.unread):
            return Result.UNKNOWN, failure or next(iter(now.unread.values())), copies(now)
        why = _SHADOWED if row.rule is Rule.ZOMBIE and row.action is Action.RECONCILE else "the replicas still differ"
        return Result.DIVERGENT, failure or why, copies(now)


def _by_partition(plan: Plan, numbers: list[int]) -> list[list[int]]:
    """Put the rows of a partition behind one another: a partition's delete that reaches one row reaches all."""
    found: dict[tuple[str, int], list[int]] = {}
    for number in numbers:
        ref = plan.rows[number].ref
        found.setdefault((ref.full_name, ref.token), []).append(number)
    return list(found.values())


def _as_planned(row: PlannedRow, evidence: Evidence, salt: str) -> bool:
    """Whether every replica holds what it held for the plan.

    For a merge by the servers a replica may also hold what another one held, or nothing: repairing another row
    of the partition spreads its delete. Anything that no replica held is a newer write.
    """
    seen = evidence.seen(salt)
    if seen == dict(row.seen):
        return True
    known = {*row.seen.values(), state_digest(None, salt)}
    return row.action is Action.RECONCILE and set(seen) == set(row.seen) and set(seen.values()) <= known


_SHADOWED = "a delete that a replica still knows of covers it there, so it was no zombie: plan with --zombies purge"
_CHANGED = "it has changed since the plan was made: plan again"


def _redo(row: PlannedRow, before: Copies, evidence: Evidence, decision: Decision) -> tuple[Decision | None, str]:
    """Do again what a killed run had begun, unless something is there now that was not there before.

    Our own half-done work only moves known cells between replicas or hides them under tombstones; a cell
    that no replica had is somebody else's write.
    """
    known = {item for state in before.values() for item in atoms(evidence.columns, state).items()}
    present = {item for state in evidence.states.values() for item in atoms(evidence.columns, state).items()}
    if present - known:
        return None, _CHANGED
    if decision.action is row.action:
        return decision, ""
    if row.action is Action.RECONCILE and evidence.table.read_repair == "BLOCKING" and not evidence.unread:
        return Decision(row.rule, Action.RECONCILE, row.rule.sentence), ""
    if row.action is Action.PURGE and (suspects := zombie_suspects(evidence)):
        return Decision(row.rule, Action.PURGE, row.sentence, not evidence.unread, suspects), ""
    return None, f"it would be decided otherwise now: {decision.rule.value}"


def untouched(row: PlannedRow) -> Result:
    """Return what comes of a row that nothing is done with."""
    decision = Decision(row.rule)
    if decision.done:
        return Result.VERIFIED
    return Result.WAITING if decision.unknown else Result.LEFT


def copies(evidence: Evidence) -> Copies:
    """Return each replica's copy by host id."""
    return {node.host_id: state for node, state in evidence.states.items()}


def exit_code(results: Iterable[Result]) -> int:
    """Return the command's exit code: what is left or differs weighs more than what is not known."""
    found = set(results)
    if found & {Result.LEFT, Result.SKIPPED, Result.DIVERGENT, Result.NOT_UNDONE}:
        return 1
    return 3 if found & {Result.WAITING, Result.UNKNOWN} else 0
