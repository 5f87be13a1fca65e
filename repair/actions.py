"""Carry out one decision. Nothing here decides; every write is idempotent and loses to anything newer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from consistency.reader import ReplicaReader
from consistency.reading import Locality
from consistency.ring import Node
from repair.atoms import Atom, AtomName, atoms, winners
from repair.decide import Action, Decision, whole_row
from repair.evidence import Evidence
from repair.merging import MergingReads
from repair.statements import Write, delete_cell, delete_row, write_cell, write_marker
from repair.writer import RowWriter

ReadAgain = Callable[[], Awaitable[Evidence]]
Copies = Mapping[Node, Mapping[AtomName, Atom]]
_UNREAD = object()


class Actor:
    """Acts on rows through the port."""

    def __init__(self, reader: ReplicaReader, writer: RowWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._merging = MergingReads(writer)

    async def act(self, decision: Decision, evidence: Evidence, again: ReadAgain) -> None:
        """Do what was decided; `again` reads the row's evidence anew."""
        if decision.action is Action.RECONCILE:
            await self._merging.merge(_coordinator(evidence), evidence)
        elif decision.action is Action.WRITE_BACK:
            await self._write_back(decision, evidence, again)
        elif decision.action is Action.PURGE:
            await self._purge(decision, evidence)

    async def _write_back(self, decision: Decision, evidence: Evidence, again: ReadAgain) -> None:
        copies = _copies(evidence)
        won = winners(dict(copies.items()))
        for node, held in copies.items():
            for name, atom in won.items():
                if held.get(name) != atom:
                    await self._put(decision, evidence, node, name, atom)
        after = await again()
        if await self._propagate_deletes(decision, evidence, won, after):
            await self._settle_row(decision, evidence, won, again)

    async def _put(self, decision: Decision, evidence: Evidence, node: Node, name: AtomName, atom: Atom) -> None:
        place, path = name
        write = write_cell(evidence, evidence.columns[place], path, atom)
        if write is not None:
            await self._send(decision, node, write)

    async def _propagate_deletes(
        self, decision: Decision, before: Evidence, won: Mapping[AtomName, Atom], after: Evidence
    ) -> bool:
        """Delete what a replica's tombstones cover on the replicas that do not know of them; return whether any do.

        A cell that was written to a replica and cannot be seen there is covered by a tombstone at least as new as
        the cell. Deleting it elsewhere at the cell's own write time takes away exactly what that tombstone covers.
        """
        copies = _copies(after)
        hidden = False
        for node, held in copies.items():
            shadowed = {n: a for n, a in won.items() if n not in held and not _expired(a, after)}
            # A replica that was not read before was not written to either: what it lacks says nothing.
            if not shadowed or node not in before.states or not self._acknowledged(decision, node):
                continue
            hidden = True
            for other, theirs in copies.items():
                same = {n: a for n, a in shadowed.items() if theirs.get(n) == a} if other != node else {}
                if same and same == theirs and _lives_bare(before, after, won):
                    # Its last cells go: the row that others show bare must not go with them, not even for a moment.
                    await self._send(decision, other, write_marker(before, _newest(same)))
                for write in _cell_deletes(before, same):
                    await self._send(decision, other, write)
        return hidden

    async def _settle_row(
        self, decision: Decision, before: Evidence, won: Mapping[AtomName, Atom], again: ReadAgain
    ) -> None:
        """Where some replicas show the bare row by now and others none, find out whether the row itself was deleted.

        A row marker is written to those that show none, at the newest cell's write time. Where it does not show
        either, the row was deleted there at that time or later, and is deleted where it is bare; else it lives on.
        """
        newest = max((a.writetime for a in won.values() if a.writetime is not None), default=None)
        now = await again()
        bare = [node for node in now.states if _is_bare(now, node)]
        absent = [node for node, state in now.states.items() if state is None and node in before.states]
        if newest is None or before.name.static or not bare or not absent:
            return
        if any(atom.expires is not None for atom in won.values()):
            return  # the marker of the bare row may expire as well, and ours would not
        for node in absent:
            await self._send(decision, node, write_marker(before, newest))
        now = await again()
        if any(now.states.get(node, _UNREAD) is None for node in absent):
            for node in now.states:
                if _is_bare(now, node):
                    await self._send(decision, node, delete_row(before, newest))

    def _acknowledged(self, decision: Decision, node: Node) -> bool:
        """Whether this node itself took what was written: of a write at QUORUM it may simply not have it yet."""
        return decision.at_all or self._reader.locality(node) is Locality.NODE_LOCAL

    async def _purge(self, decision: Decision, evidence: Evidence) -> None:
        copies = _copies(evidence)
        suspects = {n: a for n, a in winners(dict(copies.items())).items() if n in decision.suspects}
        if whole_row(evidence, decision.suspects):
            writes = [delete_row(evidence, max(a.writetime for a in suspects.values() if a.writetime is not None))]
        else:
            writes = _cell_deletes(evidence, suspects)
        for node, held in copies.items():
            if any(name in held for name in suspects):
                for write in writes:
                    await self._send(decision, node, write)

    async def _send(self, decision: Decision, node: Node, write: Write) -> None:
        """Write to one replica alone where it allows that, else through it to all: older writes lose there."""
        if self._reader.locality(node) is Locality.NODE_LOCAL:
            await self._writer.on(node, write)
        else:
            await self._writer.through(node, write, at_all=decision.at_all)


def _coordinator(evidence: Evidence) -> Node:
    return next(iter(evidence.states))


def _copies(evidence: Evidence) -> Copies:
    return {node: atoms(evidence.columns, state) for node, state in evidence.states.items()}


def _cell_deletes(evidence: Evidence, cells: Mapping[AtomName, Atom]) -> list[Write]:
    return [
        delete_cell(evidence, evidence.columns[place], path, atom.writetime)
        for (place, path), atom in cells.items()
        if atom.writetime is not None
    ]


def _newest(cells: Mapping[AtomName, Atom]) -> int:
    return max(atom.writetime for atom in cells.values() if atom.writetime is not None)


def _lives_bare(before: Evidence, after: Evidence, won: Mapping[AtomName, Atom]) -> bool:
    """Whether a replica shows the bare row, which lasts as far as can be known."""
    lasts = not before.name.static and all(a.expires is None and a.writetime is not None for a in won.values())
    return lasts and any(_is_bare(after, node) for node in after.states)


def _is_bare(evidence: Evidence, node: Node) -> bool:
    """Whether a replica shows the row's key and nothing else."""
    state = evidence.states[node]
    return state is not None and not atoms(evidence.columns, state)


def _expired(atom: Atom, evidence: Evidence) -> bool:
    # A second of margin: an expired cell is absent for its age, not for a tombstone.
    return atom.expires is not None and atom.expires <= evidence.now_us // 1_000_000 + 1
