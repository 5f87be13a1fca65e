"""What becomes of a row that was settled: a finding, a row that could not be judged, or nothing; all are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from consistency.checking.changes import Changes
from consistency.checking.claiming import claim
from consistency.checking.listeners import Listeners
from consistency.checking.range_settling import SettledRange
from consistency.checking.scans import Scans
from consistency.checking.settle import Settled, Settlement
from consistency.model.reading import Depth
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, FindingsWriter, differing_replicas
from consistency.results.kinds import Kind
from consistency.results.range_findings import Counted, RangeFinding
from consistency.rows.range_kinds import range_finding


class Settlements:
    """Takes the settlements of one check and enters each in its table's account."""

    def __init__(
        self,
        scans: Scans,
        changes: Changes,
        listeners: Listeners,
        writer: FindingsWriter,
        max_skew_s: float,
        room: Callable[[], Awaitable[None]],
    ) -> None:
        """Tell listeners of the findings; `room` returns when whoever takes them has room for more."""
        self.listeners = listeners
        self._scans = scans
        self._changes = changes
        self._writer = writer
        self._max_skew_s = max_skew_s
        self._room = room
        self._divergent: Counter[str] = Counter()
        self._unsettled: Counter[str] = Counter()
        self._counted: dict[str, Counted] = {}

    def divergent(self, full_name: str) -> int:
        """Return how many rows of a table differ."""
        return self._divergent[full_name]

    def unsettled(self, full_name: str) -> int:
        """Return how many rows of a table could not be judged."""
        return self._unsettled[full_name]

    def counted(self, full_name: str) -> Counted:
        """Return which of a table's rows that differ were counted by range, and not listed."""
        return self._counted.get(full_name, Counted())

    async def take(self, settlement: Settlement) -> None:
        """Enter what the settler found out about one row."""
        table, token = settlement.reading.table, settlement.name.token
        if isinstance(settlement, Settled):
            await self._changes.after(settlement.read_at)
            if reason := self._changes.of_row(table, token):
                self._leave_unsettled(table, TokenRange.at(token), reason)
                return
        claimed = claim(settlement, self._max_skew_s)
        if isinstance(claimed, Finding):
            await self._report(claimed)
        elif claimed is not None:
            self._leave_unsettled(table, TokenRange.at(token))

    async def take_non_owner(self, found: Finding, read_at: float) -> None:
        """Enter a row on a node that did not own it when it was read, unless ranges have changed hands meanwhile."""
        table = self._scans.of(f"{found.keyspace}.{found.table}").task.reading.table
        await self._changes.after(read_at)
        if not self._changes.of_row(table, found.token):
            await self._report(found)

    async def take_range(self, settled: SettledRange) -> None:
        """Enter the rows of one range that were settled together."""
        table, token_range = settled.reading.table, settled.leaf.token_range
        await self._changes.after(settled.read_at)
        reason = self._changes.of_range(table, token_range)
        rows = sum(map(len, settled.rows))
        if left := settled.unsettled + (rows if reason else 0):
            self._leave_unsettled(table, token_range, reason, rows=left)
        if not rows or reason:
            return
        found = range_finding(table, token_range, settled.leaf.replicas, settled.rows, settled.when, self._max_skew_s)
        self._divergent[table.full_name] += found.rows
        self._counted[table.full_name] = self.counted(table.full_name).plus(found)
        if (account := self._scans.of(table.full_name).account) is not None:
            behind = tuple(name for name, view in found.replicas.items() if view.missing or view.stale)
            for token in settled.spread_tokens:
                account.mark_divergent(token, behind or tuple(found.replicas))
            account.mark_unlike(token_range)
        await self._tell(found, settled.reading.depth)

    def _leave_unsettled(self, table: Table, token_range: TokenRange, reason: str = "", rows: int = 1) -> None:
        """Count rows that could not be judged; a reason holds for the whole leaf, which then counts as failed."""
        self._unsettled[table.full_name] += rows
        account = self._scans.of(table.full_name).account
        if account is not None:
            account.leave_unjudged(token_range, reason)

    async def _report(self, found: Finding) -> None:
        full_name = f"{found.keyspace}.{found.table}"
        scan = self._scans.of(full_name)
        self._divergent[full_name] += 1
        if scan.account is not None:
            scan.account.mark_divergent(found.token, differing_replicas(found))
            if found.kind is not Kind.NON_OWNER:  # the owners may agree all the same
                scan.account.mark_unlike(TokenRange.at(found.token))
        await self._tell(found, scan.task.reading.depth)

    async def _tell(self, found: Finding | RangeFinding, depth: Depth) -> None:
        """Pass on what was found, and wait until there is room for more."""
        self.listeners.tell(found, depth, self._writer)
        await self._room()
