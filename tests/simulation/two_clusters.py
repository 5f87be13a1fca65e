"""Two simulated clusters, a source and a target, compared as the command does: seeded histories, damage and traffic."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions
from consistency.comparing.opening import Cluster, Pair
from consistency.comparing.preparing import CompareOptions
from consistency.comparing.reader import in_common
from consistency.comparing.run import run_compare
from consistency.comparing.terms import Compare
from consistency.model.reading import Capabilities, Reading
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.sides import Side
from consistency.results.comparison import Comparison
from consistency.results.pair_findings import Compared, InnerFinding, PairKind, PairRange
from consistency.results.verdict import Verdict
from tests.simulation.cases import CAPABILITIES
from tests.simulation.histories import EPOCH_US, Drawing, RowKey, draw_ring, load, rows_of
from tests.simulation.memory import Fault, Pace, SimCluster, Trouble
from tests.simulation.promises import row_of
from tests.simulation.scenario import ROWS, make_nodes
from tests.simulation.storage import Key, Mutation, TableStorage, Write, merge_partition
from tests.simulation.truth import row_names, shown, truth
from tests.simulation.values import draw_table, keyspace
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual


@dataclass
class Sides:
    """Both clusters under one table, whose name in the target may be another one."""

    source: SimCluster
    target: SimCluster
    table: Table
    target_table: Table

    def of(self, side: Side) -> tuple[SimCluster, Table]:
        """Return a side's cluster, and the table by its name there."""
        return (self.source, self.table) if side is Side.SOURCE else (self.target, self.target_table)

    def apply(self, table: Table, mutation: Mutation, nodes: Sequence[Node] | None = None) -> None:
        """Have a mutation on all replicas of both sides."""
        self.source.apply(self.table, mutation)
        self.target.apply(self.target_table, mutation)

    def merged(self, side: Side) -> TableStorage:
        """Return what a side's replicas come to, deletions and all."""
        cluster, table = self.of(side)
        whole = TableStorage(table)
        for node in cluster.ring_before.nodes:
            held = cluster.store(node, table)
            for key in list(held.partitions):
                if node in cluster.replicas(table, key):
                    merge_partition(held.copied(), whole, key)
                    merge_static(held, whole, key)
        return whole


def merge_static(held: TableStorage, whole: TableStorage, key: tuple[bytes, ...]) -> None:
    """Merge a partition's static row."""
    mine, theirs = whole.partition(key).static, held.partition(key).static
    for name, cell in theirs.cells.items():
        mine.put(name, cell)
    for column, ts in theirs.complex_deleted.items():
        mine.complex_deleted[column] = max(mine.complex_deleted.get(column, ts), ts)


def pair_truth(sides: Sides, options: CompareOptions, reading: Reading, now_s: int) -> dict[RowKey, PairKind]:
    """Return the rows on which the sides differ, by what is compared, and how."""
    stores = {side: sides.merged(side) for side in Side}
    names = {*row_names(sides.source, sides.table), *row_names(sides.target, sides.target_table)}
    found: dict[RowKey, PairKind] = {}
    for key, clustering in sorted(names, key=repr):
        columns = reading.statics if clustering is None else reading.regulars
        held: list[Any] = []
        for store in stores.values():
            seen = store.visible_static(key, now_s) if clustering is None else store.visible_row(key, clustering, now_s)
            held.append(shown(columns, seen))
        if kind := _kind(held[0], held[1], options):
            found[sides.table.name, key, clustering] = kind
    return found


def _kind(source: Any, target: Any, options: CompareOptions) -> PairKind | None:
    if source is None or target is None:
        if source is target:
            return None
        return PairKind.ONLY_TARGET if source is None else PairKind.ONLY_SOURCE
    tolerated = options.terms.tolerated_us
    found = set()
    for mine, theirs in zip(source, target, strict=True):
        if [cell[:2] for cell in mine] != [cell[:2] for cell in theirs]:
            found.add(PairKind.VALUE)
        elif any(abs((a[2] or 0) - (b[2] or 0)) > tolerated for a, b in zip(mine, theirs, strict=True)):
            found.add(PairKind.WRITETIME)
        elif [cell[3] for cell in mine] != [cell[3] for cell in theirs]:
            found.add(PairKind.EXPIRY)
    return next((kind for kind in PairKind if kind in found), None)


@dataclass(frozen=True)
class PairCase:
    """Everything that a seed stands for."""

    seed: int
    options: CompareOptions
    faults: Mapping[Side, tuple[Fault, ...]]
    traffic: bool
    restamped: bool
    """Whether the target's copies of live writes carry write times of their own."""
    stop_at_s: float | None
    altered: tuple[Side, float] | None = None
    """On which side the table is altered, and when."""

    @property
    def exact(self) -> bool:
        """Whether nothing happens that could keep the comparison from finding everything."""
        whole = self.options.sample is None
        return whole and not any(self.faults.values()) and self.stop_at_s is None and self.altered is None


@dataclass
class Harm:
    """What was done to one side, or to some replicas of it: a line each, and the partitions."""

    told: list[str] = field(default_factory=list)
    partitions: set[Key] = field(default_factory=set)


@dataclass
class PairOutcome:
    """What came of a case; `broken` are the promises that were not kept, a sentence each."""

    case: PairCase
    sides: Sides
    result: Comparison
    found: list[Compared]
    planted: dict[RowKey, PairKind]
    inner: dict[Side, set[RowKey]]
    touched: set[RowKey]
    harm: Harm
    broken: list[str] = field(default_factory=list)


def draw_pair_case(seed: int, rng: random.Random, rings: Mapping[Side, Ring], names: tuple[str, ...]) -> PairCase:
    """Draw how the two are compared, and what happens meanwhile."""
    compare = rng.choice((Compare.VALUES, Compare.WRITETIMES, Compare.WRITETIMES, Compare.EXPIRIES))
    tolerated_s = 0.0 if compare is Compare.VALUES else rng.choice((0.0, 0.0, 30.0))
    traffic = rng.random() < 0.5
    quiet = rng.random() < 0.6
    options = CompareOptions(
        names=names,
        compare=compare,
        tolerate_writetime_s=tolerated_s,
        sample=None if quiet or rng.random() < 0.7 else Sample(share=0.4, seed=seed),
        scan=ScanOptions(
            leaf_rows=rng.choice((2, 10, 20_000)),
            leaves_at_once=rng.randint(1, 6),
            max_findings=rng.choice((None, None, None, 0, 2)),
        ),
    )
    faults = {side: () if quiet else tuple(_faults(rng, rings[side])) for side in Side}
    stop = rng.uniform(0.0, 4.0) if not quiet and rng.random() < 0.2 else None
    altered = (rng.choice(list(Side)), rng.uniform(0.0, 5.0)) if not quiet and rng.random() < 0.3 else None
    # Without the servers' word on write times, those of live writes must not be compared.
    restamped = compare is Compare.VALUES and rng.random() < 0.6
    return PairCase(seed, options, faults, traffic, restamped, stop, altered)


def _faults(rng: random.Random, ring: Ring) -> list[Fault]:
    if rng.random() < 0.5:
        return []
    start = rng.choice((0.0, rng.uniform(0.0, 3.0)))
    trouble = rng.choice(list(Trouble))
    return [Fault(trouble, rng.choice(ring.nodes), start, start + rng.choice((1.0, 1e9)), rng.choice((1.0, 0.3)))]


Comparing = Callable[[Pair, CompareOptions, asyncio.Event, Callable[[Compared], None]], Awaitable[Comparison]]
"""A comparison, by one process or by several."""


async def by_one(
    pair: Pair, options: CompareOptions, stop: asyncio.Event, take: Callable[[Compared], None]
) -> Comparison:
    """Compare as the command does without workers."""
    return await run_compare(pair, options, stop=stop, take=take)


def run_pair(seed: int, comparing: Comparing = by_one) -> PairOutcome:
    """Run one seed to its end on virtual time."""
    rng = random.Random(f"pair {seed}")
    loop = VirtualLoop()
    drawn = {side: draw_ring(rng) for side in Side}
    if rng.random() < 0.3:  # a target of one replica
        ring, replication = drawn[Side.TARGET]
        drawn[Side.TARGET] = ring, Replication(replication.strategy, (("dc1", 1),))
    table = draw_table(rng, "t0")
    renamed = rng.random() < 0.5
    other = replace(table, keyspace="ks2", name="u0", table_id="other") if renamed else table
    names = ("ks.t0=ks2.u0",) if renamed else ("ks",)
    case = draw_pair_case(seed, rng, {side: ring for side, (ring, _) in drawn.items()}, names)
    capabilities = [rng.choice(CAPABILITIES) for _ in Side]
    if case.options.compare is Compare.EXPIRIES:
        capabilities = [replace(each, timed=True) for each in capabilities]
    clusters: list[SimCluster] = []
    for side, able, of_side in zip(Side, capabilities, (table, other), strict=True):
        ring, replication = drawn[side]
        schema = {of_side.keyspace: keyspace(of_side.keyspace, replication, [of_side])}
        pace = Pace(latency_s=rng.choice((0.0005, 0.01)), page_rows=rng.choice((1, 3, 50)))
        clusters.append(SimCluster(loop, ring, schema, able, rng, pace, case.faults[side]))
    sides = Sides(clusters[0], clusters[1], table, other)
    drawing = Drawing(rng, table)
    load(sides, drawing)  # type: ignore[arg-type]
    done = Harm()
    harm(sides, drawing, rng, done)
    return run_virtual(loop, _play(case, loop, sides, drawing, rng, done, comparing))


def harm(sides: Sides, drawing: Drawing, rng: random.Random, done: Harm) -> None:
    """Have some mutations on one side only, or on some replicas of a side only, with or without the other side."""
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        side = rng.choice(list(Side))
        cluster, table = sides.of(side)
        key = rng.choice(drawing.keys)
        ts = EPOCH_US - rng.choice((700, 3_600, 20 * 86_400)) * 1_000_000 + rng.randrange(10_000)
        mutation: Mutation = drawing.delete(ts, key) if rng.random() < 0.25 else drawing.write(ts, key=key)
        owners = cluster.replicas(table, mutation.key)
        nodes = list(owners)
        shape = rng.random()
        if shape < 0.35 and len(owners) > 1:
            nodes = rng.sample(owners, rng.randint(1, len(owners) - 1))
            if rng.random() < 0.4:
                sides.of(side.other)[0].apply(sides.of(side.other)[1], mutation)
        elif shape < 0.6 and isinstance(mutation, Write):  # the same on both sides, but for its time or its expiry
            sides.of(side.other)[0].apply(sides.of(side.other)[1], _alike(mutation, rng))
        cluster.apply(table, mutation, nodes)
        done.told.append(f"{side} {', '.join(map(str, nodes))}: {mutation}")
        done.partitions.add(mutation.key)


def _alike(written: Write, rng: random.Random) -> Write:
    if rng.random() < 0.5:
        return replace(written, ts=written.ts + rng.choice((1, 20_000_000, 90_000_000)))
    return replace(written, expires=EPOCH_S + rng.randint(86_400, 90_000))


@dataclass
class DualWrites:
    """Clients that write everything to both clusters, one soon after the other; each replica gets it in its time."""

    loop: VirtualLoop
    sides: Sides
    drawing: Drawing
    rng: random.Random
    restamped: bool
    until_s: float
    touched: set[RowKey] = field(default_factory=set)
    writes: int = 0

    async def run(self) -> None:
        """Write until the end, then wait until the last write has arrived."""
        while self.loop.now < self.until_s:
            await asyncio.sleep(self.rng.expovariate(10.0))
            self.writes += 1
            ts = EPOCH_US + int(self.loop.now * 1000) * 1000 + self.writes % 1000
            mutation = self.drawing.delete(ts) if self.rng.random() < 0.15 else self.drawing.write(ts)
            late_s = self.rng.uniform(0.0, 1.0)
            for side in Side:
                cluster, table = self.sides.of(side)
                self.touched |= {(self.sides.table.name, *row[1:]) for row in rows_of(table, mutation, cluster)}
                own = mutation
                if side is Side.TARGET and self.restamped:
                    own = replace(mutation, ts=ts + 1000 * self.rng.randint(1, 5))
                for node in cluster.replicas(table, mutation.key):
                    delay = self.rng.uniform(0.0005, 1.0) + (late_s if side is Side.TARGET else 0.0)
                    self.loop.call_later(delay, cluster.apply, table, own, [node])
        await asyncio.sleep(6.0)


async def _play(
    case: PairCase,
    loop: VirtualLoop,
    sides: Sides,
    drawing: Drawing,
    rng: random.Random,
    done: Harm,
    comparing: Comparing,
) -> PairOutcome:
    able = in_common(sides.source.capabilities, sides.target.capabilities)
    reading = Reading(sides.table, case.options.compare.depth, able)
    planted = pair_truth(sides, case.options, reading, EPOCH_S)
    inner = {side: _inner(sides, side, reading) for side in Side}
    found: list[Compared] = []
    stop = asyncio.Event()
    if case.stop_at_s is not None:
        loop.call_later(case.stop_at_s, stop.set)
    writes = DualWrites(loop, sides, drawing, rng, case.restamped, rng.uniform(0.5, 25.0)) if case.traffic else None
    writing = asyncio.create_task(writes.run()) if writes else None
    _arm(case, loop, sides)
    clusters = [Cluster(side, sides.of(side)[0], SimClock(loop)) for side in Side]
    for cluster in (sides.source, sides.target):
        cluster.begin_reading()
    await asyncio.sleep(rng.uniform(0.0, 3.0) if writes else 0.0)
    result = await comparing(Pair(*clusters), case.options, stop, found.append)
    if writing:
        await writing
    touched = writes.touched if writes else set()
    outcome = PairOutcome(case, sides, result, found, planted, inner, touched, done)
    changed = [*sides.source.changed_by_readers(), *sides.target.changed_by_readers()]
    outcome.broken = changed + broken_pair_promises(outcome)
    return outcome


def _arm(case: PairCase, loop: VirtualLoop, sides: Sides) -> None:
    """Have the table lose a column on one side, at its time."""
    if case.altered is None:
        return
    side, at_s = case.altered
    cluster, table = sides.of(side)

    def changed(schema: dict[str, Keyspace]) -> dict[str, Keyspace]:
        if loop.now < at_s:
            return schema
        before = schema[table.keyspace]
        altered = replace(table, columns=table.columns[:-1])
        return {**schema, table.keyspace: replace(before, tables={table.name: altered})}

    cluster.change_schema = changed


def _inner(sides: Sides, side: Side, reading: Reading) -> set[RowKey]:
    cluster, table = sides.of(side)
    rows = truth(cluster, table, replace(reading, table=table), EPOCH_S)
    return {(sides.table.name, *row[1:]) for row in rows}


def broken_pair_promises(outcome: PairOutcome) -> list[str]:
    """Return the promises that were not kept, a sentence each."""
    result = outcome.result
    out: list[str] = []
    coverage = result.coverage
    if coverage.planned != coverage.completed + coverage.skipped + coverage.failed:
        out.append(f"coverage does not add up: {coverage}")
    wrong = set(outcome.planted).union(*outcome.inner.values())
    if result.verdict is Verdict.CONSISTENT and (hidden := wrong - outcome.touched):
        out.append(f"consistent, though {hidden} were not the same from the start to the end")
    if result.verdict in (Verdict.CONSISTENT, Verdict.SAMPLED) and outcome.case.altered is not None:
        side, at_s = outcome.case.altered
        described = outcome.sides.of(side)[0].described_at
        if described and described[-1] >= at_s:
            out.append(f"{result.verdict.value}, though the {side}'s table was altered at {at_s:.2f} s")
    out += _false_alarms(outcome)
    if outcome.case.exact:
        out += _exactness(outcome)
    return out


def _rows(outcome: PairOutcome) -> tuple[dict[RowKey, PairKind], dict[Side, set[RowKey]], list[PairRange]]:
    """Return the rows that were found to differ, those of the sides by themselves, and those that were counted."""
    pairs: dict[RowKey, PairKind] = {}
    inner: dict[Side, set[RowKey]] = {side: set() for side in Side}
    ranges: list[PairRange] = []
    for found in outcome.found:
        if isinstance(found, PairRange):
            ranges.append(found)
        elif isinstance(found, InnerFinding):
            _, table = outcome.sides.of(found.side)
            inner[found.side].add((outcome.sides.table.name, *row_of(found.finding, table)[1:]))
        else:
            row = row_of(found, outcome.sides.table)  # type: ignore[arg-type]
            if row in pairs:
                outcome.broken.append(f"{row} was found twice")
            pairs[row] = found.kind
    return pairs, inner, ranges


def _false_alarms(outcome: PairOutcome) -> list[str]:
    """Live writes reach every replica of both sides: what differs for long was so from the start."""
    pairs, inner, _ = _rows(outcome)
    out = [f"{kind.value} of {row} is a false alarm" for row, kind in pairs.items() if _is_false(outcome, row)]
    for side, rows in inner.items():
        full = replace_depth(outcome, side)
        out += [f"the {side} does not disagree with itself on {row}" for row in rows - full - outcome.touched]
    return out


def _is_false(outcome: PairOutcome, row: RowKey) -> bool:
    if row in outcome.touched:  # live writes may leave as much of a difference as they find
        return row[1] not in outcome.harm.partitions
    return row not in outcome.planted


def replace_depth(outcome: PairOutcome, side: Side) -> set[RowKey]:
    """Return the rows on which a side disagrees with itself, seen in full as a settled row is."""
    cluster, table = outcome.sides.of(side)
    able = in_common(outcome.sides.source.capabilities, outcome.sides.target.capabilities)
    rows = truth(cluster, table, Reading(table, Compare.EXPIRIES.depth, able), EPOCH_S)
    return {(outcome.sides.table.name, *row[1:]) for row in rows} | outcome.inner[side]


def _exactness(outcome: PairOutcome) -> list[str]:
    """Without faults all is found, by its right name, but where a side disagrees with itself: that is said instead."""
    pairs, inner, ranges = _rows(outcome)
    touched = outcome.touched
    out: list[str] = []
    doubtful = outcome.inner[Side.SOURCE] | outcome.inner[Side.TARGET]
    if outcome.case.options.scan.max_findings is not None:
        if touched:
            return out
        sure = set(outcome.planted) - doubtful
        counted = len(pairs) + sum(each.rows for each in ranges)
        if not len(sure) <= counted <= len(outcome.planted):
            out.append(f"{counted} rows listed or counted, {len(sure)} to {len(outcome.planted)} differ")
        return out
    for row, kind in outcome.planted.items():
        if row in touched or row in doubtful:
            continue
        if pairs.get(row) is not kind:
            out.append(f"{row} is {kind.value}, found as {pairs.get(row)}")
    for side in Side:
        missed = outcome.inner[side] - inner[side] - touched
        out += [f"the {side} disagrees with itself on {row}, which was not found" for row in missed]
    return out


class PairScenario:
    """Two clusters that a test sets up by hand: a source of three nodes, a target of one, the same rows on both."""

    def __init__(self, table: Table = ROWS) -> None:
        self.loop = VirtualLoop()
        self.table = table
        self.clusters: dict[Side, SimCluster] = {}
        self.found: list[Compared] = []
        for side, count in ((Side.SOURCE, 3), (Side.TARGET, 1)):
            schema = {"ks": keyspace("ks", Replication("NetworkTopologyStrategy", (("dc1", count),)), [table])}
            ring = Ring(str(side), MURMUR3, make_nodes(("dc1",) * count))
            self.clusters[side] = SimCluster(self.loop, ring, schema, Capabilities(), random.Random(1))

    def apply(self, side: Side, mutation: Mutation, on: Sequence[int] | None = None) -> None:
        """Have a mutation on the nodes of these numbers of a side, on all where none are given."""
        nodes = self.clusters[side].ring_before.nodes
        self.clusters[side].apply(self.table, mutation, None if on is None else [nodes[n - 1] for n in on])

    def later(self, at_s: float, side: Side, mutation: Mutation, on: Sequence[int] | None = None) -> None:
        """Have a mutation on a side, on the nodes of these numbers, so long after the start."""
        self.loop.call_later(at_s, self.apply, side, mutation, on)

    def compare(self, comparing: Comparing = by_one, **options: Any) -> Comparison:
        """Run the comparison to its end; what it found is in `found`."""
        pair = Pair(*(Cluster(side, cluster, SimClock(self.loop)) for side, cluster in self.clusters.items()))

        async def main() -> Comparison:
            return await comparing(pair, CompareOptions(("ks",), **options), asyncio.Event(), self.found.append)

        return run_virtual(self.loop, main())
