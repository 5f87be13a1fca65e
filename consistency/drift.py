"""What changed under a scan, so that what it read cannot be believed."""

from __future__ import annotations

from collections.abc import Mapping

from consistency.ring import Ring
from consistency.schema import Keyspace, Table

Described = tuple[Ring, Mapping[str, Keyspace]]


def change(table: Table, before: Described, after: Described) -> str:
    """Say what changed that a scan of the table rests on; empty where nothing did."""
    keyspace = after[1].get(table.keyspace)
    now = keyspace.tables.get(table.name) if keyspace else None
    if keyspace is None or now is None:
        return "the table was dropped"
    if now.fingerprint != table.fingerprint:
        return "the table was altered"
    if keyspace.replication != before[1][table.keyspace].replication:
        return "the keyspace's replication was altered"
    if after[0].fingerprint != before[0].fingerprint:
        return "the ring changed (a node joined, left or moved)"
    return ""
