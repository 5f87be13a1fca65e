"""Evidence: what every owning replica holds of one row, read now, without side effects.

Each replica is asked alone (NODE_LOCAL, or traced LOCAL_ONE), so no read can trigger the server's read
repair and bring back what must stay dead.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from consistency.cluster.driver import murmur3
from consistency.cluster.guardrails import Guardrails
from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import UsageError
from consistency.model.ownership import DISPUTED, disputed_ranges, lies_in
from consistency.model.reading import Cell, CellColumn, Depth, Locality, Reading, RowState, Times
from consistency.model.ring import Node, Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.servertime import ServerTime
from consistency.model.tokens import TokenRange
from consistency.rows.merge_join import RowName
from consistency.rows.read import read_states
from repair.atoms import Atom, AtomName, atoms, respelled
from repair.reach import Reach, reach

States = Mapping[Node, RowState | None]


@dataclass(frozen=True, slots=True)
class RowRef:
    """Which row: table, token and the serialized key, column by column, as the findings file has it.

    `key` is the same as people read it, empty where nobody told; what is acted on is `key_hex`.
    """

    keyspace: str
    table: str
    token: int
    key_hex: Mapping[str, str]
    key: Mapping[str, object] = field(default_factory=dict, compare=False)

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"


@dataclass(frozen=True)
class Evidence:
    """One row on all its owners at one instant; `unread` are owners that did not answer, with the reason."""

    reading: Reading
    name: RowName
    owners: tuple[Node, ...]
    states: States
    unread: Mapping[Node, str] = field(default_factory=dict)
    when: ServerTime = field(default_factory=lambda: ServerTime.exactly(0))
    """The one instant at which it was read and is decided about."""
    guarded: Mapping[Node, Guardrails] = field(default_factory=dict)
    """What the nodes, as coordinators, forbid our role."""
    alone: bool = True
    """Whether each replica that was read can be written to by itself (NODE_LOCAL)."""
    reach: Reach = field(default_factory=Reach)
    """Which requests through a coordinator can be answered."""

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
    def copies(self) -> Mapping[Node, Mapping[AtomName, Atom]]:
        """Every live cell of each copy; a row of many thousand elements is taken apart once."""
        apart = {state: atoms(self.columns, state) for state in set(self.states.values())}
        return {node: apart[state] for node, state in self.states.items()}

    @property
    def quorum(self) -> int:
        """How many replicas make a quorum over all data centres."""
        return len(self.owners) // 2 + 1

    @property
    def agreed(self) -> bool:
        """Whether all replicas that were read hold the same."""
        return len(set(self.states.values())) <= 1

    @property
    def respelled(self) -> bool:
        """Whether copies hold the key, or an element of a collection, in different bytes that are one to Cassandra."""
        held = [state for state in self.states.values() if state is not None]
        return len({state.spelling for state in held}) > 1 or respelled(self.columns, held)

    @property
    def newest_us(self) -> int | None:
        """The newest write time of any copy."""
        held = (s.newest_us for s in self.states.values() if s is not None)
        return max((t for t in held if t is not None), default=None)

    def by_dc(self) -> dict[str, tuple[int, int]]:
        """Return, by data centre, how many of its replicas were read and how many there are."""
        out: dict[str, tuple[int, int]] = {}
        for node in self.owners:
            read, total = out.get(node.dc, (0, 0))
            out[node.dc] = (read + (node in self.states), total + 1)
        return out

    def seen(self, salt: str) -> dict[str, str]:
        """Return a keyed digest of each copy by host id: tells changed from unchanged, holds no value."""
        return {node.host_id: state_digest(state, salt) for node, state in self.states.items()}


class EvidenceReader:
    """Reads rows by reference, against one snapshot of ring and schema."""

    def __init__(self, reader: ClusterReader, clock: Clock, ring: Ring, schema: Mapping[str, Keyspace]) -> None:
        self._reader = reader
        self._clock = clock
        self.ring = ring
        self._schema = schema
        self._disputed: dict[Replication, tuple[TokenRange, ...]] = {}
        self._guarded: dict[str, asyncio.Task[Mapping[Node, Guardrails]]] = {}

    @classmethod
    async def open(cls, reader: ClusterReader, clock: Clock) -> EvidenceReader:
        """Take the snapshot."""
        return cls(reader, clock, await reader.ring(), await reader.schema())

    def table(self, ref: RowRef) -> Table:
        """Return the row's table as it is now."""
        return self._keyspace(ref).tables[ref.table]

    def together(self, ref: RowRef) -> tuple[object, ...]:
        """Return what to sort rows by, so that those which one request can read come one after another.

        Rows of one table, one set of owners and one clustering key, in ring order.
        """
        owners = self.ring.replicas_of(ref.token, self._keyspace(ref).replication)
        clustering = tuple(ref.key_hex.get(column.name, "") for column in self.table(ref).clustering)
        return (ref.full_name, tuple(node.host_id for node in owners), clustering, ref.token)

    def fingerprint(self, ref: RowRef) -> str:
        """Name what a plan rests on of the row's table."""
        return fingerprint(self._keyspace(ref), self.table(ref))

    def base_of(self, ref: RowRef) -> RowRef | None:
        """Return the row of its table that a materialized view's row was made from; None of any other row."""
        view, keyspace = self.table(ref), self._keyspace(ref)
        base = keyspace.tables.get(view.view_of or "")
        if base is None or not all(column.name in ref.key_hex for column in base.primary_key):
            return None
        key_hex = {column.name: ref.key_hex[column.name] for column in base.primary_key}
        token = token_of([bytes.fromhex(key_hex[column.name]) for column in base.partition_key])
        return RowRef(ref.keyspace, base.name, token, key_hex)

    def reach(self, ref: RowRef) -> Reach:
        """Say which requests through a coordinator can be answered of a row."""
        keyspace = self._keyspace(ref)
        return reach(keyspace, len(self.ring.replicas_of(ref.token, keyspace.replication)))

    def _keyspace(self, ref: RowRef) -> Keyspace:
        keyspace = self._schema.get(ref.keyspace)
        if keyspace is None or ref.table not in keyspace.tables or not keyspace.replication.replicated:
            msg = f"cluster {self.ring.cluster!r} has no replicated table {ref.full_name}; run the check again"
            raise UsageError(msg)
        return keyspace

    async def read(self, ref: RowRef) -> Evidence:
        """Read the row on every owner at one instant."""
        (evidence,) = await self.read_many([ref])
        return evidence

    async def read_many(self, refs: Sequence[RowRef]) -> list[Evidence]:
        """Read rows on all their owners at one instant; in the order of `refs`."""
        when = self._clock.server_time()
        alike: dict[tuple[str, tuple[Node, ...], bool], list[int]] = defaultdict(list)
        for number, ref in enumerate(refs):
            owners = self.ring.replicas_of(ref.token, self._keyspace(ref).replication)
            alike[ref.full_name, owners, self._is_disputed(ref)].append(number)
        groups = list(alike.items())
        read = await asyncio.gather(
            *(
                self._read_alike([refs[n] for n in numbers], owners, when, disputed=disputed)
                for (_, owners, disputed), numbers in groups
            )
        )
        found = {
            n: e for (_, numbers), some in zip(groups, read, strict=True) for n, e in zip(numbers, some, strict=True)
        }
        return [found[number] for number in range(len(refs))]

    def _is_disputed(self, ref: RowRef) -> bool:
        """Whether the nodes disagree on who owns a row: then no majority of its owners can be told."""
        replication = self._keyspace(ref).replication
        if self.ring.disputed and replication not in self._disputed:
            self._disputed[replication] = disputed_ranges(self.ring, replication)
        return lies_in(ref.token, self._disputed.get(replication, ()))

    async def _read_alike(
        self, refs: Sequence[RowRef], owners: tuple[Node, ...], when: ServerTime, *, disputed: bool
    ) -> list[Evidence]:
        """Read rows of one table and one set of owners; of disputed ones nothing is read."""
        table = self.table(refs[0])
        reading = Reading(table, Depth.CONTENT, self._reader.capabilities)
        names = [row_name(table, ref) for ref in refs]
        if disputed:
            return [Evidence(reading, name, owners, {}, dict.fromkeys(owners, DISPUTED), when) for name in names]
        read = await read_states(self._reader, reading, names, owners, when.expiry_s)
        guarded = await self._guardrails(table)
        reached = self.reach(refs[0])
        return [
            Evidence(
                reading,
                name,
                owners,
                states,
                {node: reason.removeprefix(f"{node}: ") for node, reason in unread.items()},
                when,
                guarded,
                all(self._reader.locality(node) is Locality.NODE_LOCAL for node in states),
                reached,
            )
            for name, (states, unread) in zip(names, read, strict=True)
        ]

    async def _guardrails(self, table: Table) -> Mapping[Node, Guardrails]:
        """Ask once a table: the servers are not asked before every row what they forbid."""
        if table.full_name not in self._guarded:
            self._guarded[table.full_name] = asyncio.ensure_future(self._reader.guardrails(table))
        return await asyncio.shield(self._guarded[table.full_name])


def row_name(table: Table, ref: RowRef) -> RowName:
    """Address the row by the server's own bytes; a key without clustering columns names the static row."""
    partition = [c.name for c in table.partition_key]
    static = bool(table.statics) and set(ref.key_hex) == set(partition)
    wanted = partition if static else [c.name for c in table.primary_key]
    if set(ref.key_hex) != set(wanted):
        msg = f"{table.full_name} has another primary key than when it was checked; run the check again"
        raise UsageError(msg)
    key = tuple(bytes.fromhex(ref.key_hex[n]) for n in wanted)
    if token_of(key[: len(partition)]) != ref.token:
        msg = f"a row of {table.full_name} has another token than its key's: the file was changed; run the check again"
        raise UsageError(msg)
    return RowName(ref.token, key, static)


def token_of(partition_key: Sequence[bytes]) -> int:
    """Return the token of a partition key's serialized columns."""
    if len(partition_key) == 1:
        return murmur3(partition_key[0])
    return murmur3(b"".join(len(part).to_bytes(2, "big") + part + b"\0" for part in partition_key))


def fingerprint(keyspace: Keyspace, table: Table) -> str:
    """Name what a plan rests on of a table: its definition, and where its rows are kept."""
    text = f"{table.fingerprint} {keyspace.replication}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def state_digest(state: RowState | None, salt: str) -> str:
    """Digest one copy."""
    text = json.dumps(state_json(state), separators=(",", ":"))
    return hashlib.blake2b(text.encode(), key=salt.encode(), digest_size=16).hexdigest()


def state_json(state: RowState | None) -> list[Any] | None:
    """Return one copy as JSON: values in hex, write times, expiries."""
    if state is None:
        return None
    return [[None if c.value is None else c.value.hex(), _list(c.writetimes), _list(c.expires)] for c in state.cells]


def state_from_json(data: list[Any] | None) -> RowState | None:
    """Read what `state_json` wrote."""
    if data is None:
        return None
    return RowState(tuple(Cell(None if v is None else bytes.fromhex(v), _times(w), _times(e)) for v, w, e in data))


def _list(times: Times) -> Any:
    return list(times) if isinstance(times, tuple) else times


def _times(data: Any) -> Times:
    return tuple(data) if isinstance(data, list) else data
