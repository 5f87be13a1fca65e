"""The rows of ranges that a check counted and did not list: read anew, they are planned like all others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from consistency.checking.joined_rows import joined_rows
from consistency.checking.plan import Leaf
from consistency.errors import ReplicaError
from consistency.results.range_findings import RangeFinding
from consistency.rows.merge_join import JoinCounts
from consistency.rows.names import RowRef, row_ref
from repair.deciding.case import CaseReader
from repair.deciding.mergeable import place_of


async def rows_of_ranges(cases: CaseReader, ranges: Iterable[RangeFinding]) -> AsyncGenerator[RowRef, None]:
    """Yield the rows of some ranges on which their replicas differ now, in ring order within a range.

    Raises a ReplicaError if a replica does not answer: a row that it alone lacks would else be left out of the plan,
    and nobody would know.
    """
    for found in ranges:
        place = place_of(found)
        table = cases.table_reader(place)
        leaf = Leaf(found.token_range, cases.owners(place))
        try:
            async with aclosing(joined_rows(table, leaf, JoinCounts(), table.now_s())) as rows:
                async for difference in rows:
                    yield row_ref(table.reading.table, difference.name)
        except ReplicaError as error:
            msg = f"rows of {found.full_name} in {found.token_range} cannot be read, plan again later: {error}"
            raise ReplicaError(msg) from error
