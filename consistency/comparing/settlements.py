"""What becomes of a row of two clusters that was settled: a finding, a row that could not be judged, or nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from consistency.checking.changes import Changing
from consistency.checking.claiming import claim
from consistency.checking.observer import PairObserver
from consistency.checking.scans import Scans
from consistency.checking.settle import Settled, Settlement
from consistency.comparing.counting import CountedRange
from consistency.comparing.naming import inner_evidence, pair_finding
from consistency.comparing.settling import SettledPair
from consistency.model.schema import Table
from consistency.model.sides import Side, SidedNode
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, FindingsWriter, differing_replicas
from consistency.results.pair_findings import Compared, InnerFinding, PairFinding, PairRange
from consistency.results.report import TOP_FINDINGS
from consistency.rows.classify import DEFAULT_MAX_SKEW_S

Tell = Callable[[Compared], None]


@dataclass(frozen=True)
class PairListeners:
    """Everybody who is told of what is found; `room` returns when whoever takes it has room for more."""

    writer: FindingsWriter
    observer: PairObserver
    room: Callable[[], Awaitable[None]]
    take: Tell

    async def tell(self, found: Compared, rows: int = 1) -> None:
        """Pass on what was found, of so many rows."""
        self.writer.write_line(found)
        self.observer.differing(rows)
        self.take(found)
        await self.room()


class PairSettlements:
    """Takes the settlements of one comparison and enters each in its table's account."""

    def __init__(self, scans: Scans, changes: Changing, listeners: PairListeners, targets: Mapping[str, Table]) -> None:
        self._scans = scans
        self._changes = changes
        self._listeners = listeners
        self._targets = targets
        self._kinds: dict[str, Counter[str]] = defaultdict(Counter)
        self._inner: dict[tuple[str, Side], Counter[str]] = defaultdict(Counter)
        self._counted: Counter[str] = Counter()
        self._unsettled: Counter[str] = Counter()
        self._top: list[PairFinding | InnerFinding] = []

    def kinds(self, full_name: str) -> Counter[str]:
        """How many rows of a table differ between the sides, by kind."""
        return self._kinds[full_name]

    def inner(self, full_name: str, side: Side) -> Counter[str]:
        """On how many rows of a table a side disagrees with itself, by a check's kinds."""
        return self._inner[full_name, side]

    def counted(self, full_name: str) -> int:
        """How many of a table's rows were counted by range, and not listed."""
        return self._counted[full_name]

    def unsettled(self, full_name: str) -> int:
        """How many rows of a table could not be judged."""
        return self._unsettled[full_name]

    @property
    def top(self) -> tuple[PairFinding | InnerFinding, ...]:
        """The first findings."""
        return tuple(self._top)

    async def take(self, settlement: Settlement) -> None:
        """Enter a row that differs between the sides or within one, or of which that could not be told."""
        table, token = settlement.reading.table, settlement.name.token
        if await self._is_unjudged(settlement):
            return
        if not isinstance(settlement, SettledPair):
            self._leave_unsettled(table, TokenRange.at(token))
            return
        unsettled = bool(settlement.unjudged)
        for torn in settlement.torn:
            unsettled |= not await self._take_side(torn)
        if unsettled:
            self._leave_unsettled(table, TokenRange.at(token))
        if settlement.unlike.facts:
            found = pair_finding(settlement, self._targets[table.full_name])
            self._kinds[table.full_name][found.kind.value] += 1
            await self._report(table, token, found, ())

    async def _take_side(self, settled: Settled) -> bool:
        """Enter a row on which the replicas of one side disagree; False if it could not be judged."""
        table, token = settled.table, settled.name.token
        side = next(node.side for node in settled.owners if isinstance(node, SidedNode))
        evidence = inner_evidence(settled, self._targets[table.full_name] if side is Side.TARGET else table)
        claimed = claim(evidence, DEFAULT_MAX_SKEW_S)
        if isinstance(claimed, Finding):
            self._inner[table.full_name, side][claimed.kind.value] += 1
            behind = {f"{side} {name}" for name in differing_replicas(claimed)}
            await self._report(table, token, InnerFinding(side, claimed), behind)
        return claimed is None or isinstance(claimed, Finding)

    async def take_range(self, settled: CountedRange) -> None:
        """Enter the rows of one range that were counted."""
        table, token_range = settled.table, settled.leaf.token_range
        await self._changes.after(settled.read_at)
        reason = self._changes.of_range(table, token_range)
        if left := settled.unsettled + (len(settled.rows) if reason else 0):
            self._leave_unsettled(table, token_range, reason, rows=left)
        if not len(settled.rows) or reason:
            return
        target = self._targets[table.full_name]
        kinds, inner = settled.kinds, settled.inner
        self._kinds[table.full_name].update({kind.value: count for kind, count in kinds.items()})
        for side, count in inner.items():
            self._inner[table.full_name, side]["counted"] += count
        self._counted[table.full_name] += len(settled.rows)
        if (account := self._scans.of(table.full_name).account) is not None:
            for token in settled.rows.spread_tokens:
                account.mark_divergent(token)
            account.mark_unlike(token_range)
        names = (target.keyspace, target.name)
        found = PairRange(table.keyspace, table.name, names, token_range, dict(kinds), dict(inner))
        await self._listeners.tell(found, len(settled.rows))

    async def _is_unjudged(self, settlement: Settlement) -> bool:
        """Whether a settled row is not judged, because something changed on a side."""
        if not isinstance(settlement, Settled):
            return False
        table, at = settlement.reading.table, TokenRange.at(settlement.name.token)
        await self._changes.after(settlement.read_at)
        reason = self._changes.of_range(table, at)
        if reason:
            self._leave_unsettled(table, at, reason)
        return bool(reason)

    def _leave_unsettled(self, table: Table, token_range: TokenRange, reason: str = "", rows: int = 1) -> None:
        self._unsettled[table.full_name] += rows
        account = self._scans.of(table.full_name).account
        if account is not None:
            account.leave_unjudged(token_range, reason)

    async def _report(
        self, table: Table, token: int, found: PairFinding | InnerFinding, behind: Collection[str]
    ) -> None:
        account = self._scans.of(table.full_name).account
        if account is not None:
            account.mark_divergent(token, behind)
            account.mark_unlike(TokenRange.at(token))
        if len(self._top) < TOP_FINDINGS:
            self._top.append(found)
        await self._listeners.tell(found)
