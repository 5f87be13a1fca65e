"""Name what is wrong with a row whose replicas were read and settled: one finding, of its gravest kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consistency.model.cqltext import to_json
from consistency.model.reading import CellColumn, Reading, RowState, Times
from consistency.model.ring import Node
from consistency.model.schema import Column
from consistency.model.servertime import ServerTime
from consistency.results.findings import Finding, Kind, ReplicaView, State, WriteTime
from consistency.rows.merge_join import RowName
from consistency.rows.reconcile import EMPTY, Contest, Rule, contests

DEFAULT_MAX_SKEW_S = 60.0
"""A write time further ahead of the most advanced server's clock than this is in the future."""

_GRAVEST_FIRST = (
    Kind.FUTURE_WRITE_TIME,
    Kind.ZOMBIE_SUSPECT,
    Kind.MISSING,
    Kind.STALE,
    Kind.TIE,
    Kind.EXPIRY,
)
_KIND_OF_RULE = {Rule.NEWER: Kind.STALE, Rule.TIE: Kind.TIE, Rule.EXPIRY: Kind.EXPIRY}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the row's copies amount to: every kind that applies, and each column's contest."""

    facts: tuple[Kind, ...]
    contests: tuple[Contest, ...]


def judge_row(
    reading: Reading,
    states: Mapping[Node, RowState | None],
    *,
    when: ServerTime,
    max_skew_s: float = DEFAULT_MAX_SKEW_S,
) -> Judgement:
    """Say which kinds apply to a row, none where all is well; `states` holds the replicas that were read at `when`."""
    present = [state for state in states.values() if state is not None]
    columns = contests(states)
    facts = {_KIND_OF_RULE[c.rule] for c in columns if c.rule is not Rule.SAME}
    if len({state.spelling for state in present}) > 1:
        facts.add(Kind.TIE)  # the rivals are the bytes of the key itself
    if len(present) < len(states):
        facts.add(Kind.MISSING)
        if _zombie(reading, present, len(states), when):
            facts.add(Kind.ZOMBIE_SUSPECT)
    newest = max((state.newest_us or 0 for state in present), default=0)
    if newest > when.future_us(max_skew_s):
        facts.add(Kind.FUTURE_WRITE_TIME)
    return Judgement(tuple(k for k in _GRAVEST_FIRST if k in facts), tuple(columns))


def _zombie(reading: Reading, present: list[RowState], replicas: int, when: ServerTime) -> bool:
    """A minority holds it and every write time is older than gc_grace: its delete may be purged elsewhere."""
    if len(present) > replicas // 2:
        return False
    newest = [state.newest_us for state in present]
    purged_us = when.purged_us(reading.table.gc_grace_seconds)
    return all(time is not None and time < purged_us for time in newest)


def finding(
    reading: Reading,
    name: RowName,
    states: Mapping[Node, RowState | None],
    unread: Mapping[Node, str],
    judgement: Judgement,
) -> Finding:
    """Build the finding of a settled difference; its judgement names at least one kind."""
    table = reading.table
    columns = table.partition_key if name.static else table.primary_key
    cells = reading.statics if name.static else reading.regulars
    views = {node.name: _view(cells, state, judgement.contests, node) for node, state in states.items()}
    views.update({node.name: ReplicaView(State.UNREADABLE, host_id=node.host_id) for node in unread})
    return Finding(
        kind=judgement.facts[0],
        keyspace=table.keyspace,
        table=table.name,
        token=name.token,
        key={c.name: to_json(c.type, raw) for c, raw in zip(columns, name.key, strict=True)},
        key_hex={c.name: raw.hex() for c, raw in zip(columns, name.key, strict=True)},
        replicas=dict(sorted(views.items())),
        columns=(*_respelled(table.primary_key, name, states), *_differing(cells, states, judgement)),
        facts=judgement.facts,
    )


def _view(
    cells: tuple[CellColumn, ...], state: RowState | None, columns: tuple[Contest, ...], node: Node
) -> ReplicaView:
    if state is None:
        return ReplicaView(State.MISSING, host_id=node.host_id)
    behind = state.spelling is not None or any(c.rule is not Rule.SAME and node not in c.current for c in columns)
    times: dict[str, WriteTime] = {
        cell.column.name: _json_times(held.writetimes)
        for cell, held in zip(cells, state.cells, strict=True)
        if cell.writetime and held != EMPTY
    }
    return ReplicaView(State.STALE if behind else State.CURRENT, times, node.host_id)


def _json_times(times: Times) -> WriteTime:
    return list(times) if isinstance(times, tuple) else times


def _respelled(columns: Sequence[Column], name: RowName, states: Mapping[Node, RowState | None]) -> tuple[str, ...]:
    """Name the columns of the key that some replica holds in other bytes."""
    spelled = [state.spelling for state in states.values() if state is not None and state.spelling is not None]
    return tuple(c.name for i, c in enumerate(columns) if any(key[i] != name.key[i] for key in spelled))


def _differing(
    cells: tuple[CellColumn, ...], states: Mapping[Node, RowState | None], judgement: Judgement
) -> tuple[str, ...]:
    """Name the columns that are not the same on all replicas; of a missing row, those that are not null."""
    missing = any(state is None for state in states.values())
    return tuple(
        cell.column.name
        for cell, column in zip(cells, judgement.contests, strict=True)
        if column.rule is not Rule.SAME or (missing and column.winner != EMPTY)
    )
