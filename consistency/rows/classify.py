"""Name what is wrong with a row whose replicas were read and settled: one finding, of its gravest kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consistency.model.reading import CellColumn, RowState, Times
from consistency.model.ring import Node
from consistency.results.findings import Finding, ReplicaView, State, WriteTime
from consistency.results.kinds import Kind
from consistency.rows.evidence import Evidence
from consistency.rows.forecast import forecast_of_merge
from consistency.rows.names import row_ref
from consistency.rows.reconcile import EMPTY, Contest, DecidedBy, contests
from consistency.rows.zombies import is_suspected_row

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
_KIND_OF = {DecidedBy.NEWER: Kind.STALE, DecidedBy.TIE: Kind.TIE, DecidedBy.EXPIRY: Kind.EXPIRY}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the row's copies amount to: every kind that applies, and each column's contest."""

    facts: tuple[Kind, ...]
    contests: tuple[Contest, ...]


def judge_row(evidence: Evidence, *, max_skew_s: float = DEFAULT_MAX_SKEW_S) -> Judgement:
    """Say which kinds apply to a row, none if all is well as far as it was read."""
    columns = contests(evidence.states)
    facts = {_KIND_OF[c.decided_by] for c in columns if c.decided_by is not DecidedBy.SAME}
    if evidence.key_respelled:
        facts.add(Kind.TIE)  # the rivals are the bytes of the key itself
    if len(evidence.present) < len(evidence.states):
        facts.add(Kind.MISSING)
        if is_suspected_row(evidence):
            facts.add(Kind.ZOMBIE_SUSPECT)
    if (evidence.newest_us or 0) > evidence.when.future_us(max_skew_s):
        facts.add(Kind.FUTURE_WRITE_TIME)
    return Judgement(tuple(k for k in _GRAVEST_FIRST if k in facts), tuple(columns))


def finding(evidence: Evidence, judgement: Judgement) -> Finding:
    """Build the finding of a settled difference; its judgement names at least one kind."""
    ref = row_ref(evidence.table, evidence.name)
    views = {node.name: _view(evidence.columns, state, judgement, node) for node, state in evidence.states.items()}
    views.update({node.name: ReplicaView(State.UNREADABLE, host_id=node.host_id) for node in evidence.unread})
    return Finding(
        kind=judgement.facts[0],
        keyspace=ref.keyspace,
        table=ref.table,
        token=ref.token,
        key=ref.key,
        key_hex=ref.key_hex,
        replicas=dict(sorted(views.items())),
        columns=(*_respelled(evidence), *_differing(evidence, judgement)),
        facts=judgement.facts,
        forecast=forecast_of_merge(evidence),
    )


def _view(columns: Sequence[CellColumn], state: RowState | None, judgement: Judgement, node: Node) -> ReplicaView:
    if state is None:
        return ReplicaView(State.MISSING, host_id=node.host_id)
    lost = any(c.decided_by is not DecidedBy.SAME and node not in c.current for c in judgement.contests)
    behind = state.spelling is not None or lost
    return ReplicaView(State.STALE if behind else State.CURRENT, write_times(columns, state), node.host_id)


def write_times(columns: Sequence[CellColumn], state: RowState) -> dict[str, WriteTime]:
    """Return the write times of one copy as a findings file has them, by column."""
    return {
        column.column.name: json_times(cell.writetimes)
        for column, cell in zip(columns, state.cells, strict=True)
        if column.writetime and cell != EMPTY
    }


def json_times(times: Times) -> WriteTime:
    """Return the times of a cell as a findings file has them."""
    return list(times) if isinstance(times, tuple) else times


def _respelled(evidence: Evidence) -> tuple[str, ...]:
    """Name the columns of the key that some replica holds in other bytes."""
    spelled = [state.spelling for state in evidence.present.values() if state.spelling is not None]
    columns, key = evidence.table.primary_key, evidence.name.key
    return tuple(c.name for i, c in enumerate(columns) if any(held[i] != key[i] for held in spelled))


def _differing(evidence: Evidence, judgement: Judgement) -> tuple[str, ...]:
    """Name the columns that are not the same on all replicas; of a missing row, those that are not null."""
    missing = len(evidence.present) < len(evidence.states)
    return tuple(
        cell.column.name
        for cell, column in zip(evidence.columns, judgement.contests, strict=True)
        if column.decided_by is not DecidedBy.SAME or (missing and column.winner != EMPTY)
    )
