"""The circuit breaker: stops a repair when more rows vanish than were told."""

from __future__ import annotations

import asyncio

SPARE = 10
"""So many more may vanish than the plan forecasts, if nobody says how many."""


class Breaker:
    """Lets rows that may vanish begin while no more than `most` can vanish, with all of them that are under way.

    Rows proven to stay earn the same number of others leave to be under way at once, until the first one vanishes. The
    rows of one partition begin together whatever their number, as its delete takes all of them, and are finished.
    Once `most` have vanished and more rows ask, the breaker is open: nothing more is begun.
    """

    def __init__(self, most: int, vanished: int = 0) -> None:
        self.most = most
        self.vanished = vanished
        self.open = False
        self.surprised_too_often = False
        self._under_way = 0
        self._stayed = 0
        self._ended = asyncio.Condition()

    def may_begin(self, rows: int) -> bool:
        """Whether the rows of a partition that may vanish may begin now; they then count until they have `ended`."""
        alone = not self._under_way and self.room > 0
        if self.open or (rows > self.room and not alone):
            return False
        self._under_way += rows
        return True

    @property
    def room(self) -> int:
        """How many more rows may be under way."""
        earned = 0 if self.vanished else self._stayed
        return self.most - self.vanished - self._under_way + earned

    async def wait(self) -> bool:
        """Wait until rows under way have ended; False, and open, where none are and none may begin."""
        async with self._ended:
            if self._under_way and not self.open:
                await self._ended.wait()
            elif self.room <= 0:  # others may have ended since this row asked
                self.open = True
                self._ended.notify_all()
            return not self.open

    async def let_begin(self, rows: int) -> bool:
        """Wait until the rows of a partition that may vanish may begin; False if none may any more."""
        while rows and not self.may_begin(rows):
            if not await self.wait():
                return False
        return True

    async def surprised(self, vanished: int) -> None:
        """Take note that so many rows have vanished which were forecast to come back; open once that is too many."""
        if vanished:
            async with self._ended:
                self.vanished += vanished
                self.surprised_too_often |= self.vanished > self.most
                self.open |= self.surprised_too_often
                self._ended.notify_all()

    async def ended(self, rows: int, vanished: int, stayed: int) -> None:
        """Take note that so many rows have ended: so many have vanished, or may have, and so many are proven to stay.

        Of the others nothing is proven, as of those that a server refused: they earn nothing.
        """
        async with self._ended:
            self._under_way -= rows
            self._stayed += stayed
            self.vanished += vanished
            self._ended.notify_all()
