"""What changed under a run, asked of all nodes again and again: what was read of it cannot be believed.

Writes of live traffic go to other replicas once a range changes hands; a row then differs although nothing is wrong.
So before a difference is claimed, the ring and the schema are described anew, after the reading that showed it: of the
schema its version on every node, as long as all have the one that was read, and at the end of a run all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import ConsistencyError
from consistency.model.ownership import changed_ranges, disputed_ranges, joined, overlap
from consistency.model.ring import Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange

_SHARE = 0.1
"""The part of a run's time that is spent on describing the cluster, at most."""
_MOST_PAUSE_S = 10.0
RING_CHANGED = (
    "the ring changed during the run (a node joined, left or moved): this range has other replicas now; "
    "run the check again"
)


@dataclass(frozen=True)
class Snapshot:
    """One cluster as its nodes described it when a run began."""

    ring: Ring
    schema: Mapping[str, Keyspace]


class Changing(Protocol):
    """What is known of changes under a run, of one cluster or of two."""

    async def after(self, moment: float) -> None:
        """Have all that is read described at least once after a moment (monotonic seconds)."""

    def begin_look(self) -> None:
        """Believe nothing until all has been described once more."""

    async def look(self) -> None:
        """Describe it now."""

    async def masks(self, tables: list[Table]) -> None:
        """Ask again whether our role reads masked columns as they are stored."""

    def of_table(self, table: Table) -> str:
        """Say why nothing that was read of a table can be believed; empty if it can."""

    def altered(self, table: Table) -> str:
        """Say how a table or its replication changed since the run began; empty if nobody saw it change."""

    def moved(self, table: Table) -> tuple[TokenRange, ...]:
        """Return the ranges whose replicas are others than when the run began, or were meanwhile."""

    def of_range(self, table: Table, token_range: TokenRange) -> str:
        """Say why differences of rows in a range cannot be judged; empty if they can."""


class Changes:
    """Compares what the nodes say now with what they said when the run began; what ever changed stays changed."""

    def __init__(self, reader: ClusterReader, clock: Clock, before: Snapshot) -> None:
        self._reader = reader
        self._clock = clock
        self._before = before
        self._rings: dict[str, Ring] = {}
        self._altered: dict[str, str] = {}
        self._moved: dict[Replication, tuple[TokenRange, ...]] = {}
        self._unread = ""
        self._described_at = float("-inf")
        self._next_at = float("-inf")
        self._describing = asyncio.Lock()

    def is_after(self, moment: float) -> bool:
        """Whether the cluster was described at least once after a moment (monotonic seconds)."""
        return self._described_at >= moment

    async def after(self, moment: float) -> None:
        """Have the cluster described at least once after a moment.

        Whoever waits for the same description waits for it together.
        """
        while not self.is_after(moment):
            async with self._describing:
                if not self.is_after(moment):
                    await self._clock.sleep(max(0.0, self._next_at - self._clock.monotonic()))
                    await self._look(self._reader.schema_again)

    def begin_look(self) -> None:
        """Believe nothing until the cluster has been described once more."""
        self._unread = "whether the ring or the schema changed during the run could not be read in time"

    async def look(self) -> None:
        """Describe the cluster now, its whole schema too: a version is written a moment after what it is made of."""
        await self._look(self._reader.schema)

    async def _look(self, read_schema: Callable[[], Awaitable[Mapping[str, Keyspace]]]) -> None:
        began = self._clock.monotonic()
        try:
            ring, schema = await asyncio.gather(self._reader.ring_now(), read_schema())
        except ConsistencyError as error:
            self._unread = f"whether the ring or the schema changed during the run could not be read: {error}"
        else:
            self._unread = ""
            self._enter(ring, schema)
        ended = self._clock.monotonic()
        self._described_at = began
        self._next_at = ended + min(_MOST_PAUSE_S, (ended - began) * (1 / _SHARE - 1))

    def _enter(self, ring: Ring, schema: Mapping[str, Keyspace]) -> None:
        known = {self._before.ring.fingerprint, *(view.fingerprint for view in self._before.ring.views)}
        if ring.unplaced and not self._before.ring.unplaced:
            self._rings["unplaced"] = ring
            self._moved.clear()
        for seen in (ring, *ring.views):
            if seen.fingerprint not in known and seen.fingerprint not in self._rings:
                self._rings[seen.fingerprint] = seen
                self._moved.clear()
        for keyspace in self._before.schema.values():
            for table in keyspace.tables.values():
                if why := _altered(table, keyspace, schema):
                    self._altered.setdefault(table.full_name, f"{why} during the run; run the check again")

    def of_table(self, table: Table) -> str:
        """Say why nothing that was read of a table can be believed; empty if it can."""
        return self._unread or self.altered(table)

    def altered(self, table: Table) -> str:
        """Say how a table or its replication changed since the run began; empty if nobody saw it change."""
        return self._altered.get(table.full_name, "")

    def moved(self, table: Table) -> tuple[TokenRange, ...]:
        """Return the ranges whose replicas are others than when the run began, or were meanwhile."""
        replication = self._before.schema[table.keyspace].replication
        if replication not in self._moved:
            first = self._before.ring
            now = self._rings.values()
            unplaced = [disputed_ranges(ring, replication) for ring in now if ring.unplaced]
            self._moved[replication] = joined(*unplaced, *(changed_ranges(first, ring, replication) for ring in now))
        return self._moved[replication]

    def of_row(self, table: Table, token: int) -> str:
        """Say why a row's differences cannot be judged; empty if they can."""
        return self.of_range(table, TokenRange.at(token))

    def of_range(self, table: Table, token_range: TokenRange) -> str:
        """Say why differences of rows in a range cannot be judged; empty if they can."""
        if overlap(token_range, self.moved(table)):
            return RING_CHANGED
        return self.of_table(table)

    async def masks(self, tables: list[Table]) -> None:
        """Ask again whether our role reads masked columns as they are stored: the right may have been revoked."""
        for table in tables:
            if any(column.masked for column in table.columns) and not await self._reader.sees_masked(table):
                self._altered.setdefault(
                    table.full_name, "UNMASK was revoked from our role during the run; run the check again"
                )


def _altered(table: Table, keyspace: Keyspace, now: Mapping[str, Keyspace]) -> str:
    found = now.get(table.keyspace)
    if found is not None and table.name in found.unreadable:
        return f"its nodes came to disagree on it ({found.unreadable[table.name]})"
    if found is None or table.name not in found.tables:
        return "the table was dropped"
    if found.tables[table.name].fingerprint != table.fingerprint:
        return "the table was altered"
    if found.replication != keyspace.replication:
        return "the keyspace's replication was altered"
    return ""
