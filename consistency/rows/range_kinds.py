"""Name what is wrong with the rows of a range that were settled as arrays: the same kinds as of single rows, counted.

What needs a row's values stays coarse: of a column that not all replicas hold at one time, the newest write time tells
who is behind, and of rows with equal times and unlike expiries it is not told whether their values differ too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from consistency.model.ring import Node
from consistency.model.row_arrays import NO_TIME, Flags, UnlikeRows, expiries_differ, stale, times_differ
from consistency.model.schema import Table
from consistency.model.servertime import ServerTime
from consistency.model.tokens import TokenRange
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from consistency.rows.zombies import is_minority


def range_finding(
    table: Table,
    token_range: TokenRange,
    replicas: Sequence[Node],
    parts: Sequence[UnlikeRows],
    when: ServerTime,
    max_skew_s: float,
) -> RangeFinding:
    """Count the rows of one range that differ, by their gravest kind and by what each replica lacks."""
    kinds: Counter[Kind] = Counter()
    missing, behind = np.zeros(len(replicas), np.int64), np.zeros(len(replicas), np.int64)
    for rows in parts:
        kinds.update(_kinds(table, replicas, rows, when, max_skew_s))
        missing += (~rows.present).sum(axis=0)
        behind += stale(rows).sum(axis=0)
    views = {
        node.name: RangeView(int(missing[place]), int(behind[place]), node.host_id)
        for place, node in enumerate(replicas)
    }
    counts = dict(sorted(kinds.items()))
    return RangeFinding(table.keyspace, table.name, token_range, counts, dict(sorted(views.items())))


def _kinds(
    table: Table, replicas: Sequence[Node], rows: UnlikeRows, when: ServerTime, max_skew_s: float
) -> dict[Kind, int]:
    """Return how many rows are of each kind, each row of its gravest."""
    lacking = ~rows.present.all(axis=1)
    tests = (
        (Kind.FUTURE_WRITE_TIME, rows.newest > when.future_us(max_skew_s)),
        (Kind.ZOMBIE_SUSPECT, zombie_suspects(table, replicas, rows, when)),
        (Kind.MISSING, lacking),
        (Kind.STALE, times_differ(rows)),
        (Kind.EXPIRY, expiries_differ(rows)),
        (Kind.TIE, np.ones(len(rows), np.bool_)),
    )
    left = np.ones(len(rows), np.bool_)
    found: dict[Kind, int] = {}
    for kind, applies in tests:
        found[kind] = int((left & applies).sum())
        left &= ~applies
    return {kind: count for kind, count in found.items() if count}


def zombie_suspects(table: Table, replicas: Sequence[Node], rows: UnlikeRows, when: ServerTime) -> Flags:
    """Return which rows a minority holds, with nothing as young as gc_grace_seconds in them (`zombies.py`)."""
    old: Flags = (rows.newest != NO_TIME) & (rows.newest < when.purged_us(table.gc_grace_seconds))
    patterns, which = np.unique(rows.present, axis=0, return_inverse=True)
    holders = [[node for node, held in zip(replicas, pattern, strict=True) if held] for pattern in patterns]
    minority = np.array([is_minority(replicas, replicas, nodes) for nodes in holders], np.bool_)
    suspects: Flags = old & minority[which.reshape(-1)] if len(rows) else old
    return suspects
