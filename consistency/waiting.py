"""Waits for what happens in the driver's threads, each with a bound: no thread of its is ever waited for for ever."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

_POOLS_S = 5.0


async def answer(future: Any, timeout_s: float) -> Any:
    """Await a driver future on this event loop, with a bound beyond the driver's own timer."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: the run was interrupted
            loop.call_soon_threadsafe(_set, done)

    future.add_callbacks(wake, wake)
    await asyncio.wait_for(done, timeout_s + 5.0)
    return future.result()


async def at_most(seconds: float, blocking: Callable[[], object]) -> bool:
    """Run something that blocks in a thread that may be left behind; return whether it ended in time."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            blocking()
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_set, done)

    threading.Thread(target=run, daemon=True).start()
    finished, _ = await asyncio.wait({done}, timeout=seconds)
    return bool(finished)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until something is so, in a thread that may block; return whether it came to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def until_pooled(cluster: Any, session: Any) -> None:
    """Wait until a session can reach every node that is up: the driver returns at the first one."""
    hosts = cluster.metadata.all_hosts
    until(lambda: all(h in session.get_pool_state() or h.is_up is False for h in hosts()), _POOLS_S)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
