"""What runs within the workers of a Dask cluster: a thread that is connected to Cassandra while a run needs it.

Each worker process connects once for a run, with passwords of its own environment and files, and keeps the connections
until the driver lets go of it, or is not heard of any more.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from consistency import __version__
from consistency.cluster.request_counts import RequestCounts
from consistency.errors import ConsistencyError
from consistency.spreading.messages import Order
from consistency.spreading.opening import opened
from consistency.spreading.port import Reads, Told

_FORGOTTEN_AFTER_S = 600.0
"""A run whose driver asks for nothing more in so long is over."""
_OPEN_WITHIN_S = 120.0


class _Session:
    """The connections of one run, and the thread with their event loop."""

    def __init__(self, order: Order, number: int, told: Told) -> None:
        self._order = order
        self._number = number
        self._told = told
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._reader: Reads | None = None
        self._over: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used = time.monotonic()
        self._under_way = 0
        threading.Thread(target=lambda: asyncio.run(self._serve()), name="consistency-worker", daemon=True).start()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        counts = RequestCounts(self._order.readers)
        try:
            async with opened(self._order, self._number, self._told, counts) as self._reader:
                self._ready.set()
                while not self._over.is_set() and not self._forgotten:
                    await asyncio.wait({asyncio.ensure_future(self._over.wait())}, timeout=1.0)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._reader = None
            self._ready.set()
            _SESSIONS.pop(self._order.run_id, None)

    @property
    def _forgotten(self) -> bool:
        return not self._under_way and time.monotonic() - self._used > _FORGOTTEN_AFTER_S

    def read(self, unit: str) -> str:
        """Read a unit; blocks until it is read."""
        self._ready.wait(_OPEN_WITHIN_S)
        if self._reader is None or self._loop is None:
            raise ConsistencyError(str(self._error or "it could not connect in time"))
        self._under_way += 1
        try:
            return asyncio.run_coroutine_threadsafe(self._reader.read(unit), self._loop).result()
        finally:
            self._under_way -= 1
            self._used = time.monotonic()

    def stop(self) -> None:
        """End early what is under way."""
        if self._reader is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._reader.stop.set)

    def close(self) -> None:
        """Let go of the connections."""
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)


_SESSIONS: dict[str, _Session] = {}
_OPENING = threading.Lock()


def read_unit(order: str, numbers: Mapping[str, int], unit: str, topic: str) -> str:
    """Read a unit of a run; return what came of it, or why it could not be read, as JSON.

    `numbers` are those of the workers by address. Progress goes to a topic of the scheduler's events.
    """
    from distributed import get_worker  # noqa: PLC0415 - an extra

    worker = get_worker()

    def told(news: Mapping[str, Any]) -> None:
        worker.loop.add_callback(worker.log_event, topic, dict(news))

    try:
        parsed = Order.from_text(order)
        with _OPENING:
            session = _SESSIONS.get(parsed.run_id)
            if session is None:
                number = numbers.get(worker.address, len(numbers))
                session = _SESSIONS[parsed.run_id] = _Session(parsed, number, told)
        return json.dumps({"came": session.read(unit)})
    except Exception as error:  # noqa: BLE001 - the driver is told, and the unit is unknown
        why = str(error) if isinstance(error, ConsistencyError) else f"internal error: {type(error).__name__}"
        return json.dumps({"failed": why})


def stop_run(run_id: str) -> None:
    """End early what is under way of a run."""
    if (session := _SESSIONS.get(run_id)) is not None:
        session.stop()


def close_run(run_id: str) -> None:
    """Let go of a run's connections."""
    if (session := _SESSIONS.get(run_id)) is not None:
        session.close()


def version() -> str:
    """Return which version of this package a worker has."""
    return __version__
