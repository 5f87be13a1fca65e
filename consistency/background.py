"""Plain functions over asynchronous work, and a check that runs while its findings are taken.

The second is a thread with an event loop of its own behind an iterator.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar

from consistency.checking.observer import Observer, Silent
from consistency.errors import InternalError, UsageError
from consistency.results.findings import Finding
from consistency.results.report import Report

T = TypeVar("T")
_LOOK_EVERY_S = 0.1
_MOST_WAITING = 1_000
"""The most findings in the queue; when it is full the check waits."""

_NOT_BEGUN = "this check was not begun: use it in a with statement"

Work = Callable[[threading.Event, Observer, Callable[[], Awaitable[None]]], Coroutine[Any, Any, Report]]
"""A check: ends early when the event is set, calls the observer, and waits for room after each finding."""


class RunningCheck:
    """A check under way; `begin_check` returns it. Use it in a `with`, which begins the check and ends it.

    Iterating yields each `Finding` as soon as it is certain, and ends with the check. At most 1,000 findings wait in
    a queue: when it is full the check blocks, so memory stays bounded. A loop may start again after a break; findings
    that were taken are not yielded again.

    An error is raised by the loop or by `report`, at the latest when the `with` ends. Leaving the `with` early, by a
    break, an exception or Ctrl-C, cancels the check and waits a few seconds for its end.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._cancel = threading.Event()
        self._changed = threading.Condition()
        self._findings: deque[Finding] = deque()
        self._dropping = False
        self._report: Report | None = None
        self._error: BaseException | None = None
        self._raised = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drained = asyncio.Event()

    def __enter__(self) -> RunningCheck:  # noqa: PYI034 - Self is 3.11
        if self._thread is not None:
            raise UsageError("this check was begun already: call begin_check again for another")
        # A daemon: a second Ctrl-C ends the process without waiting for silent nodes.
        self._thread = threading.Thread(target=self._run, name="consistency-check", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # Ctrl-C while the thread starts: nothing else would end it
            self.cancel()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        if self._thread is not None:
            self._thread.join()
        self._findings.clear()
        if kind is None and not self._raised:
            self._raise()

    def __iter__(self) -> Iterator[Finding]:
        while (found := self._next()) is not None:
            yield found
        self._raise()

    def cancel(self) -> None:
        """End the check early with a correct partial report (`interrupted`). Any thread may call this."""
        self._cancel.set()

    @property
    def done(self) -> bool:
        """Whether the check has ended; findings may still wait in the queue."""
        return self._report is not None or self._error is not None

    @property
    def report(self) -> Report:
        """The report; waits for the end of the check, and drops findings that nobody took until then.

        Raises what `check` raises.
        """
        self._end()
        self._raise()
        if self._report is None:
            raise InternalError("a check ended without a report")
        return self._report

    def _run(self) -> None:
        try:
            self._report = asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            self._error = error
        with self._changed:
            self._changed.notify_all()

    async def _main(self) -> Report:
        self._loop = asyncio.get_running_loop()
        return await self._work(self._cancel, _Taker(self._take), self._room)

    def _take(self, finding: Finding) -> None:
        with self._changed:
            if not self._dropping:
                self._findings.append(finding)
                self._changed.notify_all()

    async def _room(self) -> None:
        """Wait, in the check's loop, until findings were taken."""
        while len(self._findings) >= _MOST_WAITING:
            self._drained.clear()
            if len(self._findings) >= _MOST_WAITING:  # none was taken in between
                await self._drained.wait()

    def _next(self) -> Finding | None:
        """Return the next finding, or None when the check has ended and all were taken."""
        if self._thread is None:
            raise UsageError(_NOT_BEGUN)
        with self._changed:
            while not self._findings and not self.done:
                self._changed.wait()
            found = self._findings.popleft() if self._findings else None
        self._make_room()
        return found

    def _end(self) -> None:
        """Wait for the end; findings that arrive meanwhile are dropped."""
        if self._thread is None:
            raise UsageError(_NOT_BEGUN)
        with self._changed:
            self._dropping = True
            self._findings.clear()
        self._make_room()
        self._thread.join()

    def _make_room(self) -> None:
        if self._loop is not None and len(self._findings) < _MOST_WAITING:
            with suppress(RuntimeError):  # the loop has ended: nobody waits
                self._loop.call_soon_threadsafe(self._drained.set)

    def _raise(self) -> None:
        if self._error is not None:
            self._raised = True
            raise self._error


class _Taker(Silent):
    """Passes on findings and nothing else."""

    def __init__(self, take: Callable[[Finding], None]) -> None:
        self._take = take

    def found(self, finding: Finding) -> None:
        """Pass it on."""
        self._take(finding)


def run(work: Callable[[], Coroutine[Any, Any, T]], instead: str) -> T:
    """Run asynchronous work in a new event loop; where a loop already runs, UsageError says what to do `instead`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    msg = f"an event loop already runs in this thread, and a plain function would block it: {instead}"
    raise UsageError(msg)


def run_until(
    cancel: threading.Event | None, work: Callable[[asyncio.Event], Coroutine[Any, Any, T]], instead: str
) -> T:
    """Run asynchronous work as `run` does, with the event that ends it early once `cancel` is set."""

    async def stoppable() -> T:
        async with stopping(cancel) as stop:
            return await work(stop)

    return run(stoppable, instead)


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
        with suppress(asyncio.CancelledError):
            await looking


async def _pass_on(cancel: threading.Event, stop: asyncio.Event) -> None:
    while not cancel.is_set():  # noqa: ASYNC110 - another thread sets it
        await asyncio.sleep(_LOOK_EVERY_S)
    stop.set()
