"""When a row is a suspected zombie: one rule for what a check finds, what is explained, and what a repair leaves alone.

CQL shows no tombstones. What a minority of replicas holds may have been deleted on the others, and where it is older
than gc_grace_seconds they may have purged the tombstone: then any merge brings it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from consistency.model.ring import Node
from consistency.rows.cells import Atom, AtomName, times_of
from consistency.rows.evidence import Evidence


def zombie_suspects(evidence: Evidence) -> frozenset[AtomName] | None:
    """Return the cells that a minority holds and whose delete may be purged elsewhere; None if there is no doubt.

    The empty set means a row that has nothing but its key: its age cannot be known.
    """
    purged_us = evidence.when.purged_us(evidence.table.gc_grace_seconds)
    if _all_young(evidence, purged_us):
        return None
    copies = evidence.copies
    found: set[AtomName] = set()
    minorities: dict[tuple[Node, ...], bool] = {}
    for name in {name for held in copies.values() for name in held}:
        holders = tuple(node for node, held in copies.items() if name in held)
        if holders not in minorities:
            minorities[holders] = _is_minority(evidence, holders)
        if minorities[holders] and _old([copies[node][name] for node in holders], purged_us):
            found.add(name)
    if found:
        return frozenset(found)
    present = evidence.present
    bare = _is_minority(evidence, present) and not any(copies[node] for node in present)
    return frozenset() if bare else None


def _all_young(evidence: Evidence, purged_us: int) -> bool:
    """Whether every copy shows at once that none of its cells is old: of most rows nothing more need be looked at."""
    ages = [state.oldest_us for state in evidence.present.values()]
    return bool(ages) and all(age is not None and age >= purged_us for age in ages)


def is_whole_row(evidence: Evidence, suspects: Collection[AtomName]) -> bool:
    """Whether the suspects are all there is of a row that some replica lacks."""
    everything = {name for held in evidence.copies.values() for name in held}
    return len(evidence.present) < len(evidence.states) and everything == set(suspects)


def is_suspected_row(evidence: Evidence) -> bool:
    """Whether the row is reported as a suspect: all there is of it is suspect, and every copy shows how old it is.

    A repair also leaves suspects alone that are a part of a row, or of unknown age. Those are no alarm.
    """
    suspects = zombie_suspects(evidence)
    if not suspects or not is_whole_row(evidence, suspects):
        return False
    return all(times_of(evidence.copies[node].values()) for node in evidence.present)


def _is_minority(evidence: Evidence, holders: Collection[Node]) -> bool:
    return is_minority(evidence.owners, evidence.states.keys(), holders)


def is_minority(owners: Collection[Node], read: Collection[Node], holders: Collection[Node]) -> bool:
    """Whether some replica lacks what these hold, and they are half or less of the replicas, of all or of a DC's.

    Of a DC's, too: a delete at LOCAL_QUORUM may have reached one DC alone, and be purged there.
    """
    if len(holders) >= len(read):
        return False
    dcs = {node.dc for node in owners}
    groups = [tuple(owners), *(_in_dc(owners, dc) for dc in dcs if len(dcs) > 1)]
    return any(
        2 * sum(node in holders for node in group) <= len(group)
        and any(node in read and node not in holders for node in group)
        for group in groups
    )


def _in_dc(owners: Collection[Node], dc: str) -> tuple[Node, ...]:
    return tuple(node for node in owners if node.dc == dc)


def _old(holders: Iterable[Atom], purged_us: int) -> bool:
    return all(atom.writetime is None or atom.writetime < purged_us for atom in holders)
