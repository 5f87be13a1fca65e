"""Ranges in simulated repairs: some of a table's rows are planned as ranges, and are held against the laws of rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from consistency.model.cqltype import parse_type
from consistency.model.ring import Ring
from consistency.model.schema import Table
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from consistency.rows.names import RowRef
from repair.applying.chunks import Limits
from repair.deciding.case import CaseReader
from repair.deciding.decide import Action, Rule
from repair.deciding.mergeable import why_by_rows
from repair.deciding.policy import Policy
from repair.keeping.chunk_lines import ChunkRecord
from repair.keeping.entries import Entry, Result
from repair.keeping.planfile import Plan, PlannedRow
from repair.keeping.record import Record
from repair.undoing.undo import Proof, proof
from tests.simulation.repair_laws import Row


def draw_limits(rng: random.Random) -> Limits:
    """Draw how large chunks are: of a row or two in half of the cases, so that there are many of them."""
    rows = rng.choice((1, 2, 5, 2_000))
    return Limits(rows=rows, read=rng.choice((3, 20_000)), of_token=rng.choice((2, 4, 20_000, 20_000)))


def of_range_tables(table: Table) -> Table:
    """Return the table without what keeps its ranges from being merged."""
    columns = tuple(
        replace(column, type=parse_type("int", {}))
        if column.kind == "clustering" and column.type.is_respelled
        else column
        for column in table.columns
        if column.kind != "static"
    )
    return replace(table, columns=columns, read_repair="BLOCKING")


async def draw_ranges(
    rng: random.Random, cases: CaseReader, table: Table, policy: Policy, ring: Ring
) -> tuple[RangeFinding, ...]:
    """Return most of the ranges of the ring that may be merged as ranges, with counts that nobody has counted."""
    tokens = sorted({token for token, _ in ring.owners})
    found = []
    for start, end in pairwise([MIN_TOKEN, *tokens, MAX_TOKEN]):
        if start == end or rng.random() < 0.1:
            continue
        views = {node.name: RangeView(host_id=node.host_id) for node in ring.nodes}
        counted = RangeFinding(
            table.keyspace, table.name, TokenRange(start, end), {Kind.STALE: rng.randrange(5)}, views
        )
        if not await why_by_rows(cases, counted, policy):
            found.append(counted)
    return tuple(found)


def by_rows(record: Record, rows: Sequence[Row], ref: Callable[[Row], RowRef]) -> Record:
    """Return a record of all rows by their numbers, as if each had been planned: those of ranges too.

    Of a row of a range of which the journal holds no copy nothing was to be done.
    """
    listed = {planned.ref.identity: number for number, planned in enumerate(record.plan.rows)}
    in_chunks = {
        row.planned.ref.identity: (row.planned, _entry(chunk, place, row.entry))
        for chunk, found in record.unpacked()
        for place, row in enumerate(found)
    }
    planned: list[PlannedRow] = []
    entries: dict[int, Entry] = {}
    for number, row in enumerate(rows):
        name = ref(row)
        if name.identity in listed:
            at = listed[name.identity]
            planned.append(record.plan.rows[at])
            entries.update({number: record.entries[at]} if at in record.entries else {})
        elif name.identity in in_chunks:
            one, entries[number] = in_chunks[name.identity]
            planned.append(one)
        else:
            planned.append(PlannedRow(name, Rule.AGREED, Action.NONE, "", {}))
            entries[number] = Entry(result=Result.VERIFIED)
    return Record(replace(record.plan, rows=tuple(planned), ranges=()), entries)


def _entry(chunk: ChunkRecord, place: int, entry: Entry) -> Entry:
    undone = chunk.is_undone(place) and proof(entry) is Proof.CHANGED
    return replace(entry, undo=Result.UNDONE if undone else None, undoing_us=chunk.undoing.get(place))


def lie_in_ranges(plan: Plan, rows: Sequence[Row], ref: Callable[[Row], RowRef]) -> frozenset[Row]:
    """Return the rows that lie in a planned range."""
    return frozenset(row for row in rows if any(ref(row).token in each.token_range for each in plan.ranges))
