"""What the copies of a row tell of a merge by the servers: that the row stays, or that it may vanish.

CQL shows no tombstone: a row that one replica lacks may never have arrived there, or may have been deleted through
that replica, and then the servers' own merge deletes it everywhere. Which of the two cannot be told from the copies;
sometimes a trace rules the delete out (`delete_search.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from consistency.model.reading import RowState
from consistency.results.forecast import Forecast
from consistency.rows.evidence import Evidence

T = TypeVar("T")


def forecast_of_merge(evidence: Evidence) -> Forecast | None:
    """Say what a merge would do to a row; None if the copies that were read are alike."""
    if evidence.agreed:
        return None
    return Forecast.UPDATE if stays(evidence) else Forecast.UNKNOWN


def stays(evidence: Evidence) -> bool:
    """Whether no delete that the copies hide can take the row: what every replica shows no replica has deleted."""
    if len(evidence.present) < len(evidence.owners):
        return False
    if _shows_everywhere(list(evidence.present.values())):
        return True
    held = list(evidence.copies.values())
    return bool(_in_all(held)) or not any(held)


def _shows_everywhere(states: Sequence[RowState]) -> bool:
    """Whether every copy shows a cell of one column that is no collection, as most rows' copies do."""
    columns = zip(*(state.cells for state in states), strict=True)
    return any(all(isinstance(cell.writetimes, int) for cell in cells) for cells in columns)


def _in_all(held: Collection[Collection[T]]) -> set[T]:
    first, *others = held
    return set(first).intersection(*others)
