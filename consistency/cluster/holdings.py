"""What each node tells of its own data: its virtual tables, and its estimates of sizes (4.0 and later)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from consistency.cluster.connection import Connection
from consistency.errors import ReplicaError
from consistency.model.holdings import HeldTable, NodeData
from consistency.model.ring import Node

Row = Mapping[str, Any]
_VIEWS = {
    "disk_usage": "mebibytes",
    "max_partition_size": "mebibytes",
    "tombstones_per_read": "count, max, p99th",
}
"""Source: TableMetricTables (org.apache.cassandra.db.virtual)."""


async def read_holdings(
    connection: Connection, nodes: Collection[Node], keyspaces: Collection[str]
) -> tuple[NodeData, ...]:
    """Ask every node what it holds of some keyspaces; one that cannot be asked is unread, with the reason."""
    return tuple(await asyncio.gather(*(_of_node(connection, node, frozenset(keyspaces)) for node in nodes)))


async def _of_node(connection: Connection, node: Node, keyspaces: frozenset[str]) -> NodeData:
    if not node.up:
        return NodeData(node, unread="it does not answer")
    try:
        *views, estimates = await asyncio.gather(
            *(
                connection.select(node, f"SELECT keyspace_name, table_name, {columns} FROM system_views.{view}")
                for view, columns in _VIEWS.items()
            ),
            connection.select(
                node,
                "SELECT keyspace_name, table_name, mean_partition_size, partitions_count FROM system.size_estimates",
            ),
        )
    except ReplicaError as error:
        return NodeData(node, unread=str(error))
    told: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    disk, largest, tombstones = views
    for row in disk:
        told[_name(row)]["mebibytes"] = row["mebibytes"]
    for row in largest:
        told[_name(row)]["largest_mebibytes"] = row["mebibytes"]
    for row in tombstones:
        if row["count"]:
            told[_name(row)] |= {"tombstones_p99": round(row["p99th"]), "tombstones_max": round(row["max"])}
    for name, (partitions, size) in _estimated(estimates).items():
        told[name] |= {"partitions": partitions, "mean_bytes": size // partitions if partitions else None}
    tables = (HeldTable(*name, **figures) for name, figures in sorted(told.items()) if name[0] in keyspaces)
    return NodeData(node, tuple(tables))


def _name(row: Row) -> tuple[str, str]:
    return row["keyspace_name"], row["table_name"]


def _estimated(rows: Collection[Row]) -> dict[tuple[str, str], tuple[int, int]]:
    """Add up the partitions, and their bytes, of a node's ranges by table."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        partitions, size = found.get(_name(row), (0, 0))
        count = row["partitions_count"]
        found[_name(row)] = partitions + count, size + count * row["mean_partition_size"]
    return found
