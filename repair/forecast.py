"""What a repair would do to a row, as far as its copies tell, and what it did: rows come back, change, or vanish.

CQL shows no tombstone: a row that one replica lacks may never have arrived there, or may have been deleted through
that replica, and then the servers' own merge deletes it everywhere. Which of the two cannot be told from the copies;
sometimes a trace rules the delete out (`consistency/rows/delete_search.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import TypeVar

from consistency.model.reading import CellColumn, RowState
from consistency.rows.cells import AtomName, atoms
from repair.case import Case
from repair.copies import Copies
from repair.decide import Action, Decision, deletes_row

T = TypeVar("T")


class Forecast(str, Enum):
    """What carrying out a decision would do to a row."""

    RESTORE = "restore"
    UPDATE = "update"
    DELETE = "delete"
    UNKNOWN = "unknown"

    @property
    def sentence(self) -> str:
        """Say what the forecast means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Forecast.RESTORE: "comes back where it is missing: no replica that lacks it can hold its delete",
    Forecast.UPDATE: "stays, and becomes the same on all replicas",
    Forecast.DELETE: "is deleted",
    Forecast.UNKNOWN: "comes back where it is missing, or is deleted everywhere: CQL does not show whether a replica"
    " that lacks it holds its delete",
}


class Change(str, Enum):
    """What was done to a row, proven by reading all replicas before and after."""

    RESTORED = "restored"
    UPDATED = "updated"
    CELLS_DELETED = "cells deleted"
    DELETED = "deleted"
    UNCHANGED = "unchanged"


def forecast(case: Case, decision: Decision, *, undeleted: bool = False) -> Forecast | None:
    """Say what the decision would do to the row; None where nothing is to be done.

    `undeleted` says that no replica which lacks the row holds a delete of it that a merge would pass on.
    """
    if decision.action is Action.NONE:
        return None
    if decision.action is Action.PURGE:
        return _purged(case, decision.suspects)
    if undeleted and decision.action is Action.RECONCILE:
        return Forecast.RESTORE
    return Forecast.UPDATE if _stays(case) else Forecast.UNKNOWN


def _purged(case: Case, suspects: frozenset[AtomName]) -> Forecast:
    """Say what a purge does: without any cell a row stays only if it was inserted, which CQL does not show."""
    if deletes_row(case, suspects):
        return Forecast.DELETE
    every = {name for held in case.copies.values() for name in held}
    return Forecast.UNKNOWN if every <= suspects else Forecast.UPDATE


def may_vanish(case: Case, decision: Decision) -> bool:
    """Whether a row that most of its replicas hold may be gone from all of them once the decision is carried out."""
    return 2 * len(case.present) > len(case.owners) and forecast(case, decision) is Forecast.UNKNOWN


def _stays(case: Case) -> bool:
    """Whether no delete that the copies hide can take the row: what every replica shows no replica has deleted."""
    if len(case.present) < len(case.owners):
        return False
    if _shows_everywhere(list(case.present.values())):
        return True
    held = list(case.copies.values())
    return bool(_in_all(held)) or not any(held)


def _shows_everywhere(states: Sequence[RowState]) -> bool:
    """Whether every copy shows a cell of one column that is no collection, as most rows' copies do."""
    columns = zip(*(state.cells for state in states), strict=True)
    return any(all(isinstance(cell.writetimes, int) for cell in cells) for cells in columns)


def _in_all(held: Collection[Collection[T]]) -> set[T]:
    first, *others = held
    return set(first).intersection(*others)


def change(columns: tuple[CellColumn, ...], before: Copies, after: Copies) -> Change:
    """Say what became of a row, of its copies before and after."""
    then, now = _shown(before), _shown(after)
    if then and not now:
        return Change.DELETED
    if all(after.get(host, state) == state for host, state in before.items()):
        return Change.UNCHANGED
    if any(before.get(host, state) is None for host, state in now.items()):
        return Change.RESTORED
    return Change.CELLS_DELETED if _lost_cells(columns, then, now, len(before)) else Change.UPDATED


def most_held(before: Copies) -> bool:
    """Whether most replicas held a row."""
    return 2 * len(_shown(before)) > len(before)


def _shown(copies: Copies) -> Mapping[str, RowState]:
    return {host: state for host, state in copies.items() if state is not None}


def _lost_cells(
    columns: tuple[CellColumn, ...], before: Mapping[str, RowState], after: Mapping[str, RowState], replicas: int
) -> bool:
    """Whether a cell that most replicas held is on none of them any more."""
    if _are_simple(columns):
        return any(
            2 * sum(state.cells[place].value is not None for state in before.values()) > replicas
            and all(state.cells[place].value is None for state in after.values())
            for place in range(len(columns))
        )
    held = [atoms(columns, state).keys() for state in before.values()]
    left = {name for state in after.values() for name in atoms(columns, state)}
    gone = {name for names in held for name in names} - left
    return any(2 * sum(name in names for names in held) > replicas for name in gone)


def _are_simple(columns: tuple[CellColumn, ...]) -> bool:
    """Whether every column is one cell."""
    return not any(column.column.type.is_multicell for column in columns)
