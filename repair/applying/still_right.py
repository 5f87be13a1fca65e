"""Whether a row is still what it was planned to be, or half of what a killed run had begun."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from consistency.cluster.guardrails import Refusal
from consistency.cluster.port import Clock
from consistency.results.forecast import Forecast
from consistency.rows.cells import atoms
from repair.applying.outcomes import proven, refused
from repair.applying.pace import Risk
from repair.deciding.case import Case
from repair.deciding.copies import Copies, copies, digests, left_by_time, state_digest
from repair.deciding.decide import Action, Decision, Rule, decide, kept_to
from repair.deciding.forecast import may_vanish
from repair.keeping.entries import Entry, Fate, Outcome, Result
from repair.keeping.planfile import Plan, PlannedRow

OLD_US = 2_000_000
"""Evidence older than this is read again before anything is done."""
_NOT_READ = "a replica that was read for the plan is not read now"
_CHANGED = "it has changed since the plan was made: plan again"


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of a plan on its way: its number, what was planned, and what the journal knows of earlier attempts."""

    number: int
    planned: PlannedRow
    entry: Entry

    @property
    def partition(self) -> tuple[str, int]:
        """The table, and the token of the row's partition."""
        return self.planned.ref.full_name, self.planned.ref.token


@dataclass(frozen=True, eq=False)
class Begun:
    """A row that is still right: what its replicas hold, and what is to be done."""

    row: Row
    case: Case
    decision: Decision

    @cached_property
    def risk(self) -> Risk:
        """Whether the row, which most replicas hold, may be gone once it was acted on, as far as the plan knew."""
        sure = self.row.planned.forecast is Forecast.RESTORE
        return Risk(self.row.partition, not sure and may_vanish(self.case, self.decision))


def look(row: Row, case: Case, plan: Plan, *, merged: bool = False) -> Decision | Outcome:
    """Return what to do with a row, or what came of it if nothing is to be done, or may be.

    `merged` says that other rows of its partition were merged since its intent.
    """
    if case.agreed and not case.unread:
        return carried_over(row.entry, case, Outcome(Result.VERIFIED, "the replicas agree"), merged=merged)
    found = still_right(row, case, plan)
    return carried_over(row.entry, case, found, merged=merged) if isinstance(found, Outcome) else found


def still_right(row: Row, case: Case, plan: Plan) -> Decision | Outcome:
    """Return the decision to carry out, or what comes of the row where it must be left as it is now."""
    decision, before = kept_to(row.planned.action, case, decide(case, plan.policy)), row.entry.pre_image
    if before is None:
        changed = _changed(row.planned, case, decision, plan.salt)
    else:
        changed = _changed_halfway(row.planned, case, decision, before)
    if changed:
        # Where it could not be read for now, resume goes on with it.
        unread = changed != _CHANGED and _unread_since(row.planned, case)
        return Outcome(Result.UNKNOWN if unread else Result.SKIPPED, changed)
    if decision.refused:
        return Outcome(Result.REFUSED, refused(Refusal(decision.refused)))
    return decision


def _changed(planned: PlannedRow, case: Case, decision: Decision, salt: str) -> str:
    """Say in what a row is not as planned; empty if it is."""
    if not _as_planned(planned, case, salt):
        return _why_not_read(case) if _unread_since(planned, case) else _CHANGED
    if (decision.rule, decision.action) != (planned.rule, planned.action):
        return _otherwise(decision)
    return ""


def _why_not_read(case: Case) -> str:
    return f"{_NOT_READ}: {next(iter(case.unread.values()), 'it does not answer')}"


def _unread_since(planned: PlannedRow, case: Case) -> bool:
    """Whether a replica that was read for the plan is not read now."""
    return not set(planned.seen) <= {node.host_id for node in case.states}


def _as_planned(planned: PlannedRow, case: Case, salt: str) -> bool:
    """Whether every replica holds what it held for the plan.

    For a merge by the servers a replica may also hold what another one held, or nothing: repairing another row
    of the partition spreads its delete. Anything that no replica held is a newer write.
    """
    seen = digests(copies(case), salt)
    if seen == dict(planned.seen):
        return True
    known = {*planned.seen.values(), state_digest(None, salt)}
    return planned.action is Action.RECONCILE and set(seen) == set(planned.seen) and set(seen.values()) <= known


def _changed_halfway(planned: PlannedRow, case: Case, decision: Decision, before: Copies) -> str:
    """Say why what a killed run had begun with a row is not to be done again; empty if it is.

    Our own half-done work only moves known cells between replicas or hides them under tombstones; a cell
    that no replica had is somebody else's write.
    """
    known = {item for state in before.values() for item in atoms(case.columns, state).items()}
    present = {item for held in case.copies.values() for item in held.items()}
    if present - known:
        return _CHANGED
    # A zombie that was to be restored is none any more once most replicas hold it again: what is left of that is done.
    suspected_since = decision.rule is Rule.ZOMBIE and planned.rule is not Rule.ZOMBIE
    if decision.action is planned.action and not suspected_since:
        return ""
    return _why_not_read(case) if _unread_since(planned, case) else _otherwise(decision)


def _otherwise(decision: Decision) -> str:
    return f"it would be decided differently now: {decision.rule.value}, {decision.action.value}; plan again"


def carried_over(entry: Entry, now: Case, outcome: Outcome, *, merged: bool = False) -> Outcome:
    """Carry over what is known of earlier attempts at a row that this one did nothing with."""
    if entry.pre_image is None or _is_as_before(entry.pre_image, now):
        return outcome
    if entry.fate is Fate.DONE and copies(now) == entry.after:
        return replace(outcome, after=entry.after, fate=Fate.DONE, changed=entry.changed)
    if entry.fate is None and taken_along(entry.pre_image, now, merged=merged):
        seen = replace(outcome, after=copies(now))
        return proven(seen, now.columns, entry.pre_image, Fate.DONE, now.when.expiry_s)
    # After a kill the write may have been ours, or somebody else's: that cannot be told any more.
    return replace(outcome, after=copies(now), fate=Fate.UNKNOWN)


def _is_as_before(before: Copies, now: Case) -> bool:
    """Whether nothing has happened to a row but that time has passed."""
    return copies(now) == left_by_time(before, copies(now), now.when.expiry_s)


def taken_along(before: Copies, now: Case, *, merged: bool) -> bool:
    """Whether a row that has changed since its intent was changed by us: `merged` says that its neighbours were.

    A merge of one row passes its partition's delete on to all replicas, and that hides cells of other rows. A cell that
    has come to a replica is somebody else's work.
    """
    if not merged or now.unread:
        return False
    for node, state in now.states.items():
        held = before.get(node.host_id)
        if state is not None and (held is None or not now.copies[node].items() <= atoms(now.columns, held).items()):
            return False
    return True


def proven_since(begun: Begun, outcome: Outcome, fate: Fate, clock: Clock, *, merged: bool = False) -> Outcome:
    """Say what our writes have changed of a row since it was first begun with."""
    now_s = clock.server_time().expiry_s
    ours = _known_as_ours(begun.row.entry, begun.case, merged=merged)
    first = begun.row.entry.pre_image or copies(begun.case)
    return proven(outcome, begun.case.columns, first, fate if ours else Fate.UNKNOWN, now_s)


def _known_as_ours(entry: Entry, now: Case, *, merged: bool) -> bool:
    """Whether nothing of an earlier attempt can be among the copies that this one began with, but what is known."""
    if entry.pre_image is None or _is_as_before(entry.pre_image, now):
        return True
    if entry.fate is None and taken_along(entry.pre_image, now, merged=merged):
        return True
    return entry.fate is Fate.DONE and copies(now) == entry.after
