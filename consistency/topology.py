"""Take a snapshot of the ring, and of the schema, from the system tables of one node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from consistency.driver import Connection
from consistency.errors import ReplicaError, TopologyError
from consistency.ring import Node, Ring
from consistency.schema import SchemaRows

_TIMEOUT_S = 10.0
"""For a few rows that the node itself holds: one that takes longer is silent, and another one is asked."""


async def read_ring(connection: Connection) -> Ring:
    """Read nodes, tokens, places and states through the first host that answers."""
    last: ReplicaError | None = None
    for address, port in connection.known_hosts():
        asked = Node("", address, port, "", "", (), "")
        try:
            return await _ring_from(connection, asked)
        except ReplicaError as error:
            last = error
    msg = f"no node would describe the ring: {last}"
    raise TopologyError(msg)


async def _ring_from(connection: Connection, asked: Node) -> Ring:
    local = (await connection.select(asked, "SELECT * FROM system.local", timeout_s=_TIMEOUT_S))[0]
    peers = await connection.select(asked, "SELECT * FROM system.peers_v2", timeout_s=_TIMEOUT_S)
    states = await gossip_states(connection, asked, _release(local)) or {}
    nodes = [_local_node(local, asked, states), *(_peer_node(p, states) for p in peers if _usable(p))]
    return Ring(local["cluster_name"], local["partitioner"], tuple(sorted(nodes, key=lambda n: n.name)))


def _usable(peer: Mapping[str, Any]) -> bool:
    """A peer without a host id has not finished joining or is a ghost of one; it owns nothing yet."""
    return peer.get("host_id") is not None and peer.get("data_center") is not None


async def read_schema_rows(connection: Connection, node: Node) -> SchemaRows:
    """Read how one node describes every keyspace, for `build_schema`; raises a ReplicaError where it does not."""

    async def rows(table: str) -> Sequence[Mapping[str, Any]]:
        return await connection.select(node, f"SELECT * FROM system_schema.{table}", timeout_s=_TIMEOUT_S)

    async def masks() -> Sequence[Mapping[str, Any]]:
        return await rows("column_masks") if node.version >= (5, 0) else ()

    names = ("keyspaces", "tables", "columns", "views", "types")
    keyspaces, tables, columns, views, types, masked = await asyncio.gather(*map(rows, names), masks())
    return SchemaRows(keyspaces=keyspaces, tables=tables, columns=columns, views=views, types=types, masks=masked)


async def gossip_states(connection: Connection, asked: Node, release: str) -> Mapping[str, str] | None:
    """Return each node's gossip state by `address:port` between nodes; None where the server does not show it."""
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


def _local_node(row: Mapping[str, Any], asked: Node, states: Mapping[str, str]) -> Node:
    broadcast = f"{row['broadcast_address']}:{row.get('broadcast_port') or 7000}"
    return Node(
        host_id=str(row["host_id"]),
        address=asked.address,
        port=asked.port,
        dc=row["data_center"],
        rack=row["rack"],
        tokens=_tokens(row["tokens"]),
        release=_release(row),
        state=states.get(broadcast, "NORMAL"),
        broadcast=broadcast,
    )


def _peer_node(row: Mapping[str, Any], states: Mapping[str, str]) -> Node:
    broadcast = f"{row['peer']}:{row['peer_port']}"
    return Node(
        host_id=str(row["host_id"]),
        address=str(row["native_address"]),
        port=int(row["native_port"]),
        dc=row["data_center"],
        rack=row["rack"] or "",
        tokens=_tokens(row["tokens"]),
        release=_release(row),
        state=states.get(broadcast, "NORMAL"),
        broadcast=broadcast,
    )


def _release(row: Mapping[str, Any]) -> str:
    return str(row["release_version"] or "0.0")


def _tokens(raw: Any) -> tuple[int, ...]:
    return tuple(sorted(int(token) for token in raw or ()))
