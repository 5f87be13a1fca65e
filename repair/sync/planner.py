"""Make the plan of a sync: read every differing row of a comparison anew on both sides, decide, and write it down.

Rows are streamed from the findings to the plan. Those of a range that were counted and not listed are found by reading
the range on all replicas of both sides.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from consistency import __version__
from consistency.checking.plan import Leaf
from consistency.checking.settle_window import settle_window
from consistency.cluster.table_reader import TableReader
from consistency.comparing.opening import Pair, naming
from consistency.comparing.placement import sided
from consistency.comparing.reader import PairClock, PairReader, in_common
from consistency.comparing.terms import Compare, Terms
from consistency.errors import ReplicaError
from consistency.model.reading import Depth, Reading, Route
from consistency.model.schema import Table
from consistency.model.servertime import iso_time, skew_sentence
from consistency.model.sides import Side
from consistency.results.figures import counted
from consistency.results.pair_findings import (
    InnerFinding,
    PairFinding,
    PairRange,
    read_compared,
    read_pair_header,
)
from consistency.rows.classify import DEFAULT_MAX_SKEW_S
from consistency.rows.names import RowRef, row_ref
from repair.sync.cases import PairCase, PairCaseReader, PairRef
from repair.sync.decide import decide
from repair.sync.guards import require_clusters
from repair.sync.planfile import PlanWriter, SideGround, Summary, SyncHeader, SyncPlan, SyncRow
from repair.sync.policy import Direction, Extra, SyncPolicy
from repair.sync.range_rows import RangeRows

_BATCH = 100
_AT_ONCE = 4

Progress = Callable[[int], None]
Named = tuple[PairRef, PairCase | None]
"""A row that a comparison found to differ, with its case where that is known already."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """What to plan: as the options of `consistency sync plan`."""

    direction: Direction = Direction.TO_TARGET
    extra: Extra = Extra.KEEP
    settle_s: float | None = None
    """A row written to more recently is not judged; None: the write timeouts of both clusters together."""
    max_skew_s: float = DEFAULT_MAX_SKEW_S


async def make_sync_plan(
    pair: Pair, findings: Path, output: Path, options: SyncOptions, progress: Progress | None = None
) -> SyncPlan:
    """Read every row anew on both sides and decide; nothing is written to either cluster."""
    header = read_pair_header(findings)
    rings = {side: await pair.of(side).reader.ring() for side in Side}
    require_clusters(header.clusters, rings, str(findings))
    windows = [await settle_window(cluster.reader, options.settle_s) for cluster in pair]
    seconds = [window_s for window_s, _ in windows]
    window_s = sum(seconds) if options.settle_s is None else max(seconds)
    policy = SyncPolicy(options.direction, options.extra, Terms.of(header), window_s, options.max_skew_s)
    planned = SyncHeader(
        run_id=secrets.token_hex(8),
        findings_run_id=header.run_id,
        created_at=iso_time(pair.of(policy.direction.taker).clock.now_us()),
        tool=__version__,
        policy=policy,
        salt=secrets.token_hex(16),
        sides={side: SideGround(ring.cluster, ring.fingerprint, ring.host_ids) for side, ring in rings.items()},
    )
    cases = await PairCaseReader.open(pair, policy.direction)
    with PlanWriter(output, planned) as writer:
        for cluster, (_, note) in zip(pair, windows, strict=True):
            told = (note, skew_sentence(cluster.clock.readings))
            writer.summary.warnings += [f"{cluster.side}: {text}" for text in told if text]
        await _Planner(pair, cases, planned, writer).run(findings, progress or (lambda _: None))
        return writer.end()


class _Planner:
    """Takes the findings of one file to the rows of one plan."""

    def __init__(self, pair: Pair, cases: PairCaseReader, header: SyncHeader, writer: PlanWriter) -> None:
        self._pair = pair
        self._cases = cases
        self._header = header
        self._writer = writer
        self._inner: Counter[Side] = Counter()

    @property
    def _summary(self) -> Summary:
        return self._writer.summary

    async def run(self, findings: Path, progress: Progress) -> None:
        waiting: list[Named] = []
        async with aclosing(self._refs(findings)) as refs:
            async for named in refs:
                waiting.append(named)
                if len(waiting) == _BATCH * _AT_ONCE:
                    await self._plan(waiting)
                    progress(self._summary.rows)
                    waiting = []
        await self._plan(waiting)
        progress(self._summary.rows)
        for side, rows in self._inner.items():
            told = f"the {side} disagrees with itself on {counted(rows, 'row')}: check and repair that cluster too"
            self._summary.warnings.append(told)

    async def _refs(self, findings: Path) -> AsyncGenerator[Named, None]:
        for found in read_compared(findings):
            if isinstance(found, PairFinding):
                ref = RowRef(found.keyspace, found.table, found.token, found.key_hex, found.key)
                yield PairRef.of(ref, found.target), None
            elif isinstance(found, InnerFinding):
                self._inner[found.side] += 1
            else:
                self._inner.update(found.inner)
                async with aclosing(self._of_range(found)) as rows:
                    async for row in rows:
                        yield row

    async def _of_range(self, found: PairRange) -> AsyncGenerator[Named, None]:
        """Find the rows of a range that differ between the sides; a range that cannot be read is counted as such."""
        tables = {side: self._table(side, found) for side in Side}
        table, token_range = tables[Side.SOURCE], found.token_range
        reader = PairReader(self._pair, {table.full_name: tables[Side.TARGET]})
        able = in_common(*(cluster.reader.capabilities for cluster in self._pair))
        whole = TableReader(reader, Reading(table, Depth.CONTENT, able), Route.CLIENT, PairClock(self._pair))
        place = PairRef.of(RowRef(found.keyspace, found.table, token_range.end, {}), found.target)
        nodes = [
            sided(side, self._cases.on(side).ring)[node]
            for side in Side
            for node in self._cases.on(side).owners(place.on(side))
        ]
        terms = Terms(Compare.VALUES) if table.is_counter else self._header.policy.terms
        rows, differing = RangeRows(whole, Leaf(token_range, tuple(nodes)), terms, await self._cases.cases_at(place)), 0
        try:
            async with aclosing(rows.read()) as found_rows:
                async for name, case in found_rows:
                    differing += 1
                    yield PairRef.of(row_ref(table, name), found.target), case
        except ReplicaError as error:
            self._summary.unread[f"a range of {found.keyspace}.{found.table}: {error}"] += max(
                1, found.rows - differing
            )

    def _table(self, side: Side, found: PairRange) -> Table:
        names = (found.keyspace, found.table) if side is Side.SOURCE else found.target
        with naming(side):
            return self._cases.on(side).table(RowRef(*names, 0, {}))

    async def _plan(self, rows: list[Named]) -> None:
        """Read what has not been read of some rows, decide, and write them down in their order."""
        batches = list(_batched([ref for ref, case in rows if case is None], _BATCH))
        read = await asyncio.gather(*map(self._cases.read_many, batches))
        by_key = iter([case for batch in read for case in batch])
        for ref, case in rows:
            self._note(ref)
            self._writer.add(_planned(ref, next(by_key) if case is None else case, self._header))

    def _note(self, ref: PairRef) -> None:
        """Keep what the plan rests on of a row's table."""
        for side in Side:
            known = self._summary.tables[side]
            name = ref.on(side).full_name
            if name not in known:
                known[name] = self._cases.fingerprint(ref, side)


def _batched(refs: list[PairRef], size: int) -> Iterator[list[PairRef]]:
    left = iter(refs)
    while batch := list(islice(left, size)):
        yield batch


def _planned(ref: PairRef, case: PairCase, header: SyncHeader) -> SyncRow:
    decision = decide(case, header.policy)
    return SyncRow(ref, decision.rule, decision.action, decision.sentence, case.seen(header.salt), case.read)
