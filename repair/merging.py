"""Merging reads: a read at ALL has the servers merge what it reads; rows that share a clustering key share one.

Rows come one by one, as the pace lets them; those that come within a few milliseconds of one another go together.
Reading one again is harmless, so where a read of several fails each is read by itself: one row's trouble is its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field

from consistency.cluster.waits import within
from consistency.errors import ReplicaError, ReplicaRefused
from consistency.model.ring import Node
from consistency.rows.evidence import Evidence
from repair.statements import merging_read
from repair.writer import RowWriter

MOST_ROWS = 16
"""Rows in one read: its coordinator asks all their replicas at once, so no more than may be under way one by one."""
_WAIT_S = 0.005


@dataclass
class _Group:
    """Rows that are read together, and the read of them."""

    rows: list[Evidence] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    read: asyncio.Task[None] = field(init=False)


class MergingReads:
    """Has the servers merge rows, through the coordinator named, many of them with one read where that can be."""

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer
        self._open: dict[Hashable, _Group] = {}

    async def merge(self, node: Node, evidence: Evidence) -> None:
        """Have a row merged; raises a ReplicaError where not all its replicas took part."""
        if evidence.name.static:
            await self._alone(node, evidence)
            return
        group = self._joined(node, evidence)
        try:
            # Shielded: one row that is given up must not take the others' read with it.
            await asyncio.shield(group.read)
        except ReplicaError as error:
            if len(group.rows) == 1:
                raise
            # What was refused before it began did nothing; of any other failure some rows may have been merged.
            await self._alone(node, evidence, after_doubt=error.repeated or not isinstance(error, ReplicaRefused))

    async def _alone(self, node: Node, evidence: Evidence, *, after_doubt: bool = False) -> None:
        try:
            await self._writer.through(node, merging_read([evidence]), at_all=True)
        except ReplicaError as error:
            error.repeated = error.repeated or after_doubt
            raise

    def _joined(self, node: Node, evidence: Evidence) -> _Group:
        """Put a row into the group that is open for its like, or into a new one."""
        like = (node, evidence.table.full_name, *_shared(evidence))
        group = self._open.get(like)
        if group is None:
            group = self._open[like] = _Group()
            group.read = asyncio.create_task(self._read(like, node, group))
            group.read.add_done_callback(_noticed)
        group.rows.append(evidence)
        if len(group.rows) == MOST_ROWS:
            del self._open[like]
            group.full.set()
        return group

    async def _read(self, like: Hashable, node: Node, group: _Group) -> None:
        with suppress(asyncio.TimeoutError):
            async with within(_WAIT_S):
                await group.full.wait()
        if self._open.get(like) is group:
            del self._open[like]
        await self._writer.through(node, merging_read(group.rows), at_all=True)


def _shared(evidence: Evidence) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return what rows of one read have in common: the partition key but for its last column, the clustering key."""
    key, width = evidence.name.key, len(evidence.table.partition_key)
    return key[: width - 1], key[width:]


def _noticed(read: asyncio.Task[None]) -> None:
    """Take note of how a read ended, also where all its rows were given up."""
    if not read.cancelled():
        read.exception()
