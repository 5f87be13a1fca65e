"""One row on both sides: what each cluster holds of it, as far as its replicas tell, and how the two differ.

Where the replicas of a side agree, what they hold is what the cluster holds. Where they do not, the newest version of
each cell wins, as in Cassandra's own merge. But CQL shows no tombstones: what some replica lacks may have been deleted
there, and then a merge deletes it. So a side that disagrees with itself may come to one of several things, and the
sides differ for sure only if none of them is what the other side may come to. Otherwise that the side disagrees
with itself is all that is claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from consistency.comparing.terms import Terms
from consistency.model.reading import Cell, CellColumn, RowState
from consistency.model.ring import Node
from consistency.model.sides import Side, SidedNode
from consistency.results.pair_findings import GRAVEST_FIRST, PairKind
from consistency.rows.cells import Atom, AtomName, atoms
from consistency.rows.read import States
from consistency.rows.reconcile import EMPTY, contest


class Held(Enum):
    """Whether a side holds a row."""

    YES = "yes"
    NO = "no"
    PERHAPS = "perhaps"
    """Some of its replicas do: on the others it may be missing, or deleted."""


@dataclass(frozen=True)
class Unlike:
    """How a row differs between the sides for sure: as a whole, or in columns by their place in a state.

    `row` is only_source or only_target, or None; `columns` is empty then. `key` says that the key itself is spelled in
    other bytes. Nothing of it: the sides may hold the same.
    """

    row: PairKind | None = None
    columns: Mapping[int, PairKind] | None = None
    key: bool = False

    @property
    def facts(self) -> tuple[PairKind, ...]:
        """All kinds that apply, gravest first."""
        if not self.columns and not self.key:
            return () if self.row is None else (self.row,)
        found = set((self.columns or {}).values())
        if self.row is not None:
            found.add(self.row)
        if self.key:
            found.add(PairKind.VALUE)
        return tuple(kind for kind in GRAVEST_FIRST if kind in found)

    def only(self, places: Collection[int | None]) -> Unlike:
        """Return the same without the columns elsewhere; None among the places stands for the row, or its key."""
        kept = {place: kind for place, kind in (self.columns or {}).items() if place in places}
        whole = None in places
        return Unlike(self.row if whole else None, kept, self.key and whole)


def by_side(states: States) -> dict[Side, dict[Node, RowState | None]]:
    """Tell the copies of the two sides apart."""
    found: dict[Side, dict[Node, RowState | None]] = {Side.SOURCE: {}, Side.TARGET: {}}
    for node, state in states.items():
        if isinstance(node, SidedNode):
            found[node.side][node] = state
    return found


def agreed(states: States) -> bool:
    """Whether some copies are the same, or there is none to disagree."""
    copies = list(states.values())
    return not copies or copies.count(copies[0]) == len(copies)


def compare_row(columns: Sequence[CellColumn], states: States, terms: Terms) -> Unlike:
    """Say how the two sides of a row differ for sure; at least one copy of each side was read."""
    sides = by_side(states)
    source, target = sides[Side.SOURCE], sides[Side.TARGET]
    held = {side: _held(copies) for side, copies in sides.items()}
    if held[Side.SOURCE] is Held.NO or held[Side.TARGET] is Held.NO:
        if held[Side.SOURCE] is Held.YES:
            return Unlike(PairKind.ONLY_SOURCE)
        return Unlike(PairKind.ONLY_TARGET if held[Side.TARGET] is Held.YES else None)
    if held[Side.SOURCE] is held[Side.TARGET] is Held.PERHAPS:
        return Unlike()  # neither side may have it
    unlike: dict[int, PairKind] = {}
    for place, column in enumerate(columns):
        kind = _column(column, _cells(source, place), _cells(target, place), terms)
        if kind is not None:
            unlike[place] = kind
    spelled = {side: {state.spelling for state in copies.values() if state} for side, copies in sides.items()}
    return Unlike(columns=unlike, key=not spelled[Side.SOURCE] & spelled[Side.TARGET])


def merged(copies: States) -> RowState | None:
    """Return the newest version of each column that any copy holds; None if none holds the row."""
    present = {node: state for node, state in copies.items() if state is not None}
    if agreed(present):
        return next(iter(present.values()), None)
    width = len(next(iter(present.values())).cells)
    cells = tuple(contest({n: state.cells[i] for n, state in present.items()}).winner for i in range(width))
    spellings = {state.spelling for state in present.values()}
    return RowState(cells, spellings.pop() if len(spellings) == 1 else None)


def _held(copies: States) -> Held:
    present = sum(state is not None for state in copies.values())
    if present == len(copies):
        return Held.YES if copies else Held.NO
    return Held.PERHAPS if present else Held.NO


def _cells(copies: States, place: int) -> set[Cell]:
    """Return the versions of one column that a side's replicas hold; EMPTY of a replica without the row."""
    return {EMPTY if state is None else state.cells[place] for state in copies.values()}


def _column(column: CellColumn, source: set[Cell], target: set[Cell], terms: Terms) -> PairKind | None:
    """Say how one column differs for sure."""
    if len(source) == len(target) == 1:
        (mine,), (theirs,) = source, target
        return terms.unlike(mine, theirs)
    kind = column.column.type
    if kind.is_multicell:
        return None if kind.name == "list" else _elements(column, source, target, terms)
    return _versions([*source], [*target], terms)


def _elements(column: CellColumn, source: set[Cell], target: set[Cell], terms: Terms) -> PairKind | None:
    """Say how a collection differs for sure of which a side's replicas do not hold the same."""
    mine, theirs = ([_atoms(column, cell) for cell in sorted(cells, key=repr)] for cells in (source, target))
    names = {name for held in (*mine, *theirs) for name in held}
    found = {_versions([h.get(name) for h in mine], [h.get(name) for h in theirs], terms) for name in names}
    return next((kind for kind in GRAVEST_FIRST if kind in found), None)


def _atoms(column: CellColumn, cell: Cell) -> dict[AtomName, Atom]:
    return atoms((column,), RowState((cell,)))


def _versions(
    source: Sequence[Cell | Atom | None], target: Sequence[Cell | Atom | None], terms: Terms
) -> PairKind | None:
    """Say how two sides differ in a cell, given the version of each replica: not, if they may come to the same."""
    mine, theirs = _outcomes(source), _outcomes(target)
    unlike = [terms.unlike(one, other) for one in mine for other in theirs]
    return None if None in unlike else unlike[0]


def _outcomes(versions: Sequence[Cell | Atom | None]) -> list[Cell | Atom | None]:
    """Return what a side's replicas may come to, what wins among what is there first; None is no cell.

    The newest wins for sure where the servers tell write times, unless a replica that has no cell has a delete.
    """
    there = [_one(version) for version in versions if version is not None and version.value is not None]
    distinct = sorted(set(there), key=lambda atom: atom.rank, reverse=True)
    if len(distinct) > 1 and distinct[0].writetime is not None:
        distinct = distinct[:1]
    absent: list[Cell | Atom | None] = [None] if len(there) < len(versions) else []
    return [*distinct, *absent]


def _one(version: Cell | Atom) -> Atom:
    if isinstance(version, Atom):
        return version
    time, expiry = version.writetimes, version.expires
    return Atom(
        version.value or b"", time if isinstance(time, int) else None, expiry if isinstance(expiry, int) else None
    )
