"""Workers on this machine: processes of this program, each with an event loop and connections of its own.

They are forked off a nursery (nursery.py), which has loaded the program before.

One that ends while it reads is replaced; what it had under way is lost with it, and the driver has it read again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from consistency.errors import ConnectError, ConsistencyError, UsageError
from consistency.spreading.frames import frame, hear
from consistency.spreading.nursery import WORKERS, Forked, Nursery, take_nursery
from consistency.spreading.port import Told, UnitFailed, WorkerLost

MOST_WORKERS = 64
_UNITS_EACH = 2
"""Units that a worker has under way: while rows of one settle, it reads the other."""
_REPLACED_MOST = 10
"""So many workers are replaced for each there is to be; if more end, something kills them on purpose."""
_PATIENCE_S = 3.0


_READ_BYTES = 1 << 16
_Line: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LocalWorkers:
    """So many processes; `host_ids` are the nodes whose requests they count together, in a file that they share.

    `words` start the nursery.
    """

    def __init__(self, size: int, host_ids: Collection[str], words: Sequence[str] = WORKERS) -> None:
        if not 1 <= size <= MOST_WORKERS:
            msg = f"--workers {size}: give a number from 1 to {MOST_WORKERS}"
            raise UsageError(msg)
        self.size = size
        self._words = tuple(words)
        self._hosts = sorted(host_ids)
        self._folder = tempfile.TemporaryDirectory(prefix="consistency-")
        self.counts = Path(self._folder.name) / "requests"
        self.counts.touch(mode=0o600)
        self._order = ""
        self._told: Told = lambda _: None
        self._nursery: Nursery | None = None
        self._processes: dict[int, _Process] = {}
        self._free: deque[int] = deque()
        self._freed = asyncio.Condition()
        self._replaced = 0
        self._replacing: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._why_none = ""

    @property
    def at_once(self) -> int:
        """How many units may be under way at once."""
        return self.size * _UNITS_EACH

    @property
    def pids(self) -> list[int]:
        """The processes that are there now."""
        return [process.pid for process in self._processes.values()]

    async def start(self, order: str, told: Told) -> None:
        """Start all of them; raises what the first one says that cannot connect."""
        self._order, self._told = order, told
        started = await asyncio.gather(*map(self._begin, range(self.size)), return_exceptions=True)
        for each in started:
            if isinstance(each, BaseException):
                raise each
        self._free.extend(number for _ in range(_UNITS_EACH) for number in range(self.size))

    async def _begin(self, number: int) -> None:
        """Start the worker of a number, and wait until it is connected."""
        beginning = asyncio.ensure_future(self._forked())
        try:
            process = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await (await beginning).end()  # it may be there already
            raise
        first = {"order": self._order, "number": number, "counts": str(self.counts), "hosts": self._hosts}
        try:
            await process.say(first)
            said = await process.hear()
            if said is None or "failed" in said:
                raise _cannot_start(said)
        except BaseException:
            await process.end()
            raise
        self._processes[number] = process
        process.listening = asyncio.create_task(self._listen(number, process))
        if self._stopping:
            await process.say({"stop": True})

    async def _forked(self) -> _Process:
        """Have a worker's process forked off the nursery, off another one if that has ended."""
        if (nursery := self._nursery) is not None:
            with suppress(ConnectError):
                return await _Process.begin(nursery)
            if self._nursery is nursery:
                self._nursery = None
            await nursery.end()
        if self._nursery is None:
            self._nursery = take_nursery(self._words)
        return await _Process.begin(self._nursery)

    async def _listen(self, number: int, process: _Process) -> None:
        """Hear a worker until it is gone; then what it read is lost, and another one takes its place."""
        while (said := await process.hear()) is not None:
            if "told" in said:
                self._told(said["told"])
            elif (asked := process.asked.pop(said.get("unit", -1), None)) is not None and not asked.done():
                if "came" in said:
                    asked.set_result(said["came"])
                else:
                    asked.set_exception(UnitFailed(said["failed"]))
        if self._processes.get(number) is process:
            del self._processes[number]
        # Before it is said that this one is lost: whoever then asks for a worker must see that one is on its way.
        task = asyncio.create_task(self._follow(number, process))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)
        for asked in process.asked.values():
            if not asked.done():
                asked.set_exception(WorkerLost(f"worker {number + 1} (pid {process.pid}) ended"))

    async def _follow(self, number: int, lost: _Process) -> None:
        """Have what is left of a worker ended, then put another one in its place."""
        ending = asyncio.ensure_future(lost.end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending  # it may hang, and must not be left behind
            raise
        await self._replace(number)

    async def _replace(self, number: int) -> None:
        try:
            await self._begin_again(number)
        except ConsistencyError as error:
            self._why_none = str(error)
        finally:
            # Whoever waits for a worker must see that this one is not on its way any more.
            self._replacing.discard(asyncio.current_task())
            async with self._freed:
                self._freed.notify_all()

    async def _begin_again(self, number: int) -> None:
        self._replaced += 1
        if self._stopping:
            self._why_none = "the run ends"
        elif self._replaced > _REPLACED_MOST * self.size:
            self._why_none = "too many workers ended"
        else:
            await self._begin(number)

    async def read(self, unit: str) -> str:
        """Have a unit read by a worker with room for it."""
        asked_for: int = json.loads(unit)["number"]
        number = await self._one_that_is_free()
        process = self._processes[number]
        asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        process.asked[asked_for] = asked
        try:
            await process.say({"read": unit})
            return await asked
        finally:
            process.asked.pop(asked_for, None)
            async with self._freed:
                self._free.append(number)
                self._freed.notify_all()

    async def _one_that_is_free(self) -> int:
        async with self._freed:
            while True:
                for number in list(self._free):
                    if number in self._processes:
                        self._free.remove(number)
                        return number
                if not self._processes and not self._replacing:
                    msg = f"no worker is left ({self._why_none or 'all ended'})"
                    raise UnitFailed(msg)
                await self._freed.wait()

    async def stop(self) -> None:
        """Have units under way end early."""
        self._stopping = True
        for process in list(self._processes.values()):
            await process.say({"stop": True})

    async def close(self) -> None:
        """End them: they end with their standard input, those that do not are killed."""
        self._stopping = True
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(process.end() for process in list(self._processes.values())))
        self._processes.clear()
        if self._nursery is not None:
            await self._nursery.end()
        self._folder.cleanup()


def _cannot_start(said: dict[str, Any] | None) -> ConsistencyError:
    if said is None:
        return ConnectError("a worker ended before it was connected; run it without --workers to see why")
    wrong = UsageError if said.get("exit_code") == UsageError.exit_code else ConnectError
    return wrong(f"a worker cannot begin: {said['failed']}")


class _Process:
    """One worker's process."""

    def __init__(self, pid: int, says: _Line, hears: _Line) -> None:
        self.pid = pid
        self._says = says
        self._hears = hears
        self.asked: dict[int, asyncio.Future[str]] = {}
        self.listening: asyncio.Task[None] | None = None

    @classmethod
    async def begin(cls, nursery: Nursery) -> _Process:
        """Have it forked: with our environment, and hearing nobody but us."""
        forked: Forked = await nursery.fork()
        says = await asyncio.open_connection(sock=forked.says)
        return cls(forked.pid, says, await asyncio.open_connection(sock=forked.hears))

    async def say(self, said: dict[str, Any]) -> None:
        """Say something; that it is gone is heard."""
        with suppress(ConnectionError):
            self._hears[1].write(frame(said))
            await self._hears[1].drain()

    async def hear(self) -> dict[str, Any] | None:
        """Return what it says next, None once it is gone."""
        return await hear(self._says[0])

    async def end(self) -> None:
        """Close its input, and kill it if it does not end."""
        if self.listening is not None and self.listening is not asyncio.current_task():
            self.listening.cancel()
            await asyncio.wait({self.listening})
        self._hears[1].close()
        ending = asyncio.create_task(self._ended())
        await asyncio.wait({ending}, timeout=_PATIENCE_S)
        if not ending.done():  # it holds its end of the line, so the number is still its own
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        await ending
        self._says[1].close()

    async def _ended(self) -> None:
        """Wait until it says nothing more: its end of the line is closed when the process ends."""
        with suppress(ConnectionError):
            while await self._says[0].read(_READ_BYTES):
                pass
