"""A check by several processes and in parts, on a real cluster: every shape of damage, as by one process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from consistency.checking.merging import choose, merge
from consistency.checking.run import run_check
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions, recorder_of
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.request_counts import SharedCounts
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import GivenOptions
from consistency.ledger import open_ledger
from consistency.model.part import Part
from consistency.model.reading import Route
from consistency.results.findings import read_all
from consistency.results.report import Report
from consistency.spreading.checked import run_spread
from consistency.spreading.local import LocalWorkers
from consistency.spreading.messages import Terms
from tests.support.cluster import RunningCluster, summary
from tests.support.damage import SHAPES, Planter
from tests.unit.test_spreading import Reading

pytestmark = pytest.mark.cluster
SMALL = ScanOptions(leaf_rows=5)
"""So that even small tables have many units."""


@pytest.fixture(scope="module")
def planted(cluster: RunningCluster) -> Planter:
    """Every shape with its damage, in one keyspace."""
    planter = Planter(cluster, cluster.keyspace("several"))
    for build in SHAPES.values():
        build(planter)
    return planter


def found(path: Path) -> Counter[Any]:
    """Return what a findings file holds, with the evidence of every row."""
    return Counter(repr(sorted(each.as_json().items())) for each in read_all(path))


def figures(report: Report) -> dict[str, Any]:
    """Return what of a report does not depend on who read when: rows of one table expire meanwhile."""
    tables = {
        t.full_name: (t.rows * (t.table != "expiring"), t.divergent_rows, t.verdict, t.depth, t.route, t.strip)
        for t in report.tables
    }
    return {"verdict": report.verdict, "kinds": report.findings_by_kind, "violations": report.violations, **tables}


def by_workers(planted: Planter, size: int, path: Path, *, kills: int = 0, **options: Any) -> Report:
    """Check by local workers, of which some are killed on the way."""
    settings = planted.cluster.settings
    hosts = ",".join(f"{host}:{port}" for host, port in settings.contact_points)
    given = GivenOptions(hosts=hosts, username=settings.username)
    reading = Reading()

    async def kill(crew: LocalWorkers) -> None:
        await reading.some.wait()
        killed: list[int] = []
        while len(killed) < kills:
            if fresh := [pid for pid in crew.pids if pid not in killed]:
                os.kill(fresh[0], signal.SIGKILL)
                killed.append(fresh[0])
            await asyncio.sleep(0.3)

    async def run() -> Report:
        async with open_cluster(settings) as (reader, clock):
            ring = await reader.ring()
            crew = LocalWorkers(size, ring.host_ids)
            reader.count_with(SharedCounts(crew.counts, ring.host_ids, size, size + 1))
            aside = asyncio.create_task(kill(crew))
            chosen = CheckOptions(("several",), findings=path, scan=SMALL, settle_window_s=0.3, **options)
            try:
                return await run_spread(reader, clock, chosen, crew, Terms(given=given), reading)
            finally:
                aside.cancel()
                await asyncio.gather(aside, return_exceptions=True)

    return asyncio.run(run())


def in_parts(planted: Planter, of: int, folder: Path, **options: Any) -> Report:
    """Check part after part, and put them together."""

    async def one(part: Part) -> None:
        path = folder / f"{part.number}.jsonl"
        chosen = CheckOptions(("several",), findings=path, part=part, scan=SMALL, settle_window_s=0.3, **options)
        with open_ledger(folder / f"{part.number}.ledger", shared=True) as ledger:
            limits = ReadLimits(reader=part.number - 1, readers=part.of)
            async with open_cluster(planted.cluster.settings, limits) as (reader, clock):
                await run_check(reader, clock, chosen, recorder=recorder_of(ledger, chosen))

    async def every() -> None:
        await asyncio.gather(*(one(Part(number, of)) for number in range(1, of + 1)))

    asyncio.run(every())
    accounts = []
    for path in sorted(folder.glob("*.ledger")):
        with open_ledger(path) as ledger:
            accounts += [(account, path) for account in ledger.parts()]
    return merge(choose(accounts, None, {}), folder / "all.jsonl")


def test_workers_find_every_planted_row_though_five_are_killed(
    planted: Planter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 on the way: the same evidence, row by row, as one process has."""
    if planted.cluster.settings.password:
        monkeypatch.setenv("CONSISTENCY_PASSWORD", planted.cluster.settings.password)
    alone, _ = planted.cluster.findings(tmp_path / "one", "several", route=Route.CLIENT, scan=SMALL)
    shared = by_workers(planted, 2, tmp_path / "two", kills=5, route=Route.CLIENT)
    assert shared.coverage.failed == 0, summary(shared)
    assert figures(shared) == figures(alone)
    assert found(tmp_path / "two") == found(tmp_path / "one")


def test_parts_at_once_find_every_planted_row(planted: Planter, tmp_path: Path) -> None:
    """Servers hash for two processes at the same time, each in lanes of its own."""
    alone, _ = planted.cluster.findings(tmp_path / "one", "several", route=Route.SERVER, scan=SMALL)
    together = in_parts(planted, 2, tmp_path, route=Route.SERVER)
    assert together.coverage.failed == 0, summary(together)
    assert figures(together) == figures(alone)
    assert found(tmp_path / "all.jsonl") == found(tmp_path / "one")
