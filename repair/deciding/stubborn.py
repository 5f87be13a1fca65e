"""Why replicas still differ after the servers merged a row, if that is known: it will differ tomorrow as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from consistency.rows.cells import Atom, AtomName
from consistency.rows.evidence import Evidence

EMPTY = (
    "an empty value ('') and a delete of one write time: the servers keep both, as neither wins over the other; write"
    " the column anew, or delete it anew"
)
EXPIRED = (
    "the servers' merge changed nothing: likely a delete that is older than gc_grace_seconds, and not purged yet, hides"
    " it on the replicas that lack it, and servers hand on no such delete; delete it anew, or write it anew where it"
    " should live"
)


def stubborn(before: Evidence, now: Evidence) -> str:
    """Say what keeps the copies of a row apart that a merge left as they were; empty if that is not known."""
    if dict(before.states) != dict(now.states):
        return ""
    copies = list(now.copies.values())
    names = {name for held in copies for name in held}
    apart = {name for name in names if any(name not in held for held in copies)}
    if not apart or any(_two_versions(name, copies) for name in names):
        return ""
    shown = [held[name] for name in apart for held in copies if name in held]
    if all(atom.value == b"" for atom in shown) and not any(_is_element_of_set(now, name) for name in apart):
        return EMPTY
    purged_us = now.when.purged_us(now.table.gc_grace_seconds)
    # What a delete hides is no younger than the delete, and the merge would have spread a younger one.
    old = all(atom.writetime is not None and atom.writetime < purged_us for atom in shown)
    return EXPIRED if old else ""


def _is_element_of_set(now: Evidence, name: AtomName) -> bool:
    """Whether the cell is one element of a set: it is its own name, and its value is empty whatever it is."""
    kind = now.columns[name[0]].column.type
    return kind.is_multicell and kind.name == "set"


def _two_versions(name: AtomName, copies: Sequence[Mapping[AtomName, Atom]]) -> bool:
    """Whether two replicas show a cell, and not alike: then it is no delete that keeps them apart."""
    return len({held[name] for held in copies if name in held}) > 1
