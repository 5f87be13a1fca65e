"""Rule out that a replica lacks a row because it was deleted there: then a merge brings the row back.

CQL shows no tombstones. The trace of a read counts those of rows, ranges and cells, not the delete of a partition. That
one is ruled out by what the replica shows of the partition: a cell that it shows is newer than any such delete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from consistency.cluster.locality import TracedPartition
from consistency.cluster.port import Key, ReplicaReader
from consistency.errors import ReplicaError, ReplicaRefused
from consistency.model.reading import Reading, RowState, each_time
from consistency.model.ring import Node
from consistency.results.figures import counted
from consistency.rows.cells import Atom, winners
from consistency.rows.evidence import Evidence

DEFAULT_MOST_TRACES = 1_000
"""Traced reads of one run: each takes some 20 ms, and stays in system_traces for a day."""
_LASTS_S = 3_600


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a replica shows of a partition: the oldest write time of any cell, and whether it met a tombstone."""

    oldest_us: int | None
    deleted: bool


Place = tuple[str, Key, Node]
"""A table (`keyspace.table`), a partition of it, and a node that may hold a delete there."""


def search_warnings(skipped: int, refused: str, most: int) -> tuple[str, ...]:
    """Say what could not be looked for: so many partitions beyond the bound, or any, as the servers refuse."""
    found = []
    if skipped and most:
        found.append(f"deletes were not looked for in {counted(skipped, 'more partition')}: --max-traces {most}")
    if refused:
        found.append(f"deletes cannot be looked for, so rows may be forecast unknown: {refused}")
    return tuple(found)


class DeleteSearch:
    """Looks for deletes on the replicas that lack a row, by one traced read of its partition on each of them.

    What cannot be read or traced rules out nothing.
    """

    def __init__(self, reader: ReplicaReader, most: int = DEFAULT_MOST_TRACES) -> None:
        self._reader = reader
        self._left = most
        self._seen: dict[Place, asyncio.Task[_Shown | None]] = {}
        self._skipped: set[Place] = set()
        self._refused = ""

    @property
    def skipped(self) -> Collection[Place]:
        """The partitions that were not looked into, as nothing was left of the bound."""
        return self._skipped

    @property
    def refused(self) -> str:
        """Why no server is asked, empty if they are."""
        return self._refused

    async def rules_out(self, rows: Sequence[Evidence]) -> list[bool]:
        """Say of each row whether it stays, or comes back, when the servers merge it: no delete of it is hidden."""
        return list(await asyncio.gather(*map(self._rules_out, rows)))

    async def _rules_out(self, row: Evidence) -> bool:
        newest_us = _surely_kept(row)
        absent = [node for node, state in row.states.items() if state is None]
        if newest_us is None or not absent or row.unread:
            return False
        shown = await asyncio.gather(*(self._shown(row, node) for node in absent))
        return all(
            each is not None and not each.deleted and each.oldest_us is not None and each.oldest_us <= newest_us
            for each in shown
        )

    async def _shown(self, row: Evidence, node: Node) -> _Shown | None:
        """Read a partition on a node once; None if nothing is known of it."""
        partition = row.name.key[: len(row.table.partition_key)]
        place = row.table.full_name, partition, node
        if place not in self._seen:
            if self._refused:
                return None
            if not self._left:
                self._skipped.add(place)
                return None
            self._left -= 1
            self._seen[place] = asyncio.ensure_future(self._read(row, partition, node))
        return await asyncio.shield(self._seen[place])

    async def _read(self, row: Evidence, partition: Key, node: Node) -> _Shown | None:
        now_s = row.when.expiry_s
        try:
            found = await self._reader.traced_partition(node, row.reading.full, partition, now_s)
        except ReplicaRefused as error:
            self._refused = error.reason
            return None
        except ReplicaError:
            return None
        return None if found is None else _shown_in(row.reading.full, found, now_s)


def _shown_in(reading: Reading, found: TracedPartition, now_s: int) -> _Shown:
    states: list[RowState | None] = []
    for raw in found.rows:
        states.append(reading.static_state(raw, now_s) if reading.statics else None)
        states.append(reading.row_state(raw, now_s) if reading.has_row(raw) else None)
    cells = (cell for state in states if state is not None for cell in state.cells if cell.value is not None)
    return _Shown(min((t for cell in cells for t in each_time(cell.writetimes)), default=None), found.tombstones > 0)


def _surely_kept(row: Evidence) -> int | None:
    """Return the newest write time of a cell that no replica which shows the row has deleted; None if there is none.

    A cell that all of them show is newer than any delete of it there. It must also outlast the repair, and be younger
    than gc_grace_seconds: a tombstone as old as that may still hide it on its replica, and is not counted.
    """
    table = row.table
    if table.is_counter or table.view_of or not (table.clustering or table.statics):
        return None  # a partition of one row shows nothing where it lacks that row
    held = [row.copies[node] for node in row.present]
    shown_by_all = set(held[0]).intersection(*held[1:]) if held else set()
    purged_us = row.when.purged_us(table.gc_grace_seconds)
    won = winners(row.copies)
    times = [won[name].writetime for name in shown_by_all if _lasts(won[name], row)]
    return max((time for time in times if time is not None and time > purged_us), default=None)


def _lasts(atom: Atom, row: Evidence) -> bool:
    return atom.expires is None or atom.expires > row.when.expiry_s + _LASTS_S
