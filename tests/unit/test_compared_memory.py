"""Very many rows that only one cluster holds are compared, and planned, in bounded memory: ranges wait for one another.

CONSISTENCY_ROWS is how many (1,000,000 in `make soak`).
"""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from pathlib import Path

import pytest

from consistency.checking import settle
from consistency.checking.plan import Leaf
from consistency.checking.scan import ScanOptions
from consistency.cluster.table_reader import TableReader
from consistency.comparing import counting
from consistency.comparing.counting import CountedRange, RangeCounter
from consistency.comparing.preparing import CompareOptions
from consistency.comparing.reader import PairReader
from consistency.comparing.run import run_compare
from consistency.comparing.settling import Rules
from consistency.comparing.terms import Terms
from consistency.model.reading import Capabilities, Depth, Reading, Route
from consistency.model.sides import Side, SidedNode
from consistency.model.tokens import TokenRange
from consistency.results.pair_findings import PairKind
from repair.sync.planner import SyncOptions, make_sync_plan
from tests.simulation.vclock import SimClock, VirtualLoop, run_virtual
from tests.support import many_rows
from tests.support.figures import Figures
from tests.support.many_rows import lacking
from tests.unit.fake_cluster import nodes, table

ROWS = int(os.environ.get("CONSISTENCY_ROWS", "6000"))
(SOURCE,), (TARGET,) = ([SidedNode.of(side, node) for node in nodes(1)] for side in Side)


def counted(monkeypatch: pytest.MonkeyPatch, rows: int, most_waiting: int) -> tuple[int, int, float]:
    """Count rows, all ranges at once; return how many there were, how many waited at most, and the memory it took."""
    monkeypatch.setattr(counting, "MOST_WAITING", most_waiting)
    loop = VirtualLoop()
    pair = lacking(rows)
    reader = PairReader(pair, {"shop.orders": table()})
    reading = Reading(table(), Depth.WRITETIMES, Capabilities())
    found, waited = 0, 0

    async def sink(settled: CountedRange) -> None:
        nonlocal found, waited
        found += settled.kinds[PairKind.ONLY_SOURCE]
        waited = max(waited, counter.waiting)

    rules = Rules(lambda _: Terms(), lambda _, __: (SOURCE, TARGET))
    counter = RangeCounter(TableReader(reader, reading, Route.SERVER, SimClock(loop)), 2.0, rules, sink)

    async def main() -> None:
        leaves = [Leaf(part, (SOURCE, TARGET)) for part in TokenRange.full_ring().split(max(1, rows // 200))]
        await asyncio.gather(*(counter.settle(leaf, asyncio.Event()) for leaf in leaves))

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
    assert most <= max(waited, waited_few) <= most + 800
    assert memory < 1.2 * memory_few + 1, (memory_few, memory)
    figures.add(f"memory for {many:,} rows that only the source holds, at most {most:,} waiting", f"{memory:.0f} MB")


def test_a_row_that_waits_to_be_counted_takes_a_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no object, which takes 400 and more."""
    _, waited, memory = counted(monkeypatch, 2_000, 100_000)
    _, waited_more, memory_more = counted(monkeypatch, 8_000, 100_000)
    assert (memory_more - memory) * 1e6 / (waited_more - waited) < 250


@pytest.mark.parametrize("listed", [100, None], ids=["counted", "listed"])
def test_a_comparison_and_its_sync_are_planned_in_memory_that_does_not_grow(
    listed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """Whether its rows are counted or listed, five times the rows take no more."""
    monkeypatch.setattr(counting, "MOST_WAITING", 100)  # far fewer than there are: how many wait depends on the machine
    monkeypatch.setattr(settle, "_QUEUE_LIMIT", 100)
    monkeypatch.setattr(many_rows, "PAGE", 20)
    rows = min(ROWS // 3, 20_000) // 5
    (compared_few, planned_few), (compared, planned) = (_peaks(count, listed, tmp_path) for count in (rows, 5 * rows))
    assert compared < 1.3 * compared_few + 1, (compared_few, compared)
    assert planned < 1.3 * planned_few + 1, (planned_few, planned)
    how = "listed" if listed is None else "counted"
    figures.add(f"memory for {5 * rows:,} rows that are {how}, then planned", f"{compared:.1f} and {planned:.1f} MB")


def _peaks(rows: int, listed: int | None, folder: Path) -> tuple[float, float]:
    """Return what memory comparing and planning a sync took, in MB."""
    pair, findings = lacking(rows), folder / f"{rows}.findings"
    scan = ScanOptions(max_findings=listed, leaf_rows=50)
    options = CompareOptions(findings=findings, settle_window_s=0.0, scan=scan)
    peaks: list[float] = []
    for work in (
        lambda: run_compare(pair, options),
        lambda: make_sync_plan(pair, findings, folder / f"{rows}.plan", SyncOptions(settle_s=0.0)),
    ):
        tracemalloc.start()
        result = asyncio.run(work())  # type: ignore[arg-type]
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    assert result.summary.to_do == rows
    return peaks[0], peaks[1]
