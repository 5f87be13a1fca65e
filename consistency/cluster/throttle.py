"""How hard the nodes are asked, so that nobody who works with them feels it.

A node that others work with is asked one thing at a time, and rests after each answer in proportion to the time
that took. How long it rests follows from how fast it answers a small read meanwhile. A cluster that nobody
works with is asked as much at once as it takes. See docs/design/0008-politeness.md.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from consistency.cluster.port import Clock
from consistency.errors import ReplicaError, ReplicaTimeout, ReplicaUnavailable
from consistency.model.ring import Node

DEFAULT_GUARD = 1.3
DEFAULT_SHARE = 0.03
_LOOK_EVERY_S, _GLANCE_EVERY_S = 0.1, 1.0
_FIRST_COUNT_S, _COUNT_EVERY_S = 0.1, 1.0
_POLL_S, _PAUSE_POLL_S = 0.05, 0.5
_IDLE_AFTER_S = 1.0
"""So long after its last turn a throttle stops to look: to another one its looks would be an application's work."""
_RECENT = 10
"""Looks that tell how a node fares now: about a second."""
_TRAFFIC_PER_S = 5.0
"""Requests a second and node from others, above which somebody works with the cluster."""
_LEAST_MS = 1.0
"""A rise in latency smaller than this is the noise of a small read."""
_LEAST_SHARE = 0.01
_LEAST_BUSY_S = 0.0005
_LONGEST_REST_S, _LEAST_REST = 1.0, 3.0
"""After an answer that took long a node rests for so many seconds, or so many times as long as it took."""


@dataclass(frozen=True, slots=True)
class Politeness:
    """How much the nodes may be burdened.

    `rate`: rows a second and node. `guard`: how many times its usual latency a node may take for a small read
    before it is asked less; None: nothing is watched, and nodes never rest. While `pause_file` exists nothing
    new is asked. `share`: the part of a node's time that is taken at most while others work with the cluster;
    `in_pieces`: whether it is asked for a few milliseconds' worth at once then.
    """

    rate: float | None = None
    guard: float | None = DEFAULT_GUARD
    pause_file: Path | None = None
    share: float = DEFAULT_SHARE
    in_pieces: bool = True

    def divided(self, by: int) -> Politeness:
        """Return what one of several may burden the nodes with that read them at the same time."""
        return replace(self, rate=None if self.rate is None else self.rate / by, share=self.share / by)

    @property
    def paused(self) -> bool:
        """Whether the pause file exists."""
        return self.pause_file is not None and self.pause_file.exists()


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests a node has answered since it was started, and of ours, how many we sent and it answered.

    `ours_answered` is counted before the node was asked, `ours_sent` after it said so.
    """

    answered: int
    ours_sent: int
    ours_answered: int

    def of_others_since(self, before: Requests) -> int:
        """Return how many requests of others were answered at least: whatever may have been ours is taken for ours."""
        return max(0, self.answered - before.answered - (self.ours_sent - before.ours_answered))


class NodeWatch(Protocol):
    """What can be seen of a node from outside; both raise a ReplicaError if the node does not say."""

    async def small_read(self, node: Node) -> float:
        """Return how many seconds the node takes for a small read."""

    async def requests(self, node: Node) -> Requests:
        """Return how many requests the node has answered."""


@dataclass(slots=True)
class Turn:
    """One query under way; whoever made it says how many rows it read, and how long the node did nothing for it.

    Once it is over, `busy_s` tells how long it kept the node busy: what a small read takes at the time as well, for the
    way there and back and whatever else the node does, is not counted.
    """

    rows: int = 0
    idle_s: float = 0.0
    busy_s: float = 0.0


@dataclass
class _Place:
    """What is known of one node."""

    share: float
    free_at: float = 0.0
    taken: bool = False
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    usual: float | None = None
    per_second: float | None = None
    silent: bool = False
    """Whether it did not even answer the last small read: it serves nobody then, and there is nothing to spare."""


class Throttle:
    """Gives out turns at asking a node. `watch` runs beside the work and keeps an eye on the nodes."""

    def __init__(self, nodes: Iterable[Node], options: Politeness, clock: Clock, watched: NodeWatch) -> None:
        self._places = {node: _Place(options.share) for node in nodes}
        self._options = options
        self._clock = clock
        self._watched = watched
        self._under_way = 0
        self._idle_from = math.inf
        self._asked = asyncio.Event()

    @asynccontextmanager
    async def turn(self, node: Node) -> AsyncGenerator[Turn, None]:
        """Wait until the node may be asked, then time what is done with it."""
        self._under_way += 1
        self._asked.set()
        try:
            async with self._timed(self._places[node]) as turn:
                yield turn
        finally:
            self._under_way -= 1
            self._idle_from = self._clock.monotonic() + _IDLE_AFTER_S

    @asynccontextmanager
    async def _timed(self, place: _Place) -> AsyncGenerator[Turn, None]:
        alone = await self._admitted(place)
        turn, started, worked = Turn(), self._clock.monotonic(), True
        try:
            yield turn
        except ReplicaUnavailable:
            worked = False
            raise
        finally:
            now = self._clock.monotonic()
            small_s = statistics.median(place.recent) if place.recent else 0.0
            turn.busy_s = max(_LEAST_BUSY_S, now - started - turn.idle_s - small_s)
            if alone:
                place.taken = False
                by_rate = started + turn.rows / self._options.rate if self._options.rate else now
                # A node that is gone did nothing for us: a rest would only keep others from finding that out.
                place.free_at = max(now + self._rest(place, turn), by_rate) if worked else now

    def _rest(self, place: _Place, turn: Turn) -> float:
        """Return how many seconds a node rests; one answer that took very long was not all our doing."""
        if not self.crowded:
            return 0.0
        return min(turn.busy_s * (1 / place.share - 1), max(_LONGEST_REST_S, turn.busy_s * _LEAST_REST))

    async def _admitted(self, place: _Place) -> bool:
        """Wait until a node may be asked; return whether it is asked nothing else meanwhile."""
        while True:
            if self._options.paused:
                wait_s = _PAUSE_POLL_S
            elif self._options.rate is None and not self.crowded:
                return False
            elif place.taken:
                wait_s = _POLL_S
            elif (left_s := place.free_at - self._clock.monotonic()) > 0:
                # Whoever else works may be gone before the rest is over.
                wait_s = min(left_s, _POLL_S)
            else:
                place.taken = True
                return True
            await self._clock.sleep(wait_s)

    @property
    def _idle(self) -> bool:
        """Whether nothing has been asked for a while; before the first turn there is something to be learnt for it."""
        return not self._under_way and self._clock.monotonic() > self._idle_from

    async def _until_asked(self) -> None:
        """Wait while nothing is asked."""
        if self._idle:
            self._asked.clear()
            await self._asked.wait()

    @property
    def crowded(self) -> bool:
        """Whether somebody works with the cluster; until that is known, it is taken for so."""
        if self._options.guard is None:
            return False
        seen = [place.per_second for place in self._places.values() if not place.silent]
        return None in seen or sum(s for s in seen if s is not None) > _TRAFFIC_PER_S * len(seen)

    async def watch(self) -> None:
        """Look at every node again and again, for ever; returns at once where nothing is guarded."""
        if self._options.guard is None:
            return
        guard = self._options.guard
        await asyncio.gather(
            *(self._watch_latency(node, guard) for node in self._places),
            *(self._watch_traffic(node) for node in self._places),
        )

    async def _watch_latency(self, node: Node, guard: float) -> None:
        place = self._places[node]
        while True:
            await self._until_asked()
            try:
                place.recent.append(await self._watched.small_read(node))
            except (ReplicaTimeout, ReplicaUnavailable):
                place.silent = True
            except ReplicaError:
                place.silent = False
            else:
                place.silent = False
            if len(place.recent) == _RECENT:
                _adapt(place, guard, self._options.share)
            await self._clock.sleep(_LOOK_EVERY_S if self.crowded else _GLANCE_EVERY_S)

    async def _watch_traffic(self, node: Node) -> None:
        """Learn how many requests a second come from others; where that cannot be seen, take it for many."""
        place, since = self._places[node], 0.0
        before: Requests | None = None
        wait_s = _FIRST_COUNT_S
        while True:
            if self._idle:
                # What was seen before the pause tells nothing of what comes after it.
                before, place.per_second, wait_s = None, None, _FIRST_COUNT_S
                await self._until_asked()
            try:
                now, count = self._clock.monotonic(), await self._watched.requests(node)
            except ReplicaError as error:
                place.per_second = 0.0 if isinstance(error, ReplicaUnavailable) else math.inf
                before = None
            else:
                if before is not None:
                    place.per_second = count.of_others_since(before) / (now - since)
                    wait_s = _COUNT_EVERY_S
                since, before = now, count
            await self._clock.sleep(wait_s)


def _adapt(place: _Place, guard: float, most: float) -> None:
    """Ask less where the node has become slower than usual, a little more where it has not."""
    now = statistics.quantiles(place.recent, n=10)[-1]
    usual = place.usual = now if place.usual is None else min(now, place.usual * 1.002)
    if now > usual * guard and now - usual > _LEAST_MS / 1000:
        place.share = max(min(_LEAST_SHARE, most / 3), place.share * 0.7)
        place.recent.clear()
    else:
        place.share = min(most, place.share * 1.05)
