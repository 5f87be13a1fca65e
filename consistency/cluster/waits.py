"""Waits for what runs elsewhere or side by side, which an interrupt always ends.

`within` is asyncio.timeout. Before Python 3.12 asyncio.wait_for returns a result that arrives together with a cancel
and forgets the cancel: a loop that was to end then goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    from asyncio import timeout as within
else:
    from async_timeout import timeout as within

__all__ = ["at_most", "in_thread", "left_behind", "side_by_side", "within"]

_T = TypeVar("_T")


async def in_thread(blocking: Callable[[], _T], unwanted: Callable[[_T], object]) -> _T:
    """Return what a blocking call returns, run in a thread of its own that an interrupt leaves behind.

    `unwanted` is given a result that nobody waits for any more.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            result = blocking()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            failure = error
            _tell(loop, lambda: None if done.done() else done.set_exception(failure))
        else:
            if not _tell(loop, lambda: unwanted(result) if done.done() else done.set_result(result)):
                unwanted(result)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[[], object]) -> bool:
    """Run something on the loop; False if the loop is gone, as the run was interrupted."""
    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return False
    return True


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


async def left_behind(seconds: float) -> bool:
    """Cancel every other task of this loop; return whether one has not ended after so long.

    asyncio.run would wait for such a task without limit.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    waiting = (await asyncio.wait(others, timeout=seconds))[1] if others else ()
    return bool(waiting)


async def side_by_side(lane: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """Run a lane several times at once; where one fails, or the caller is cancelled, all end."""
    lanes = [asyncio.create_task(lane()) for _ in range(count)]
    try:
        await asyncio.gather(*lanes)
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
