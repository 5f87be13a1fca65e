"""Rows that are left alone, of partitions of which other rows are merged.

A merge of one row passes its partition's delete on to every replica, and that takes whatever is older: also rows that
the plan leaves alone, and rows that have changed since it was made. Cassandra's own repair does the same, and the
delete is the newer truth. But nobody was told of these rows. So their pre-image is in the journal, they count for the
breaker, and they come back with an undo, as those do that are acted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from repair.applying.outcomes import left_alone, proven, untouched
from repair.applying.still_right import Begun, Row, taken_along
from repair.deciding.case import Case
from repair.deciding.copies import Copies, copies, left_by_time
from repair.deciding.decide import Action
from repair.deciding.forecast import Change
from repair.keeping.entries import Fate, Outcome, Place, Result

_GONE = "its partition was deleted, and the merge of other rows has passed that on: undo brings it back"


@dataclass(frozen=True, slots=True)
class Bystander:
    """A row that nothing is done with, what comes of it for that, and where the journal has its pre-image."""

    row: Row
    outcome: Outcome
    place: Place
    may_vanish: bool


def merged_partitions(begun: Sequence[Begun]) -> set[tuple[str, int]]:
    """Return the partitions of which rows are to be merged by the servers."""
    return {each.row.partition for each in begun if each.decision.action is Action.RECONCILE}


def can_be_taken(case: Case) -> bool:
    """Whether a delete can take the row: only if replicas differ can one know of a delete that others do not."""
    return not case.agreed and bool(case.present)


def may_vanish(case: Case) -> bool:
    """Whether a row that most of its replicas hold may be gone with its partition: one of them lacks it."""
    return len(case.states) > len(case.present) and 2 * len(case.present) > len(case.owners)


def as_left(row: Row, case: Case) -> Outcome:
    """Return what comes of a row that nothing is done with, if nothing happens to it; an outcome that it has stays."""
    known = row.entry
    if known.result is not None:
        fate = known.fate or Fate.NONE
        return Outcome(known.result, known.reason, known.after, fate, known.changed, known.change)
    return left_alone(row.planned, case if untouched(row.planned) is Result.VERIFIED else None)


def after_others(outcome: Outcome, before: Copies, now: Case, *, merged: bool) -> Outcome:
    """Return what came of a row that was left alone; `merged` says that others of its partition were merged since."""
    if copies(now) == left_by_time(before, copies(now), now.when.expiry_s):
        return outcome
    seen = replace(outcome, after=copies(now))
    if not taken_along(before, now, merged=merged):
        return replace(seen, fate=Fate.UNKNOWN)  # somebody else was here: what we took, if anything, cannot be told
    taken = proven(seen, now.columns, before, Fate.DONE, now.when.expiry_s)
    return replace(taken, reason=f"{outcome.reason}; {_GONE}") if taken.change is Change.DELETED else taken
