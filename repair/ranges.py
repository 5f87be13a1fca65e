"""The rows of ranges that a check counted and did not list: read anew, they are planned like all others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from consistency.checking.joined_rows import joined_rows
from consistency.checking.plan import Leaf
from consistency.cli.show.terminal.advice import quoted
from consistency.errors import ReplicaError
from consistency.model.cqltext import visible
from consistency.model.ownership import joined
from consistency.model.tokens import TokenRange
from consistency.results.range_findings import RangeFinding
from consistency.rows.merge_join import JoinCounts
from consistency.rows.names import RowRef, row_ref
from repair.case import CaseReader
from repair.mergeable import place_of


async def rows_of_ranges(cases: CaseReader, ranges: Iterable[RangeFinding]) -> AsyncGenerator[RowRef, None]:
    """Yield the rows of some ranges on which their replicas differ now, in ring order within a range.

    Raises a ReplicaError where a replica does not answer: a row that it alone lacks would else be left out of the plan,
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


def nodetool_commands(ranges: Sequence[RangeFinding]) -> list[str]:
    """Return the subrange repairs of Cassandra's own that cover the ranges, touching ones joined.

    Each is run on one of the replicas named behind it; a check that follows proves what it did.
    """
    tables: dict[tuple[str, str, tuple[str, ...]], list[TokenRange]] = {}
    for found in ranges:
        tables.setdefault((found.keyspace, found.table, tuple(found.replicas)), []).append(found.token_range)
    return [
        f"nodetool repair --full -st {each.start} -et {each.end} {quoted(keyspace)} {quoted(table)}"
        f"  # on one of {', '.join(map(visible, replicas))}"
        for (keyspace, table, replicas), found in sorted(tables.items())
        for each in joined(found)
    ]
