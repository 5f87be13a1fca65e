"""Cassandra's own rule for which of two cells wins, and what each replica lacks of the winner.

Source: `Cells.reconcile` and `resolveRegular` (org.apache.cassandra.db.rows): the higher write time wins; at
equal write times an expiring cell beats one that does not expire and the later expiry beats the earlier
(CASSANDRA-14592); at equal expiry the greater value in unsigned byte order wins. Tombstones take part in
the server's rule but are not visible to CQL, so what is absent here may still win there.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from consistency.reading import Cell, RowState, Times, each_time

ReplicaT = TypeVar("ReplicaT", bound=Hashable)


class Rule(IntEnum):
    """Why two cells differ, the weightiest last."""

    SAME = 0
    EXPIRY = 1
    TIE = 2
    NEWER = 3


@dataclass(frozen=True, slots=True)
class Contest:
    """One column's versions: which wins, by which rule, and which replicas hold the winner."""

    winner: Cell
    rule: Rule
    current: frozenset[Hashable]


EMPTY = Cell(None)


def rank(cell: Cell) -> tuple[int, int, bytes]:
    """Return what orders two versions of a cell: write time, expiry (none lowest), value."""
    newest = max(each_time(cell.writetimes), default=-(2**63))
    expiry = max(each_time(cell.expires), default=-1)
    return newest, expiry, cell.value if cell.value is not None else b""


def contest(versions: Mapping[ReplicaT, Cell]) -> Contest:
    """Compare one column over all replicas."""
    distinct = set(versions.values())
    winner = max(distinct, key=lambda cell: (cell != EMPTY, rank(cell)))
    rule = max((why(winner, other) for other in distinct), default=Rule.SAME)
    return Contest(winner, rule, frozenset(r for r, cell in versions.items() if cell == winner))


def why(winner: Cell, other: Cell) -> Rule:
    """Say by which rule `winner` beats `other`."""
    if winner == other:
        return Rule.SAME
    if _shape(winner.writetimes) != _shape(other.writetimes) or winner.writetimes != other.writetimes:
        return Rule.NEWER
    if winner.value != other.value:
        return Rule.TIE
    return Rule.EXPIRY


def _shape(times: Times) -> int:
    return len(times) if isinstance(times, tuple) else -1


def contests(states: Mapping[ReplicaT, RowState | None]) -> list[Contest]:
    """Compare every column over the replicas that hold the row."""
    present = {replica: state for replica, state in states.items() if state is not None}
    if not present:
        return []
    width = len(next(iter(present.values())).cells)
    return [contest({r: s.cells[i] for r, s in present.items()}) for i in range(width)]


def persisted(before: Mapping[ReplicaT, RowState | None], after: Mapping[ReplicaT, RowState | None]) -> bool:
    """Say whether a difference seen before is still there, whatever else has been written meanwhile.

    It is when some replica holds a version now that it, or another, held before, and another replica lacked
    that version both times. A write in flight reaches every replica within the settle window, so it can
    make two replicas differ once, but never keep one behind the same version twice.
    """
    replicas = [r for r in after if r in before]
    if any(_row_missing_twice(before, after, r, replicas) for r in replicas):
        return True
    present = [r for r in replicas if before[r] is not None and after[r] is not None]
    return any(
        _cell_behind_twice([(_cells(before[r])[i], _cells(after[r])[i]) for r in present])
        for i in range(len(_cells(after[present[0]])) if present else 0)
    )


def _cells(state: RowState | None) -> Sequence[Cell]:
    return state.cells if state is not None else ()


def _row_missing_twice(
    before: Mapping[ReplicaT, RowState | None],
    after: Mapping[ReplicaT, RowState | None],
    replica: ReplicaT,
    replicas: Sequence[ReplicaT],
) -> bool:
    """The replica lacks the row both times, while another kept at least one cell of it untouched.

    One kept cell is asked for because a row that is deleted and written again and again is never kept.
    """
    if before[replica] is not None or after[replica] is not None:
        return False
    return any(_kept(before[r], after[r]) for r in replicas)


def _kept(before: RowState | None, after: RowState | None) -> bool:
    if before is None or after is None:
        return False
    if before == after:
        return True
    return any(then == now != EMPTY for then, now in zip(before.cells, after.cells, strict=True))


def _cell_behind_twice(history: Sequence[tuple[Cell, Cell]]) -> bool:
    kept = [then for then, now in history if then == now]
    for version in kept:
        time = rank(version)[0]
        for then, now in history:
            if rank(then)[0] < time and rank(now)[0] < time:
                return True
            # Without a newer write time to decide, only what stayed as it was on both sides is no write in flight.
            if then == now and then != version and rank(then)[0] == time:
                return True
    return False
