"""Watch for ever: visit one table after another at a polite pace, keep the board, tell hooks of a divergence."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from consistency.board import Board
from consistency.checking import CheckOptions, run_check
from consistency.errors import ConsistencyError, UsageError
from consistency.eventlog import EventLog
from consistency.hooks import Hook, HookFailed, deliver, message_of
from consistency.reader import Clock, ClusterReader
from consistency.report import Report
from consistency.schema import Table
from consistency.scope import choose_tables

DEFAULT_PERIOD_S = 86_400.0
_SHORTEST_PAUSE_S = 1.0
_AFTER_FAILURE_S = 60.0

Open = Callable[[], AbstractAsyncContextManager[tuple[ClusterReader, Clock]]]
"""Opens the cluster; anew for every visit, so that each sees the ring as it is."""

Choose = Callable[[Sequence[Table], Mapping[str, float]], Table]
"""Says what to check next: of the tables in scope, knowing when each was last visited (seconds of the loop)."""


def least_recently_visited(tables: Sequence[Table], visited: Mapping[str, float]) -> Table:
    """Return the table whose visit is longest ago; one that never had any comes first, in the order of names."""
    return min(tables, key=lambda table: (visited.get(table.full_name, float("-inf")), table.full_name))


@dataclass(frozen=True)
class WatchOptions:
    """What to watch: `check` as for one run, `period_s` in which every table is visited once."""

    check: CheckOptions = field(default_factory=CheckOptions)
    period_s: float = DEFAULT_PERIOD_S
    findings_dir: Path | None = None


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
    ) -> None:
        self._open = opened
        self._options = options
        self._board = board
        self._log = log
        self._hooks = hooks
        self._choose = choose
        self._visited: dict[str, float] = {}
        self._this_round: set[str] = set()
        self._round_began: float | None = None
        self._scope: tuple[Table, ...] = ()
        self.rounds = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Visit tables until stopped. UsageError where the names to watch do not exist to begin with."""
        while not stop.is_set():
            began = asyncio.get_running_loop().time()
            if self._round_began is None:
                self._round_began = began
            known = await self._visit(stop)
            pause = self._pause(asyncio.get_running_loop().time() - began, known=known)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    def _pause(self, seconds: float, *, known: bool) -> float:
        """Spread the visits evenly over the period; after a failure come back within a minute."""
        even = self._options.period_s / max(1, len(self._scope)) - seconds
        return max(_SHORTEST_PAUSE_S, even if known else min(even, _AFTER_FAILURE_S))

    async def _visit(self, stop: asyncio.Event) -> bool:
        """Visit one table; return whether there was a report."""
        run_id, began = str(uuid.uuid4()), time.monotonic()
        log = self._log.of_run(run_id) if self._log is not None else None
        table: Table | None = None
        try:
            async with self._open() as (reader, clock):
                table = await self._next(reader)
                if table is None:
                    return False
                report = await run_check(reader, clock, self._check(table, run_id), log, stop)
        except ConsistencyError as error:
            if isinstance(error, UsageError) and not self._visited:
                raise
            seconds = time.monotonic() - began
            if table is None and self._scope:  # nobody was asked what there is: it was this one's turn all the same
                table = self._choose(self._scope, self._visited)
            if log is not None:
                log.failed(error, error.exit_code, seconds)
            self._board.failed(table.full_name if table else None, str(error), seconds, error.exit_code)
            if table is not None:
                self._enter_visit(table)
            return False
        if report.interrupted:
            return False
        if log is not None:
            log.ended(report)
        self._board.visited(report, time.monotonic() - began)
        self._enter_visit(table)
        await self._tell(report, stop)
        return True

    async def _next(self, reader: ClusterReader) -> Table | None:
        """Read which tables there are and choose one of them; None where there is none."""
        check = self._options.check
        scope = choose_tables(await reader.schema(), check.names, views=check.views)
        self._scope = scope.tables
        self._board.in_scope(scope)
        return self._choose(scope.tables, self._visited) if scope.tables else None

    def _check(self, table: Table, run_id: str) -> CheckOptions:
        folder = self._options.findings_dir
        findings = folder / f"{table.full_name}.jsonl" if folder is not None else None
        return replace(self._options.check, names=(table.quoted,), run_id=run_id, findings=findings)

    def _enter_visit(self, table: Table) -> None:
        """Note the visit; a failed one too, or a table that always fails would keep the others waiting."""
        now = asyncio.get_running_loop().time()
        self._visited[table.full_name] = now
        self._this_round.add(table.full_name)
        names = {t.full_name for t in self._scope}
        self._visited = {name: at for name, at in self._visited.items() if name in names}
        if not names <= self._this_round:
            return
        self.rounds += 1
        self._this_round.clear()
        began, self._round_began = self._round_began, None
        self._board.round_done(self.rounds)
        if self._log is not None:
            seconds = round(now - (began if began is not None else now), 3)
            rows = self._board.divergent_rows
            self._log.emit("watch.round", round=self.rounds, tables=len(names), divergent_rows=rows, seconds=seconds)

    async def _tell(self, report: Report, stop: asyncio.Event) -> None:
        if not report.findings_by_kind:
            return
        message = message_of(report, time.time())
        for hook in self._hooks:
            telling = asyncio.ensure_future(self._tell_one(hook, message))
            stopping = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
                if not telling.done():
                    telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    async def _tell_one(self, hook: Hook, message: bytes) -> None:
        try:
            attempts = await deliver(hook, message)
        except HookFailed as error:
            self._board.hook_failed()
            if self._log is not None:
                self._log.emit("hook.failed", hook=hook.name, error=type(error).__name__)
            return
        if self._log is not None:
            self._log.emit("hook.delivered", hook=hook.name, attempts=attempts)
