"""Decide what to write of one row: pure, exhaustive, and free to leave it.

First what forbids any judgement (too few replicas, a mask, a side that disagrees with itself), then what needs nothing
written, then what must wait or cannot be written as it stands; only then the cells that the giver holds for sure and
the taker holds in an older version or not at all. A cell of the taker that is newer is never written over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

from consistency.comparing.terms import Compare, Terms
from consistency.model.reading import Cell, CellColumn
from consistency.results.figures import counted
from consistency.rows.cells import Atom, AtomName, respelled, times_of, winners
from consistency.rows.evidence import Evidence
from consistency.rows.reconcile import EMPTY
from repair.sync.cases import PairCase
from repair.sync.policy import Extra, SyncPolicy

Cells = Mapping[AtomName, Atom]
_SOON_S = 1


class Rule(str, Enum):
    """By which rule a row is decided."""

    TOO_FEW = "too-few-replicas"
    MASKED = "masked"
    DISAGREES = "side-disagrees"
    SAME = "already-same"
    WAITS = "waits-for-node"
    SPELLING = "spelling"
    FUTURE = "future-write-time"
    SETTLING = "settling"
    COUNTER = "counter"
    WHOLE = "not-addressable"
    BARE = "keys-alone"
    TIMELESS = "no-write-times"
    NEWER = "newer-there"
    EXTRA_ROW = "extra-row"
    EXTRA_CELLS = "extra-cells"
    MISSING = "missing-there"
    OLDER = "older-there"

    @property
    def sentence(self) -> str:
        """Say what the rule means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Rule.TOO_FEW: "fewer than a quorum of its replicas can be read",
    Rule.MASKED: "columns are masked for our role, which reads the mask: GRANT UNMASK",
    Rule.DISAGREES: "the replicas of a cluster disagree on it: check and repair that cluster first, then compare again",
    Rule.SAME: "both sides hold the same now",
    Rule.WAITS: "the replicas that can be read hold the same; it waits for the others",
    Rule.SPELLING: "its key, or an element of a collection, has other bytes on one side that are one value to Cassandra"
    " (the decimals 1.0 and 1.00): no write makes them alike",
    Rule.FUTURE: "a write time lies in the future, and would win over every write until then",
    Rule.SETTLING: "it was written to, or expires, about now: compare and plan again later",
    Rule.COUNTER: "counters have no write times that two clusters share: they cannot be written",
    Rule.WHOLE: "a list differs: CQL cannot address its elements, and writing it anew twice would double them",
    Rule.BARE: "it has no cell but its key on the side that gives, and CQL does not tell when a key was written",
    Rule.TIMELESS: "the servers do not tell when the cells that differ were written or expire (collections before 5.0)",
    Rule.NEWER: "what is there is newer, or wins at the same write time: it stays",
    Rule.EXTRA_ROW: "only the side that takes holds the row",
    Rule.EXTRA_CELLS: "only the side that takes holds some of its cells",
    Rule.MISSING: "the side that takes lacks the row",
    Rule.OLDER: "the side that takes lacks some of its cells, or holds older ones",
}


class Action(str, Enum):
    """What is done with a row."""

    NONE = "none"
    WRITE = "write"
    DELETE = "delete"
    BOTH = "write+delete"

    @property
    def deletes(self) -> bool:
        """Whether something is deleted."""
        return self in (Action.DELETE, Action.BOTH)

    @property
    def sentence(self) -> str:
        """Say how it is done."""
        return _HOW[self]


_HOW = {
    Action.NONE: "left alone",
    Action.WRITE: "each cell is written with the write time and expiry that it has on the side that gives; the row"
    " marker of an INSERT, which CQL does not show, is not",
    Action.DELETE: "what only the side that takes holds is deleted at its own write time, so that newer writes stay",
    Action.BOTH: "cells are written first, then what only the side that takes holds is deleted at its own write time",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one row, and by which rule.

    `write` are cells of the giver, `delete` cells of the taker, `delete_row_us` the write time at which the taker's row
    is deleted. `left` says what stays different all the same. `given` are all cells that the giver holds for sure.
    """

    rule: Rule
    action: Action = Action.NONE
    sentence: str = ""
    write: Cells = field(default_factory=dict)
    delete: Cells = field(default_factory=dict)
    delete_row_us: int | None = None
    left: tuple[str, ...] = ()
    given: Cells = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do for this row."""
        return self.rule is Rule.SAME

    @property
    def unknown(self) -> bool:
        """Whether the row could not be judged, for want of replicas."""
        return self.rule in (Rule.TOO_FEW, Rule.WAITS)

    @property
    def times(self) -> list[int]:
        """The write times that are sent."""
        row = [] if self.delete_row_us is None else [self.delete_row_us]
        return [*times_of(self.write.values()), *times_of(self.delete.values()), *row]


class Unlike:
    """Says of two versions of a cell whether they are the same by the terms of the comparison."""

    def __init__(self, case: PairCase, terms: Terms) -> None:
        self._terms = terms
        pairs = zip(case.giver.columns, case.taker.columns, strict=True)
        self._timed = [one.writetime and other.writetime for one, other in pairs]
        self._counter = case.taker.table.is_counter

    def __call__(self, place: int, one: Cell | Atom | None, other: Cell | Atom | None) -> bool:
        """Whether they differ; of a column whose write times a side does not tell, in value."""
        by_value = self._counter or not self._timed[place]
        terms = Terms(Compare.VALUES) if by_value else self._terms
        if by_value and isinstance(one, Cell) and isinstance(other, Cell):
            return one.value != other.value
        return terms.unlike(one, other) is not None


class _Look:
    """One row taken apart: what the giver holds for sure, what the taker holds, and what is between them."""

    def __init__(self, case: PairCase, terms: Terms) -> None:
        self.case = case
        self.unlike = Unlike(case, terms)
        self.whole = _whole(case)
        self.held = winners({n: self._addressable(cells) for n, cells in case.taker.copies.items()})

    def _addressable(self, cells: Cells) -> dict[AtomName, Atom]:
        return {name: atom for name, atom in cells.items() if name[0] not in self.whole}

    @cached_property
    def given(self) -> dict[AtomName, Atom] | None:
        """The newest version of each cell of the giver; None if its replicas disagree on what is there.

        What one replica lacks may be deleted there, and then a merge of them deletes it.
        """
        giver = self.case.giver
        if 0 < len(giver.present) < len(giver.states):
            return None
        copies = [self._addressable(cells) for cells in giver.copies.values()]
        for name in {name for cells in copies for name in cells}:
            versions = {cells.get(name) for cells in copies}
            if None in versions or (len(versions) > 1 and any(v is None or v.writetime is None for v in versions)):
                return None
        return winners(dict(enumerate(copies)))

    @cached_property
    def apart(self) -> dict[AtomName, Atom]:
        """Cells of the giver that the taker holds otherwise, or not."""
        given = self.given or {}
        return {name: atom for name, atom in given.items() if self.unlike(name[0], atom, self.held.get(name))}

    @cached_property
    def needed(self) -> dict[AtomName, Atom]:
        """Those that win over what the taker holds; an expired one is not worth it."""
        return {n: a for n, a in self.apart.items() if wins(a, self.held.get(n)) and not expires_soon(a, self.case)}

    @cached_property
    def newer(self) -> frozenset[AtomName]:
        """Those of which the taker's version wins."""
        return frozenset(n for n, a in self.apart.items() if not wins(a, self.held.get(n)))

    @cached_property
    def extra(self) -> dict[AtomName, Atom]:
        """Cells that the taker alone holds."""
        given = self.given or {}
        return {name: atom for name, atom in self.held.items() if name not in given}

    @cached_property
    def unlike_whole(self) -> tuple[int, ...]:
        """Columns without addressable cells, by their place, that are not the same."""
        sides = [evidence.states.values() for _, evidence in self.case.sides]
        found = []
        for place in sorted(self.whole):
            mine, theirs = ({EMPTY if s is None else s.cells[place] for s in states} for states in sides)
            if any(self.unlike(place, one, other) for one in mine for other in theirs):
                found.append(place)
        return tuple(found)

    @property
    def differ(self) -> bool:
        """Whether the sides do not hold the same."""
        row = bool(self.case.giver.present) is not bool(self.case.taker.present)
        return bool(row or self.apart or self.extra or self.unlike_whole)

    def names(self, cells: Iterable[AtomName]) -> str:
        """Name the columns of some cells."""
        columns = self.case.taker.columns
        return ", ".join(columns[place].column.name for place in sorted({name[0] for name in cells}))


def wins(atom: Atom, held: Atom | None) -> bool:
    """Whether a cell wins over what is there, or may: where nobody knows how old one of them is, nothing is newer."""
    if held is None or held.writetime is None or atom.writetime is None:
        return True
    return atom.rank > held.rank


def expires_soon(atom: Atom, case: PairCase) -> bool:
    """Whether a cell has expired by now, or is about to."""
    return atom.expires is not None and atom.expires <= case.taker.when.expiry_s + _SOON_S


def _whole(case: PairCase) -> frozenset[int]:
    """Return the columns, by place, that can be compared as a whole alone: lists, and what cannot be taken apart."""
    columns = case.taker.columns
    lists = {place for place, column in enumerate(columns) if column.column.type.is_multicell and _is_list(column)}
    names = {name for _, evidence in case.sides for cells in evidence.copies.values() for name in cells}
    return frozenset(lists | {p for p, path in names if path is None and columns[p].column.type.is_multicell})


def _is_list(column: CellColumn) -> bool:
    return column.column.type.name == "list"


def decide(case: PairCase, policy: SyncPolicy) -> Decision:
    """Return the one decision for this evidence."""
    look = _Look(case, policy.terms)
    found = _unjudged(look) or _same(look) or _not_now(look, policy) or _not_so(look) or _decided(look, policy)
    return replace(found, given=look.given or {})


def _unjudged(look: _Look) -> Decision | None:
    case = look.case
    for side, evidence in case.sides:
        if 2 * len(evidence.states) <= len(evidence.owners):
            read = f"{len(evidence.states)} of {counted(len(evidence.owners), 'replica')} of the {side} read"
            why = f": {evidence.why_unread}" if evidence.unread else ""
            return _left(Rule.TOO_FEW, read + why)
    if case.masked is not None:
        return _left(Rule.MASKED, f"the {case.masked}")
    return _left(Rule.DISAGREES, f"the {case.direction.giver}") if look.given is None else None


def _same(look: _Look) -> Decision | None:
    """Return the decision if the sides do not differ."""
    if look.differ:
        return None
    for side, evidence in look.case.sides:
        if not evidence.agreed:
            return _left(Rule.DISAGREES, f"the {side}")
    unread = [node.name for _, evidence in look.case.sides for node in evidence.unread]
    return _left(Rule.WAITS, ", ".join(sorted(unread))) if unread else Decision(Rule.SAME, sentence=Rule.SAME.sentence)


def _not_now(look: _Look, policy: SyncPolicy) -> Decision | None:
    """Return the decision if time must pass, or nobody can name the row as it is."""
    case = look.case
    states = [*case.giver.present.values(), *case.taker.present.values()]
    if any(state.spelling is not None for state in states) or respelled(case.taker.columns, states):
        return _left(Rule.SPELLING)
    for side, evidence in case.sides:
        newest = evidence.newest_us
        if newest is not None and newest > evidence.when.future_us(policy.max_skew_s):
            return _left(Rule.FUTURE, f"the {side}")
        if newest is not None and newest > evidence.when.in_flight_us(policy.window_s):
            return _left(Rule.SETTLING)
    return None


def _not_so(look: _Look) -> Decision | None:
    """Return the decision if CQL cannot write what differs as it stands."""
    case = look.case
    if case.taker.table.is_counter:
        return _left(Rule.COUNTER)
    if not case.giver.present and not case.taker.name.static:
        return None  # a row is deleted as one
    if look.unlike_whole:
        return _left(Rule.WHOLE, look.names((place, None) for place in look.unlike_whole))
    if case.giver.present and not any(case.giver.copies.values()):
        return _left(Rule.BARE)
    timed = all(evidence.reading.capabilities.timed for _, evidence in case.sides)
    timeless = [name for name, atom in look.needed.items() if atom.writetime is None or not timed]
    return _left(Rule.TIMELESS, look.names(timeless)) if timeless else None


def _decided(look: _Look, policy: SyncPolicy) -> Decision:
    case, taker = look.case, look.case.direction.taker
    left: list[str] = []
    if look.newer:
        left.append(f"{look.names(look.newer)} of the {taker}: newer, stays")
    deleted: Cells = {}
    row_us: int | None = None
    if look.extra or not case.giver.present:
        why = "--extra keep" if policy.extra is Extra.KEEP else _not_deletable(look)
        if why:
            left.append(f"only the {taker} holds {look.names(look.extra) if case.giver.present else 'it'}: {why}")
        elif case.giver.present or case.taker.name.static:
            deleted = look.extra
        else:
            row_us = max(times_of(_every(case.taker)))
    return _worded(look, deleted, row_us, tuple(left))


def _worded(look: _Look, deleted: Cells, row_us: int | None, left: tuple[str, ...]) -> Decision:
    deletes = bool(deleted) or row_us is not None
    action = {
        (True, True): Action.BOTH,
        (True, False): Action.WRITE,
        (False, True): Action.DELETE,
        (False, False): Action.NONE,
    }[bool(look.needed), deletes]
    if not look.case.giver.present:
        rule = Rule.EXTRA_ROW
    elif look.needed:
        rule = Rule.MISSING if not look.case.taker.present else Rule.OLDER
    elif deletes or (look.extra and not look.newer):
        rule = Rule.EXTRA_CELLS
    else:
        rule = Rule.NEWER if look.newer else Rule.SETTLING
    sentence = f"{rule.sentence} ({'; '.join(left)})" if left else rule.sentence
    return Decision(rule, action, sentence, look.needed, deleted, row_us, left)


def _not_deletable(look: _Look) -> str:
    """Say why what the taker alone holds is not deleted though that is asked for; empty if it can be."""
    for side, evidence in look.case.sides:
        if evidence.unread:
            return f"not deleted, as not every replica of the {side} can be read"
        if side is look.case.direction.giver and not evidence.agreed:
            return f"not deleted, as the {side} disagrees with itself"
    cells = _every(look.case.taker) if not look.case.giver.present else list(look.extra.values())
    if not cells or any(atom.writetime is None for atom in cells):
        return "not deleted, as its write time is not told"
    return ""


def _every(evidence: Evidence) -> Sequence[Atom]:
    """Return every cell of every copy, lists included."""
    return [atom for cells in evidence.copies.values() for atom in cells.values()]


def foreign(columns_of: Evidence, before: Collection[tuple[AtomName, Atom]], given: Cells) -> bool:
    """Whether copies hold a cell that was neither there before nor is the giver's: somebody else wrote it."""
    known = {*before, *given.items()}
    return any(item not in known for cells in columns_of.copies.values() for item in cells.items())


def _left(rule: Rule, detail: str = "") -> Decision:
    return Decision(rule, sentence=f"{rule.sentence} ({detail})" if detail else rule.sentence)
