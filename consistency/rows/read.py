"""Read rows by key on their replicas, now: one, or many at one instant."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from consistency.cluster.port import Key, ReplicaReader
from consistency.errors import NotProvenLocal, ReplicaError, ReplicaUnavailable
from consistency.model.reading import RawRow, Reading, RowState
from consistency.model.ring import Node
from consistency.rows.names import RowName

States = dict[Node, RowState | None]
"""What each node that answered holds of a row, None where it has no such row."""
Unread = dict[Node, str]
"""The nodes that did not answer, with the reason."""


async def read_state(reader: ReplicaReader, reading: Reading, name: RowName, node: Node, now_s: int) -> RowState | None:
    """Return one row's state on one node, None where the node has no such row."""
    if name.static:
        raw = await reader.static_row(node, reading, name.key, now_s)
        return None if raw is None else reading.static_row_state(raw, now_s)
    raw = await reader.row(node, reading, name.key, now_s)
    return None if raw is None else reading.row_state(raw, now_s, name.key)


async def read_states(
    reader: ReplicaReader, reading: Reading, names: Sequence[RowName], nodes: Sequence[Node], now_s: int
) -> list[tuple[States, Unread]]:
    """Read rows on every node at one instant; for each, in the order of `names`, its states and who did not answer."""
    answers = await asyncio.gather(*(_on_node(reading, reader, names, node, now_s) for node in nodes))
    out: list[tuple[States, Unread]] = []
    for place in range(len(names)):
        states: States = {}
        unread: Unread = {}
        for node, of_node in zip(nodes, answers, strict=True):
            answer = of_node[place]
            if isinstance(answer, ReplicaError):
                unread[node] = answer.reason
            else:
                states[node] = answer
        out.append((states, unread))
    return out


async def _on_node(
    reading: Reading, reader: ReplicaReader, names: Sequence[RowName], node: Node, now_s: int
) -> list[RowState | ReplicaError | None]:
    keys = [name.key for name in names if not name.static]
    rows: Mapping[Key, RawRow] | ReplicaError | None = None
    if len(keys) > 1:
        try:
            rows = await reader.rows_by_key(node, reading, keys, now_s)
        except (ReplicaUnavailable, NotProvenLocal) as error:
            rows = error
        except ReplicaError:
            rows = None  # one row may be to blame, and the others are none the worse for it

    async def one(name: RowName) -> RowState | ReplicaError | None:
        if rows is None or name.static:
            try:
                return await read_state(reader, reading, name, node, now_s)
            except ReplicaError as error:
                return error
        if isinstance(rows, ReplicaError):
            return rows
        raw = rows.get(name.key)
        return None if raw is None else reading.row_state(raw, now_s, name.key)

    return list(await asyncio.gather(*(one(name) for name in names)))
