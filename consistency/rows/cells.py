"""Take a copy of a row apart into atoms: the cells that Cassandra reconciles one by one, and which of two wins.

A simple or frozen column is one atom. Of a non-frozen map, set or user type every entry, element or field
is. A list's elements have cell paths that CQL does not show: they can be told apart, but not addressed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from consistency.model.cqlbytes import MalformedValueError, split_map, split_sequence, split_tuple
from consistency.model.cqlorder import UnorderableTypeError, key_function
from consistency.model.reading import Cell, CellColumn, RowState, Times, each_time

Path = bytes | None
AtomName = tuple[int, Path]
"""The column's place in a state, and the element within it (None for a simple column)."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One cell on one replica."""

    value: bytes
    writetime: int | None
    expires: int | None

    @property
    def rank(self) -> tuple[int, int, bytes]:
        """What Cassandra orders versions of a cell by: write time, expiry (none lowest), value.

        Source: `Cells.reconcile` and `resolveRegular` (org.apache.cassandra.db.rows); see reconcile.py.
        """
        return (
            -(2**63) if self.writetime is None else self.writetime,
            -1 if self.expires is None else self.expires,
            self.value,
        )


def atoms(columns: tuple[CellColumn, ...], state: RowState | None) -> dict[AtomName, Atom]:
    """Return every live cell of one copy."""
    found: dict[AtomName, Atom] = {}
    for place, (column, cell) in enumerate(zip(columns, state.cells if state else (), strict=False)):
        if cell.value is None:
            continue
        elements = _elements(column, cell) if column.column.type.is_multicell else {None: as_one(cell)}
        found.update({(place, path): atom for path, atom in elements.items()})
    return found


def as_one(cell: Cell) -> Atom:
    """Return a whole column as one atom, as old as its newest element."""
    newest = max(each_time(cell.writetimes), default=None)
    return Atom(cell.value or b"", newest, max(each_time(cell.expires), default=None))


def addressable(column: CellColumn, path: Path) -> bool:
    """Whether CQL has a name for an atom of this column."""
    kind = column.column.type
    return not kind.is_multicell or (kind.name != "list" and path is not None)


def respelled(columns: tuple[CellColumn, ...], states: Collection[RowState]) -> bool:
    """Whether copies hold elements of different bytes that are one to Cassandra: each looks lost where it is not."""
    for place, column in enumerate(columns):
        kind = column.column.type
        if not (kind.is_multicell and kind.name in ("map", "set") and kind.args[0].is_respelled):
            continue
        cells = [state.cells[place] for state in states if state.cells[place].value is not None]
        paths = {path for cell in cells for path in _elements(column, cell)}
        try:
            order = key_function([(kind.args[0], False)])
            names = {order([path]) for path in paths}
        except (UnorderableTypeError, MalformedValueError):
            return len({cell.value for cell in cells}) > 1  # nothing is known of the type
        if len(names) < len(paths):
            return True
    return False


def winners(copies: Mapping[Any, Mapping[AtomName, Atom]]) -> dict[AtomName, Atom]:
    """Return the newest version of every atom that any copy holds."""
    won: dict[AtomName, Atom] = {}
    for held in copies.values():
        for name, atom in held.items():
            if name not in won or atom.rank > won[name].rank:
                won[name] = atom
    return won


def lacked(held: Mapping[AtomName, Atom], won: Mapping[AtomName, Atom]) -> dict[AtomName, Atom]:
    """Return what a copy lacks of the newest versions, or holds an older version of."""
    return {name: atom for name, atom in won.items() if held.get(name) != atom}


def times_of(cells: Iterable[Atom]) -> list[int]:
    """Return the write times of some atoms; of an atom of unknown age there is none."""
    return [atom.writetime for atom in cells if atom.writetime is not None]


def _elements(column: CellColumn, cell: Cell) -> dict[Path, Atom]:
    """Return the elements of a non-frozen column; what cannot be taken apart is one atom, which cannot be addressed."""
    try:
        return _taken_apart(column, cell)
    except MalformedValueError:
        return {None: as_one(cell)}


def _taken_apart(column: CellColumn, cell: Cell) -> dict[Path, Atom]:
    kind = column.column.type.name
    raw = cell.value or b""
    if kind == "map":
        parts = split_map(raw)
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
    elif kind == "set":
        pairs = [(element, b"") for element in split_sequence(raw)]
    elif kind == "list":
        pairs = [(None, element) for element in split_sequence(raw)]
    else:
        fields = split_tuple(raw, len(column.column.type.args))
        pairs = [(i.to_bytes(2, "big"), part) for i, part in enumerate(fields)]
    times, expiries = _aligned(cell.writetimes, len(pairs)), _aligned(cell.expires, len(pairs))
    found: dict[Path, Atom] = {}
    for (path, value), time, expiry in zip(pairs, times, expiries, strict=True):
        if value is None:
            continue
        if kind == "list":
            # A stand-in for the hidden cell path: equal elements written at one time are the same to us.
            found[(time or 0).to_bytes(8, "big", signed=True) + value] = Atom(value, time, expiry)
        else:
            found[path or b""] = Atom(value, time, expiry)
    return found


def _aligned(times: Times, count: int) -> list[int | None]:
    """Return one time an element; all unknown where the server tells none, or not one for each."""
    if not isinstance(times, tuple) or len(times) > count:
        return [None] * count
    return [time for time, _ in zip_longest(times, range(count))]
