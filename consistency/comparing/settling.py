"""Read a suspected row again on both sides, past the settle window, before any difference is claimed.

Two questions are asked of each reading. Do the replicas of a side disagree? That is settled as a check settles it. Do
the sides differ? That is asked of what each side's replicas come to together, and only of what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from consistency.checking.settle import MAX_ROUNDS, Settled, Settlement, Settler, Sink, Suspect, Unsettled
from consistency.cluster.port import Clock, ReplicaReader
from consistency.comparing.rows import Unlike, agreed, by_side, compare_row, merged
from consistency.comparing.terms import Terms
from consistency.model.reading import Depth, Reading, RowState
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.servertime import ServerTime
from consistency.model.sides import Side, on_side
from consistency.results.figures import counted
from consistency.rows.evidence import Evidence
from consistency.rows.merge_join import Difference
from consistency.rows.names import RowName
from consistency.rows.read import States
from consistency.rows.reconcile import EMPTY, Persistence, persistence

_CHANGING = "the row kept changing in every reading"

Place = int | None | Side
"""What may differ in a row: a column by its place, the row or its key (None), or the replicas of a side."""


@dataclass(frozen=True)
class SettledPair(Settled):
    """A row that was settled: in what the sides differ, and which of them disagree with themselves.

    `torn` holds what was read of each such side. `unjudged` says why one of these questions has no answer.
    """

    unlike: Unlike = field(default_factory=Unlike)
    torn: tuple[Settled, ...] = ()
    unjudged: str = ""


@dataclass(frozen=True, slots=True)
class PairSuspect(Suspect):
    """A suspect that was seen more than once: in how many windows on end each place in it differed."""

    lasted: Mapping[Place, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """By what rows of each table are judged: its terms, and the nodes that own a token."""

    terms: Callable[[Table], Terms]
    owners: Callable[[Table, int], Sequence[Node]]

    def too_few(self, table: Table, token: int, read: Sequence[Node]) -> str:
        """Say on which side fewer than a quorum of a row's replicas was read: what it holds is not known then."""
        for side in Side:
            owners = [node for node in self.owners(table, token) if on_side(node, side)]
            answered = sum(on_side(node, side) for node in read)
            if 2 * answered <= len(owners):
                return f"{answered} of {counted(len(owners), 'replica')} of the {side} read, which is no quorum"
        return ""


class PairSettler(Settler):
    """Settles whether rows differ between the sides, and whether the replicas of a side disagree, in the same readings.

    While a side's replicas disagree the sides may come to the same: that is no agreement, so the row is read again
    until it is sure that the side disagrees, or until its replicas agree and the sides can be compared.
    """

    def __init__(self, reader: ReplicaReader, clock: Clock, sink: Sink, window_s: float, rules: Rules) -> None:
        super().__init__(reader, clock, sink, window_s)
        self._rules = rules

    async def put(self, reading: Reading, difference: Difference) -> None:
        """Take one suspect; waits while too many are pending."""
        sides = by_side(difference.states)
        columns = reading.statics if difference.name.static else reading.regulars
        if all(agreed(copies) for copies in sides.values()):
            # Of a side that was not read at all its account says so.
            terms = self._rules.terms(reading.table)
            if not (all(sides.values()) and compare_row(columns, difference.states, terms).facts):
                return
        await super().put(reading, difference)

    async def put_agreed(
        self, reading: Reading, rows: Sequence[tuple[RowName, RowState]], nodes: list[Node], when: ServerTime
    ) -> None:
        """Take nothing: what is wrong although all agree is for a check to say."""

    def _judge(self, suspect: Suspect, seen: Evidence, read_at: float) -> Settlement | Suspect | None:
        """Return what is settled by a further reading, the same suspect renewed, or None for agreement."""
        terms = self._rules.terms(seen.table)
        both = all(by_side(suspect.states).values())
        too_few = self._rules.too_few(seen.table, seen.name.token, list(seen.states)) if both else ""
        unlike = compare_row(seen.columns, seen.states, terms) if both and not too_few else Unlike()
        reading = replace(seen.reading, depth=terms.compare.depth)
        torn = _torn(seen, reading)
        if not unlike.facts and not torn:
            reason = seen.why_unread or too_few
            return Unsettled(suspect.reading, suspect.name, reason) if reason else None
        before = by_side(suspect.states)
        found = _lasting(suspect, seen, unlike, reading)
        for side, copies in torn.items():
            found[side] = self._persistence(replace(suspect, states=before[side]), copies.states)
        lasted = suspect.lasted if isinstance(suspect, PairSuspect) else {}
        outlived = {place: lasted.get(place, 0) + 1 for place, how in found.items() if how is not Persistence.NONE}
        sure = {
            place
            for place, windows in outlived.items()
            if found[place] is Persistence.PRESENT or windows >= self._windows_to_outlive(_part(place, torn, seen))
        }
        known = unlike.only([place for place in sure if not isinstance(place, Side)])
        answered = torn.keys() <= sure and (bool(known.facts) or not unlike.facts)
        if suspect.rounds + 1 < MAX_ROUNDS and not (answered and sure == outlived.keys()):
            return PairSuspect(seen.reading, seen.name, seen.states, read_at, suspect.rounds + 1, lasted=outlived)
        if not sure:
            return Unsettled(suspect.reading, suspect.name, _CHANGING)
        claimed = tuple(Settled.by(copies, read_at) for side, copies in torn.items() if side in sure)
        return SettledPair(
            *(seen.reading, seen.name, seen.owners, seen.states, seen.unread, seen.when, read_at),
            unlike=known,
            torn=claimed,
            unjudged=too_few or ("" if answered else _CHANGING),
        )


def _torn(seen: Evidence, reading: Reading) -> dict[Side, Evidence]:
    """Return what was read of each side whose replicas disagree on what is compared."""
    found: dict[Side, Evidence] = {}
    for side, copies in by_side(seen.states).items():
        if not agreed({node: reading.as_read(state, static=seen.name.static) for node, state in copies.items()}):
            owners = tuple(node for node in seen.owners if on_side(node, side))
            unread = {node: reason for node, reason in seen.unread.items() if on_side(node, side)}
            found[side] = replace(seen, owners=owners, states=copies, unread=unread)
    return found


def _part(place: Place, torn: Mapping[Side, Evidence], seen: Evidence) -> Evidence:
    """Return what was read of the side that a place is, else of the whole row."""
    return torn[place] if isinstance(place, Side) else seen


def _lasting(suspect: Suspect, seen: Evidence, unlike: Unlike, reading: Reading) -> dict[Place, Persistence]:
    """Say of each column that differs, by its place, whether it did so before; None stands for the row or its key."""
    static = suspect.name.static
    before = _sides(suspect.states, reading, static=static)
    after = _sides(seen.states, reading, static=static)
    found: dict[Place, Persistence] = {
        place: persistence(_column(before, place), _column(after, place)) for place in unlike.columns or {}
    }
    if unlike.row is not None or unlike.key:
        found[None] = persistence(before, after)
    if reading.depth is Depth.VALUES and suspect.reading.depth is suspect.reading.full.depth:
        kept = _kept(suspect.states, seen.states)
        return {place: how for place, how in found.items() if place in kept or (place is None and kept)}
    return found


def _kept(before: States, after: States) -> set[int | None]:
    """Return the columns, by their place, of which a side kept what it held as it was written; None if it kept all.

    Where values alone are compared, a column that is set to and fro looks as it was although all of it is new.
    """
    found: set[int | None] = set()
    now_held = by_side(after)
    for side, copies in by_side(before).items():
        then, now = merged(copies), merged(now_held[side])
        if then is not None and now is not None:
            both = enumerate(zip(then.cells, now.cells, strict=True))
            found |= {place for place, (one, other) in both if one == other != EMPTY}
            found |= {None} if then == now else set()
    return found


def _sides(states: States, reading: Reading, *, static: bool) -> dict[Side, RowState | None]:
    """Return what each side's copies come to, no more of it than is compared."""
    return {side: reading.as_read(merged(copies), static=static) for side, copies in by_side(states).items()}


def _column(states: Mapping[Side, RowState | None], place: int) -> dict[Side, RowState | None]:
    return {side: None if state is None else RowState((state.cells[place],)) for side, state in states.items()}
