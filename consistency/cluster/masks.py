"""Whether a role reads masked columns as they are stored: a mask that is hashed hides every difference behind it."""

from __future__ import annotations

from collections.abc import Sequence

from consistency.cluster.connection import Connection
from consistency.errors import ReplicaError
from consistency.model.cqltype import quote_identifier
from consistency.model.ring import Node
from consistency.model.schema import Table


async def sees_masked(connection: Connection, nodes: Sequence[Node], table: Table) -> bool:
    """Whether our role holds UNMASK on a table, or is a superuser; without a login nothing is masked.

    Where the server will not say, the answer is no.
    """
    role = connection.username
    if role is None:
        return True
    node = next((n for n in nodes if n.up), nodes[0])
    name = quote_identifier(role)
    try:
        roles = await connection.select(node, f"LIST ROLES OF {name}")
        if any(row["super"] for row in roles):
            return True
        granted = await connection.select(node, f"LIST UNMASK PERMISSION ON TABLE {table.quoted} OF {name}")
    except ReplicaError:
        return False
    return bool(granted)
