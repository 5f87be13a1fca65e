"""Carry out one decision. Nothing here decides; every write is idempotent and loses to anything newer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from consistency.reader import ReplicaReader
from consistency.reading import Locality
from consistency.ring import Node
from repair.atoms import Atom, AtomName, atoms, winners
from repair.decide import Action, Decision, whole_row
from repair.evidence import Evidence
from repair.statements import Write, delete_cell, delete_row, merging_read, write_cell
from repair.writer import RowWriter

ReadAgain = Callable[[], Awaitable[Evidence]]
Copies = Mapping[Node, Mapping[AtomName, Atom]]


class Actor:
    """Acts on rows through the port."""

    def __init__(self, reader: ReplicaReader, writer: RowWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def act(self, decision: Decision, evidence: Evidence, again: ReadAgain) -> None:
        """Do what was decided; `again` reads the row's evidence anew."""
        if decision.action is Action.RECONCILE:
            await self._reconcile(decision, evidence)
        elif decision.action is Action.WRITE_BACK:
            await self._write_back(decision, evidence, again)
        elif decision.action is Action.PURGE:
            await self._purge(decision, evidence)

    async def _reconcile(self, decision: Decision, evidence: Evidence) -> None:
        await self._writer.through(_coordinator(evidence), merging_read(evidence), at_all=decision.at_all)

    async def _write_back(self, decision: Decision, evidence: Evidence, again: ReadAgain) -> None:
        copies = _copies(evidence)
        won = winners(dict(copies.items()))
        for node, held in copies.items():
            for name, atom in won.items():
                if held.get(name) != atom:
                    await self._put(decision, evidence, node, name, atom)
        await self._propagate_deletes(decision, evidence, won, await again())

    async def _put(self, decision: Decision, evidence: Evidence, node: Node, name: AtomName, atom: Atom) -> None:
        place, path = name
        write = write_cell(evidence, evidence.columns[place], path, atom)
        if write is not None:
            await self._send(decision, node, write)

    async def _propagate_deletes(
        self, decision: Decision, before: Evidence, won: Mapping[AtomName, Atom], after: Evidence
    ) -> None:
        """Delete what a replica's tombstone covers on the replicas that do not know of the delete.

        A cell that was written to a replica and cannot be seen there is covered by a tombstone at least as new as
        the cell. Deleting it elsewhere at the cell's own write time takes away exactly what that tombstone covers.
        """
        copies = _copies(after)
        for node, held in copies.items():
            shadowed = {n: a for n, a in won.items() if n not in held and not _expired(a, after)}
            if not shadowed or not self._acknowledged(decision, node):
                continue
            everything = after.states[node] is None and len(shadowed) == len(won) and not before.name.static
            writes = self._deletes(before, shadowed, whole=everything)
            for other, theirs in copies.items():
                if other != node and any(theirs.get(n) == a for n, a in shadowed.items()):
                    for write in writes:
                        await self._send(decision, other, write)

    def _acknowledged(self, decision: Decision, node: Node) -> bool:
        """Whether this node itself took what was written: of a write at QUORUM it may simply not have it yet."""
        return decision.at_all or self._reader.locality(node) is Locality.NODE_LOCAL

    @staticmethod
    def _deletes(evidence: Evidence, cells: Mapping[AtomName, Atom], *, whole: bool) -> list[Write]:
        if whole:
            return [delete_row(evidence, max(a.writetime for a in cells.values() if a.writetime is not None))]
        return [
            delete_cell(evidence, evidence.columns[place], path, atom.writetime)
            for (place, path), atom in cells.items()
            if atom.writetime is not None
        ]

    async def _purge(self, decision: Decision, evidence: Evidence) -> None:
        copies = _copies(evidence)
        suspects = {n: a for n, a in winners(dict(copies.items())).items() if n in decision.suspects}
        writes = self._deletes(evidence, suspects, whole=whole_row(evidence, decision.suspects))
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


def _expired(atom: Atom, evidence: Evidence) -> bool:
    # A second of margin: an expired cell is absent for its age, not for a tombstone.
    return atom.expires is not None and atom.expires <= evidence.now_us // 1_000_000 + 1
