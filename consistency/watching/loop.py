"""The loop of a watch: visits table after table with little load, keeps the board, notifies hooks of a divergence."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from consistency.checking.observer import Several
from consistency.checking.run import run_check
from consistency.checking.tasks import CheckOptions
from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import ConsistencyError
from consistency.ledger import LatestReads
from consistency.model.reading import Depth
from consistency.model.schema import Table
from consistency.model.scope import choose_tables
from consistency.results.report import RepairSummary, Report, TableReport
from consistency.results.verdict import ExitCode
from consistency.watching.audience import Audience, Nobody
from consistency.watching.board import Board
from consistency.watching.event_log import EventLog
from consistency.watching.findings_folder import FindingsFolder
from consistency.watching.hooks import Hook, message_of
from consistency.watching.schedule import Choose, Pacing, least_recently_visited
from consistency.watching.telling import Teller
from consistency.watching.visit_ledger import Keeper, Kept
from consistency.watching.visiting import Visit, Visiting

DEFAULT_PERIOD_S = 86_400.0
DEFAULT_RUN_TIME_S = 300.0
_LATE_PERIODS = 2
"""A range that was not read for this many periods is unknown again."""

Open = Callable[[], AbstractAsyncContextManager[tuple[ClusterReader, Clock]]]
"""Opens the cluster, again for every visit, so that each sees the current ring."""


class Repairer(Protocol):
    """Repairs what a visit found, within limits; the ledger gets the verified rows even if the repair is cancelled."""

    @property
    def directory(self) -> Path:
        """Where it keeps findings, plans and journals."""

    async def repair(self, reader: ClusterReader, found: Report, checked: CheckOptions, stop: asyncio.Event) -> Report:
        """Return the report with the repair's result; ends between two rows when `stop` is set.

        `reader` is that of the visit: servers may allow no more connections than it has.
        """


@dataclass(frozen=True)
class WatchOptions:
    """What to watch: `check` as for one run; every table is visited once in `period_s`.

    With `check.run_time_s` a visit ends after that time, and a large table takes several visits; that needs a ledger.
    """

    check: CheckOptions = field(default_factory=CheckOptions)
    period_s: float = DEFAULT_PERIOD_S
    findings_dir: Path | None = None


@dataclass(frozen=True)
class _Seen:
    """The result of a visit. `late` is the part of a sliced table that this round has not reached yet."""

    report: Report
    recorded: bool = True
    sliced: bool = False
    late: float = 0.0
    latest: LatestReads | None = None
    states: Mapping[str, int] = field(default_factory=dict)


class Watch:
    """One watch; `run` returns when `stop` is set."""

    def __init__(
        self,
        opened: Open,
        options: WatchOptions,
        board: Board,
        log: EventLog | None = None,
        hooks: Sequence[Hook] = (),
        choose: Choose = least_recently_visited,
        *,
        keeper: Keeper | None = None,
        repairer: Repairer | None = None,
        audience: Audience | None = None,
    ) -> None:
        self._open = opened
        self._options = options
        self._board = board
        self._log = log
        self._teller = Teller(hooks, board.hook_failed, log)
        self._keeper = keeper or Keeper()
        self._repairer = repairer
        self._audience = audience or Nobody()
        self._findings = FindingsFolder(options.findings_dir, repairer.directory if repairer is not None else None)
        self._pacing = Pacing(options.period_s, choose)
        self._visiting = Visiting(self._visit, self._pacing, board, self._audience, log)

    @property
    def rounds(self) -> int:
        """The number of complete rounds."""
        return self._pacing.rounds

    async def run(self, stop: asyncio.Event) -> None:
        """Visit tables until stopped. UsageError if the names to watch do not exist at the start."""
        await self._visiting.run(stop)

    async def _visit(self, visit: Visit, stop: asyncio.Event) -> bool:
        """Visit one table; return whether it gave a report."""
        async with self._open() as (reader, clock):
            with self._keeper.visit(await reader.ring()) as kept:
                self._visiting.unlocked(visit, kept.note)
                seen = await self._look(visit, reader, clock, kept, stop)
        if seen is None:
            return False
        self._enter(visit, seen)
        await self._tell(seen, stop)
        return not seen.report.interrupted

    async def _look(
        self, visit: Visit, reader: ClusterReader, clock: Clock, kept: Kept, stop: asyncio.Event
    ) -> _Seen | None:
        """Check the next table, repair its findings if that is wanted, and record the result."""
        visit.table = table = await self._next(reader, clock, kept)
        if table is None:
            return None
        checked = self._check(table, visit.run_id)
        shown = self._audience.visiting(visit.run_id, table, kept.ring)
        observer = shown if visit.log is None else Several(visit.log, shown)
        report = await run_check(reader, clock, checked, observer, stop, kept.recorder)
        self._audience.recorded(table, kept.known)
        states = kept.states()
        if kept.problem:
            visit.emit("ledger.unwritten")
        elif states:
            visit.emit("ledger.recorded", **{state.replace(" ", "_"): count for state, count in states.items()})
        report = await self._repaired(visit, reader, report, checked, stop)
        (read,) = report.tables
        sliced = bool(read.depth) and read.coverage.skipped > 0
        partial = sliced or report.interrupted
        report = self._findings.keep(report, table.full_name, kept.ring, sliced=partial, reached=kept.reached)
        if not sliced:
            return _Seen(report, not kept.problem, states=states)
        lag_s = asyncio.get_running_loop().time() - self._pacing.began
        # Reads have times in whole seconds.
        began_us = math.floor(clock.now_us() / 1e6 - lag_s) * 1_000_000
        known_us = int(clock.now_us() - _LATE_PERIODS * self._options.period_s * 1e6)
        depth = Depth(read.depth)
        this_round = kept.latest(table.full_name, depth, began_us)
        late = this_round.late if this_round is not None else 1.0
        latest = kept.latest(table.full_name, depth, known_us)
        return _Seen(report, not kept.problem, sliced, late, latest, states)

    async def _next(self, reader: ClusterReader, clock: Clock, kept: Kept) -> Table | None:
        """Read which tables exist and choose one; None if there is none."""
        check = self._options.check
        scope = choose_tables(await reader.schema(), check.names, views=check.views)
        self._board.in_scope(scope)
        self._audience.in_scope(scope.tables, kept.known)
        self._visiting.began = True
        # In seconds of the loop's clock, like the visits of this watch.
        ahead_s = asyncio.get_running_loop().time() - clock.now_us() / 1e6
        read = {name: at_us / 1e6 + ahead_s for name, at_us in kept.read_until(check.depth, check.dc).items()}
        return self._pacing.choose(scope.tables, read)

    def _check(self, table: Table, run_id: str) -> CheckOptions:
        findings = self._findings.of_visit(table.full_name, run_id)
        return replace(self._options.check, names=(table.quoted,), run_id=run_id, findings=findings)

    async def _repaired(
        self, visit: Visit, reader: ClusterReader, report: Report, checked: CheckOptions, stop: asyncio.Event
    ) -> Report:
        """Repair the findings; a repair that ends early must not hide them."""
        rows = sum(report.findings_by_kind.values())
        if self._repairer is None or not rows or report.interrupted or stop.is_set():
            return report
        try:
            report = await self._repairer.repair(reader, report, checked, stop)
        except ConsistencyError as error:
            visit.emit("repair.failed", error=type(error).__name__)
            left = {f"the repair ended early: {type(error).__name__}": rows}
            return replace(report, repair=RepairSummary(rows=rows, remaining=rows, left=left))
        except asyncio.CancelledError as error:
            visit.emit("repair.failed", error=type(error).__name__)
            raise
        if (done := report.repair) is not None:
            verified = done.results.get("verified", 0)
            counts = {"rows": done.rows, "acted_on": done.acted_on, "verified": verified, "remaining": done.remaining}
            visit.emit("repair.ended", **counts, unknown=done.unknown, interrupted=done.interrupted)
        return report

    def _enter(self, visit: Visit, seen: _Seen) -> None:
        """Record the visit on the board and in the round."""
        report, table = seen.report, visit.table
        if visit.log is not None:
            visit.log.ended(report)
        if report.interrupted or table is None:
            return
        code = report.exit_code
        if not seen.recorded and code is ExitCode.CONSISTENT:
            code = ExitCode.COULD_NOT_RUN  # a run that is not in the ledger must not pass for one that is
        self._board.visited(report, visit.seconds, code, seen.latest)
        self._audience.visited(report, code)
        (shown,) = report.tables
        now = asyncio.get_running_loop().time()
        if seen.sliced and seen.recorded and shown.ranges_read:
            ended = self._pacing.sliced(table.full_name, **_slices(shown, seen.late))
        else:
            ended = self._pacing.visited(table.full_name, now)
        self._visiting.ended(whole_round=ended)

    async def _tell(self, seen: _Seen, stop: asyncio.Event) -> None:
        if not seen.report.findings_by_kind:
            return
        message = message_of(seen.report, time.time(), seen.states)
        await self._teller.tell(message, stop)


def _slices(table: TableReport, late: float) -> dict[str, int]:
    """Return how many visits of this size a table needs, and how many are left in this round."""
    slices = math.ceil(table.ranges / table.ranges_read)
    return {"slices": slices, "left": math.ceil(late * table.ranges / table.ranges_read)}
