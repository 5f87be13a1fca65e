"""The loop of a watch of two clusters: compares one table after the other with its counterpart, and starts over.

A side that is away makes a table unknown, never equal; the next visit tries again. A table is compared as a whole, so
that it is known when it was last equal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from consistency.checking.observer import PairObserver, SeveralOfPair
from consistency.comparing.matching import Matched, TablePair, match_tables
from consistency.comparing.opening import Pair, ring_of
from consistency.comparing.preparing import CompareOptions
from consistency.comparing.reader import PairClock
from consistency.comparing.recording import as_kept, placement
from consistency.comparing.run import run_compare
from consistency.ledger import ComparedPair, PastComparison
from consistency.model.ring import Ring
from consistency.model.sides import Side
from consistency.results.comparison import Comparison
from consistency.results.verdict import ExitCode
from consistency.watching.event_log import EventLog
from consistency.watching.events import level_of, target_fields
from consistency.watching.findings_folder import VISIT_SUFFIX
from consistency.watching.hooks import Hook
from consistency.watching.loop import DEFAULT_PERIOD_S
from consistency.watching.schedule import Choose, Pacing, least_recently_visited
from consistency.watching.target_audience import NoTargetAudience, TargetAudience
from consistency.watching.target_board import TargetBoard
from consistency.watching.target_end import TargetTable, target_message
from consistency.watching.target_ledger import PairsKeeper, PairsKept
from consistency.watching.telling import Teller
from consistency.watching.visiting import Visit, Visiting

Open = Callable[[], AbstractAsyncContextManager[Pair]]
"""Opens both clusters, again for every visit, so that each sees the current rings."""


@dataclass(frozen=True)
class TargetWatchOptions:
    """What to compare for ever: `compare` as for one run; every table is visited once in `period_s`."""

    compare: CompareOptions = field(default_factory=CompareOptions)
    period_s: float = DEFAULT_PERIOD_S
    findings_dir: Path | None = None


class TargetWatch:
    """One watch of two clusters; `run` returns when `stop` is set."""

    def __init__(
        self,
        opened: Open,
        options: TargetWatchOptions,
        board: TargetBoard,
        log: EventLog | None = None,
        hooks: Sequence[Hook] = (),
        choose: Choose = least_recently_visited,
        *,
        keeper: PairsKeeper | None = None,
        audience: TargetAudience | None = None,
    ) -> None:
        self._open = opened
        self._options = options
        self._board = board
        self._log = log
        self._teller = Teller(hooks, board.hook_failed, log)
        self._keeper = keeper or PairsKeeper()
        self._audience = audience or NoTargetAudience()
        self._pacing = Pacing(options.period_s, choose)
        self._visiting = Visiting(self._visit, self._pacing, board, self._audience, log)

    @property
    def rounds(self) -> int:
        """The number of complete rounds."""
        return self._pacing.rounds

    async def run(self, stop: asyncio.Event) -> None:
        """Compare tables until stopped. UsageError if the names to watch do not exist at the start."""
        await self._visiting.run(stop)

    async def _visit(self, visit: Visit, stop: asyncio.Event) -> bool:
        """Compare one table; return whether there is a result."""
        async with self._open() as pair:
            rings = {cluster.side: await ring_of(cluster) for cluster in pair}
            with self._keeper.visit(rings) as kept:
                self._visiting.unlocked(visit, kept.note)
                result = await self._look(visit, pair, rings, kept, stop)
        if result is None:
            return False
        if result.findings_by_kind or any(result.inner.values()):
            await self._teller.tell(target_message(result, time.time()), stop)
        return not result.interrupted

    async def _look(
        self, visit: Visit, pair: Pair, rings: Mapping[Side, Ring], kept: PairsKept, stop: asyncio.Event
    ) -> Comparison | None:
        """Compare the next table and record the result."""
        schemas = {cluster.side: await cluster.reader.schema() for cluster in pair}
        matched = match_tables(schemas[Side.SOURCE], schemas[Side.TARGET], self._options.compare.names)
        now_us = PairClock(pair).now_us()
        past = {tables.source.full_name: kept.past(self._named(tables), now_us) for tables in matched.pairs}
        self._board.in_scope(rings, matched, past.get)
        tables = self._next(pair, matched, past)
        if tables is None:
            self._visiting.began = True
            self._board.waited(visit.seconds, ExitCode.INCOMPLETE)
            return None
        visit.table = tables.source
        # Each server's clock is later than this, so no write that the comparison saw is older than it says.
        began_us = PairClock(pair).server_time().earliest_us
        counts = self._audience.comparing(visit.run_id, tables.source.full_name)
        observer: PairObserver = counts if visit.log is None else SeveralOfPair(visit.log, counts)
        result = await run_compare(pair, self._asked(tables, visit.run_id), observer, stop)
        self._visiting.began = True
        result = self._kept(result, tables)
        self._enter(visit, tables, result, began_us, kept, placement(tables, rings, schemas))
        return result

    def _named(self, tables: TablePair) -> ComparedPair:
        return as_kept(tables, self._options.compare)

    def _next(self, pair: Pair, matched: Matched, past: Mapping[str, PastComparison | None]) -> TablePair | None:
        """Choose the pair that was compared least recently; None if there is none."""
        # In seconds of the loop's clock, like the visits of this watch.
        ahead_s = asyncio.get_running_loop().time() - PairClock(pair).now_us() / 1e6
        read = {name: known.compared_us / 1e6 + ahead_s for name, known in past.items() if known is not None}
        chosen = self._pacing.choose(tuple(tables.source for tables in matched.pairs), read)
        return next((tables for tables in matched.pairs if tables.source is chosen), None)

    def _asked(self, tables: TablePair, run_id: str) -> CompareOptions:
        folder, name = self._options.findings_dir, tables.source.full_name
        findings = folder / f"{name}.jsonl{VISIT_SUFFIX}" if folder is not None else None
        names = (f"{tables.source.quoted}={tables.target.quoted}",)
        return replace(self._options.compare, names=names, run_id=run_id, findings=findings)

    def _kept(self, result: Comparison, tables: TablePair) -> Comparison:
        """Make the findings of a whole visit the latest of its table."""
        folder = self._options.findings_dir
        if folder is None or result.findings_path is None:
            return result
        visit, latest = Path(result.findings_path), folder / f"{tables.source.full_name}.jsonl"
        try:
            if result.interrupted:
                visit.unlink(missing_ok=True)
                return replace(result, findings_path=None)
            visit.replace(latest)
        except OSError as error:  # the figures are known anyway
            return replace(result, findings_path=None, findings_error=error.strerror or type(error).__name__)
        return replace(result, findings_path=str(latest))

    def _enter(
        self, visit: Visit, tables: TablePair, result: Comparison, began_us: int, kept: PairsKept, where: str
    ) -> None:
        """Record the comparison in the ledger, on the board and in the round; an interrupted one counts nowhere."""
        (compared,) = (table for table in result.tables if table.report.full_name == tables.source.full_name)
        code = result.exit_code
        past = kept.past(self._named(tables), began_us)
        if not result.interrupted:
            past = kept.record(self._named(tables), began_us, compared.verdict, where)
            if kept.problem:
                visit.emit("ledger.unwritten")
        if kept.problem and code is ExitCode.CONSISTENT:
            code = ExitCode.COULD_NOT_RUN  # a run that is not in the ledger must not pass for one that is
        equal_s = past.equal_us / 1e6 if past is not None and past.equal_us is not None else None
        table = TargetTable.of(compared, began_us / 1e6, equal_s)
        if visit.log is not None:
            told = target_fields(table, visit.seconds, interrupted=result.interrupted)
            visit.log.emit_at(level_of(result.verdict), "target.compared", **told)
        if result.interrupted:
            return
        self._board.compared(table, visit.seconds, code)
        self._audience.compared(visit.run_id, table, compared.report.rows, code)
        now = asyncio.get_running_loop().time()
        self._visiting.ended(whole_round=self._pacing.visited(table.full_name, now))
