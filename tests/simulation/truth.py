"""The truth about a simulated cluster, from the storage itself: which rows its replicas show differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consistency.model.reading import Capabilities, CellColumn, Depth, Reading
from consistency.model.ring import Node
from consistency.model.schema import Table
from tests.simulation.histories import RowKey
from tests.simulation.memory import SimCluster, path_order
from tests.simulation.storage import Key, Visible
from tests.simulation.vclock import EPOCH_S


def truth(cluster: SimCluster, table: Table, reading: Reading | None, now_s: int) -> dict[RowKey, str]:
    """Return the rows on which owners differ as a read shows them, with what each holds; None reads everything."""
    reading = reading or Reading(table, Depth.CONTENT, Capabilities())
    found: dict[RowKey, str] = {}
    for key, clustering in row_names(cluster, table):
        held: dict[Node, Any] = {}
        for node in cluster.replicas(table, key):
            store = cluster.store(node, table)
            seen = store.visible_static(key, now_s) if clustering is None else store.visible_row(key, clustering, now_s)
            held[node] = shown(reading.statics if clustering is None else reading.regulars, seen)
        if len({repr(cells) for cells in held.values()}) > 1:
            found[table.name, key, clustering] = "; ".join(f"{node}: {cells}" for node, cells in held.items())
    return found


def written_ahead(cluster: SimCluster, reading: Reading, skew_s: float) -> set[RowKey]:
    """Return the rows that the reading shows alike on all owners, with a cell written more than a minute ahead."""
    limit_us = (EPOCH_S + 120 + int(skew_s)) * 1_000_000
    differing = truth(cluster, reading.table, reading, EPOCH_S)
    found: set[RowKey] = set()
    for key, clustering in row_names(cluster, reading.table):
        row = (reading.table.name, key, clustering)
        node = cluster.replicas(reading.table, key)[0]
        shown = _held(cluster, reading, node, key, clustering, EPOCH_S)
        times = [cell[2] for cells in shown or () for cell in cells if cell[2] is not None]
        if row not in differing and max(times, default=0) > limit_us:
            found.add(row)
    return found


def row_names(cluster: SimCluster, table: Table) -> list[tuple[Key, Key | None]]:
    """Return every row that any node has ever heard of; without a clustering key, a partition's static row."""
    names: dict[tuple[Key, Key | None], None] = {}
    for node in cluster.ring_before.nodes:
        for key, partition in cluster.store(node, table).partitions.items():
            names[key, None] = None
            names.update(dict.fromkeys((key, clustering) for clustering in partition.rows))
    return list(names)


def _held(
    cluster: SimCluster, reading: Reading, node: Node, key: Key, clustering: Key | None, now_s: int
) -> list[list[tuple[Any, ...]]] | None:
    store = cluster.store(node, reading.table)
    if clustering is None:
        return shown(reading.statics, store.visible_static(key, now_s))
    return shown(reading.regulars, store.visible_row(key, clustering, now_s))


def shown(columns: Sequence[CellColumn], seen: Visible | None) -> list[list[tuple[Any, ...]]] | None:
    """Return what a read shows of a row, by column: of each cell its path, value, write time and expiry."""
    if seen is None:
        return None
    shown: list[list[tuple[Any, ...]]] = []
    for column in columns:
        cells = seen.cells.get(column.column.name, {})
        paths = sorted(cells, key=path_order(column.column)) if column.column.type.is_multicell else list(cells)
        named = column.value and column.column.type.name != "list"
        shown.append(
            [
                (
                    path if named else None,
                    cells[path].value if column.value else None,
                    cells[path].ts if column.writetime else None,
                    cells[path].expires if column.ttl else None,
                )
                for path in paths
                if column.width
            ]
        )
    return shown if any(shown) or seen.clustering is not None else None
