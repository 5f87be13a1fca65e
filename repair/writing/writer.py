"""The port through which rows are written, and its one implementation over CQL."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from consistency.cluster.pinned import PinnedAccess
from consistency.cluster.wire import ALL, NODE_LOCAL, QUORUM, Statement
from consistency.errors import ReplicaError
from consistency.model.ring import Node
from repair.writing.statements import Write

_TIMEOUT_S = 30.0


class RowWriter(Protocol):
    """Runs statements; each raises a ReplicaError if it was not acknowledged."""

    async def through(self, node: Node, write: Write, *, at_all: bool) -> None:
        """Run a statement with `node` as coordinator, at ALL or at QUORUM."""

    async def at(self, node: Node, write: Write, level: int) -> None:
        """Run a statement with `node` as coordinator, at a consistency level of the protocol."""

    async def on(self, node: Node, write: Write) -> None:
        """Run a write on one node's own storage alone (NODE_LOCAL)."""

    async def schema_versions(self, nodes: tuple[Node, ...]) -> set[str]:
        """Return the schema versions that these nodes are at; one where they agree."""

    async def truncated_us(self, nodes: tuple[Node, ...], table_id: str) -> int | None:
        """Return when, by the newest of these nodes' records, the table was truncated; None if none has one.

        Raises a ReplicaError if a node does not tell: it alone may have the record.
        """


class CqlWriter:
    """Writes over the connection that the reader reads from; an overloaded node is asked again, later and later.

    Asking again is safe: every statement carries its own write time.
    """

    def __init__(self, access: PinnedAccess) -> None:
        self._access = access

    async def through(self, node: Node, write: Write, *, at_all: bool) -> None:
        """Run a statement through a coordinator."""
        await self._run(node, write, ALL if at_all else QUORUM)

    async def at(self, node: Node, write: Write, level: int) -> None:
        """Run a statement through a coordinator at a level."""
        await self._run(node, write, level)

    async def on(self, node: Node, write: Write) -> None:
        """Run a write on one node alone."""
        await self._run(node, write, NODE_LOCAL)

    async def _run(self, node: Node, write: Write, consistency: int) -> None:
        statement = Statement(
            write.cql, write.values, consistency, now_s=write.now_s, timeout_s=_TIMEOUT_S, once=write.once
        )
        if write.page_rows is not None:
            statement = replace(statement, page_size=write.page_rows)
        await self._access.retrying(node, statement)

    async def schema_versions(self, nodes: tuple[Node, ...]) -> set[str]:
        """Ask each node."""
        found: set[str] = set()
        for node in nodes:
            with suppress(ReplicaError):  # one that went down meanwhile has no say
                found.add(str(await self._of_local(node, "schema_version")))
        return found

    async def truncated_us(self, nodes: tuple[Node, ...], table_id: str) -> int | None:
        """Ask each node: a record is a place in the commit log and, in its last eight bytes, the time in ms."""
        told = [await self._of_local(node, "truncated_at") for node in nodes]
        records = [records[UUID(table_id)] for records in told if records and UUID(table_id) in records]
        return max((int.from_bytes(record[-8:], "big") * 1000 for record in records), default=None)

    async def _of_local(self, node: Node, column: str) -> Any:
        rows = await self._access.connection.select(node, f"SELECT {column} FROM system.local")
        return rows[0][column]
