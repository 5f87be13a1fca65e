"""From what was settled to what is written of it: a row of two clusters under the names that its readers know."""

from __future__ import annotations

from dataclasses import replace

from consistency.checking.settle import Settled
from consistency.comparing.rows import by_side, merged
from consistency.comparing.settling import SettledPair
from consistency.model.reading import CellColumn, RowState
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.sides import SidedNode
from consistency.results.findings import ReplicaView, State, WriteTime
from consistency.results.pair_findings import PairFinding, SideView
from consistency.rows.classify import json_times, write_times
from consistency.rows.names import row_ref
from consistency.rows.read import States


def own(node: Node) -> Node:
    """Return a node as its own cluster knows it."""
    return node.node if isinstance(node, SidedNode) else node


def inner_evidence(settled: Settled, table: Table) -> Settled:
    """Return what was settled of one side's replicas as a check of that cluster would have it."""
    return replace(
        settled,
        reading=replace(settled.reading, table=table),
        owners=tuple(map(own, settled.owners)),
        states={own(node): state for node, state in settled.states.items()},
        unread={own(node): reason for node, reason in settled.unread.items()},
    )


def pair_finding(settled: SettledPair, target: Table) -> PairFinding:
    """Build the finding of a row that differs between the sides."""
    table, unlike = settled.table, settled.unlike
    ref = row_ref(table, settled.name)
    places = unlike.columns or {}
    columns = [settled.columns[place].column.name for place in sorted(places)]
    if unlike.key:
        columns = [*(column.name for column in table.clustering if column.type.is_respelled), *columns]
    return PairFinding(
        kind=unlike.facts[0],
        keyspace=ref.keyspace,
        table=ref.table,
        target=(target.keyspace, target.name),
        token=ref.token,
        key=ref.key,
        key_hex=ref.key_hex,
        sides={side: _view(settled.columns, copies) for side, copies in by_side(settled.states).items()},
        columns=tuple(columns),
        facts=unlike.facts,
    )


def _view(columns: tuple[CellColumn, ...], copies: States) -> SideView:
    """Return what one side holds, and each of its replicas."""
    whole = merged(copies)
    replicas = {own(node).name: _replica(columns, node, state, whole) for node, state in copies.items()}
    if whole is None:
        return SideView(merged=False, replicas=dict(sorted(replicas.items())))
    return SideView(
        merged=True,
        writetimes=write_times(columns, whole),
        expires=_expiries(columns, whole),
        replicas=dict(sorted(replicas.items())),
    )


def _replica(
    columns: tuple[CellColumn, ...], node: Node, state: RowState | None, whole: RowState | None
) -> ReplicaView:
    host_id = own(node).host_id
    if state is None:
        return ReplicaView(State.MISSING, host_id=host_id)
    return ReplicaView(State.CURRENT if state == whole else State.STALE, write_times(columns, state), host_id)


def _expiries(columns: tuple[CellColumn, ...], state: RowState) -> dict[str, WriteTime]:
    return {
        column.column.name: json_times(cell.expires)
        for column, cell in zip(columns, state.cells, strict=True)
        if cell.expires is not None
    }
