"""Evidence: what every owning replica holds of one row, read at one instant, without side effects.

Each replica is asked alone (NODE_LOCAL, or traced LOCAL_ONE), so no read can trigger the server's read
repair and bring back what must stay dead. CQL shows no tombstones: of a delete only what is absent is evidence.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from typing_extensions import Self

from consistency.cluster.port import Clock, ClusterReader, ReplicaReader
from consistency.errors import UsageError
from consistency.model.ownership import DISPUTED, disputed_ranges, lies_in
from consistency.model.reading import CellColumn, Depth, Reading, RowState
from consistency.model.ring import Node, Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.servertime import ServerTime
from consistency.model.tokens import TokenRange
from consistency.rows.cells import Atom, AtomName, atoms, respelled
from consistency.rows.names import RowName, RowRef, row_name
from consistency.rows.read import States, read_states


@dataclass(frozen=True)
class Evidence:
    """One row on all its owners at one instant.

    `states` holds the owners that were read, None if there is no such row: each cell with its value, write times
    and expiries. `unread` are those that did not answer, with the reason.
    """

    reading: Reading
    name: RowName
    owners: tuple[Node, ...]
    states: States
    unread: Mapping[Node, str] = field(default_factory=dict)
    when: ServerTime = field(default_factory=lambda: ServerTime.exactly(0))
    """The one instant at which it was read and is judged."""

    @property
    def now_us(self) -> int:
        """The instant in microseconds since the epoch, by the most advanced of the servers' clocks."""
        return self.when.latest_us

    @property
    def table(self) -> Table:
        """The table read."""
        return self.reading.table

    @property
    def columns(self) -> tuple[CellColumn, ...]:
        """The columns in the order of every state's cells."""
        return self.reading.statics if self.name.static else self.reading.regulars

    @cached_property
    def present(self) -> Mapping[Node, RowState]:
        """The copies of the replicas that hold the row."""
        return {node: state for node, state in self.states.items() if state is not None}

    @cached_property
    def copies(self) -> Mapping[Node, Mapping[AtomName, Atom]]:
        """Every live cell of each copy; a row of many thousand elements is taken apart once."""
        apart: list[tuple[RowState | None, Mapping[AtomName, Atom]]] = []
        found: dict[Node, Mapping[AtomName, Atom]] = {}
        for node, state in self.states.items():
            held = next((cells for other, cells in apart if other == state), None)
            if held is None:
                held = atoms(self.columns, state)
                apart.append((state, held))
            found[node] = held
        return found

    @property
    def quorum(self) -> int:
        """How many replicas make a quorum over all data centres."""
        return len(self.owners) // 2 + 1

    @property
    def agreed(self) -> bool:
        """Whether all replicas that were read hold the same."""
        first, *others = self.states.values() or (None,)
        return all(state == first for state in others)

    @property
    def key_respelled(self) -> bool:
        """Whether copies hold the key in different bytes that are one to Cassandra."""
        return len({state.spelling for state in self.present.values()}) > 1

    @property
    def respelled(self) -> bool:
        """Whether copies hold the key, or an element of a collection, in different bytes that are one to Cassandra."""
        return self.key_respelled or respelled(self.columns, self.present.values())

    @property
    def newest_us(self) -> int | None:
        """The newest write time of any copy."""
        return max((s.newest_us for s in self.present.values() if s.newest_us is not None), default=None)

    @property
    def why_unread(self) -> str:
        """The first replica that was not read, and why; empty if all were."""
        return next((f"{node}: {reason}" for node, reason in self.unread.items()), "")

    def by_dc(self) -> dict[str, tuple[int, int]]:
        """Return, by data centre, how many of its replicas were read and how many there are."""
        out: dict[str, tuple[int, int]] = {}
        for node in self.owners:
            read, total = out.get(node.dc, (0, 0))
            out[node.dc] = (read + (node in self.states), total + 1)
        return out


async def read_evidence(
    reader: ReplicaReader, reading: Reading, names: Sequence[RowName], nodes: Sequence[Node], when: ServerTime
) -> list[Evidence]:
    """Read rows of one table on the nodes that own them, all at one instant; in the order of `names`."""
    read = await read_states(reader, reading, names, nodes, when.expiry_s)
    return [
        Evidence(reading, name, tuple(nodes), states, unread, when)
        for name, (states, unread) in zip(names, read, strict=True)
    ]


ReaderT = TypeVar("ReaderT", bound="EvidenceReader")


class EvidenceReader:
    """Reads rows by reference, against one snapshot of ring and schema."""

    def __init__(self, reader: ClusterReader, clock: Clock, ring: Ring, schema: Mapping[str, Keyspace]) -> None:
        self._reader = reader
        self._clock = clock
        self.ring = ring
        self._schema = schema
        self._disputed: dict[Replication, tuple[TokenRange, ...]] = {}

    @classmethod
    async def open(cls, reader: ClusterReader, clock: Clock) -> Self:
        """Take the snapshot."""
        return cls(reader, clock, await reader.ring(), await reader.schema())

    def keyspace(self, ref: RowRef) -> Keyspace:
        """Return the row's keyspace as it is now."""
        keyspace = self._schema.get(ref.keyspace)
        if keyspace is None or ref.table not in keyspace.tables:
            what = f"keyspace {ref.keyspace}" if keyspace is None else f"table {ref.full_name}"
            msg = f"cluster {self.ring.cluster!r} has no {what}: it was dropped, or the findings are another cluster's"
            raise UsageError(msg)
        if not keyspace.replication.replicated:
            msg = f"keyspace {ref.keyspace} is no longer replicated; run the check again"
            raise UsageError(msg)
        return keyspace

    def table(self, ref: RowRef) -> Table:
        """Return the row's table as it is now."""
        return self.keyspace(ref).tables[ref.table]

    def owners(self, ref: RowRef) -> tuple[Node, ...]:
        """Return the nodes that own the row."""
        return self.ring.replicas_of(ref.token, self.keyspace(ref).replication)

    def together(self, ref: RowRef) -> tuple[object, ...]:
        """Return what to sort rows by, so that those which one request can read come one after another.

        Rows of one table, one set of owners and one clustering key, in ring order.
        """
        clustering = tuple(ref.key_hex.get(column.name, "") for column in self.table(ref).clustering)
        return (ref.full_name, tuple(node.host_id for node in self.owners(ref)), clustering, ref.token)

    async def read(self, ref: RowRef) -> Evidence:
        """Read the row on every owner at one instant."""
        (evidence,) = await self.read_many([ref])
        return evidence

    async def read_many(self, refs: Sequence[RowRef]) -> Sequence[Evidence]:
        """Read rows on all their owners at one instant; in the order of `refs`."""
        when = self._clock.server_time()
        alike: dict[tuple[str, tuple[Node, ...], bool], list[int]] = defaultdict(list)
        for number, ref in enumerate(refs):
            alike[ref.full_name, self.owners(ref), self._is_disputed(ref)].append(number)
        groups = [(owners, disputed, numbers) for (_, owners, disputed), numbers in alike.items()]
        read = await asyncio.gather(
            *(
                self._read_alike([refs[n] for n in numbers], owners, when, disputed=disputed)
                for owners, disputed, numbers in groups
            )
        )
        found: dict[int, Evidence] = {}
        for (_, _, numbers), some in zip(groups, read, strict=True):
            found.update(zip(numbers, some, strict=True))
        return [found[number] for number in range(len(refs))]

    def reading(self, ref: RowRef) -> Reading:
        """Return how the row's table is read as evidence: all of every row."""
        return Reading(self.table(ref), Depth.CONTENT, self._reader.capabilities)

    def evidence_at(self, place: RowRef) -> Callable[[RowName, States], Evidence]:
        """Return what makes evidence of rows that all owners of a range are asked for from now on.

        `place` stands for any of them.
        """
        reading, owners, when = self.reading(place), self.owners(place), self._clock.server_time()

        def evidence(name: RowName, states: States) -> Evidence:
            return Evidence(reading, name, owners, states, {}, when)

        return evidence

    def _is_disputed(self, ref: RowRef) -> bool:
        """Whether the nodes disagree on who owns a row: then no majority of its owners can be told."""
        replication = self.keyspace(ref).replication
        if self.ring.disputed and replication not in self._disputed:
            self._disputed[replication] = disputed_ranges(self.ring, replication)
        return lies_in(ref.token, self._disputed.get(replication, ()))

    async def _read_alike(
        self, refs: Sequence[RowRef], owners: tuple[Node, ...], when: ServerTime, *, disputed: bool
    ) -> list[Evidence]:
        """Read rows of one table and one set of owners; of disputed ones nothing is read."""
        reading = self.reading(refs[0])
        names = [row_name(reading.table, ref) for ref in refs]
        if disputed:
            return [Evidence(reading, name, owners, {}, dict.fromkeys(owners, DISPUTED), when) for name in names]
        return await read_evidence(self._reader, reading, names, owners, when)
