"""The lanes of a node: how many questions that have rows hashed are under way at once, and who goes next.

A closer look goes before the scan: its rows have a settle window to outlive, which is to pass while the scan goes on,
and what it learns of a table's partitions spares the scan a second reading of the leaves that are still to come.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count

from consistency.cluster.row_hash import HASH_SPELLINGS


class Look(IntEnum):
    """What is hashed: the closer the look, the sooner its turn."""

    ROWS = 0
    PARTITIONS = 1
    RANGE = 2


class Lanes:
    """Spellings of the hash, each in use by one question at a time."""

    def __init__(self, spellings: Sequence[str]) -> None:
        self._free = list(spellings)
        self._waiting: list[tuple[Look, int, asyncio.Future[str]]] = []
        self._arrivals = count()

    @classmethod
    def shared(cls, wanted: int, reader: int = 0, readers: int = 1) -> Lanes:
        """Return the lanes that one of several readers of a cluster may use, by their numbers from 0.

        There is one for each of four; of more, some disturb each other's hashes, so that they read more and see nothing
        less (design/0005).
        """
        own = HASH_SPELLINGS[reader % len(HASH_SPELLINGS) :: min(readers, len(HASH_SPELLINGS))]
        return cls(own[:wanted])

    @asynccontextmanager
    async def one(self, look: Look) -> AsyncGenerator[str, None]:
        """Wait for a lane and hold it; yield its spelling, which nobody else uses meanwhile."""
        spelling = self._free.pop(0) if self._free else await self._turn(look)
        try:
            yield spelling
        finally:
            self._give(spelling)

    async def _turn(self, look: Look) -> str:
        turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (look, next(self._arrivals), turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(turn.result())
            raise

    def _give(self, spelling: str) -> None:
        """Hand a lane to whoever is next of those that still wait."""
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(spelling)
                return
        self._free.append(spelling)
