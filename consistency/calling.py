"""Plain functions over asynchronous work: run it to its end, and let the caller's threading.Event end it early."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from consistency.errors import UsageError

T = TypeVar("T")
_LOOK_EVERY_S = 0.1


def run(work: Callable[[], Coroutine[Any, Any, T]], instead: str) -> T:
    """Run asynchronous work in an event loop of its own; UsageError says what to do `instead` where one runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    msg = f"an event loop runs in this thread already, which a plain function would block: {instead}"
    raise UsageError(msg)


@asynccontextmanager
async def stopping(cancel: threading.Event | None) -> AsyncIterator[asyncio.Event]:
    """Yield an event of this loop that is set soon after `cancel`, which any thread may set."""
    stop = asyncio.Event()
    if cancel is None:
        yield stop
        return
    looking = asyncio.create_task(_pass_on(cancel, stop))
    try:
        yield stop
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def _pass_on(cancel: threading.Event, stop: asyncio.Event) -> None:
    while not cancel.is_set():  # noqa: ASYNC110 - another thread sets it
        await asyncio.sleep(_LOOK_EVERY_S)
    stop.set()
