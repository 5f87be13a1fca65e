"""A simulated check in parts: each by itself, then put together."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from consistency.checking.merging import choose, merge
from consistency.checking.plan import TablePlan
from consistency.checking.run import run_check
from consistency.checking.tasks import CheckOptions
from consistency.ledger.part_account import PartAccount
from consistency.ledger.parts import PartRecorder
from consistency.model.part import Part
from consistency.results.report import Report
from tests.simulation.cases import Checked, Remembering, Watching
from tests.simulation.memory import SimCluster
from tests.simulation.vclock import SimClock


def in_parts(of: int, *, at_once: bool = False, without: Sequence[int] = ()) -> Checked:
    """Return a check in so many parts, one after the other or all at once; some may be missing in the end."""

    async def checked(
        cluster: SimCluster,
        clock: SimClock,
        options: CheckOptions,
        watching: Watching,
        stop: asyncio.Event,
        remembering: Remembering,
    ) -> Report:
        kept: list[str] = []
        plans: list[TablePlan] = []

        async def one(part: Part, folder: Path) -> None:
            taker = Watching()
            path = folder / f"part-{part.number}.jsonl"
            recorder = PartRecorder(part, "", options.terms, lambda account: kept.append(account.as_text()) or "")
            chosen = replace(options, part=part, findings=path)
            report = await run_check(cluster, clock, chosen, taker, stop, recorder)
            assert report.part == part
            assert report.verdict.value != "consistent"
            plans.extend(taker.plans)

        with tempfile.TemporaryDirectory() as place:
            parts = [Part(number, of) for number in range(1, of + 1) if number not in without]
            if at_once:
                await asyncio.gather(*(one(part, Path(place)) for part in parts))
            else:
                for part in parts:
                    await one(part, Path(place))
            accounts = [(PartAccount.from_text(text), Path(place) / "ledger") for text in kept]
            report = merge(choose(accounts, None, {}), Path(place) / "all.jsonl", remembering, watching)
            told = {table.full_name for table in report.tables}  # others were dropped before the newest part began
            watching.plans += [plan for plan in _joined(plans) if plan.table.full_name in told]
            return report

    return checked


def _joined(plans: Sequence[TablePlan]) -> list[TablePlan]:
    ordered = sorted(plans, key=lambda plan: plan.table.full_name)
    groups = [list(same) for _, same in itertools.groupby(ordered, key=lambda plan: plan.table.full_name)]
    return [TablePlan(same[0].table, tuple(a for plan in same for a in plan.arcs), 0) for same in groups]
