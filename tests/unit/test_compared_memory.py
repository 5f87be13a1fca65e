"""Very many rows that only one cluster holds are counted in bounded memory: ranges wait for one another.

CONSISTENCY_ROWS is how many (1,000,000 in `make soak`).
"""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from consistency.checking.plan import Leaf
from consistency.cluster.table_reader import TableReader
from consistency.comparing import counting
from consistency.comparing.counting import CountedRange, RangeCounter
from consistency.comparing.settling import Rules
from consistency.comparing.terms import Terms
from consistency.model.reading import Capabilities, Cell, Depth, Reading, Route, RowState
from consistency.model.sides import Side, SidedNode
from consistency.model.tokens import TokenRange
from consistency.results.pair_findings import PairKind
from consistency.rows.merge_join import Difference
from consistency.rows.names import RowName
from tests.simulation.vclock import SimClock, VirtualLoop, run_virtual
from tests.support.figures import Figures
from tests.unit.fake_cluster import US, nodes, table

ROWS = int(os.environ.get("CONSISTENCY_ROWS", "6000"))
A_RANGE = 200
(SOURCE,), (TARGET,) = ([SidedNode.of(side, node) for node in nodes(1)] for side in Side)


async def only_the_sources(_: object, leaf: Leaf, *__: object) -> AsyncIterator[Difference]:
    """Yield the rows of a range, none of which the target holds."""
    for token in range(leaf.token_range.start, leaf.token_range.end):
        key = (token.to_bytes(8, "big"),)
        state = RowState((Cell(b"value %d" % token, US),))
        yield Difference(RowName(token, key), {SOURCE: state, TARGET: None})
        if token % 100 == 0:
            await asyncio.sleep(0)


def counted(monkeypatch: pytest.MonkeyPatch, rows: int, most_waiting: int) -> tuple[int, int, float]:
    """Count rows, all ranges at once; return how many there were, how many waited at most, and the memory it took."""
    monkeypatch.setattr(counting, "joined_rows", only_the_sources)
    monkeypatch.setattr(counting, "MOST_WAITING", most_waiting)
    loop = VirtualLoop()
    reader = TableReader(
        cast("Any", None), Reading(table(), Depth.WRITETIMES, Capabilities()), Route.SERVER, SimClock(loop)
    )
    found, waited = 0, 0

    async def sink(settled: CountedRange) -> None:
        nonlocal found, waited
        found += settled.kinds[PairKind.ONLY_SOURCE]
        waited = max(waited, counter.waiting)

    rules = Rules(lambda _: Terms(), lambda _, __: (SOURCE, TARGET))
    counter = RangeCounter(reader, 2.0, rules, sink)

    async def main() -> None:
        starts = range(0, rows, A_RANGE)
        leaves = [Leaf(TokenRange(start, start + A_RANGE), (SOURCE, TARGET)) for start in starts]
        await asyncio.gather(*(counter.settle(leaf) for leaf in leaves))

    tracemalloc.start()
    run_virtual(loop, main())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, waited, peak / 1e6


def test_rows_that_only_the_source_holds_are_counted_in_memory_that_does_not_grow(
    monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """However many there are, and although every range may begin at once."""
    most = max(1_000, ROWS // 10)
    few, waited_few, memory_few = counted(monkeypatch, 2 * most, most)
    many, waited, memory = counted(monkeypatch, max(ROWS, 6 * most), most)
    assert (few, many) == (2 * most, max(ROWS, 6 * most))
    assert max(waited, waited_few) <= most + 2 * A_RANGE
    assert memory < 1.2 * memory_few + 1, (memory_few, memory)
    figures.add(f"memory for {many:,} rows that only the source holds, at most {most:,} waiting", f"{memory:.0f} MB")
