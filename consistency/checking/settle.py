"""Read a suspected row again, past the settle window, before any difference is claimed.

Live traffic makes replicas differ for as long as a write is in flight. A difference is claimed only if it
outlived the window; a row that kept changing until patience ran out is counted as unsettled, which makes
the verdict unknown, never divergent.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from consistency.cluster.port import Clock, ReplicaReader
from consistency.model.reading import Reading, RowState
from consistency.model.ring import Node
from consistency.model.servertime import ServerTime
from consistency.rows.evidence import Evidence, read_evidence
from consistency.rows.merge_join import Difference
from consistency.rows.names import RowName
from consistency.rows.read import States
from consistency.rows.reconcile import Persistence, persistence

MAX_ROUNDS = 6
CLOCKS_S = 60.0
"""How far apart the clocks that stamp writes may be."""
_QUEUE_LIMIT = 20_000
_BATCH = 1_000
"""Suspects that are read again in one go: the more, the more of them share a clustering key and so a request."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row that differed when it was read at `seen_at` (monotonic seconds), by replica."""

    reading: Reading
    name: RowName
    states: States
    seen_at: float
    rounds: int = 0
    absent_windows: int = 0
    """How many windows the difference has outlived already, as something that one replica has nothing of."""


@dataclass(frozen=True)
class Settled(Evidence):
    """A difference that outlived the window: what every replica holds of the row, by which it is judged too."""

    read_at: float = 0.0
    """When the reading was over that showed it (monotonic seconds)."""

    @classmethod
    def by(cls, seen: Evidence, read_at: float) -> Settled:
        """Return what a reading has settled."""
        return cls(seen.reading, seen.name, seen.owners, seen.states, seen.unread, seen.when, read_at)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A row that could not be judged, and why."""

    reading: Reading
    name: RowName
    reason: str


Settlement = Settled | Unsettled
Sink = Callable[[Settlement], Awaitable[None]]


class Settling(Protocol):
    """Takes suspects of a scan until it is told that no more will come."""

    window_s: float

    @property
    def waiting(self) -> int:
        """How many suspects are not judged yet."""

    def waiting_of(self, full_name: str) -> int:
        """How many of them are rows of one table."""

    async def put(self, reading: Reading, difference: Difference) -> None:
        """Take one suspect; waits while too many are pending."""

    async def put_agreed(
        self, reading: Reading, rows: Sequence[tuple[RowName, RowState]], nodes: list[Node], when: ServerTime
    ) -> None:
        """Pass on rows that are wrong although their replicas agree."""

    async def run(self) -> None:
        """Settle suspects until `finish` is called and all are done."""

    async def finish(self) -> None:
        """Say that no more suspects will come."""


class Settler:
    """Takes suspects while the scan goes on and re-reads each after its window; hands settlements to a sink.

    At most `_QUEUE_LIMIT` suspects wait at once: the scan is held back rather than memory let grow.
    """

    def __init__(self, reader: ReplicaReader, clock: Clock, sink: Sink, window_s: float, *, readers: int = 4) -> None:
        self._reader = reader
        self._clock = clock
        self._sink = sink
        self.window_s = window_s
        self._queue: deque[Suspect] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Semaphore(_QUEUE_LIMIT)
        self._readers = asyncio.Semaphore(readers)
        self._pending: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._finished = False
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many suspects are not judged yet."""
        return self._waiting.total()

    def waiting_of(self, full_name: str) -> int:
        """How many of them are rows of one table."""
        return self._waiting[full_name]

    async def put(self, reading: Reading, difference: Difference) -> None:
        """Take one suspect; waits while too many are pending."""
        suspect = Suspect(reading, difference.name, difference.states, self._clock.monotonic())
        self._waiting[reading.table.full_name] += 1
        await self._room.acquire()
        self._line_up(suspect)

    def _line_up(self, suspect: Suspect) -> None:
        self._queue.append(suspect)
        self._news.set()

    async def put_agreed(
        self, reading: Reading, rows: Sequence[tuple[RowName, RowState]], nodes: list[Node], when: ServerTime
    ) -> None:
        """Pass on rows that are wrong at `when` although their replicas agree, once all were seen to hold them."""
        read = await read_evidence(self._reader, reading.full, [name for name, _ in rows], nodes, when)
        read_at = self._clock.monotonic()
        for (name, state), seen in zip(rows, read, strict=True):
            if seen.unread:
                await self._sink(Unsettled(reading, name, seen.why_unread))
            elif set(seen.states.values()) == {state}:
                await self._sink(Settled.by(seen, read_at))

    async def run(self) -> None:
        """Settle suspects in the order in which they were seen until `finish` is called and all are done."""
        try:
            while (suspect := await self._next()) is not None:
                await self._wait_for(suspect)
                await self._readers.acquire()
                self._raise_if_failed()
                task = asyncio.create_task(self._settle(self._with_others(suspect)))
                self._pending.add(task)
                task.add_done_callback(self._done)
            while self._pending:
                await asyncio.wait(self._pending)
            self._raise_if_failed()
        finally:
            for task in self._pending:
                task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._news.set()

    def _raise_if_failed(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def finish(self) -> None:
        """Say that no more suspects will come."""
        self._finished = True
        self._news.set()

    async def _next(self) -> Suspect | None:
        """Return the suspect that was seen first; None if all are judged and no more will come."""
        while self._failure is None:
            if self._queue:
                return self._queue.popleft()
            if self._finished and not self.waiting:
                return None
            self._news.clear()
            await self._news.wait()
        return None

    async def _wait_for(self, suspect: Suspect) -> None:
        left = suspect.seen_at + self.window_s - self._clock.monotonic()
        if left > 0:
            await self._clock.sleep(left)

    def _with_others(self, first: Suspect) -> list[Suspect]:
        """Take from the queue what can be read in one go with a suspect: as due, of the same table and replicas."""
        batch = [first]
        due = self._clock.monotonic() - self.window_s
        while len(batch) < _BATCH and self._queue and self._queue[0].seen_at <= due and _alike(self._queue[0], first):
            batch.append(self._queue.popleft())
        return batch

    async def _settle(self, batch: list[Suspect]) -> None:
        """Read and judge suspects; one that must be seen again waits in the queue, where it keeps no reader busy."""
        first, when = batch[0], self._clock.server_time()
        try:
            names = [suspect.name for suspect in batch]
            read = await read_evidence(self._reader, first.reading.full, names, list(first.states), when)
        finally:
            self._readers.release()
        read_at = self._clock.monotonic()
        for suspect, seen in zip(batch, read, strict=True):
            await self._enter(suspect, self._judge(suspect, seen, read_at))

    async def _enter(self, suspect: Suspect, settlement: Settlement | Suspect | None) -> None:
        if isinstance(settlement, Suspect):
            self._line_up(settlement)
            return
        if settlement is not None:
            await self._sink(settlement)
        self._waiting[suspect.reading.table.full_name] -= 1
        self._room.release()
        self._news.set()

    def _judge(self, suspect: Suspect, seen: Evidence, read_at: float) -> Settlement | Suspect | None:
        """Return what is settled by a further reading, the same suspect renewed, or None for agreement."""
        if len(seen.states) < 2:
            return Unsettled(suspect.reading, suspect.name, seen.why_unread or "no replica answered")
        if seen.agreed:
            return Unsettled(suspect.reading, suspect.name, seen.why_unread) if seen.unread else None
        outlived = self._persistence(suspect, seen.states)
        absent_windows = suspect.absent_windows + 1 if outlived is Persistence.ABSENT else 0
        if outlived is Persistence.PRESENT or absent_windows >= self._windows_to_outlive(seen):
            return Settled.by(seen, read_at)
        if suspect.rounds + 1 >= MAX_ROUNDS:
            return Unsettled(suspect.reading, suspect.name, "the row kept changing in every reading")
        return replace(
            suspect,
            reading=seen.reading,
            states=seen.states,
            seen_at=read_at,
            rounds=suspect.rounds + 1,
            absent_windows=absent_windows,
        )

    def _windows_to_outlive(self, seen: Evidence) -> int:
        """Return how many windows something must be absent for before it was lost and not deleted.

        One where the row was written so long ago that its write was not in flight when it was first seen: a
        delete from before then has had a window to arrive everywhere. Two for a younger row. A row that shows
        no write time looks the same when it is deleted and inserted anew, so it is looked at again and again.
        """
        newest = [state.newest_us for state in seen.present.values()]
        before_us = seen.when.in_flight_us(CLOCKS_S + 2 * self.window_s)
        if any(time is None for time in newest):
            return MAX_ROUNDS - 1
        return 1 if all(time is not None and time < before_us for time in newest) else 2

    @staticmethod
    def _persistence(suspect: Suspect, now_states: States) -> Persistence:
        reading = suspect.reading
        if reading.depth is not reading.full.depth:
            # The suspect was seen without values or times: compare what both readings hold.
            static = suspect.name.static
            now_states = {node: reading.as_read(state, static=static) for node, state in now_states.items()}
        return persistence(suspect.states, now_states)


def _alike(one: Suspect, other: Suspect) -> bool:
    return one.reading.table == other.reading.table and one.states.keys() == other.states.keys()
