"""Read rows by key on their replicas, now: one, or many at one instant."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from consistency.cluster.port import Key, ReplicaReader
from consistency.errors import NotProvenLocal, ReplicaError, ReplicaUnavailable
from consistency.model.reading import RawRow, Reading, RowState
from consistency.model.ring import Node
from consistency.rows.names import RowName

States = Mapping[Node, RowState | None]
"""What each node that answered holds of a row, None if it has no such row."""
Unread = dict[Node, str]
"""The nodes that did not answer, with the reason."""


async def read_state(reader: ReplicaReader, reading: Reading, name: RowName, node: Node, now_s: int) -> RowState | None:
    """Return one row's state on one node, None if the node has no such row."""
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
        states: dict[Node, RowState | None] = {}
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

    by_itself = [n for n, name in enumerate(names) if rows is None or name.static]
    read = await asyncio.gather(*(_row_or_error(reader, reading, names[n], node, now_s) for n in by_itself))
    answers = dict(zip(by_itself, read, strict=True))
    return [
        answers[n] if rows is None or name.static else _of_many(rows, reading, name, now_s)
        for n, name in enumerate(names)
    ]


async def _row_or_error(
    reader: ReplicaReader, reading: Reading, name: RowName, node: Node, now_s: int
) -> RowState | ReplicaError | None:
    try:
        return await read_state(reader, reading, name, node, now_s)
    except ReplicaError as error:
        return error


def _of_many(
    rows: Mapping[Key, RawRow] | ReplicaError, reading: Reading, name: RowName, now_s: int
) -> RowState | ReplicaError | None:
    if isinstance(rows, ReplicaError):
        return rows
    raw = rows.get(name.key)
    return None if raw is None else reading.row_state(raw, now_s, name.key)
