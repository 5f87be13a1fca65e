"""Which replicas hide a delete, found out before anything is written that could be seen.

CQL shows no tombstone: a write-back learns of a delete by a cell that it wrote and that does not show. Were the cell
written to several replicas at once, it would show on those that know of no delete, and stay there where a server
refuses to take it away again. So a stand-in goes ahead of it: the cell a microsecond older, and expired an hour ago.
No read of now shows that, the cell itself wins over it, and it hides nothing, as the replica shows no version of the
cell. A read as of an hour ago shows it, but where a delete covers it: that replica is written to first, alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from consistency.cluster.port import ReplicaReader
from consistency.model.reading import RowState
from consistency.model.ring import Node
from consistency.model.servertime import ServerTime
from consistency.rows.cells import Atom, AtomName, atoms
from consistency.rows.evidence import Evidence, read_evidence
from repair.writing.statements import put_row, write_cells
from repair.writing.writer import RowWriter

Cells = Mapping[AtomName, Atom]

_AGO_S = 3600
"""How long ago a stand-in expired: longer than any server's clock may be behind."""
_OLDEST_US = -(2**63) + 1
"""The oldest write time that a server takes."""


class HiddenDeletes:
    """Asks replicas that take writes by themselves; through a coordinator a stand-in would save nothing."""

    def __init__(self, reader: ReplicaReader, writer: RowWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def suspected(
        self, evidence: Evidence, lacking: Mapping[Node, Cells], asked: Collection[Node]
    ) -> dict[Node, Cells]:
        """Return the cells that replicas seem to hide; that one does is proven by the cell itself alone.

        `lacking` is what is to be written; `asked` may be written to by itself. What one replica alone lacks needs no
        stand-in: there is no other on which it could show meanwhile.
        """
        lackers = Counter(name for cells in lacking.values() for name in cells)
        doubtful = {
            node: {
                name: atom
                for name, atom in lacking[node].items()
                if lackers[name] > 1 and name not in evidence.copies[node] and _has_a_time_before(atom)
            }
            for node in asked
        }
        doubtful = {node: cells for node, cells in doubtful.items() if cells}
        past = _an_hour_ago(evidence)
        for node, cells in doubtful.items():
            for write in write_cells(past, {name: _stand_in(atom, past) for name, atom in cells.items()}):
                await self._writer.on(node, write)
        found: dict[Node, Cells] = {}
        for node, state in (await self._read(past, list(doubtful))).items():
            shown = atoms(evidence.columns, state)
            hidden = {n: a for n, a in doubtful[node].items() if not _shows(shown.get(n), a)}
            if hidden:
                found[node] = hidden
        return found

    async def rows_suspected(self, evidence: Evidence, absent: Sequence[Node], time_us: int) -> list[Node]:
        """Return which replicas that lack a row seem to hide its marker of this write time."""
        past = _an_hour_ago(evidence)
        for node in absent:
            await self._writer.on(node, put_row(past, (), time_us - 1, _expiry(past)))
        return [node for node, state in (await self._read(past, absent)).items() if state is None]

    async def _read(self, past: Evidence, nodes: Sequence[Node]) -> dict[Node, RowState | None]:
        """Read as of an hour ago; a replica that does not answer shows nothing."""
        if not nodes:
            return {}
        (found,) = await read_evidence(self._reader, past.reading, [past.name], nodes, past.when)
        return {node: found.states.get(node) for node in nodes}


def _an_hour_ago(evidence: Evidence) -> Evidence:
    """Return the evidence with the instant as of which stand-ins are written and read."""
    then_s = evidence.when.earliest_us // 1_000_000 - _AGO_S
    return replace(evidence, when=ServerTime.exactly(then_s * 1_000_000))


def _expiry(past: Evidence) -> int:
    return past.when.expiry_s + 1


def _has_a_time_before(atom: Atom) -> bool:
    return atom.writetime is not None and atom.writetime > _OLDEST_US


def _stand_in(atom: Atom, past: Evidence) -> Atom:
    return Atom(atom.value, (atom.writetime or 0) - 1, _expiry(past))


def _shows(shown: Atom | None, atom: Atom) -> bool:
    return shown is not None and shown.writetime == (atom.writetime or 0) - 1
