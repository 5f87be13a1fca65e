"""Where the rows that a check has listed lie so densely that their ranges are merged sooner than the rows one by one.

A row that is planned, merged and proven by itself takes some 2.5 ms, a range that is merged some 30 us for each of its
rows, whether they differ or not (docs/design/0024).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from consistency.checking.plan import Leaf, cut, estimate_rows
from consistency.cluster.port import ReplicaReader
from consistency.errors import ReplicaError
from consistency.model.ownership import cut_arcs
from consistency.model.tokens import TokenRange
from consistency.results.figures import counted
from consistency.results.findings import Finding, State
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from consistency.rows.names import RowRef
from repair.deciding.case import CaseReader
from repair.deciding.mergeable import FEW, why_by_rows
from repair.deciding.policy import Policy

MANY = 10_000
"""Rows of one table that differ, listed or counted: of fewer each is planned, as people may want to look at them."""
_DENSE = 0.02
"""The share of a range's rows that differ from which on it is dense."""


States = tuple[tuple[str, State], ...]
"""What each replica holds of a row, by the replica's name."""


@dataclass(frozen=True, slots=True)
class ListedRow:
    """What a plan keeps of a finding: write times and what else people read of it would fill the memory."""

    ref: RowRef
    kind: Kind
    states: States


@dataclass(frozen=True)
class DenseRange:
    """The rows that a check has listed in one range, and what it would have said had it counted them."""

    found: RangeFinding
    rows: Sequence[ListedRow]


def listed_rows(findings: Iterable[Finding]) -> Iterator[ListedRow]:
    """Yield what a plan keeps of findings; rows of which replicas hold the same share what is said of it."""
    shared: dict[States, States] = {}
    for found in findings:
        states = tuple((name, view.state) for name, view in found.replicas.items())
        yield ListedRow(RowRef.of(found), found.kind, shared.setdefault(states, states))


async def dense_ranges(
    cases: CaseReader,
    reader: ReplicaReader,
    listed: Iterable[ListedRow],
    ranges: Sequence[RangeFinding],
    policy: Policy,
) -> list[DenseRange]:
    """Return the dense ranges of listed rows that can be merged as ranges, of the tables of which many rows differ.

    None of them overlaps one of `ranges`, whose rows were counted. Where a table's rows cannot be estimated nobody
    knows how densely they lie, and each is planned.
    """
    tables: dict[str, list[ListedRow]] = defaultdict(list)
    for row in listed:
        if row.kind is not Kind.NON_OWNER:  # such a row is not for its owners to merge
            tables[row.ref.full_name].append(row)
    dense: list[DenseRange] = []
    for name, rows in sorted(tables.items()):
        others = [found for found in ranges if found.full_name == name]
        if len(rows) + sum(found.rows for found in others) < MANY:
            continue
        with suppress(ReplicaError):
            for leaf, inside in await _dense_leaves(cases, reader, rows, [found.token_range for found in others]):
                found = _counted(leaf, inside)
                if not await why_by_rows(cases, found, policy):
                    dense.append(DenseRange(found, inside))
    return dense


def dense_warnings(dense: Iterable[DenseRange]) -> Iterable[str]:
    """Say that listed rows are merged as ranges."""
    tables: dict[str, list[RangeFinding]] = defaultdict(list)
    for each in dense:
        tables[each.found.full_name].append(each.found)
    for name, ranges in tables.items():
        rows, few = counted(sum(found.rows for found in ranges), "listed row"), counted(len(ranges), "range")
        yield (
            f"{rows} of {name}, which lie so densely, to be merged as {few}: apply decides each row, no plan shows it;"
            " --range-merge never plans each"
        )


async def _dense_leaves(
    cases: CaseReader, reader: ReplicaReader, rows: Sequence[ListedRow], taken: Sequence[TokenRange]
) -> list[tuple[Leaf, Sequence[ListedRow]]]:
    """Return the leaves of one table of which many rows are listed for the size of the leaf, with these rows.

    What is `taken` of the ring was counted, and is in none of them.
    """
    ref = rows[0].ref
    table, arcs = cases.table(ref), cases.ring.arcs(cases.keyspace(ref).replication)
    estimated = await estimate_rows(reader, table, arcs)
    left, _ = cut_arcs(arcs, taken)
    leaves = sorted(cut(table, left, estimated).leaves, key=lambda leaf: leaf.token_range)
    ends = [leaf.token_range.end for leaf in leaves]
    inside: dict[int, list[ListedRow]] = defaultdict(list)
    for row in rows:
        number = bisect_left(ends, row.ref.token)
        if number < len(leaves) and row.ref.token in leaves[number].token_range:
            inside[number].append(row)
    least = [max(FEW, _DENSE * estimated * leaf.token_range.share) for leaf in leaves]
    return [(leaves[n], held) for n, held in sorted(inside.items()) if len(held) >= least[n]]


def _counted(leaf: Leaf, rows: Sequence[ListedRow]) -> RangeFinding:
    """Count listed rows as a check counts those that it does not list."""
    lacks: dict[str, Counter[State]] = defaultdict(Counter)
    for row in rows:
        for name, state in row.states:
            lacks[name][state] += 1
    views = {
        node.name: RangeView(lacks[node.name][State.MISSING], lacks[node.name][State.STALE], node.host_id)
        for node in leaf.replicas
    }
    kinds = dict(sorted(Counter(row.kind for row in rows).items()))
    return RangeFinding(rows[0].ref.keyspace, rows[0].ref.table, leaf.token_range, kinds, dict(sorted(views.items())))
