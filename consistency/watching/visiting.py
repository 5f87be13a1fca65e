"""Visit after visit until a watch is told to stop, with rests between them; one that does not end then is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from consistency.cluster.waits import within
from consistency.errors import ConsistencyError, LockedError, UsageError
from consistency.model.schema import Table
from consistency.watching.event_log import EventLog, reason_of
from consistency.watching.schedule import Pacing
from consistency.watching.visit_board import VisitBoard

_GRACE_S = 2.5
"""How long a visit may take to end by itself after the watch was told to stop."""
_LAST_S = 2.0
"""How long it may then take after it is cancelled; closing a connection to a silent node takes this long."""


@dataclass
class Visit:
    """A running visit; `table` is set when it is chosen, of two clusters that of the source."""

    run_id: str
    log: EventLog | None
    began: float
    table: Table | None = None

    @classmethod
    def begin(cls, log: EventLog | None) -> Visit:
        """Return one that begins now, with a run id of its own."""
        run_id = str(uuid.uuid4())
        return cls(run_id, log.of_run(run_id) if log is not None else None, time.monotonic())

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self.began

    def emit(self, event: str, **fields: object) -> None:
        """Log an event of it."""
        if self.log is not None:
            self.log.emit(event, **fields)


class Seen(Protocol):
    """Who is shown how visits go that gave no result."""

    def failed(self, run_id: str, full_name: str, reason: str, exit_code: int) -> None:
        """Take note that a visit ended without a result; `full_name` is empty if its table is not known."""

    def waiting(self) -> None:
        """Take note that another run holds a lock."""

    def resting(self, seconds: float) -> None:
        """Take note that the next visit begins after so long."""


Look = Callable[[Visit, asyncio.Event], Coroutine[Any, Any, bool]]
"""Visits the next table and enters what came of it; returns whether there is a result."""


class Visiting:
    """Visit after visit, for a watch that knows how to look at one table.

    A visit that fails makes its table unknown, and one that finds a lock held is tried again. A UsageError ends the
    watch, until `began` says that what is to be watched has been found.
    """

    def __init__(self, look: Look, pacing: Pacing, board: VisitBoard, audience: Seen, log: EventLog | None) -> None:
        self._look = look
        self._pacing = pacing
        self._board = board
        self._audience = audience
        self._log = log
        self._locked = False
        self.began = False

    async def run(self, stop: asyncio.Event) -> None:
        """Visit until stopped, with rests between the visits."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            began = loop.time()
            self._pacing.begin(began)
            known = await _ended_by(self._visit(stop), stop)
            pause = self._pacing.pause(began, loop.time(), known=known)
            self._audience.resting(pause)
            with contextlib.suppress(asyncio.TimeoutError):
                async with within(pause):
                    await stop.wait()

    async def _visit(self, stop: asyncio.Event) -> bool:
        """Visit one table; return whether there is a result."""
        visit = Visit.begin(self._log)
        try:
            return await self._look(visit, stop)
        except LockedError as error:
            self._wait_for_lock(visit, error)
        except ConsistencyError as error:
            if isinstance(error, UsageError) and not self.began:
                raise
            self._fail(visit, error)
        return False

    def unlocked(self, visit: Visit, note: str) -> None:
        """Take note that a visit has its lock and ledger; with a note that ledger is a new one, and all is unknown."""
        self._locked = False
        if note:
            visit.emit("ledger.damaged")
            self._pacing.forget()
            self._board.forget()

    def ended(self, *, whole_round: bool) -> None:
        """Take note that a table was visited, and whether its round has ended with that."""
        if not whole_round:
            return
        self._board.round_done(self._pacing.rounds)
        if self._log is not None:
            seconds = round(asyncio.get_running_loop().time() - self._pacing.began, 3)
            counts = {"tables": self._board.tables, "divergent_rows": self._board.divergent_rows}
            self._log.emit("watch.round", round=self._pacing.rounds, **counts, seconds=seconds)

    def _fail(self, visit: Visit, error: ConsistencyError) -> None:
        """Record a visit without a result: of its table nothing is known any more."""
        # If the tables could not be read, this one was still the next.
        table = visit.table or self._pacing.guess()
        name = table.full_name if table is not None else ""
        self._board.failed(name or None, str(error), visit.seconds, error.exit_code)
        self._audience.failed(visit.run_id, name, reason_of(error), error.exit_code)
        if visit.log is not None:
            visit.log.failed(error, error.exit_code, visit.seconds)
        if table is not None:
            self.ended(whole_round=self._pacing.visited(name, asyncio.get_running_loop().time()))

    def _wait_for_lock(self, visit: Visit, error: LockedError) -> None:
        """Log once that another run is under way; the table stays the next one."""
        if not self._locked:
            visit.emit("watch.waiting", reason=str(error))
        self._locked = True
        self._audience.waiting()
        self._board.waited(visit.seconds, error.exit_code)


async def _ended_by(visit: Coroutine[Any, Any, bool], stop: asyncio.Event) -> bool:
    """Wait for a visit; after `stop` is set, no longer than a process may take to end.

    A visit that is connecting, or waits for a silent node, does not see `stop` and is cancelled. The next visit
    reads its ranges again; the work of a repair is in its journal.
    """
    visiting, stopping = asyncio.ensure_future(visit), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({visiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not visiting.done():
            await asyncio.wait({visiting}, timeout=_GRACE_S)
        if visiting.done():
            return visiting.result()
        visiting.cancel()
        await asyncio.wait({visiting}, timeout=_LAST_S)
        return False
    finally:
        stopping.cancel()
        visiting.cancel()
