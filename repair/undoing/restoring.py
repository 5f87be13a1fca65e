"""The writes that bring an earlier copy of a row back, and the truncation that forbids it."""

from __future__ import annotations

import math
from collections import defaultdict

from consistency.errors import ReplicaError
from consistency.model.reading import Cell, RowState
from repair.deciding.case import Case
from repair.keeping.entries import Entry
from repair.writing.statements import Assigned, Write, delete_row, put_cells, put_row
from repair.writing.writer import RowWriter

_DOUBT_US = 10_000_000
"""How much earlier than the end of a row's repair a truncation may be recorded that came after it: clocks differ."""


async def truncated_since(writer: RowWriter, evidence: Case, entry: Entry) -> str:
    """Say why nothing may be brought back into a table that was emptied since; empty if it was not.

    A row that the repair left nowhere looks the same after TRUNCATE, which only the nodes' own records tell. While one
    of them cannot be read, it is not known.
    """
    try:
        truncated_us = await writer.truncated_us(tuple(evidence.states), evidence.table.table_id)
    except ReplicaError as error:
        return f"it is not known whether its table was truncated since: {error}"
    if truncated_us is None or (entry.by_us is not None and truncated_us < entry.by_us - _DOUBT_US):
        return ""
    return "its table was truncated since: if the row must come back, write it yourself"


def restoring(evidence: Case, wanted: RowState | None, at_us: int) -> list[Write] | str:
    """Return the writes that make `wanted` the newest version, or why they cannot be written.

    All carry one write time; cells that expire at different times take a write each.
    """
    if wanted is None and not evidence.name.static:
        return [delete_row(evidence, at_us)]
    by_expiry: dict[int | None, list[Assigned]] = defaultdict(list)
    nothing: list[Assigned] = []
    cells = wanted.cells if wanted else (Cell(None),) * len(evidence.columns)
    for column, cell in zip(evidence.columns, cells, strict=True):
        expiries = set(cell.expires) if isinstance(cell.expires, tuple) else {cell.expires}
        if len(expiries) > 1:
            return f"the elements of {column.column.name} expire at different times: no single write can restore them"
        group = nothing if cell.value is None else by_expiry[expiries.pop() if expiries else None]
        group.append((column.column, cell.value))
    now_s = evidence.when.expiry_s
    if any(expiry is not None and expiry <= now_s for expiry in by_expiry):
        return "some of the earlier cells have expired since"
    # The first write makes the row, which lasts as long as the longest of its cells.
    order = sorted(by_expiry, key=lambda expiry: math.inf if expiry is None else expiry, reverse=True) or [None]
    writes = []
    for number, expiry in enumerate(order):
        assigned = by_expiry[expiry] + (nothing if number == 0 else [])
        put = put_row if number == 0 and not evidence.name.static else put_cells
        writes.append(put(evidence, assigned, at_us, expiry))
    return writes
