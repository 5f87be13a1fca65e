"""Read how every reachable node describes the ring and the schema, from its own system tables."""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from consistency.cluster.agreement import agree
from consistency.cluster.connection import Connection, stand_in
from consistency.cluster.silence import silence, unheard_of
from consistency.cluster.views import Claim, View
from consistency.cluster.wire import INT, Statement
from consistency.errors import ReplicaError, TopologyError
from consistency.model.reading import RawRow
from consistency.model.ring import Doubt, Node, Ring, Silence
from consistency.model.schema import SchemaRows

_TIMEOUT_S = 10.0
"""For a few rows that the node itself holds: one that takes longer is silent, and goes without a say."""
_AGAIN_S = 3.0
"""For a node that did not answer the last time either."""
_LOOKS = 3
_BETWEEN_LOOKS_S = 0.7
"""Nodes learn of a change one after the other: what they disagree on is looked at again before it is believed."""
_OWN = (
    "SELECT host_id, broadcast_address, broadcast_port, data_center, rack, tokens, rpc_address, rpc_port,"
    " release_version, cluster_name, partitioner, schema_version FROM system.local"
)
_PEERS = (
    "SELECT host_id, peer, peer_port, data_center, rack, tokens, native_address, native_port, release_version"
    " FROM system.peers_v2"
)
_DROPPED = "keyspace_name, table_name, column_name, CAST(dropped_time AS text) AS dropped_time"
"""As text: of a column that a server itself has dropped it is further away than a client can tell."""
_PAGE_ROWS = 500


class Describer:
    """Asks all nodes for the ring, again and again; what was understood once is not taken apart a second time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._claims: dict[RawRow, Claim] = {}
        self._members: tuple[str, ...] = ()
        self._cluster = ""
        self._silent: frozenset[str] = frozenset()
        self._lasting: frozenset[Doubt] = frozenset()
        """What was doubted after every look of the last time: that is not waited for again."""

    async def ring(self) -> Ring:
        """Return the ring that all nodes agree on that answer; TopologyError if none does."""
        for look in range(_LOOKS):
            ring = await self._look()
            if self._lasting.issuperset(ring.doubts) or look == _LOOKS - 1:
                break
            await asyncio.sleep(_BETWEEN_LOOKS_S)
        self._lasting = frozenset(ring.doubts)
        return ring

    @property
    def schemas_differ(self) -> bool:
        """Whether nodes had several schemas for as long as was waited."""
        return any(doubt.kind == "schema_disagreement" for doubt in self._lasting)

    async def _look(self) -> Ring:
        """Ask the nodes that are known, then those that they name, until nobody names another one."""
        views: dict[str, View] = {}
        silences: dict[str, Silence] = {}
        if not self._connection.reached:
            await self._connection.meet()
        asking = [stand_in(host_id) for host_id in dict.fromkeys((*self._connection.reached, *self._members))]
        while asking:
            answers = await asyncio.gather(*(self._view(node) for node in asking), return_exceptions=True)
            for node, answer in zip(asking, answers, strict=True):
                if isinstance(answer, View):
                    views[node.host_id] = answer
                elif isinstance(answer, ReplicaError):
                    silences[node.host_id] = Silence(answer.reason, silence(answer).way_out)
                else:
                    raise answer
            self._leave_others_out(views, silences)
            self._hear(views.values())
            asking = _named(views, silences)
        self._silent = frozenset(silences)
        if not views:
            msg = f"no node would describe the ring: {next(iter(silences.values()), 'none answers')}"
            raise TopologyError(msg)
        places = {host_id: place for host_id in views if (place := self._connection.place_of(host_id)) is not None}
        ring = agree(views, silences, places)
        self._members = tuple(node.host_id for node in ring.nodes)
        return replace(ring, schema_versions={host_id: view.schema_version for host_id, view in views.items()})

    def _leave_others_out(self, views: dict[str, View], silences: dict[str, Silence]) -> None:
        """Take no word of a node of another cluster, which an address may lead to that was used again."""
        if not self._cluster:
            told = {view.cluster: host_id for host_id, view in views.items()}
            if len(told) > 1:
                msg = f"the hosts given are of several clusters, {' and '.join(sorted(told))}: give those of one"
                raise TopologyError(msg)
            self._cluster = next(iter(told), "")
        for host_id, view in list(views.items()):
            if view.cluster != self._cluster:
                del views[host_id]
                silences[host_id] = unheard_of(f"it says that it is a node of another cluster, {view.cluster}")

    def _hear(self, views: Any) -> None:
        """Tell the connection where nodes are: what others say first, what a node says of itself last and best."""
        told = [claim for view in views for claim in view.peers] + [view.own for view in views]
        for claim in dict.fromkeys(told):
            if claim.reachable_at is not None:
                self._connection.heard(claim.host_id, *claim.reachable_at)

    async def _view(self, node: Node) -> View:
        own, peers = await asyncio.gather(self._rows(node, _OWN), self._rows(node, _PEERS))
        if not own:
            raise ReplicaError("system.local is empty", node)
        claim = self._claim(own[0][:9])
        known = [row for row in peers if row[0] is not None]
        return View(
            own=claim,
            cluster=_text(own[0][9]),
            partitioner=_text(own[0][10]),
            schema_version=str(uuid.UUID(bytes=own[0][11])) if own[0][11] else "",
            peers=tuple(map(self._claim, known)),
            nameless=tuple(_broadcast(row) for row in peers if row[0] is None),
            gossip=await gossip_states(self._connection, node, claim.release),
        )

    async def _rows(self, node: Node, cql: str) -> list[RawRow]:
        patience_s = _AGAIN_S if node.host_id in self._silent else _TIMEOUT_S
        statement = Statement(cql, page_size=_PAGE_ROWS, timeout_s=patience_s)
        rows: list[RawRow] = []
        while True:
            page = await self._connection.execute(node, statement)
            rows += page.rows()
            if page.paging_state is None:
                return rows
            statement = replace(statement, paging_state=page.paging_state)

    def _claim(self, row: RawRow) -> Claim:
        if row not in self._claims:
            self._claims[row] = _parsed(row)
        return self._claims[row]


def _named(views: Mapping[str, View], silences: Mapping[str, Silence]) -> list[Node]:
    """Return the nodes that others name and that were not asked yet."""
    named = {claim.host_id: claim for view in views.values() for claim in view.peers}
    return [
        stand_in(host_id, claim.reachable_at or ("", 0))
        for host_id, claim in named.items()
        if host_id not in views and host_id not in silences
    ]


def _parsed(row: RawRow) -> Claim:
    host_id, _, _, dc, rack, tokens, address, port, release = row
    return Claim(
        host_id=str(uuid.UUID(bytes=host_id)),
        broadcast=_broadcast(row),
        dc=None if dc is None else _text(dc),
        rack=None if rack is None else _text(rack),
        tokens=_tokens(tokens),
        address=None if address is None else str(ipaddress.ip_address(address)),
        port=None if port is None else int(INT.unpack(port)[0]),
        release=_text(release) or "0.0",
    )


def _broadcast(row: RawRow) -> str:
    port = INT.unpack(row[2])[0] if row[2] else 7000
    return f"{ipaddress.ip_address(row[1] or b'')}:{port}"


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _tokens(raw: bytes | None) -> tuple[int, ...]:
    """Read a set<text> of tokens; empty if they are none of Murmur3Partitioner."""
    found: list[int] = []
    at = 4
    while raw and at < len(raw):
        length = INT.unpack_from(raw, at)[0]
        try:
            found.append(int(raw[at + 4 : at + 4 + length]))
        except ValueError:
            return ()
        at += 4 + length
    return tuple(sorted(found))


async def read_ring(connection: Connection) -> Ring:
    """Read the ring once."""
    return await Describer(connection).ring()


async def read_schema_rows(connection: Connection, node: Node) -> SchemaRows:
    """Read how one node describes every keyspace, for `build_schema`; raises a ReplicaError if it does not."""

    async def rows(table: str, columns: str = "*") -> Sequence[Mapping[str, Any]]:
        return await connection.select(node, f"SELECT {columns} FROM system_schema.{table}", timeout_s=_TIMEOUT_S)

    async def masks() -> Sequence[Mapping[str, Any]]:
        return await rows("column_masks") if node.version >= (5, 0) else ()

    names = ("keyspaces", "tables", "columns", "views", "types", "indexes")
    keyspaces, tables, columns, views, types, indexes, masked, dropped = await asyncio.gather(
        *map(rows, names), masks(), rows("dropped_columns", _DROPPED)
    )
    return SchemaRows(keyspaces, tables, columns, views, types, masked, indexes, dropped)


async def gossip_states(connection: Connection, asked: Node, release: str) -> Mapping[str, str] | None:
    """Return each node's gossip state by `address:port` between nodes; None if the server does not show it."""
    major = int(release.split(".", maxsplit=1)[0])
    if major < 5:
        return None
    try:
        rows = await connection.select(
            asked,
            "SELECT address, port, status, status_with_port FROM system_views.gossip_info",
            timeout_s=_TIMEOUT_S,
        )
    except ReplicaError:
        return None
    return {
        f"{row['address']}:{row['port']}": (row["status_with_port"] or row["status"] or "UNKNOWN").split(",")[0]
        for row in rows
    }
