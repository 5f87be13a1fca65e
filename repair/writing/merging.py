"""Merging reads: a read at ALL has the servers merge what it reads; rows of a partition, or clustering key, share one.

Rows come one by one, as the pace lets them; those that come within a few milliseconds of one another go together.
Reading one again is harmless, so where a read of several fails each is read by itself: one row's trouble is its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from consistency.cluster.key_batches import takes_clustering_in
from consistency.cluster.waits import within
from consistency.errors import ReplicaError, ReplicaRefused, TooFewReplicas
from consistency.model.ring import Node
from consistency.rows.evidence import Evidence
from repair.writing.statements import merging_read
from repair.writing.writer import RowWriter

MOST_ROWS = 16
"""Rows in one read: its coordinator asks all their replicas at once, so no more than may be under way one by one."""
_WAIT_S = 0.005


@dataclass
class _Group:
    """Rows that are read together, the read of them, and what they have in common; of one row all that it may be."""

    likes: Sequence[Hashable]
    rows: list[Evidence] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    read: asyncio.Task[None] = field(init=False)

    @property
    def of_one_partition(self) -> bool:
        """Whether all rows are of one partition, which the servers read at once."""
        return len({row.name.key[: len(row.table.partition_key)] for row in self.rows}) == 1


class MergingReads:
    """Has the servers merge rows, through the coordinator named, many of them with one read where that can be."""

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer
        self._open: dict[Hashable, _Group] = {}

    async def merge(self, node: Node, evidence: Evidence) -> None:
        """Have a row merged; raises a ReplicaError if not all its replicas took part."""
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
            # What was refused before it began did nothing, as was a partition with too few replicas; of any other
            # failure some rows may have been merged.
            before = (ReplicaRefused, TooFewReplicas) if group.of_one_partition else ReplicaRefused
            await self._alone(node, evidence, after_doubt=error.repeated or not isinstance(error, before))

    async def _alone(self, node: Node, evidence: Evidence, *, after_doubt: bool = False) -> None:
        try:
            await self._writer.through(node, merging_read([evidence]), at_all=True)
        except ReplicaError as error:
            error.repeated = error.repeated or after_doubt
            raise

    def _joined(self, node: Node, evidence: Evidence) -> _Group:
        """Put a row into a group that is open for its like, or into a new one."""
        likes = _likes(node, evidence)
        like = next((like for like in likes if like in self._open), None)
        if like is None:
            group = _Group(likes)
            self._open |= dict.fromkeys(likes, group)
            group.read = asyncio.create_task(self._read(node, group))
            group.read.add_done_callback(_noticed)
        else:
            group = self._open[like]
            self._close(group)
            group.likes = [like]
            self._open[like] = group
        group.rows.append(evidence)
        if len(group.rows) == MOST_ROWS:
            self._close(group)
            group.full.set()
        return group

    def _close(self, group: _Group) -> None:
        for like in group.likes:
            if self._open.get(like) is group:
                del self._open[like]

    async def _read(self, node: Node, group: _Group) -> None:
        with suppress(asyncio.TimeoutError):
            async with within(_WAIT_S):
                await group.full.wait()
        self._close(group)
        await self._writer.through(node, merging_read(group.rows), at_all=True)


def _likes(node: Node, evidence: Evidence) -> list[Hashable]:
    """Return what rows may have in common to be read together: the partition, or all but its last column.

    Rows of a partition come first, as a server reads them at once. Of a list of partition keys it reads but one of
    those that are one value to their type in different bytes: no partitions are listed if there may be such.
    """
    key, table = evidence.name.key, evidence.table
    width = len(table.partition_key)
    asked = (node, table.full_name)
    other = key[: width if table.partition_key[-1].type.is_respelled else width - 1]
    spread = (*asked, "clustering key", other, key[width:])
    gathers = takes_clustering_in(table, evidence.columns)
    return [(*asked, "partition", key[:width]), spread] if gathers else [spread]


def _noticed(read: asyncio.Task[None]) -> None:
    """Take note of how a read ended, also if all its rows were given up."""
    if not read.cancelled():
        read.exception()
