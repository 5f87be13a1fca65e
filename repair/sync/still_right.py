"""Whether a row is still what it was planned to be, or half of what a killed run had begun."""

from __future__ import annotations

from dataclasses import dataclass, replace

from consistency.rows.cells import Atom, AtomName, atoms
from repair.applying.outcomes import proven
from repair.deciding.case import Case
from repair.deciding.copies import Copies, copies, left_by_time
from repair.keeping.entries import Entry, Fate, Outcome, Result
from repair.sync.cases import PairCase
from repair.sync.decide import Action, Cells, Decision, Rule, decide, foreign
from repair.sync.planfile import SyncPlan, SyncRow


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of a plan on its way: its number, what was planned, and what the journal knows of earlier attempts."""

    number: int
    planned: SyncRow
    entry: Entry


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A row that is still right: what both sides hold, and what is to be done."""

    row: Row
    case: PairCase
    decision: Decision

    @property
    def needs_leave(self) -> bool:
        """Whether something is deleted of it, which an earlier run has not been given leave for."""
        return self.decision.action.deletes and self.row.entry.pre_image is None

    @property
    def before(self) -> Copies:
        """The taker's copies before anything was written."""
        return self.row.entry.pre_image or copies(self.case.taker)


def untouched(planned: SyncRow) -> Outcome | None:
    """Return the outcome of a row that nothing is to be done with; None of one that has to be read for that."""
    if planned.rule is Rule.SAME or planned.action is not Action.NONE:
        return None
    unknown = planned.rule in (Rule.TOO_FEW, Rule.WAITS)
    return Outcome(Result.WAITING if unknown else Result.LEFT, f"{planned.rule.value}: {planned.sentence}")


def look(row: Row, case: PairCase, plan: SyncPlan) -> Decision | Outcome:
    """Return what to do with a row, or what came of it if nothing is to be done, or may be."""
    decision = decide(case, plan.policy)
    if decision.done:
        return after_earlier(
            row.entry, case.taker, decision.given, Outcome(Result.VERIFIED, "both sides hold the same")
        )
    changed = _changed(row, case, decision, plan.header.salt)
    if changed is None:
        return decision
    return after_earlier(row.entry, case.taker, decision.given, changed)


def _changed(row: Row, case: PairCase, decision: Decision, salt: str) -> Outcome | None:
    """Say why nothing is to be done with a row that is not as planned, nor as a killed run left it."""
    before = row.entry.pre_image
    if unlike := _not_as_planned(row.planned, case, salt, halfway=before is not None):
        return unlike
    if before is not None:
        return _changed_halfway(before, case, decision)
    if (decision.rule, decision.action) != (row.planned.rule, row.planned.action):
        told = f"it would be decided differently now: {decision.rule.value}, {decision.action.value}; plan again"
        return Outcome(Result.SKIPPED, told)
    return None


def _not_as_planned(planned: SyncRow, case: PairCase, salt: str, *, halfway: bool) -> Outcome | None:
    """Say which side does not hold what it held for the plan; `halfway`: what takes has been written to by us."""
    seen = case.seen(salt)
    for side, evidence in case.sides:
        if side is case.direction.taker and halfway:
            continue
        if len(evidence.states) < planned.read[side]:
            why = evidence.why_unread or "it does not answer"
            return Outcome(Result.UNKNOWN, f"a replica of the {side} that was read for the plan is not read now: {why}")
        if seen[side] != planned.seen[side]:
            return Outcome(
                Result.SKIPPED, f"it has changed on the {side} since the plan was made: compare and plan again"
            )
    return None


def _changed_halfway(before: Copies, case: PairCase, decision: Decision) -> Outcome | None:
    """Say why what a killed run had begun with a row is not to be gone on with."""
    if foreign(case.taker, _items(case.taker, before), decision.given):
        return Outcome(Result.SKIPPED, f"it was written to on the {case.direction.taker} since it was begun with")
    if decision.action is Action.NONE:
        result = Result.UNKNOWN if decision.unknown else Result.DIVERGENT
        return Outcome(result, f"still different: {decision.sentence}")
    return None


def _items(taker: Case, held: Copies) -> list[tuple[AtomName, Atom]]:
    return [item for state in held.values() for item in atoms(taker.columns, state).items()]


def after_earlier(entry: Entry, now: Case, given: Cells, outcome: Outcome) -> Outcome:
    """Carry over what is known of earlier attempts at a row that this one did nothing with."""
    if entry.pre_image is None or copies(now) == left_by_time(entry.pre_image, copies(now), now.when.expiry_s):
        return outcome
    fate = Fate.DONE if entry.fate in (None, Fate.DONE) else Fate.UNKNOWN
    return what_we_did(replace(outcome, after=copies(now)), now, entry.pre_image, given, fate)


def what_we_did(outcome: Outcome, now: Case, before: Copies, given: Cells, fate: Fate) -> Outcome:
    """Say what our writes have changed of a row: nothing is known of that where somebody else wrote to it meanwhile."""
    if foreign(now, _items(now, before), given):
        fate = Fate.UNKNOWN
    return proven(outcome, now.columns, before, fate, now.when.expiry_s)
