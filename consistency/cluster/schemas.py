"""The schema as all nodes describe it that answer: what they do not agree on is not believed of any of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from consistency.cluster.connection import Connection
from consistency.cluster.snapshot import read_schema_rows
from consistency.errors import ReplicaError, SchemaError
from consistency.model.cqltext import some_of
from consistency.model.ring import Node
from consistency.model.schema import Keyspace, Table, build_schema

_LOOKS = 3
_BETWEEN_LOOKS_S = 0.7
"""Nodes learn of a change one after the other: what they disagree on is looked at again before it is believed."""
_TIMEOUT_S = 10.0
_NAMED = 4


class Schemas:
    """Reads the schema, and knows of what version it was: as long as all nodes have that one it is not read again.

    Of nodes of one version a single one describes the schema in any case, so the others are taken at the word of their
    version as it is; a version is made of all that is in system_schema.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._version = ""
        self._schema: dict[str, Keyspace] = {}

    async def read(self, nodes: Sequence[Node], *, patient: bool) -> dict[str, Keyspace]:
        """Read every keyspace."""
        self._schema, self._version = await _read(self._connection, nodes, patient=patient)
        return dict(self._schema)

    async def read_again(self, nodes: Sequence[Node], *, patient: bool) -> dict[str, Keyspace]:
        """Read it if any node has another version than all had the last time, or does not tell which it has."""
        if self._version and _one_version(*await _by_version(self._connection, nodes)) == self._version:
            return dict(self._schema)
        return await self.read(nodes, patient=patient)


async def _read(connection: Connection, nodes: Sequence[Node], *, patient: bool) -> tuple[dict[str, Keyspace], str]:
    """Read every keyspace, and return with them the version where all nodes have one.

    A table that the nodes describe in several ways is unreadable, with their names. Of the nodes of one schema version
    the first describes it for all. Where `patient`, nodes of several versions get a moment to learn of a change.
    SchemaError if no node describes it.
    """
    for look in range(_LOOKS):
        versions, silent = await _by_version(connection, nodes)
        groups = list(versions.values())
        if not groups:
            msg = f"no node would describe the schema: {next(iter(silent.values()), 'none answers')}"
            raise SchemaError(msg)
        if _agreed(groups) or not patient or look == _LOOKS - 1:
            break
        await asyncio.sleep(_BETWEEN_LOOKS_S)
    found = await asyncio.gather(*(_describe(connection, group) for group in groups))
    described = [(group, schema) for group, schema in zip(groups, found, strict=True) if schema is not None]
    if not described:
        raise SchemaError("no node would describe the schema: each stopped answering when it was asked")
    mute = [group for group, schema in zip(groups, found, strict=True) if schema is None]
    return agreed_schema(described, mute), _one_version(versions, silent)


async def _by_version(
    connection: Connection, nodes: Sequence[Node]
) -> tuple[dict[str, tuple[Node, ...]], Mapping[Node, ReplicaError]]:
    """Return the nodes that answer by schema version, the largest group first, and the errors of the others."""

    async def version(node: Node) -> str | ReplicaError:
        try:
            rows = await connection.select(node, "SELECT schema_version FROM system.local", timeout_s=_TIMEOUT_S)
        except ReplicaError as error:
            return error
        return str(rows[0]["schema_version"] or "")

    groups: dict[str, list[Node]] = defaultdict(list)
    silent: dict[Node, ReplicaError] = {}
    for node, told in zip(nodes, await asyncio.gather(*map(version, nodes)), strict=True):
        if isinstance(told, ReplicaError):
            silent[node] = told
        else:
            groups[told].append(node)
    return {told: tuple(groups[told]) for told in sorted(groups, key=lambda told: -len(groups[told]))}, silent


def _one_version(versions: Mapping[str, Sequence[Node]], silent: Mapping[Node, ReplicaError]) -> str:
    """Return the schema version that all nodes have, empty if they have several, or one does not tell."""
    return next(iter(versions)) if len(versions) == 1 and not silent else ""


def _agreed(groups: Sequence[Sequence[Node]]) -> bool:
    """Whether there is nothing to wait for: releases name one schema in different ways, nodes of one do not."""
    releases = [{node.version for node in group} for group in groups]
    return sum(map(len, releases)) == len(set[tuple[int, int]]().union(*releases))


async def _describe(connection: Connection, group: Sequence[Node]) -> dict[str, Keyspace] | None:
    """Read the schema from the first of some nodes that answers."""
    for node in group:
        try:
            return build_schema(await read_schema_rows(connection, node))
        except ReplicaError:
            continue
    return None


def agreed_schema(
    described: Sequence[tuple[Sequence[Node], Mapping[str, Keyspace]]], mute: Sequence[Sequence[Node]] = ()
) -> dict[str, Keyspace]:
    """Put together what groups of nodes say; `mute` are groups of other versions that do not say what they know."""
    if mute:
        why = f"{_some([n for group in mute for n in group])} has another schema version and did not describe it"
        return {name: _doubted(keyspace, why) for name, keyspace in described[0][1].items()}
    names = dict.fromkeys(name for _, schema in described for name in schema)
    return {name: _agreed_keyspace(name, described) for name in names}


def _agreed_keyspace(name: str, described: Sequence[tuple[Sequence[Node], Mapping[str, Keyspace]]]) -> Keyspace:
    told = [(group, schema.get(name)) for group, schema in described]
    first = next(keyspace for _, keyspace in told if keyspace is not None)
    lacking = [node for group, keyspace in told if keyspace is None for node in group]
    if lacking:
        return _doubted(first, f"{_some(lacking)} does not know the keyspace, other nodes do; {_WAY_OUT}")
    known = [(group, keyspace) for group, keyspace in told if keyspace is not None]
    others = [node for group, keyspace in known if keyspace.replication != first.replication for node in group]
    if others:
        whole = replace(first, tables={n: t for _, k in known for n, t in k.tables.items()})
        return _doubted(whole, f"{_some(others)} has another replication for the keyspace than other nodes; {_WAY_OUT}")
    tables: dict[str, Table] = {}
    unreadable: dict[str, str] = {n: why for _, keyspace in known for n, why in keyspace.unreadable.items()}
    for table in dict.fromkeys(n for _, keyspace in known for n in keyspace.tables):
        doubt = _disagreement(table, known)
        if doubt:
            unreadable[table] = doubt
        elif table not in unreadable:
            tables[table] = first.tables[table]
    return replace(first, tables=tables, unreadable=unreadable)


_WAY_OUT = "see nodetool describecluster; where it stays so, there: nodetool resetlocalschema, or restart the node"


def _disagreement(table: str, known: Sequence[tuple[Sequence[Node], Keyspace]]) -> str:
    """Say which nodes describe a table in another way than most; empty if all describe it alike."""
    prints: dict[str, list[Node]] = defaultdict(list)
    for group, keyspace in known:
        found = keyspace.tables.get(table)
        prints[found.fingerprint if found else ""] += group
    if len(prints) == 1:
        return ""
    if "" in prints:
        return f"{_some(prints[''])} does not know the table, other nodes do; {_WAY_OUT}"
    fewest = min(prints.values(), key=len)
    return f"{_some(fewest)} describes its columns in another way than other nodes; {_WAY_OUT}"


def _doubted(keyspace: Keyspace, why: str) -> Keyspace:
    """Return the keyspace with no table that could be believed."""
    unreadable = {**dict.fromkeys(keyspace.tables, why), **keyspace.unreadable}
    return replace(keyspace, tables={}, unreadable=unreadable)


def _some(nodes: Sequence[Node]) -> str:
    return some_of(sorted(node.name for node in nodes), _NAMED)
