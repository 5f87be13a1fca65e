"""Read a suspected row again on both sides, past the settle window, before any difference is claimed.

A row on which a side's replicas disagree is a suspect of that side's own, settled as a check settles it. Whether the
sides differ is another question, with another answer: it is asked of what each side's replicas come to together, and
only of what is compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from consistency.checking.settle import MAX_ROUNDS, Settled, Settlement, Settler, Sink, Suspect, Unsettled
from consistency.cluster.port import Clock, ReplicaReader
from consistency.comparing.rows import States, Unlike, agreed, by_side, compare_row, merged
from consistency.comparing.terms import Terms
from consistency.model.reading import Reading, RowState
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.servertime import ServerTime
from consistency.model.sides import Side, on_side
from consistency.rows.evidence import Evidence
from consistency.rows.merge_join import Difference
from consistency.rows.names import RowName
from consistency.rows.reconcile import Persistence, persistence


@dataclass(frozen=True)
class SettledPair(Settled):
    """A row that differed between the sides for longer than the window, and in what it did so."""

    unlike: Unlike = field(default_factory=Unlike)

    @classmethod
    def of(cls, seen: Evidence, read_at: float, unlike: Unlike) -> SettledPair:
        """Return what a reading has settled."""
        return cls(seen.reading, seen.name, seen.owners, seen.states, seen.unread, seen.when, read_at, unlike)


@dataclass(frozen=True, slots=True)
class PairSuspect(Suspect):
    """A suspect that was seen more than once: in how many windows on end each column differed, the row under None."""

    lasted: Mapping[int | None, int] = field(default_factory=dict)


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
                return f"{answered} of {len(owners)} replicas of the {side} were read, which is no quorum"
        return ""


class PairSettler(Settler):
    """Settles whether rows differ between the sides."""

    def __init__(self, reader: ReplicaReader, clock: Clock, sink: Sink, window_s: float, rules: Rules) -> None:
        super().__init__(reader, clock, sink, window_s)
        self._rules = rules

    def _judge(self, suspect: Suspect, seen: Evidence, read_at: float) -> Settlement | Suspect | None:
        """Return what is settled by a further reading, the same suspect renewed, or None for agreement."""
        table = seen.table
        if reason := self._rules.too_few(table, seen.name.token, list(seen.states)):
            return Unsettled(suspect.reading, suspect.name, seen.why_unread or reason)
        terms = self._rules.terms(table)
        unlike = compare_row(seen.columns, seen.states, terms)
        if not unlike.facts:
            return Unsettled(suspect.reading, suspect.name, seen.why_unread) if seen.unread else None
        found = _lasting(suspect, seen, unlike, terms)
        lasted = suspect.lasted if isinstance(suspect, PairSuspect) else {}
        outlived = {place: lasted.get(place, 0) + 1 for place, how in found.items() if how is not Persistence.NONE}
        needed = self._windows_to_outlive(seen)
        sure = {
            place for place, windows in outlived.items() if found[place] is Persistence.PRESENT or windows >= needed
        }
        last = suspect.rounds + 1 >= MAX_ROUNDS
        if sure and (last or sure == outlived.keys()):
            return SettledPair.of(seen, read_at, unlike.only(sure))
        if last:
            return Unsettled(suspect.reading, suspect.name, "the row kept changing in every reading")
        return PairSuspect(seen.reading, seen.name, seen.states, read_at, suspect.rounds + 1, lasted=outlived)


def _lasting(suspect: Suspect, seen: Evidence, unlike: Unlike, terms: Terms) -> dict[int | None, Persistence]:
    """Say of each column that differs, by its place, whether it did so before; None stands for the row or its key."""
    reading, static = replace(seen.reading, depth=terms.compare.depth), suspect.name.static
    before = _sides(suspect.states, reading, static=static)
    after = _sides(seen.states, reading, static=static)
    found: dict[int | None, Persistence] = {
        place: persistence(_column(before, place), _column(after, place)) for place in unlike.columns or {}
    }
    if unlike.row is not None or unlike.key:
        found[None] = persistence(before, after)
    return found


def _sides(states: States, reading: Reading, *, static: bool) -> dict[Side, RowState | None]:
    """Return what each side's copies come to, no more of it than is compared."""
    return {side: reading.as_read(merged(copies), static=static) for side, copies in by_side(states).items()}


def _column(states: Mapping[Side, RowState | None], place: int) -> dict[Side, RowState | None]:
    return {side: None if state is None else RowState((state.cells[place],)) for side, state in states.items()}


class BothSettlers:
    """Takes the suspects of a scan of two clusters: each to the question, or the questions, that it raises."""

    def __init__(self, inner: Settler, pairs: PairSettler, rules: Rules) -> None:
        self._inner = inner
        self._pairs = pairs
        self._rules = rules
        self.window_s = pairs.window_s

    @property
    def waiting(self) -> int:
        """How many suspects are not judged yet."""
        return self._inner.waiting + self._pairs.waiting

    def waiting_of(self, full_name: str) -> int:
        """How many of them are rows of one table."""
        return self._inner.waiting_of(full_name) + self._pairs.waiting_of(full_name)

    async def put(self, reading: Reading, difference: Difference) -> None:
        """Take one suspect; waits while too many are pending."""
        sides = by_side(difference.states)
        for copies in sides.values():
            if not agreed(copies):
                await self._inner.put(reading, Difference(difference.name, copies))
        if not all(sides.values()):
            return  # one side was not read at all, and its account says so
        columns = reading.statics if difference.name.static else reading.regulars
        clear = all(agreed(copies) for copies in sides.values())
        if not clear or compare_row(columns, difference.states, self._rules.terms(reading.table)).facts:
            await self._pairs.put(reading, difference)

    async def put_agreed(
        self, reading: Reading, rows: Sequence[tuple[RowName, RowState]], nodes: list[Node], when: ServerTime
    ) -> None:
        """Take nothing: what is wrong although all agree is for a check to say."""

    async def run(self) -> None:
        """Settle suspects until `finish` is called and all are done."""
        running = [asyncio.create_task(settler.run()) for settler in (self._inner, self._pairs)]
        try:
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def finish(self) -> None:
        """Say that no more suspects will come."""
        await self._inner.finish()
        await self._pairs.finish()
