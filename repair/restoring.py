"""What an undo would bring back: decided from the journal alone, before anything is asked or written.

Only what the journal proves to have been changed by the repair is undone.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from consistency.model.reading import Cell, RowState, each_time
from repair.copies import Copies
from repair.decide import Action
from repair.journal import Entry, Fate, Record, Result

NO_MAJORITY = "no majority of its replicas held one version before: there is nothing to go back to"


class Undoing(str, Enum):
    """What undoing a row means."""

    NOTHING = "stay as they are, for most replicas held the same before"
    REWRITE = "written anew, as most replicas held them"
    DELETE = "DELETED, as most replicas did not have them"
    UNPURGE = "purged before: written to ALL their replicas, also to those that never had them"
    IMPOSSIBLE = "cannot be undone: " + NO_MAJORITY
    UNCHANGED = "not changed by the repair: nothing to undo"
    UNKNOWN = "left alone unless they are as they were: it is not known whether the repair changed them"


class Proof(str, Enum):
    """What the journal proves of a row that something was to be done with."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"


def proof(entry: Entry) -> Proof:
    """Say whether the repair changed the row: acknowledged, and every replica read before and after it."""
    if entry.fate is Fate.NONE:
        return Proof.UNCHANGED
    if entry.fate is not Fate.DONE or entry.after is None or entry.after.keys() != (entry.before or {}).keys():
        return Proof.UNKNOWN
    return Proof.CHANGED if entry.changed else Proof.UNCHANGED


def unproven(entry: Entry) -> str:
    """Say why it is not known whether the repair changed a row."""
    if entry.result is None:
        return "left alone: the run ended before it was known whether the row was changed"
    if entry.fate is None:
        return "left alone: the journal is of an older version, which did not write down what was changed"
    why = f": {entry.reason}" if entry.reason else ""
    return f"left alone: it is not known whether the repair changed it{why}"


def most_held(action: Action, before: Copies) -> RowState | str | None:
    """Return the copy to bring back, None for no row, or why there is none; after a purge, what was purged.

    A strict majority of the replicas must have had the row, or lacked it, and agreed on each of its columns: votes are
    taken by column, so what was written to a quorum is never voted down.
    """
    copies = list(before.values())
    held = [state for state in copies if state is not None]
    if action is Action.PURGE:
        return _all_that_was_held(held)
    needed = len(copies) // 2 + 1
    if len(copies) - len(held) >= needed:
        return None
    if len(held) < needed:
        return NO_MAJORITY
    cells = []
    for place in range(len(held[0].cells)):
        votes = Counter(Cell(None) if state is None else state.cells[place] for state in copies)
        cell, count = votes.most_common(1)[0]
        if count < needed:
            return NO_MAJORITY
        cells.append(cell)
    return RowState(tuple(cells))


def _all_that_was_held(held: list[RowState]) -> RowState | str:
    """Return the newest of each column, purged or not."""
    cells = []
    for column in zip(*(state.cells for state in held), strict=True):
        values = {cell for cell in column if cell.value is not None}
        if len(values) > 1 and any(isinstance(cell.writetimes, tuple) for cell in values):
            return "its replicas held different elements of a collection, which one write cannot bring back"
        cells.append(max(values, key=lambda cell: max(each_time(cell.writetimes), default=0), default=Cell(None)))
    return RowState(tuple(cells))


def to_undo(record: Record) -> dict[int, Entry]:
    """Return the rows that were to be acted on and are not undone, also those that an earlier undo could not."""
    return {
        number: entry
        for number, entry in sorted(record.entries.items())
        if entry.before is not None and entry.undo is not Result.UNDONE
    }


def preview(record: Record) -> Counter[Undoing]:
    """Count what an undo would do with the journal's rows."""
    found: Counter[Undoing] = Counter()
    for number, entry in to_undo(record).items():
        action = record.plan.rows[number].action
        wanted = most_held(action, entry.before or {})
        proven = proof(entry)
        if proven is not Proof.CHANGED:
            found[Undoing.UNCHANGED if proven is Proof.UNCHANGED else Undoing.UNKNOWN] += 1
        elif isinstance(wanted, str):
            found[Undoing.IMPOSSIBLE] += 1
        elif set((entry.after or {}).values()) == {wanted}:
            found[Undoing.NOTHING] += 1
        elif action is Action.PURGE:
            found[Undoing.UNPURGE] += 1
        else:
            found[Undoing.DELETE if wanted is None else Undoing.REWRITE] += 1
    return found
