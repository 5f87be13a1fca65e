"""Visit after visit until a watch is told to stop, with rests between them; one that does not end then is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from consistency.cluster.waits import within
from consistency.model.schema import Table
from consistency.watching.event_log import EventLog
from consistency.watching.schedule import Pacing

_GRACE_S = 2.5
"""How long a visit may take to end by itself after the watch was told to stop."""
_LAST_S = 2.0
"""How long it may then take after it is cancelled; closing a connection to a silent node takes this long."""

Visits = Callable[[asyncio.Event], Coroutine[None, None, bool]]
"""Visits one table; returns whether it gave a report."""


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


async def keep_visiting(visit: Visits, pacing: Pacing, stop: asyncio.Event, resting: Callable[[float], None]) -> None:
    """Visit until stopped; `resting` is told for how many seconds before each rest."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        began = loop.time()
        pacing.begin(began)
        known = await _ended_by(visit(stop), stop)
        pause = pacing.pause(began, loop.time(), known=known)
        resting(pause)
        with contextlib.suppress(asyncio.TimeoutError):
            async with within(pause):
                await stop.wait()


async def _ended_by(visit: Coroutine[None, None, bool], stop: asyncio.Event) -> bool:
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
