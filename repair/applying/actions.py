"""Carry out one decision. Nothing here decides; every write is idempotent and loses to anything newer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from consistency.cluster.guardrails import Refusal
from consistency.cluster.port import ReplicaReader
from consistency.errors import ReplicaError, ReplicaRefused, ReplicaTimeout, ReplicaUnavailable, TooMuchToScan
from consistency.model.reading import Locality
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from consistency.rows.cells import Atom, AtomName, lacked, times_of, winners
from repair.deciding.case import Case
from repair.deciding.decide import Action, Decision, Rule, deletes_row, suspected
from repair.deciding.permitted import merging, through_coordinator
from repair.keeping.entries import Fate
from repair.writing.hidden import Cells, HiddenDeletes
from repair.writing.merging import MergingReads
from repair.writing.statements import (
    Write,
    batches,
    delete_cell,
    delete_row,
    merging_range_read,
    merging_read_by_token,
    write_cells,
    write_marker,
)
from repair.writing.writer import RowWriter

ReadAgain = Callable[[], Awaitable[Case]]


@dataclass(frozen=True, slots=True)
class Acted:
    """How acting on a row ended; `refusal` is what a server did not do."""

    fate: Fate
    refusal: Refusal | None = None

    @property
    def in_vain(self) -> bool:
        """Whether nothing of ours was done: then there is nothing to wait for."""
        return self.fate is Fate.NONE and self.refusal is not None


@dataclass
class _Doing:
    """One row under way."""

    decision: Decision
    evidence: Case
    fate: Fate = Fate.NONE


class Actor:
    """Acts on rows through the port."""

    def __init__(self, reader: ReplicaReader, writer: RowWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._merging = MergingReads(writer)
        self._hidden = HiddenDeletes(reader, writer)

    async def act(self, decision: Decision, evidence: Case, again: ReadAgain) -> Acted:
        """Do what was decided; `again` reads the row's evidence anew."""
        doing = _Doing(decision, evidence)
        try:
            await self._act(doing, again)
        except ReplicaError as error:
            refusal = Refusal.of(error)
            return Acted(doing.fate if refusal.certain else Fate.UNKNOWN, refusal)
        return Acted(doing.fate)

    async def merge_range(self, evidence: Case, token_range: TokenRange, page_rows: int) -> Acted:
        """Have the servers merge all rows of a range; `evidence` is of one of its rows.

        A page that is too much for a server is asked for again at a quarter of the size. Of a read that failed nobody
        knows how many of its pages were merged.
        """
        node, failed = merging(evidence).node, False
        while True:
            try:
                read = merging_range_read(evidence.table, token_range, page_rows)
                await self._writer.through(node, read, at_all=True)
            except ReplicaError as error:
                if isinstance(error, ReplicaTimeout | TooMuchToScan) and page_rows > 1:
                    page_rows, failed = max(1, page_rows // 4), True
                    continue
                nothing_done = isinstance(error, ReplicaRefused) and not (failed or error.repeated)
                return Acted(Fate.NONE if nothing_done else Fate.UNKNOWN, Refusal.of(error))
            return Acted(Fate.DONE)

    async def _act(self, doing: _Doing, again: ReadAgain) -> None:
        if doing.decision.action is Action.RECONCILE:
            await self._merge(doing, again)
        elif doing.decision.action is Action.WRITE_BACK:
            await self._write_back(doing, again)
        elif doing.decision.action is Action.PURGE:
            await self._purge(doing)

    async def _merge(self, doing: _Doing, again: ReadAgain) -> None:
        """Have the servers merge the row; where nothing but an expiry differs they may not notice, and are asked twice.

        Their digests of copies say how long a cell was to live when it was written, and not until when.
        """
        node = merging(doing.evidence).node
        await self._merging.merge(node, doing.evidence)
        doing.fate = Fate.DONE
        if doing.decision.rule is Rule.EXPIRY and not (await again()).agreed:
            await self._writer.through(node, merging_read_by_token(doing.evidence), at_all=True)

    async def _write_back(self, doing: _Doing, again: ReadAgain) -> None:
        """Write to each replica all that it lacks, in one statement: no reader sees a part of it.

        What a replica seems to hide is written to that one alone before. Where it is hidden indeed it comes to no
        other, and its delete is passed on last: refused or killed before that, no replica shows what it did not show.
        """
        evidence = doing.evidence
        won = winners(evidence.copies)
        lacking = {node: lacked(held, won) for node, held in evidence.copies.items()}
        first = await self._hidden.suspected(evidence, lacking, [n for n in lacking if self._takes_alone(n)])
        gone: dict[Node, Cells] = {}
        if first:
            await self._put(doing, first)
            after = _all_read(first, await again())
            gone = {node: _shadowed(cells, node, after) for node, cells in first.items()}
        names = {name for cells in gone.values() for name in cells}
        await self._put(doing, {node: _without(cells, names) for node, cells in lacking.items()})
        after, left = await again(), _without(won, names)
        expected = {node: {**left, **gone.get(node, {})} for node in after.copies}
        if await self._propagate_deletes(doing, expected, after, won):
            await self._settle_row(doing, won, again)

    async def _put(self, doing: _Doing, cells: Mapping[Node, Cells]) -> None:
        """Write cells to each replica, all of one in one statement."""
        for nodes in self._apart(cells):
            together = {name: atom for node in nodes for name, atom in cells[node].items()}
            for write in write_cells(doing.evidence, together):
                await self._send(doing, nodes[0], write, times_of(together.values()))

    def _apart(self, nodes: Iterable[Node]) -> list[tuple[Node, ...]]:
        """Return who is written to together: each by itself that allows it, all others through one of them."""
        local: list[tuple[Node, ...]] = []
        others: list[Node] = []
        for node in nodes:
            if self._takes_alone(node):
                local.append((node,))
            else:
                others.append(node)
        return [*local, tuple(others)] if others else local

    def _takes_alone(self, node: Node) -> bool:
        return self._reader.locality(node) is Locality.NODE_LOCAL

    async def _propagate_deletes(self, doing: _Doing, expected: Mapping[Node, Cells], after: Case, won: Cells) -> bool:
        """Delete what a replica's tombstones cover on the replicas that do not know of them; return whether any do.

        A cell that was written to a replica and cannot be seen there is covered by a tombstone at least as new as
        the cell. Deleting it elsewhere at the cell's own write time takes away exactly what that tombstone covers, an
        older version included.
        """
        before, copies = doing.evidence, after.copies
        hidden = False
        for node, cells in expected.items():
            shadowed = _shadowed(cells, node, after)
            # A replica that was not read before was not written to either: what it lacks says nothing.
            if not shadowed or node not in before.states or not self._acknowledged(doing.decision, node):
                continue
            hidden = True
            for other, theirs in copies.items():
                same = {n: a for n, a in shadowed.items() if n in theirs and theirs[n].rank <= a.rank}
                writes = _cell_deletes(before, same)
                if same and same.keys() == theirs.keys() and _lives_bare(before, after, won):
                    # Its last cells go: the row that others show bare must not go with them, not even for a moment.
                    writes = [write_marker(before, _newest(same)), *writes]
                for write in batches(writes):
                    await self._send(doing, other, write, times_of(same.values()))
        return hidden

    async def _settle_row(self, doing: _Doing, won: Mapping[AtomName, Atom], again: ReadAgain) -> None:
        """Where some replicas show the bare row by now and others none, find out whether the row itself was deleted.

        A row marker is written to those that show none, at the newest cell's write time, first to those that seem to
        hide it. Where it does not show either, the row was deleted there at that time or later, and is deleted where
        it is bare; else it lives on.
        """
        before = doing.evidence
        newest = max(times_of(won.values()), default=None)
        now = await again()
        bare = [node for node in now.states if _is_bare(now, node)]
        absent = [node for node, state in now.states.items() if state is None and node in before.states]
        if newest is None or before.name.static or not bare or not absent:
            return
        first, expires = absent, max((a.expires for a in won.values() if a.expires is not None), default=None)
        asked = all(map(self._takes_alone, absent))
        if asked and (len(absent) > 1 or expires is not None):
            first = await self._hidden.rows_suspected(before, absent, newest)
        if expires is not None:
            # The bare row may expire at another time than a marker of ours: it goes where a delete seems to hide it.
            absent = first if asked else []
            if not absent or expires <= before.when.expiry_s + 1:
                return
        marker = write_marker(before, newest, expires)
        for node in first:
            await self._send(doing, node, marker, (newest,))
        now = _all_read(first, await again())
        if any(now.states[node] is None for node in first):
            await self._delete_bare(doing, now, newest, again, lasts=expires is None)
            return
        for node in absent:
            if node not in first:
                await self._send(doing, node, marker, (newest,))

    async def _delete_bare(self, doing: _Doing, seen: Case, at_us: int, again: ReadAgain, *, lasts: bool) -> None:
        """Delete the row where it is bare.

        Where a replica shows it all the same it was inserted anew after that delete, by keys alone: then those that
        showed it get it back, a microsecond after our delete, as nobody can see when it was inserted.
        """
        before = doing.evidence
        bare = [node for node in seen.states if _is_bare(seen, node)]
        for node in bare:
            await self._send(doing, node, delete_row(before, at_us), (at_us,))
        after = await again()
        if not lasts or not any(_is_bare(after, node) for node in bare if node in after.states):
            return
        for node in bare:
            if node in after.states and after.states[node] is None:
                await self._send(doing, node, write_marker(before, at_us + 1), (at_us + 1,))

    def _acknowledged(self, decision: Decision, node: Node) -> bool:
        """Whether this node itself took what was written: of a write at QUORUM it may simply not have it yet."""
        return decision.at_all or self._takes_alone(node)

    async def _purge(self, doing: _Doing) -> None:
        evidence, copies = doing.evidence, doing.evidence.copies
        suspects = suspected(evidence, doing.decision.suspects)
        if deletes_row(evidence, doing.decision.suspects):
            writes = [delete_row(evidence, _newest(suspects))]
        else:
            writes = batches(_cell_deletes(evidence, suspects))
        holders = [node for node, held in copies.items() if any(name in held for name in suspects)]
        for nodes in self._apart(holders):
            for write in writes:
                await self._send(doing, nodes[0], write, times_of(suspects.values()))

    async def _send(self, doing: _Doing, node: Node, write: Write, times: Sequence[int]) -> None:
        """Write to one replica alone where it allows that, else through it to all: older writes lose there.

        A rule that a server does not hold against a batch is held against it here.
        """
        if self._takes_alone(node):
            await self._writer.on(node, write)
        else:
            way = through_coordinator(doing.evidence, times)
            if way.refused:
                raise ReplicaRefused(way.refused)
            await self._writer.through(way.node, write, at_all=doing.decision.at_all and way.at_all)
        doing.fate = Fate.DONE


def _all_read(nodes: Iterable[Node], after: Case) -> Case:
    """Return the evidence, or raise where one of these replicas was not read: what it hides is not known."""
    for node in nodes:
        if node not in after.states:
            raise ReplicaUnavailable(after.unread.get(node, "it is not read any more"), node)
    return after


def _shadowed(cells: Cells, node: Node, after: Case) -> Cells:
    """Return which of the cells that were written to a replica it does not show, though they have not expired."""
    return {n: a for n, a in cells.items() if n not in after.copies[node] and not _expired(a, after)}


def _without(cells: Cells, gone: Collection[AtomName]) -> Cells:
    return {name: atom for name, atom in cells.items() if name not in gone}


def _cell_deletes(evidence: Case, cells: Mapping[AtomName, Atom]) -> list[Write]:
    return [
        delete_cell(evidence, evidence.columns[place], path, atom.writetime)
        for (place, path), atom in cells.items()
        if atom.writetime is not None
    ]


def _newest(cells: Mapping[AtomName, Atom]) -> int:
    return max(times_of(cells.values()))


def _lives_bare(before: Case, after: Case, won: Mapping[AtomName, Atom]) -> bool:
    """Whether a replica shows the bare row, which lasts as far as can be known."""
    lasts = not before.name.static and all(a.expires is None and a.writetime is not None for a in won.values())
    return lasts and any(_is_bare(after, node) for node in after.states)


def _is_bare(evidence: Case, node: Node) -> bool:
    """Whether a replica shows the row's key and nothing else."""
    state = evidence.states[node]
    return state is not None and not evidence.copies[node]


def _expired(atom: Atom, evidence: Case) -> bool:
    # A second of margin: an expired cell is absent for its age, not for a tombstone.
    return atom.expires is not None and atom.expires <= evidence.when.expiry_s + 1
