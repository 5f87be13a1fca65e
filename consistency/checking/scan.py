"""The scan of one table: plan -> digest -> tree -> compare -> descend -> settle -> report."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from consistency.checking.account import Account
from consistency.checking.at_fault import AtFault, lasting, too_large
from consistency.checking.descend import Descent, differences
from consistency.checking.future import written_after
from consistency.checking.leaves import DifferingPartitions, DifferingRows, LeafResult, digest_leaf, digest_leaves
from consistency.checking.listing import Listing
from consistency.checking.narrow_arrays import digest_by_arrays
from consistency.checking.narrow_partitions import Partitions, digest_by_partition, glance
from consistency.checking.narrow_rows import digest_by_row
from consistency.checking.observer import Observer
from consistency.checking.plan import LEAF_ROWS, Aside, Leaf, TablePlan, cut, estimate_rows
from consistency.checking.range_rows import FirstReading, FirstReadings
from consistency.checking.range_settling import RangeSettling
from consistency.checking.settle import Settling
from consistency.checking.trees import BRANCH
from consistency.cluster.table_reader import TableReader
from consistency.errors import InternalError, ReplicaError, SchemaError
from consistency.model.part import Part
from consistency.model.reading import Reading, Route
from consistency.model.ring import Arc, Node
from consistency.model.tokens import TokenRange, around_tokens
from consistency.results.range_findings import Counted
from consistency.results.report import TableReport, Unread
from consistency.results.verdict import Coverage
from consistency.rows.classify import DEFAULT_MAX_SKEW_S

InParts = Callable[..., Awaitable[LeafResult]]
"""Digests a leaf in parts, so that what differs in it is known at once."""
_MOST_KNOWN_LEAVES = 16
"""Leaves of which it is remembered at once what differs in them, before it is looked at."""
SECOND_TRY_AFTER_S = 10.5
"""How long replicas that failed are left alone at the end: a node known to be down is not asked for 10 s."""


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How a scan is run; times in seconds."""

    leaf_rows: int = LEAF_ROWS
    leaves_at_once: int = 8
    descents_at_once: int = 4
    max_skew_s: float = DEFAULT_MAX_SKEW_S
    max_findings: int | None = None
    """So many rows of a table are listed; if more differ, the rest are counted by range. None: all are listed."""


@dataclass(frozen=True)
class TableTask:
    """One table to scan: how it is read, by which route, and where it lies on the ring."""

    reading: Reading
    route: Route
    arcs: tuple[Arc, ...]
    locality: str
    asides: tuple[Aside, ...] = ()
    """Ranges that are not compared, with the reason."""
    whole: tuple[Arc, ...] = ()
    """Where all of the table lies, if `arcs` are a part of that: its rows are estimated there."""
    planned: TablePlan | None = None
    """The leaves to read, if they are cut already."""

    def part(self, part: Part) -> TableTask:
        """Return the task of a part of the ring; what is not compared belongs to one part, whole."""
        asides = ((aside, part.ending_in(aside.arc)) for aside in self.asides)
        kept = tuple(replace(aside, arc=arc) for aside, arc in asides if arc is not None)
        return replace(self, arcs=part.of_arcs(self.arcs), asides=kept, whole=self.whole or self.arcs)


@dataclass(slots=True)
class Scan:
    """A table's scan under way; `report` is true at any moment, also after an interrupt."""

    task: TableTask
    table: TableReader
    settler: Settling
    ranges: RangeSettling
    options: ScanOptions
    observer: Observer
    sampled: bool
    """Whether a sample of the table is read."""
    part: Part | None
    """Which part of the table is read, None for all of it."""
    account: Account | None = None
    extra: list[Unread] = field(default_factory=list)
    started: float = 0.0
    ended: float | None = None
    _descents: dict[Leaf, asyncio.Task[None] | None] = field(default_factory=dict)
    """The leaves whose rows are, or were, compared: each only once, or a row would be reported twice."""
    _ahead: dict[Leaf, asyncio.Task[None] | None] = field(default_factory=dict)
    """The leaves in which rows from the future are, or were, looked for: each only once as well."""
    _partitions: Partitions = field(default_factory=Partitions)
    _known: dict[Leaf, DifferingPartitions | DifferingRows | FirstReadings] = field(default_factory=dict)
    """What differs in leaves that are not looked at yet."""
    _at_fault: AtFault = field(default_factory=AtFault)
    _counting: dict[asyncio.Task[None], asyncio.Event] = field(default_factory=dict)
    """Ranges whose rows are, or were, counted, each with whether it was read once."""
    was_read: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once all of the table was read, and nothing is left but to read again what rows wait to be counted."""
    _listing: Listing = field(init=False)
    _gate: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._gate = asyncio.Semaphore(self.options.descents_at_once)
        self._listing = Listing(self.options.max_findings)

    async def run(self) -> None:
        """Scan the table. What could not be read is in the account, not raised."""
        account = await self.plan()
        self.observer.table_planned(self.task.reading.table, account.plan)
        try:
            await self.digest(account, account.plan.leaves)
            await self.digest_again(account)
            await self.compare(account)
        finally:
            await self.close()

    async def plan(self, leaf_rows: Callable[[int, int], int] | None = None) -> Account:
        """Cut the table into leaves and open its account.

        `leaf_rows` tells the rows of a leaf from those of the table and the most that a leaf may have.
        """
        self.started = self.table.clock.monotonic()
        self.account = Account(await self._plan(leaf_rows or (lambda _, most: most)), self.task.asides)
        await self._glance(self.account.plan)
        return self.account

    async def _glance(self, plan: TablePlan) -> None:
        """See how large the partitions of a large table are, so that its first leaves are digested in the right way.

        Not where a replica of theirs is down: by partition nothing is known of a leaf before all have answered.
        """
        leaf = next(iter(plan.leaves), None)
        if leaf is None or self.sampled or plan.estimated_rows <= BRANCH * self.options.leaf_rows:
            return
        if self.table.hashes_rows and self.table.provable(leaf.replicas) and all(node.up for node in leaf.replicas):
            await glance(self.table, leaf, self._partitions)

    async def _plan(self, leaf_rows: Callable[[int, int], int]) -> TablePlan:
        table, arcs = self.task.reading.table, self.task.arcs
        if self.task.planned is not None:
            return self.task.planned
        try:
            rows = await estimate_rows(self.table.reader, table, self.task.whole or arcs)
        except ReplicaError:
            rows = 0
        return cut(table, arcs, rows, leaf_rows=leaf_rows(rows, self.options.leaf_rows))

    async def digest(self, account: Account, leaves: Iterable[Leaf]) -> None:
        """Digest leaves; what differs is looked at meanwhile, so that its settle window passes beside the scan."""
        results = digest_leaves(self._digest_leaf, leaves, at_once=lambda: self._at_once(account))
        refused: list[LeafResult] = []
        async with aclosing(results):
            async for result in results:
                self._partitions.digested(result)
                if result.differing is not None and result.differing.any:
                    self._known[result.leaf] = result.differing
                account.record(replace(result, differing=None))
                if too_large(result):
                    refused.append(result)
                self._compare_branch(account, result)
                self.observer.leaf_digested(result)
                self.observer.settling(self.settler.waiting + self.ranges.waiting)
        for result in refused:
            await self._isolate(account, result)

    def _at_once(self, account: Account) -> int:
        """Return how many leaves may be under way: until the first were compared, no more than that takes.

        What they show decides how the others are digested.
        """
        most = self.options.leaves_at_once
        return most if len(account.results) >= BRANCH else min(BRANCH, most)

    async def digest_again(self, account: Account) -> None:
        """Once more for leaves whose replicas may be back, after those were left alone for a while."""
        if again := self._worth_another_try(account):
            await self.table.clock.sleep(SECOND_TRY_AFTER_S)
            await self.digest(account, again)

    async def _isolate(self, account: Account, result: LeafResult) -> None:
        """Cut a leaf that a server refuses to read, so that no more is unread of it than what is at fault."""
        parts = await self._at_fault.parts(self._digest_part, result)
        if len(parts) > 1:
            await self.digest(account, account.cut(result.leaf, parts))

    async def _digest_part(self, leaf: Leaf) -> LeafResult:
        return await digest_leaf(self.table, leaf)

    async def _digest_leaf(self, leaf: Leaf) -> LeafResult:
        """Digest a leaf whole, or in parts at once where leaf after leaf had to be digested so a second time."""
        digest = self._in_parts() if self.table.hashes_rows and self.table.provable(leaf.replicas) else None
        if digest is not None:
            try:
                return await digest(self.table, leaf, self._partitions, leaf_rows=self.options.leaf_rows)
            except ReplicaError:
                # A replica that does not answer is asked again below, and how that ends is in the account.
                self._partitions.at_first = False
        return await digest_leaf(self.table, leaf)

    def _in_parts(self) -> InParts | None:
        """Return how to digest the next leaf in parts; None if it is better digested whole."""
        partitions, reading = self._partitions, self.table.reading
        room = len(self._known) < _MOST_KNOWN_LEAVES
        counted = self._listing.full and self.ranges.takes_readings
        if counted and room and partitions.arrays_worth_it_at_once(reading):
            return digest_by_arrays
        if partitions.worth_it_at_once(reading):
            return digest_by_partition
        listed = not self._listing.full and room
        return digest_by_row if listed and partitions.rows_worth_it_at_once(reading) else None

    def _worth_another_try(self, account: Account) -> list[Leaf]:
        """Once more, at the end, for leaves whose replicas may be back; a replica with nothing else is left alone."""
        failed = {leaf for leaf, _ in account.failures} - self._descents.keys() - self._ahead.keys()
        failed -= {leaf for leaf, result in account.results.items() if lasting(result)}
        answered = {node for result in account.results.values() for node in result.digests}
        return [leaf for leaf in account.plan.leaves if leaf in failed and answered.issuperset(leaf.replicas)]

    async def compare(self, account: Account) -> None:
        """Have every leaf looked at on which the trees differ, or that was written to in the future; that ends it."""
        for result in account.compare():
            self._descend_once(account, result)
        for result in account.results.values():
            self._look_ahead_once(account, result)
        while looks := [look for look in self._looks if look not in self._counting and not look.done()]:
            await asyncio.gather(*looks)  # each can begin another
        for begun in self._counting.values():
            await begun.wait()
        self.was_read.set()
        await asyncio.gather(*self._looks)
        self.ended = self.table.clock.monotonic()

    async def close(self) -> None:
        """End the looks that are under way: none are, but after an interrupt."""
        for task in self._looks:
            task.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)

    @property
    def _looks(self) -> list[asyncio.Task[None]]:
        looks = (*self._descents.values(), *self._ahead.values(), *self._counting)
        return [task for task in looks if task is not None]

    def _compare_branch(self, account: Account, result: LeafResult) -> None:
        """Begin a closer look at what is known to need one, now that a leaf was digested."""
        if result.errors:
            return  # it may be read at the end
        unlike = account.compare_branch(result.leaf)
        news = sum(each.leaf not in self._descents for each in unlike or ())
        self._partitions.compared(leaves=1, differing=news, whole=unlike is not None)
        for each in unlike or ():
            self._descend_once(account, each)
        self._look_ahead_once(account, result)

    def _descend_once(self, account: Account, result: LeafResult) -> None:
        if result.leaf not in self._descents:
            self._descents[result.leaf] = asyncio.create_task(self._descend(account, result))

    def _look_ahead_once(self, account: Account, result: LeafResult) -> None:
        if result.leaf not in self._ahead and self._in_future(result):
            self._ahead[result.leaf] = asyncio.create_task(self._look_ahead(account, result))

    async def _descend(self, account: Account, result: LeafResult) -> None:
        async with self._gate:
            descent, known = Descent(), self._known.pop(result.leaf, None)
            if isinstance(known, FirstReadings):
                for read in known.parts:
                    self._begin_count(account, result.leaf, read.leaf, read)
                return
            result = replace(result, differing=known)
            try:
                found = differences(self.table, result, descent, self._partitions, self._listing)
                async with aclosing(found):
                    async for difference in found:
                        if isinstance(difference, Leaf):
                            self._begin_count(account, result.leaf, difference)
                        else:
                            await self.settler.put(self.task.reading, difference)
                account.count_rows(result.leaf, descent.rows)
                if descent.refused:
                    await self._set_apart(account, result, descent.refused)
            except (ReplicaError, SchemaError, InternalError) as error:
                account.fail(result.leaf, str(error))

    def _begin_count(self, account: Account, leaf: Leaf, part: Leaf, read: FirstReading | None = None) -> None:
        begun = asyncio.Event()
        self._counting[asyncio.create_task(self._count(account, leaf, part, begun, read))] = begun

    async def _count(
        self, account: Account, leaf: Leaf, part: Leaf, begun: asyncio.Event, read: FirstReading | None
    ) -> None:
        """Have the rows counted that differ in a part of a leaf."""
        try:
            await self.ranges.settle(part, begun, read)
        except (ReplicaError, SchemaError, InternalError) as error:
            account.fail(leaf, str(error))
        finally:
            begun.set()

    async def _set_apart(self, account: Account, result: LeafResult, refused: Mapping[int, ReplicaError]) -> None:
        """Enter partitions that were not compared as leaves of their own; the others of their leaf were."""
        leaf = result.leaf
        ranges = around_tokens(leaf.token_range, refused)
        again = [await self._digest_part(Leaf(part, leaf.replicas)) for part in ranges]
        for part in account.set_apart(leaf, again, refused):
            self._descents[part] = self._ahead[part] = None

    async def _look_ahead(self, account: Account, result: LeafResult) -> None:
        """Report the rows of a leaf that were written in the future and on which its replicas agree.

        One instant decides from here to the finding: a row near the limit would be judged twice, and differently.
        """
        async with self._gate:
            try:
                when, nodes = self.table.clock.server_time(), list(result.leaf.replicas)
                found = written_after(self.table.full, result, when, self.options.max_skew_s)
                async with aclosing(found):
                    async for rows in found:
                        await self.settler.put_agreed(self.task.reading, rows, nodes, when)
            except (ReplicaError, InternalError) as error:
                account.fail(result.leaf, str(error))

    def _fail_unfinished(self, account: Account) -> None:
        """Enter the leaves whose digests are known to need a closer look, once there is nobody left to take it."""
        unlike = {result.leaf for result in account.compare()}
        for result in account.results.values():
            if result.leaf in unlike or self._in_future(result):
                account.fail(result.leaf, "it was not compared row by row before the run ended")

    def _in_future(self, result: LeafResult) -> bool:
        """Whether a leaf holds a write time that lies in the future now."""
        return (result.newest_us or 0) > self.table.clock.server_time().future_us(self.options.max_skew_s)

    def invalidate(self, reason: str, *, instead: bool) -> None:
        """Say that nothing of this scan can be believed; `instead` of why some of its leaves failed before."""
        if self.account is not None:
            for leaf in self.account.plan.leaves:
                self.account.fail(leaf, reason, instead=instead)

    def fail_extra(self, node: Node, ranges: tuple[TokenRange, ...], reason: str) -> None:
        """Enter one further read that was planned and failed."""
        self.extra.append(Unread(node.name, ranges, reason))

    def rows_by_node(self) -> dict[Node, int]:
        """Return how many rows each replica holds of the table; only of a scan that reached all of the plan."""
        if self.account is None or not self.account.coverage.complete:
            return {}
        held: Counter[Node] = Counter()
        for result in self.account.results.values():
            for node, digest in result.digests.items():
                held[node] += digest.rows
        return dict(held)

    def report(self, *, divergent: int, unsettled: int, counted: Counted) -> TableReport:
        """Return the table's report as it stands; whatever was planned and not reached counts as failed."""
        reading, account = self.task.reading, self.account
        if account and self.ended is None:
            self._fail_unfinished(account)
        coverage = account.coverage.closed() if account else Coverage(planned=1, failed=1)
        coverage += Coverage(planned=len(self.extra), failed=len(self.extra))
        return TableReport(
            keyspace=reading.table.keyspace,
            table=reading.table.name,
            depth=reading.depth.value,
            route=self.task.route.value,
            locality=self.task.locality,
            rows=account.rows if account else 0,
            divergent_rows=divergent,
            unsettled_rows=unsettled,
            seconds=(self.ended or self.table.clock.monotonic()) - self.started if self.started else 0.0,
            coverage=coverage,
            unread=(account.unread() if account else ()) + tuple(self.extra),
            strip=account.strip() if account else "",
            blind=reading.blind,
            note=account.note if account else "",
            ranges=len(account.plan.leaves) if account else 0,
            ranges_read=len(account.results) if account else 0,
            tracks=account.tracks() if account else {},
            alone=account.alone if account else 0,
            trees=account.trees() if account else (),
            counted=counted,
            scheme=self.table.scheme,
            sample=account.sampled if account and self.sampled else None,
            part=self.part,
            held={node.host_id: rows for node, rows in self.rows_by_node().items()},
        )
