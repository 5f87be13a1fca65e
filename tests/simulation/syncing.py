"""One seeded sync: two clusters that differ, compared, planned and applied, with kills and live writes in the middle.

Whatever happened before and meanwhile, the laws at the end of this file hold.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from consistency.checking.scan import ScanOptions
from consistency.comparing.opening import Cluster, Pair
from consistency.comparing.preparing import CompareOptions
from consistency.comparing.run import run_compare
from consistency.comparing.terms import Compare
from consistency.model.ring import Node, Replication, Ring
from consistency.model.sides import Side
from repair.applying.guard import Guard
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Pace
from repair.deciding.case import CaseReader
from repair.keeping.chain import chained
from repair.keeping.entries import Place, Result
from repair.keeping.journal import Lines
from repair.sync.cases import PairCaseReader
from repair.sync.guards import Guards
from repair.sync.journal import SyncJournal, SyncRecord, read_sync_journal
from repair.sync.planfile import SyncPlan
from repair.sync.planner import SyncOptions, make_sync_plan
from repair.sync.policy import Direction, Extra
from repair.sync.run import Ports, SyncApplyOptions, Syncer
from repair.sync.undo import undo_all
from repair.undoing.undo import Undoer
from tests.simulation.cases import CAPABILITIES
from tests.simulation.histories import EPOCH_US, Drawing, RowKey, draw_ring, load
from tests.simulation.memory import Pace as ClusterPace
from tests.simulation.memory import SimCluster
from tests.simulation.repair_servers import Refusals, SimWriter
from tests.simulation.storage import Mutation, Stored, TableStorage, merge_partition, winner
from tests.simulation.truth import row_names
from tests.simulation.two_clusters import Harm, Sides, harm, merge_static
from tests.simulation.values import draw_table, keyspace
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual

_MANY = 10**9
Cells = Mapping[tuple[str, bytes | None], Stored]
Rows = Mapping[RowKey, "Cells | None"]
"""The live cells of each row that a cluster's replicas come to together; None where there is no row."""


@dataclass(frozen=True)
class SyncCase:
    """What happens around one sync."""

    seed: int
    compare: CompareOptions
    options: SyncOptions
    max_deletes: int
    kills_s: tuple[float, ...]
    refusals: Refusals
    traffic: bool
    undo: bool

    @property
    def quiet(self) -> bool:
        """Whether nothing keeps a row from its outcome at the first attempt."""
        return not self.traffic and self.refusals == Refusals()


@dataclass
class SyncOutcome:
    """What came of one seed; `broken` are the laws that did not hold, a sentence each."""

    case: SyncCase
    plan: SyncPlan
    tally: Tally
    resumed: int
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


class SimJournal(Lines):
    """A journal whose lines are durable when its methods return; a kill tears the one under way."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._rng = rng
        self._check = self.record().check or 0

    async def _add(self, raw: bytes) -> Place:
        try:
            await asyncio.sleep(0.0005)
        except asyncio.CancelledError:
            raw, _ = chained(raw, self._check)
            raw = raw[: self._rng.randrange(len(raw))]
            raise
        else:
            raw, self._check = chained(raw, self._check)
        finally:
            with self._path.open("ab") as file:
                file.write(raw)
        return 0, 0  # nothing is read back while the sync runs

    def record(self) -> SyncRecord:
        """Read it as resume does, and drop a torn last line."""
        found = read_sync_journal(self._path)
        os.truncate(self._path, found.length)
        self._check = found.check or 0
        return found


def draw_sync_case(seed: int, rng: random.Random) -> SyncCase:
    """Draw how the two are compared and synced, and what happens meanwhile."""
    compare = rng.choice((Compare.VALUES, Compare.WRITETIMES, Compare.WRITETIMES, Compare.EXPIRIES))
    options = CompareOptions(
        names=("ks.t0=ks2.u0",),
        compare=compare,
        tolerate_writetime_s=0.0 if compare is Compare.VALUES else rng.choice((0.0, 0.0, 30.0)),
        scan=ScanOptions(leaf_rows=rng.choice((2, 10, 20_000)), max_findings=rng.choice((None, None, 0, 2))),
    )
    refusals = Refusals()
    if rng.random() < 0.3:
        refusals = Refusals(frozenset({rng.randrange(1, 10)}), rng.choice((0.0, 0.3)))
    return SyncCase(
        seed,
        options,
        SyncOptions(rng.choice(list(Direction)), rng.choice(list(Extra))),
        rng.choice((_MANY, _MANY, 0, 1, 2)),
        tuple(rng.uniform(0.001, 0.06) for _ in range(rng.choice((0, 0, 1, 1, 3)))),
        refusals,
        rng.random() < 0.25,
        rng.random() < 0.35,
    )


def draw_sides(loop: VirtualLoop, rng: random.Random, *, timed: bool) -> tuple[Sides, Drawing]:
    """Draw two clusters with one table under two names, and what differs between them."""
    drawn: dict[Side, tuple[Ring, Replication]] = {side: draw_ring(rng) for side in Side}
    if rng.random() < 0.3:  # a target of one replica
        ring, replication = drawn[Side.TARGET]
        drawn[Side.TARGET] = ring, Replication(replication.strategy, (("dc1", 1),))
    table = draw_table(rng, "t0")
    while rng.random() < 0.8 and (not table.regulars or any(c.type.name == "list" for c in table.columns)):
        table = draw_table(rng, "t0")
    other = replace(table, keyspace="ks2", name="u0", table_id="other")
    clusters: list[SimCluster] = []
    for side, of_side in zip(Side, (table, other), strict=True):
        able = rng.choice(CAPABILITIES)
        ring, replication = drawn[side]
        ring = replace(ring, cluster=str(side))
        schema = {of_side.keyspace: keyspace(of_side.keyspace, replication, [of_side])}
        pace = ClusterPace(latency_s=0.0005, page_rows=rng.choice((3, 50)))
        able = replace(able, timed=True) if timed else able
        clusters.append(SimCluster(loop, ring, schema, able, rng, pace))
    sides = Sides(clusters[0], clusters[1], table, other)
    drawing = Drawing(rng, table)
    load(sides, drawing)  # type: ignore[arg-type]
    for _ in range(rng.choice((1, 3, 6))):
        harm(sides, drawing, rng, Harm())
    return sides, drawing


def run_sync(seed: int) -> SyncOutcome:
    """Run one seed to its end on virtual time."""
    rng = random.Random(f"sync {seed}")
    loop = VirtualLoop()
    case = draw_sync_case(seed, rng)
    sides, drawing = draw_sides(loop, rng, timed=case.compare.compare is Compare.EXPIRIES or rng.random() < 0.9)
    with TemporaryDirectory() as folder:
        return run_virtual(loop, _Play(case, loop, sides, drawing, rng, Path(folder)).run())


class _Play:
    """One sync from comparison to undo."""

    def __init__(
        self, case: SyncCase, loop: VirtualLoop, sides: Sides, drawing: Drawing, rng: random.Random, folder: Path
    ) -> None:
        self._case = case
        self._loop = loop
        self._sides = sides
        self._drawing = drawing
        self._rng = rng
        self._folder = folder
        self._direction = case.options.direction
        clusters = [Cluster(side, sides.of(side)[0], SimClock(loop)) for side in Side]
        self._pair = Pair(*clusters)
        self._cluster, self._table = sides.of(self._direction.taker)
        refused = random.Random(rng.getrandbits(64))
        self._writer = SimWriter(self._cluster, loop, self._table, (), case.refusals, refused)
        self._sent: list[Mutation] = []

    async def run(self) -> SyncOutcome:
        findings, output = self._folder / "findings.jsonl", self._folder / "plan.jsonl"
        await run_compare(self._pair, replace(self._case.compare, findings=findings))
        given, before = self._merged(self._direction.giver), self._copied()
        self._sides.of(self._direction.giver)[0].begin_reading()
        self._cluster.begin_reading()
        plan = await make_sync_plan(self._pair, findings, output, self._case.options)
        written = self._cluster.changed_by_readers()
        traffic = asyncio.create_task(self._traffic(plan)) if self._case.traffic else None
        if traffic:
            await asyncio.sleep(self._rng.choice((0.0, 0.1)))
        path = self._folder / "journal.jsonl"
        opened, _ = SyncJournal.begin(path, plan)
        opened.close()
        journal = SimJournal(path, random.Random(self._rng.getrandbits(64)))
        tally, resumed = await self._applied(journal)
        if traffic:
            await traffic
        self._writer.refusals = Refusals()
        tally = await self._apply(journal)
        outcome = SyncOutcome(self._case, plan, tally, resumed)
        for row in plan.rows():
            outcome.counts[f"{row.rule.value} {row.action.value}"] += 1
        outcome.counts.update({result.value: count for result, count in tally.results.items()})
        outcome.counts.update({"resumed": resumed, "stopped": tally.stopped_at is not None})
        giver = self._sides.of(self._direction.giver)[0]
        outcome.broken = written + giver.changed_by_readers() + await self._laws(outcome, journal, given, before)
        if self._case.undo and not outcome.broken:
            outcome.broken += await self._undone(journal, before)
            outcome.counts["undone"] += 1
        return outcome

    # What happens.

    async def _applied(self, journal: SimJournal) -> tuple[Tally, int]:
        resumed = 0
        for kill_s in self._case.kills_s:
            task = asyncio.create_task(self._apply(journal))
            done, _ = await asyncio.wait({task}, timeout=kill_s)
            if done:
                return task.result(), resumed
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            resumed += 1
        return await self._apply(journal), resumed

    async def _apply(self, journal: SimJournal) -> Tally:
        record = journal.record()
        guards = Guards(record.plan, self._pair, dict.fromkeys(Side, self._writer))
        cases = await PairCaseReader.open(self._pair, self._direction)
        clock = self._pair.of(self._direction.taker).clock
        ports = Ports(cases, self._writer, guards, clock, journal)  # type: ignore[arg-type]
        apply = ApplyOptions(rate=self._case.seed % 2 * 400.0 or None, max_deletes=self._case.max_deletes)
        return await Syncer(record.plan, ports, SyncApplyOptions(apply)).run(record, asyncio.Event(), lambda _: None)

    async def _traffic(self, plan: SyncPlan) -> None:
        """Have clients write to either side meanwhile, each replica in its own time."""
        planned = [self._named(row.ref.source.key_hex) for row in plan.rows()]
        for number in range(self._rng.randint(1, 20)):
            await asyncio.sleep(self._rng.uniform(0.0, 0.02))
            ts = EPOCH_US + int(self._loop.now * 1e6) + number
            key, clustering = self._rng.choice(planned) if planned and self._rng.random() < 0.5 else (None, None)
            mutation: Mutation = self._drawing.write(ts, key=key, clustering=clustering)
            if self._rng.random() < 0.2:
                mutation = self._drawing.delete(ts, key)
            side = self._rng.choice(list(Side))
            cluster, table = self._sides.of(side)
            if side is self._direction.taker:
                self._sent.append(mutation)
            for node in cluster.replicas(table, mutation.key):
                self._loop.call_later(self._rng.uniform(0.0005, 0.05), cluster.apply, table, mutation, [node])
        await asyncio.sleep(1.0)

    async def _undone(self, journal: SimJournal, before: Mapping[Node, TableStorage]) -> list[str]:
        record = journal.record()
        side = self._direction.taker
        clock = self._pair.of(side).clock
        guard = Guard(record.plan.ground(side), self._cluster, self._writer, clock)
        reader = await CaseReader.open(self._cluster, clock)
        undoer = Undoer(reader, self._writer, guard, clock, only_moves=False)
        after = self._rows_of(self._copied())
        await undo_all(undoer, record, journal, Pace(clock, None), asyncio.Event(), lambda _: None)  # type: ignore[arg-type]
        out = [] if self._sent else self._undo_laws(journal.record(), self._rows_of(before))
        now = self._rows_of(self._copied())
        for row, cells in after.items():
            lost = {
                name for name, cell in (cells or {}).items() if cell.ts >= EPOCH_US and _of(now, row).get(name) != cell
            }
            out += [f"{row} {name} was written meanwhile, and undone" for name in lost]
        return out

    # What there is.

    def _copied(self) -> dict[Node, TableStorage]:
        return {node: self._cluster.store(node, self._table).copied() for node in self._cluster.ring_before.nodes}

    def _merged(self, side: Side) -> Rows:
        cluster, table = self._sides.of(side)
        return self._shown(cluster, side, {n: cluster.store(n, table) for n in cluster.ring_before.nodes})

    def _rows_of(self, stores: Mapping[Node, TableStorage]) -> Rows:
        return self._shown(self._cluster, self._direction.taker, stores)

    def _shown(
        self, cluster: SimCluster, side: Side, stores: Mapping[Node, TableStorage], besides: Rows | None = None
    ) -> Rows:
        table = self._sides.of(side)[1]
        whole = TableStorage(table)
        for (_, key, clustering), cells in (besides or {}).items():
            row = whole.partition(key).static if clustering is None else whole.row(key, clustering)
            for name, cell in (cells or {}).items():
                row.put(name, cell)
        for node, held in stores.items():
            for key in list(held.partitions):
                if node in cluster.replicas(table, key):
                    merge_partition(held.copied(), whole, key)
                    merge_static(held, whole, key)
        names = {
            *row_names(self._sides.source, self._sides.table),
            *row_names(self._sides.target, self._sides.target_table),
        }
        found: dict[RowKey, Cells | None] = {}
        for key, clustering in names:
            now_s = EPOCH_S + int(self._loop.now) + 10
            seen = whole.visible_static(key, now_s) if clustering is None else whole.visible_row(key, clustering, now_s)
            cells = None if seen is None else {(c, p): x for c, at in seen.cells.items() for p, x in at.items()}
            found["", key, clustering] = cells
        return found

    # What must be so.

    async def _laws(
        self, outcome: SyncOutcome, journal: SimJournal, given: Rows, before: dict[Node, TableStorage]
    ) -> list[str]:
        for mutation in self._sent:
            for node in self._cluster.replicas(self._table, mutation.key):
                mutation.apply(before[node])
        was, now = self._rows_of(before), self._rows_of(self._copied())
        record = journal.record()
        out = _nothing_invented(was, now, given)
        out += _nothing_taken(was, now, given, self._case)
        if outcome.tally.stopped_at is None and record.ended != record.plan.summary.rows:
            out.append(f"{record.ended} of {record.plan.summary.rows} rows have an outcome")
        out += self._nothing_withheld(record, now, given, before)
        if not self._case.traffic:
            out += await self._equal(record)
        return out

    def _nothing_withheld(
        self, record: SyncRecord, now: Rows, given: Rows, before: Mapping[Node, TableStorage]
    ) -> list[str]:
        """Of a row that was written every cell of the giver is there, but where the taker's wins or deletes hide it."""
        both = self._shown(self._cluster, self._direction.taker, before, given)
        terms, out = record.plan.policy.terms, []
        for number, row in enumerate(record.plan.rows()):
            entry, name = record.entry(number), ("", *self._named(row.ref.source.key_hex))
            if entry.result not in (Result.VERIFIED, Result.DIVERGENT) or entry.before is None:
                continue
            for cell, wanted in _of(given, name).items():
                held, due = _of(now, name).get(cell), _of(both, name).get(cell)
                as_good = held is not None and held.value == wanted.value
                told = terms.compare is Compare.EXPIRIES and cell[1] is None  # of elements not every server tells
                if held != due and not (as_good and not told):
                    out.append(f"{row.ref} {cell} is {held}, and should be {due}")
        return out

    async def _equal(self, record: SyncRecord) -> list[str]:
        """A row that is verified does not differ any more, and the copy that is compared again says the same."""
        again = self._folder / "again.jsonl"
        await asyncio.sleep(10.0)
        await run_compare(self._pair, replace(self._case.compare, findings=again, scan=ScanOptions()))
        plan = await make_sync_plan(self._pair, again, self._folder / "again.plan", self._case.options)
        left = {row.ref.source.identity: row for row in plan.rows() if row.rule.value != "already-same"}
        out = []
        for number, row in enumerate(record.plan.rows()):
            entry = record.entry(number)
            still = left.get(row.ref.source.identity)
            if entry.result is Result.VERIFIED and still is not None:
                out.append(f"{row.ref} was verified, and is {still.rule.value} still: {still.sentence}")
        return out

    def _undo_laws(self, record: SyncRecord, was: Rows) -> list[str]:
        now, out = self._rows_of(self._copied()), []
        for number, row in enumerate(record.plan.rows()):
            entry = record.entry(number)
            if entry.undo is None or len(set((entry.before or {}).values())) > 1:
                continue  # of copies that differ an undo brings back what most held
            key, clustering = self._named(row.ref.source.key_hex)
            then, there = was["", key, clustering], now["", key, clustering]
            if entry.undo is Result.UNDONE and _values(then) != _values(there):
                out.append(f"{row.ref} was undone, and is not what it was: {then} {there}")
        return out

    def _named(self, key_hex: Mapping[str, str]) -> tuple[tuple[bytes, ...], tuple[bytes, ...] | None]:
        table = self._table
        key = tuple(bytes.fromhex(key_hex[c.name]) for c in table.partition_key)
        if len(key_hex) == len(key) and table.clustering:
            return key, None
        return key, tuple(bytes.fromhex(key_hex[c.name]) for c in table.clustering)


def _values(cells: Cells | None) -> Any:
    return None if cells is None else sorted((name, cell.value) for name, cell in cells.items() if name[1] is None)


def _of(rows: Rows, row: RowKey) -> Cells:
    """Return a row's cells; a row that nobody had heard of has none."""
    return rows.get(row) or {}


def _nothing_invented(was: Rows, now: Rows, given: Rows) -> list[str]:
    """Every cell of the taker was there before, or is one that the giver holds, with its write time and expiry."""
    out = []
    for row, cells in now.items():
        for name, cell in (cells or {}).items():
            if cell not in (_of(was, row).get(name), _of(given, row).get(name)):
                out.append(f"{row} {name} is neither side's: {cell}")
    return out


def _nothing_taken(was: Rows, now: Rows, given: Rows, case: SyncCase) -> list[str]:
    """What the taker held is there still, or a cell of the giver that wins over it, or was to be deleted."""
    out: list[str] = []
    gone: set[RowKey] = set()
    for row, cells in was.items():
        for name, cell in (cells or {}).items():
            left, theirs = _of(now, row).get(name), _of(given, row).get(name)
            if left is None:
                gone.add(row)
                if case.options.extra is not Extra.DELETE or theirs is not None:
                    out.append(f"{row} {name} is gone: {cell}")
            elif winner(left, cell) != left:
                out.append(f"{row} {name} went back from {cell} to {left}")
        if cells is not None and now.get(row) is None:
            gone.add(row)
    if len(gone) > case.max_deletes:
        out.append(f"{len(gone)} rows lost something, and {case.max_deletes} may")
    return out
