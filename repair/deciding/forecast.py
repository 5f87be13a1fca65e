"""What a repair would do to a row, as far as its copies tell, and what it did: rows come back, change, or vanish.

What the copies tell of a merge is `consistency/rows/forecast.py`; sometimes a trace rules a delete out
(`consistency/rows/delete_search.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from consistency.model.reading import CellColumn, RowState
from consistency.results.forecast import Forecast
from consistency.rows.cells import AtomName, atoms
from consistency.rows.forecast import stays
from repair.deciding.case import Case
from repair.deciding.copies import Copies
from repair.deciding.decide import Action, Decision, deletes_row


class Change(str, Enum):
    """What was done to a row, proven by reading all replicas before and after."""

    RESTORED = "restored"
    UPDATED = "updated"
    CELLS_DELETED = "cells deleted"
    DELETED = "deleted"
    UNCHANGED = "unchanged"


def forecast(case: Case, decision: Decision, *, undeleted: bool = False) -> Forecast | None:
    """Say what the decision would do to the row; None if nothing is to be done.

    `undeleted` says that no replica which lacks the row holds a delete of it that a merge would pass on.
    """
    if decision.action is Action.NONE:
        return None
    if decision.action is Action.PURGE:
        return _purged(case, decision.suspects)
    if undeleted and decision.action is Action.RECONCILE:
        return Forecast.RESTORE
    return Forecast.UPDATE if stays(case) else Forecast.UNKNOWN


def _purged(case: Case, suspects: frozenset[AtomName]) -> Forecast:
    """Say what a purge does: without any cell a row stays only if it was inserted, which CQL does not show."""
    if deletes_row(case, suspects):
        return Forecast.DELETE
    every = {name for held in case.copies.values() for name in held}
    return Forecast.UNKNOWN if every <= suspects else Forecast.UPDATE


def may_vanish(case: Case, decision: Decision) -> bool:
    """Whether a row that most of its replicas hold may be gone from all of them once the decision is carried out."""
    return 2 * len(case.present) > len(case.owners) and forecast(case, decision) is Forecast.UNKNOWN


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
