"""The scans of one check that were begun, by table; a table whose scan was not begun was not reached."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from consistency.checking.account import Account
from consistency.checking.changes import RING_CHANGED, Changing
from consistency.checking.scan import Scan
from consistency.cluster.waits import within


class Scans:
    """Keeps each table's scan, and takes back what cannot be believed of them."""

    def __init__(self) -> None:
        self._by_table: dict[str, Scan] = {}

    def enter(self, scan: Scan) -> Scan:
        """Keep a scan that begins, and return it."""
        self._by_table[scan.task.reading.table.full_name] = scan
        return scan

    def of(self, full_name: str) -> Scan:
        """Return the scan of a table."""
        return self._by_table[full_name]

    def __iter__(self) -> Iterator[Scan]:
        return iter(self._by_table.values())

    def __contains__(self, full_name: str) -> bool:
        return full_name in self._by_table

    @property
    def accounts(self) -> Iterator[tuple[Scan, Account]]:
        """The scans that have a plan, each with its account."""
        return ((scan, scan.account) for scan in self if scan.account is not None)

    async def look_back(self, changes: Changing, limit_s: float | None = None) -> None:
        """Take back what was said of ranges or tables that changed while they were scanned."""
        with contextlib.suppress(asyncio.TimeoutError):
            # Without the latest description nothing can be believed, and `of_table` says so.
            async with within(limit_s):
                await self._last_look(changes)
        for scan in self:
            table = scan.task.reading.table
            if altered := changes.altered(table):
                # Why reads of it failed meanwhile: a node that is a replica no more, for one, cannot answer for itself.
                scan.invalidate(altered, instead=True)
            elif reason := changes.of_table(table):
                scan.invalidate(reason, instead=False)
            elif scan.account is not None:
                scan.account.fail_within(changes.moved(table), RING_CHANGED)

    async def _last_look(self, changes: Changing) -> None:
        changes.begin_look()
        await changes.masks([scan.task.reading.table for scan in self])
        await changes.look()
