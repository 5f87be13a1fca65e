"""Whether the other nodes count on a node that does not answer us: not answering us is not being down.

A coordinator judges by its failure detector, on gossip, before it sends a read: at ALL it refuses at once with the
number of replicas that it takes for alive (Unavailable), else every replica has to answer. So a node is asked to read,
at ALL, the one token that ends a range of the silent node, from a table of Cassandra's own: nothing lies there, nothing
is mended by the read, and every version answers it (measured on 4.1 and 5.0: 10 to 80 ms). A shut down node is
dead to the others at once, a killed one after the 10 to 20 s that the failure detector takes.

Where no such read is possible (a node without tokens, no right to read), gossip's heartbeat is looked at twice (5.0):
it advances every second (measured: seen to every 1.0 to 1.4 s on three nodes). One that stands still proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from consistency.cluster.waits import within
from consistency.cluster.wire import ALL, ONE, THREE, TWO
from consistency.errors import ReplicaError, ReplicaRefused, TooFewReplicas, TopologyError
from consistency.model.cqltype import quote_identifier, quote_string
from consistency.model.ring import Node, Replication, Ring

WITHIN_S = 3.0
"""The longest that all of it may take: what is not known then is not known."""
_HEARTBEATS_S = 2.0
_READ_S = 2.0
_ASKED = 3
"""Nodes whose word is asked for: the first of each data centre, then others."""
_READS_A_NODE = 3
_TOKENS_LOOKED_AT = 16
_READS_AT_ONCE = 8
_FIRST = ("system_distributed", "system_traces")
"""Keyspaces that lie on any node and in which no row of anybody's lies."""
_SHUT_DOWN = frozenset({"SHUTDOWN", "HIBERNATE"})


class Asks(Protocol):
    """The part of a connection that is used here."""

    async def select(
        self, node: Node, cql: str, *, consistency: int = ONE, timeout_s: float = 30.0
    ) -> list[Mapping[str, Any]]:
        """Run a query on a system table through `node`."""


async def with_liveness(connection: Asks, ring: Ring) -> Ring:
    """Return the ring with `alive` set for the nodes that do not answer us; costs nothing if all do.

    Up to three nodes are asked; what they do not agree on is not known.
    """
    silent = [node for node in ring.nodes if not node.up]
    asked = _who_to_ask([node for node in ring.nodes if node.up])
    if not silent or not asked:
        return ring
    told = await asyncio.gather(*(liveness(connection, node, silent, ring) for node in asked))
    said = {node: {answers[node] for answers in told} - {None} for node in silent}
    agreed = {node: next(iter(words)) if len(words) == 1 else None for node, words in said.items()}
    return replace(ring, nodes=tuple(replace(n, alive=agreed[n]) if n in agreed else n for n in ring.nodes))


def _who_to_ask(up: Sequence[Node]) -> list[Node]:
    first = {node.dc: node for node in reversed(up)}
    return [*first.values(), *(node for node in up if first[node.dc] != node)][:_ASKED]


async def liveness(connection: Asks, asked: Node, silent: Sequence[Node], ring: Ring) -> Mapping[Node, bool | None]:
    """Return, for nodes that do not answer us, whether `asked` takes them for alive; None if it does not show it.

    It takes three seconds at the most and raises nothing of a node.
    """
    look = _Look(connection, asked, ring, dict.fromkeys(silent))
    with suppress(asyncio.TimeoutError):
        async with within(WITHIN_S):
            await look.run()
    return look.found


@dataclass(frozen=True, slots=True)
class _Place:
    """A table that any coordinator may be asked to read, and how its keyspace is replicated."""

    keyspace: str
    table: str
    key: tuple[str, ...]
    replication: Replication

    def read(self, token: int) -> str:
        """Return the query that reads what lies at one token: by token, as such reads neither speculate nor hint."""
        key = ", ".join(map(quote_identifier, self.key))
        table = f"{quote_identifier(self.keyspace)}.{quote_identifier(self.table)}"
        return f"SELECT {quote_identifier(self.key[0])} FROM {table} WHERE token({key}) = {token} LIMIT 1"

    @property
    def level(self) -> int:
        """All replicas; by their number where it has a level, as guardrails forbid ALL first."""
        return {2: TWO, 3: THREE}.get(sum(rf for _, rf in self.replication.factors), ALL)


@dataclass(slots=True)
class _Look:
    """What one node is asked about the others, and what it said so far."""

    connection: Asks
    asked: Node
    ring: Ring
    found: dict[Node, bool | None]
    _refused: set[str] = field(default_factory=set)
    _counted: list[tuple[tuple[Node, ...], int]] = field(default_factory=list)

    async def run(self) -> None:
        """Read at ALL until every silent node is judged; look at heartbeats for those that are left."""
        with suppress(ReplicaError):
            known = await self._known_to_it()
            async with aclosing(self._places()) as places:
                async for place in places:
                    await self._read_all(place, known)
                    if not self._left:
                        return
        with suppress(ReplicaError):
            await self._by_heartbeat()

    @property
    def _left(self) -> list[Node]:
        return [node for node, alive in self.found.items() if alive is None]

    async def _known_to_it(self) -> frozenset[str]:
        """Return the nodes that it exchanges messages with, by `address:port` between nodes.

        A row of its system.peers may be a ghost's: a read that succeeds says nothing of one that it never met.
        """
        try:
            rows = await self._select("SELECT address, port FROM system_views.internode_outbound")
        except ReplicaError:
            return frozenset()
        return frozenset(f"{row['address']}:{row['port']}" for row in rows)

    async def _select(self, cql: str) -> list[Mapping[str, Any]]:
        return await self.connection.select(self.asked, cql, timeout_s=_READ_S)

    async def _places(self) -> AsyncGenerator[_Place, None]:
        """Yield a table of each keyspace, those of Cassandra's own first."""
        rows = await self._select("SELECT keyspace_name, replication FROM system_schema.keyspaces")
        spaces = {row["keyspace_name"]: dict(row["replication"]) for row in rows}
        for name in sorted(spaces, key=lambda name: (name not in _FIRST, name)):
            try:
                replication = Replication.parse(spaces[name])
            except TopologyError:
                continue
            if replication.replicated and not replication.transient:
                where = quote_string(name)
                columns = await self._select(
                    "SELECT table_name, column_name, kind, position FROM system_schema.columns"
                    f" WHERE keyspace_name = {where}"
                )
                for table in sorted({column["table_name"] for column in columns})[:1]:
                    key = sorted(
                        (c["position"], c["column_name"])
                        for c in columns
                        if c["table_name"] == table and c["kind"] == "partition_key"
                    )
                    yield _Place(name, table, tuple(column for _, column in key), replication)

    async def _read_all(self, place: _Place, known: frozenset[str]) -> None:
        """Judge the nodes that are left by reads of this table, a few at a time."""
        at_once = asyncio.Semaphore(_READS_AT_ONCE)

        async def judge(node: Node) -> None:
            async with at_once:
                for token in self._tokens(node, place):
                    if self.found[node] is None and place.keyspace not in self._refused:
                        await self._read(place, token, known)

        await asyncio.gather(*(judge(node) for node in self._left))

    def _tokens(self, node: Node, place: _Place) -> Iterator[int]:
        """Yield the node's tokens whose replicas are the fewest silent ones: a refusal counts, and does not name."""
        holders = {token: self.ring.replicas_of(token, place.replication) for token in node.owned[:_TOKENS_LOOKED_AT]}
        mine = [token for token, replicas in holders.items() if node in replicas]
        yield from sorted(mine, key=lambda token: sum(n in self.found for n in holders[token]))[:_READS_A_NODE]

    async def _read(self, place: _Place, token: int, known: frozenset[str]) -> None:
        replicas = self.ring.replicas_of(token, place.replication)
        try:
            await self.connection.select(self.asked, place.read(token), consistency=place.level, timeout_s=_READ_S)
            dead = 0
        except TooFewReplicas as refusal:
            dead = len(replicas) - refusal.alive
        except ReplicaRefused:
            self._refused.add(place.keyspace)
            return
        except ReplicaError:
            return  # it is sent to all, and one of them is slow or just gone: that is not known
        self._counted.append((replicas, dead))
        self._conclude(known)

    def _conclude(self, known: frozenset[str]) -> None:
        """Draw what follows from all counts together: what is learned of one node may tell of its neighbours."""
        before = -1
        while before != len(self._left):
            before = len(self._left)
            for replicas, dead in self._counted:
                open_ = [node for node in replicas if node in self.found and self.found[node] is None]
                rest = dead - sum(self.found.get(node) is False for node in replicas)
                if rest == 0:
                    self.found.update((node, True) for node in open_ if node.broadcast in known)
                elif rest == len(open_):
                    self.found.update((node, False) for node in open_)

    async def _by_heartbeat(self) -> None:
        """Judge the nodes that are left by gossip's heartbeat, if the server shows it."""
        before = await self._heartbeats()
        shut = {n: False for n in self._left if before.get(n.broadcast, (0, ""))[1] in _SHUT_DOWN}
        self.found.update(shut)
        deadline = asyncio.get_running_loop().time() + _HEARTBEATS_S
        while self._left and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.25)
            now = await self._heartbeats()
            for node in self._left:
                if now.get(node.broadcast, (0, ""))[0] > before.get(node.broadcast, (2**31, ""))[0]:
                    self.found[node] = True

    async def _heartbeats(self) -> Mapping[str, tuple[int, str]]:
        """Return heartbeat and state of each node, by `address:port` between nodes."""
        rows = await self._select(
            "SELECT address, port, heartbeat, status, status_with_port FROM system_views.gossip_info"
        )
        return {
            f"{row['address']}:{row['port']}": (
                int(row["heartbeat"] or 0),
                (row["status_with_port"] or row["status"] or "").split(",")[0].upper(),
            )
            for row in rows
        }
