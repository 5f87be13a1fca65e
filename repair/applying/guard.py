"""What must hold at the moment of writing: the same cluster, ring and tables as planned, and one schema."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import ConsistencyError
from consistency.model.ring import Ring
from repair.deciding.case import fingerprint
from repair.writing.writer import RowWriter

_EVERY_S = 2.0
NO_UNDO = "the journal tells of what was there before, and no longer fits: look at its rows, and write them yourself"
"""What to do where an undo finds another cluster or table than there was."""


class PlanRefused(ConsistencyError):
    """The cluster is not as it was planned for; nothing more is written."""


class Ground(Protocol):
    """What a plan rests on: the name of the cluster, its ring, its nodes, and the definitions of tables by name."""

    @property
    def cluster(self) -> str:
        """The cluster's name."""

    @property
    def ring(self) -> str:
        """The fingerprint of the ring."""

    @property
    def host_ids(self) -> frozenset[str]:
        """Nodes by which another cluster of the same name is told; empty if none are known."""

    @property
    def tables(self) -> Mapping[str, str]:
        """The fingerprint of each table."""


class Guard:
    """Checks before the first row and, at most every two seconds, before the next."""

    def __init__(
        self, plan: Ground, reader: ClusterReader, writer: RowWriter, clock: Clock, way_on: str = "run the check again"
    ) -> None:
        """Guard a plan; `way_on` is what to do where the cluster has changed for good."""
        self._plan = plan
        self._way_on = way_on
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._checked_at: float | None = None
        self._checking = asyncio.Lock()

    async def check(self) -> None:
        """Raise PlanRefused, with one line that says why, where the plan no longer fits."""
        async with self._checking:
            now = self._clock.monotonic()
            if self._checked_at is not None and now - self._checked_at < _EVERY_S:
                return
            await self._check()
            self._checked_at = now

    async def _check(self) -> None:
        ring = await self._reader.ring_now()
        if ring.cluster != self._plan.cluster:
            msg = f"the plan is for cluster {self._plan.cluster!r}, this is {ring.cluster!r}: name its hosts"
            raise PlanRefused(msg)
        if ring.fingerprint != self._plan.ring:
            if self._plan.host_ids and not self._plan.host_ids & ring.host_ids:
                msg = f"the plan is for another cluster called {ring.cluster!r}, of other nodes: name its hosts"
                raise PlanRefused(msg)
            msg = f"the ring has changed since the plan was made: {self._way_on}"
            raise PlanRefused(msg)
        if _disputes(ring) != _disputes(await self._reader.ring()):
            raise PlanRefused("the nodes have come to disagree on who owns what: run consistency audit, then try again")
        up = tuple(node for node in (await self._reader.ring()).nodes if node.up)
        if len(await self._writer.schema_versions(up)) > 1:
            raise PlanRefused(
                "the nodes disagree on the schema: see nodetool describecluster; once they agree, try again"
            )
        schema = await self._reader.schema()
        for name, planned in self._plan.tables.items():
            keyspace, _, table = name.partition(".")
            found = schema[keyspace].tables.get(table) if keyspace in schema else None
            if found is None or fingerprint(schema[keyspace], found) != planned:
                msg = f"{name} or its keyspace's replication has changed since the plan was made: {self._way_on}"
                raise PlanRefused(msg)


def _disputes(ring: Ring) -> frozenset[str]:
    """Return names of what the nodes disagree on of the ring."""
    return frozenset(view.fingerprint for view in ring.views) | frozenset(ring.unplaced)
