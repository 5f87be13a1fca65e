"""Reads what decides whether a node may go down, repeatedly if the caller waits for a yes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from consistency.auditing.preflight import Answer, Facts, Known, Preflight, find_node, judge
from consistency.cluster.connection import Connection
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.settings import ConnectionSettings
from consistency.cluster.snapshot import gossip_states
from consistency.errors import ConsistencyError, ReplicaError, TopologyError
from consistency.ledger import open_ledger
from consistency.model.ring import Node, Ring

_EVERY_S = 2.0

Look = Callable[[], Awaitable[Facts]]


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    """What to judge: the keyspaces named, or all; times in seconds."""

    keyspaces: tuple[str, ...] = ()
    ledger: Path | None = None
    """A ledger whose differing rows count too."""
    assume_settled: bool = False
    """Assume that no node joins or leaves; servers before 5.0 do not show it."""
    wait_s: float = 0.0
    """Ask again for up to this long, until the answer is yes."""
    every_s: float = field(default=_EVERY_S)


@asynccontextmanager
async def open_look(settings: ConnectionSettings) -> AsyncGenerator[Look, None]:
    """Connect, and yield a function that reads the cluster again at each call."""
    connection = await Connection.open(settings)

    async def look() -> Facts:
        return await read_facts(connection)

    try:
        yield look
    finally:
        await connection.close()


async def run_preflight(
    look: Look, node: str, options: PreflightOptions, waiting: Callable[[Preflight], None] | None = None
) -> Preflight:
    """Judge whether a node may go down; while it may not, read again until the time is over.

    `waiting` is called with each answer but the last.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.wait_s
    while True:
        facts = await look()
        found = find_node(facts.ring, node)
        node = found.host_id  # by the next reading its address may belong to another node
        known = known_differences(options.ledger, facts.ring)
        answer = judge(facts, found, known, keyspaces=options.keyspaces, settled=options.assume_settled)
        left = deadline - loop.time()
        if answer.answer is Answer.YES or left <= 0:
            return answer
        if waiting is not None:
            waiting(answer)
        await asyncio.sleep(min(options.every_s, left))


def known_differences(path: Path | None, ring: Ring) -> Known:
    """Return the differing rows that the ledger knows; an unreadable ledger gives a note and no obstacle."""
    if path is None:
        return Known()
    try:
        with open_ledger(path, create=False) as ledger:
            past = ledger.past()
            cluster = past.of_nodes(ring.cluster, ring.host_ids)
            if cluster is None:
                return Known(note=f"the ledger {path} knows nothing of this cluster")
            return Known(tuple(past.behind(cluster)), note="")
    except ConsistencyError as error:
        return Known(note=str(error))


async def read_facts(connection: Connection) -> Facts:
    """Read ring, states, schema versions and settings, from every node that answers."""
    reader = await CqlReader.open(connection, ReadLimits())
    ring = await reader.ring()
    live = [node for node in ring.nodes if node.up]
    if not live:
        raise TopologyError("no node answers any more; see nodetool status")
    versions, hints, authenticators = await asyncio.gather(
        _from_each(connection, live, "SELECT schema_version FROM system.local", "schema_version"),
        _from_each(connection, live, _setting("hinted_handoff_enabled"), "value"),
        _from_each(connection, live[:1], _setting("authenticator"), "value"),
    )
    silent = [node for node in ring.nodes if not node.up and node.alive]
    versions.update(await _by_word_of(connection, live[0], silent))
    hints.update(dict.fromkeys(silent))
    return Facts(
        ring=ring,
        schema=await reader.schema(),
        versions=versions,
        gossip=await gossip_states(connection, live[0], live[0].release),
        hints={node: None if text is None else text.lower() == "true" for node, text in hints.items()},
        logins=_logins(authenticators[live[0]], connection.username),
    )


def _setting(name: str) -> str:
    return f"SELECT value FROM system_views.settings WHERE name = '{name}'"


async def _from_each(connection: Connection, nodes: Sequence[Node], cql: str, column: str) -> dict[Node, str | None]:
    """Ask every node by itself; None if it does not tell."""

    async def ask(node: Node) -> str | None:
        try:
            rows = await connection.select(node, cql)
        except ReplicaError:
            return None
        return str(rows[0][column]) if rows and rows[0][column] is not None else None

    return dict(zip(nodes, await asyncio.gather(*(ask(node) for node in nodes)), strict=True))


async def _by_word_of(connection: Connection, asked: Node, silent: Sequence[Node]) -> dict[Node, str | None]:
    """Return the schema versions that one node knows of live nodes that do not answer us."""
    if not silent:
        return {}
    try:
        rows = await connection.select(asked, "SELECT host_id, schema_version FROM system.peers_v2")
    except ReplicaError:
        rows = []
    known = {str(row["host_id"]): row["schema_version"] for row in rows}
    versions = {node: known.get(node.host_id) for node in silent}
    return {node: None if version is None else str(version) for node, version in versions.items()}


def _logins(authenticator: str | None, username: str | None) -> bool:
    """Whether logins depend on system_auth; if the server does not tell, our own login decides."""
    return username is not None if authenticator is None else "AllowAllAuthenticator" not in authenticator
