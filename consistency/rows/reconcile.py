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

from consistency.model.reading import Cell, RowState, Times, each_time
from consistency.rows.cells import as_one

ReplicaT = TypeVar("ReplicaT", bound=Hashable)


class DecidedBy(IntEnum):
    """Why two cells differ, the weightiest last."""

    SAME = 0
    EXPIRY = 1
    TIE = 2
    NEWER = 3


@dataclass(frozen=True, slots=True)
class Contest:
    """One column's versions: which wins, by which rule, and which replicas hold the winner."""

    winner: Cell
    decided_by: DecidedBy
    current: frozenset[Hashable]


EMPTY = Cell(None)


def rank(cell: Cell) -> tuple[int, int, bytes]:
    """Return what orders two versions of a column."""
    return as_one(cell).rank


def contest(versions: Mapping[ReplicaT, Cell]) -> Contest:
    """Compare one column over all replicas."""
    distinct = set(versions.values())
    if len(distinct) == 1:
        return Contest(next(iter(distinct)), DecidedBy.SAME, frozenset(versions))
    winner = max(distinct, key=lambda cell: (cell != EMPTY, rank(cell), _in_full(cell)))
    decided_by = max((why(winner, other) for other in distinct), default=DecidedBy.SAME)
    return Contest(winner, decided_by, frozenset(r for r, cell in versions.items() if cell == winner))


def _in_full(cell: Cell) -> tuple[list[int], list[int]]:
    """Order two collections whose newest elements are equally new, so that everybody names the same winner."""
    return list(each_time(cell.writetimes)), list(each_time(cell.expires))


def why(winner: Cell, other: Cell) -> DecidedBy:
    """Say by which rule `winner` beats `other`."""
    if winner == other:
        return DecidedBy.SAME
    if _shape(winner.writetimes) != _shape(other.writetimes) or winner.writetimes != other.writetimes:
        return DecidedBy.NEWER
    if winner.value != other.value:
        return DecidedBy.TIE
    return DecidedBy.EXPIRY


def _shape(times: Times) -> int:
    return len(times) if isinstance(times, tuple) else -1


def contests(states: Mapping[ReplicaT, RowState | None]) -> list[Contest]:
    """Compare every column over the replicas that hold the row."""
    present = {replica: state for replica, state in states.items() if state is not None}
    if not present:
        return []
    width = len(next(iter(present.values())).cells)
    return [contest({r: s.cells[i] for r, s in present.items()}) for i in range(width)]


class Persistence(IntEnum):
    """How a difference that was seen twice may be taken."""

    NONE = 0
    """No version that one replica kept is still lacking on another: writes were in flight."""
    ABSENT = 1
    """What one replica kept, another has nothing of: it was lost there, or a delete is on its way to the first."""
    PRESENT = 2
    """Another replica holds an older or a rival version although the kept one had time to arrive: a difference.

    Only of a simple cell: of a collection an element that is not there may have been deleted.
    """


def persistence(before: Mapping[ReplicaT, RowState | None], after: Mapping[ReplicaT, RowState | None]) -> Persistence:
    """Say whether a difference seen before is still there, whatever else has been written meanwhile.

    It is when some replica kept a version that another lacked both times. A write in flight reaches every
    replica within the settle window, so it can make two replicas differ once, but never keep one behind the
    same version twice. A delete can: the version arrived and was deleted again, and the delete has not yet
    reached the replica that kept it. That leaves nothing behind, so it looks ABSENT, and one more window tells.
    """
    if before == after:
        return _kept_apart(list(before.values()))
    replicas = [r for r in after if r in before]
    found = [_row_persistence(before, after, r, replicas) for r in replicas]
    present = [(before[r], after[r]) for r in replicas]
    both = [(then, now) for then, now in present if then is not None and now is not None]
    found.append(_spelling_persistence(both))
    columns = range(len(both[0][0].cells) if both else 0)
    found.extend(_cell_persistence([(then.cells[i], now.cells[i]) for then, now in both]) for i in columns)
    return max(found, default=Persistence.NONE)


def _kept_apart(states: Sequence[RowState | None]) -> Persistence:
    """Say the same of copies that are all as they were before: most are, and one look at each column tells."""
    present = [state for state in states if state is not None]
    if len({state.spelling for state in present}) > 1:
        return Persistence.PRESENT
    lacking = bool(present) and len(present) < len(states)
    found = Persistence.ABSENT if lacking else Persistence.NONE
    for cells in zip(*(state.cells for state in present), strict=True):
        versions = set(cells)
        if len(versions) > 1:
            found = max(found, Persistence.ABSENT)
            if sum(isinstance(cell.writetimes, int) for cell in versions) > 1:
                return Persistence.PRESENT
    return found


def _spelling_persistence(history: Sequence[tuple[RowState, RowState]]) -> Persistence:
    """Replicas that keep the row's key in different bytes do so for good: no write changes what is there."""
    kept = {now.spelling for then, now in history if then.spelling == now.spelling}
    return Persistence.PRESENT if len(kept) > 1 else Persistence.NONE


def _row_persistence(
    before: Mapping[ReplicaT, RowState | None],
    after: Mapping[ReplicaT, RowState | None],
    replica: ReplicaT,
    replicas: Sequence[ReplicaT],
) -> Persistence:
    """The replica lacks the row now and lacked it before, while another kept at least one cell of it untouched."""
    if before[replica] is not None or after[replica] is not None:
        return Persistence.NONE
    kept = any(_kept(before[r], after[r]) for r in replicas)
    return Persistence.ABSENT if kept else Persistence.NONE


def _kept(before: RowState | None, after: RowState | None) -> bool:
    if before is None or after is None:
        return False
    if before == after:
        return True
    return any(then == now != EMPTY for then, now in zip(before.cells, after.cells, strict=True))


def _cell_persistence(history: Sequence[tuple[Cell, Cell]]) -> Persistence:
    found = Persistence.NONE
    for version in (then for then, now in history if then == now != EMPTY):
        time = rank(version)[0]
        for then, now in history:
            older = rank(then)[0] < time and rank(now)[0] < time
            # Without a newer write time to decide, only what stayed as it was on both sides is no write in flight.
            rival = then == now != version and rank(then)[0] == time
            if older or rival:
                simple = isinstance(version.writetimes, int) and isinstance(now.writetimes, int)
                found = max(found, Persistence.PRESENT if simple else Persistence.ABSENT)
    return found
