"""A case: the evidence of one row, and what the servers let a repair do about it.

A keyspace may ask for more replicas than exist: a coordinator counts what the options ask for, also of a data center
without a node, and refuses a level that it has too few live replicas for (Unavailable). That is foreseen here, as it
is the same for every row and every day.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from consistency.cluster.by_token import token_of
from consistency.cluster.guardrails import Guardrails
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.table_reader import TableReader
from consistency.errors import UsageError
from consistency.model.reading import Locality, Route
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.servertime import ServerTime
from consistency.results.figures import counted
from consistency.rows.evidence import Evidence, EvidenceReader
from consistency.rows.merge_join import Difference
from consistency.rows.names import RowName, RowRef
from consistency.rows.read import States


@dataclass(frozen=True, slots=True)
class Reach:
    """Why no request at ALL can be answered, with the way out; empty if one can."""

    not_at_all: str = ""


def reach(keyspace: Keyspace, exist: int) -> Reach:
    """Say what can be asked of rows that `exist` nodes hold."""
    asked = keyspace.replication.asked
    if asked <= exist:
        return Reach()
    places = ", ".join(f"{dc} {rf}" for dc, rf in keyspace.replication.factors if dc and rf)
    named = f" ({places})" if places else ""
    return Reach(
        f"keyspace {keyspace.name} needs {counted(asked, 'replica')} of each row{named},"
        f" {counted(exist, 'node exists', 'nodes exist')} to hold them: lower its replication factor, as consistency"
        f" audit {keyspace.name} says"
    )


@dataclass(frozen=True)
class Case(Evidence):
    """The evidence of one row, and what the servers let a repair do about it."""

    guarded: Mapping[Node, Guardrails] = field(default_factory=dict)
    """What the nodes, as coordinators, forbid our role."""
    alone: bool = True
    """Whether each replica that was read can be written to by itself (NODE_LOCAL)."""
    reach: Reach = field(default_factory=Reach)
    """Which requests through a coordinator can be answered."""


class CaseReader(EvidenceReader):
    """Reads cases by reference, against one snapshot of ring and schema."""

    def __init__(self, reader: ClusterReader, clock: Clock, ring: Ring, schema: Mapping[str, Keyspace]) -> None:
        super().__init__(reader, clock, ring, schema)
        self._guarded: dict[str, asyncio.Task[Mapping[Node, Guardrails]]] = {}

    def fingerprint(self, ref: RowRef) -> str:
        """Name what a plan rests on of the row's table."""
        return fingerprint(self.keyspace(ref), self.table(ref))

    def reach(self, ref: RowRef) -> Reach:
        """Say which requests through a coordinator can be answered of a row."""
        return reach(self.keyspace(ref), len(self.owners(ref)))

    def base_of(self, ref: RowRef) -> RowRef | None:
        """Return the row of its table that a materialized view's row was made from; None of any other row."""
        view = self.table(ref)
        base = self.keyspace(ref).tables.get(view.view_of or "")
        if base is None or not all(column.name in ref.key_hex for column in base.primary_key):
            return None
        key_hex = {column.name: ref.key_hex[column.name] for column in base.primary_key}
        token = token_of(tuple(bytes.fromhex(key_hex[column.name]) for column in base.partition_key))
        return RowRef(ref.keyspace, base.name, token, key_hex)

    async def read(self, ref: RowRef) -> Case:
        """Read the row on every owner at one instant."""
        (case,) = await self.read_many([ref])
        return case

    async def read_many(self, refs: Sequence[RowRef]) -> Sequence[Case]:
        """Read rows on all their owners at one instant; in the order of `refs`."""
        return [await self._case(ref, seen) for ref, seen in zip(refs, await super().read_many(refs), strict=True)]

    def table_reader(self, ref: RowRef) -> TableReader:
        """Return what reads ranges of the row's table: all of every row, as evidence needs it."""
        return TableReader(self._reader, self.reading(ref), Route.CLIENT, self._clock)

    async def cases_of_range(
        self, place: RowRef, found: AsyncIterator[Difference], when: ServerTime
    ) -> AsyncIterator[Case]:
        """Yield the case of each row of one range on which its replicas differ; `place` stands for any of its rows."""
        case = await self.cases_at(place, when)
        async for difference in found:
            yield case(difference.name, difference.states)

    async def cases_at(self, place: RowRef, when: ServerTime) -> Callable[[RowName, States], Case]:
        """Return what makes cases of rows that were read on all replicas of a range; `place` stands for any of them."""
        reading, owners = self.table_reader(place).reading, self.owners(place)
        alone, guarded = self._alone(owners), await self.guardrails(reading.table)
        reached = self.reach(place)

        def case(name: RowName, states: States) -> Case:
            return Case(reading, name, owners, states, {}, when, guarded, alone, reached)

        return case

    async def _case(self, ref: RowRef, seen: Evidence) -> Case:
        _require_own_token(seen)
        read = (seen.reading, seen.name, seen.owners, seen.states, seen.unread, seen.when)
        if not seen.states:
            return Case(*read)  # nothing can be done about it
        reached = reach(self.keyspace(ref), len(seen.owners))
        return Case(*read, await self.guardrails(seen.table), self._alone(seen.states), reached)

    def _alone(self, nodes: Iterable[Node]) -> bool:
        return all(self._reader.locality(node) is Locality.NODE_LOCAL for node in nodes)

    async def guardrails(self, table: Table) -> Mapping[Node, Guardrails]:
        """Ask once a table what the nodes forbid: the servers are not asked before every row."""
        if table.full_name not in self._guarded:
            self._guarded[table.full_name] = asyncio.ensure_future(self._reader.guardrails(table))
        return await asyncio.shield(self._guarded[table.full_name])


def _require_own_token(seen: Evidence) -> None:
    """Refuse a row whose token is not its key's: other nodes than its owners were asked, and lack it."""
    name = seen.table.full_name
    if token_of(seen.name.key[: len(seen.table.partition_key)]) != seen.name.token:
        msg = f"a row of {name} has another token than its key's: the file was changed; run the check again"
        raise UsageError(msg)


def fingerprint(keyspace: Keyspace, table: Table) -> str:
    """Name what a plan rests on of a table: its definition, and where its rows are kept."""
    text = f"{table.fingerprint} {keyspace.replication}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
