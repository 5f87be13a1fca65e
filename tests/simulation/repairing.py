"""One seeded repair: a cluster damaged, planned and applied, with kills, outages and live writes in the middle.

Whatever happened before and meanwhile, the laws of repair_laws.py hold.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from consistency.cluster.guardrails import Guardrails
from consistency.cluster.wire import ALL, QUORUM
from consistency.model.reading import Capabilities, Locality
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.rows.delete_search import DEFAULT_MOST_TRACES, DeleteSearch
from consistency.rows.names import RowRef
from repair.applying.actions import Actor
from repair.applying.applier import Applier
from repair.applying.chunks import Limits
from repair.applying.guard import Guard
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Pace
from repair.deciding.case import CaseReader, fingerprint
from repair.deciding.copies import copies_from_json
from repair.deciding.policy import Policy, Require, Zombies
from repair.keeping.chain import chained
from repair.keeping.entries import Place, Result
from repair.keeping.files import REPAIR_JOURNAL, json_line
from repair.keeping.journal import Copies, Lines
from repair.keeping.planfile import Plan, PlannedRow
from repair.keeping.record import Record, parse_journal
from repair.planning.planner import FoundRow, PlanOptions, plan_batch
from repair.undoing.undo import Undoer
from tests.simulation.clocks import Clocks, draw_clocks
from tests.simulation.histories import (
    EPOCH_US,
    Damage,
    Drawing,
    Traffic,
    TrafficPlan,
    damage,
    draw_localities,
    draw_ring,
    load,
)
from tests.simulation.memory import Fault, SimCluster, Trouble
from tests.simulation.repair_laws import (
    Held,
    Row,
    Scene,
    Shown,
    forecast_laws,
    merged,
    shown,
    torn,
    undo_laws,
    undone_ahead,
    verdicts,
)
from tests.simulation.repair_ranges import by_rows, draw_limits, draw_ranges, lie_in_ranges, of_range_tables
from tests.simulation.repair_servers import Refusals, SimWriter, collect_garbage
from tests.simulation.storage import Delete, token_of
from tests.simulation.truth import row_names
from tests.simulation.values import draw_table, keyspace
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual

_MOST = 10**9


@dataclass(frozen=True, slots=True)
class RepairCase:
    """What happens around one repair."""

    policy: Policy
    rate: float | None
    faults: tuple[Fault, ...] = ()
    kills_s: tuple[float, ...] = ()
    traffic: TrafficPlan | None = None
    undo: bool = False
    clocks: Clocks = field(default_factory=lambda: Clocks({}))
    refusals: Refusals = field(default_factory=Refusals)
    guarded: Guardrails | None = None
    """What every node forbids while the repair is planned and applied, in half of the cases from the apply on."""
    planned_unguarded: bool = False
    max_deletes: int = _MOST
    """How many rows may vanish before the breaker stops the run, which then goes on with leave for all of them."""
    max_traces: int = DEFAULT_MOST_TRACES
    limits: Limits | None = None
    """How large chunks are; None: no range is merged as a range."""

    @property
    def down(self) -> frozenset[Node]:
        """The nodes that are down all the time."""
        return frozenset(f.node for f in self.faults if f.end_s >= 1e9 and f.trouble is Trouble.DOWN)


@dataclass
class RepairOutcome:
    """What came of one seed; `broken` are the laws that did not hold, a sentence each."""

    case: RepairCase
    plan: Plan
    tally: Tally
    broken: list[str] = field(default_factory=list)
    undone: Tally | None = None
    resumed: int = 0
    ranges_read: int = 0


class MemoryJournal(Lines):
    """A journal in memory: a line is durable when its method returns, and a kill tears the one under way."""

    def __init__(self, plan: Plan, rng: random.Random) -> None:
        self._rng = rng
        self.raw = json_line({**REPAIR_JOURNAL.mark, "plan": plan.text()})
        self.record()

    def intended(self, place: Place) -> Copies:
        """As the file's."""
        at, length = place
        return copies_from_json(json.loads(self.raw[at : at + length])["before"])

    async def _add(self, raw: bytes) -> Place:
        try:
            await asyncio.sleep(0.0005)
        except asyncio.CancelledError:
            raw, _ = chained(raw, self._check)
            self.raw += raw[: self._rng.randrange(len(raw))]
            raise
        return self.enter(raw)

    def enter(self, raw: bytes) -> Place:
        """Write a whole line at once, as if by a run that was killed right after it."""
        raw, self._check = chained(raw, self._check)
        self.raw += raw
        return len(self.raw) - len(raw), len(raw)

    def record(self) -> Record:
        """Read it as resume does, and drop a torn last line."""
        found = parse_journal(self.raw, "journal")
        self.raw = self.raw[: found.length]
        assert found.check is not None
        self._check = found.check
        return found


def draw_case(rng: random.Random, nodes: tuple[Node, ...]) -> RepairCase:
    """Draw what happens: three in ten quiet, the others with a node down, outages, kills, traffic, undo."""
    zombies = rng.choice((Zombies.QUARANTINE, Zombies.QUARANTINE, Zombies.RESTORE, Zombies.PURGE))
    policy = Policy(zombies, rng.choice((Require.QUORUM, Require.QUORUM, Require.EACH_QUORUM, Require.ALL)))
    faults = []
    if rng.random() < 0.2:
        faults.append(Fault(Trouble.DOWN, rng.choice(nodes), 0.0, 1e9))
    if rng.random() < 0.15:
        start = rng.uniform(0.0, 0.5)
        trouble = rng.choice((Trouble.DOWN, Trouble.OVERLOADED, Trouble.ERROR, Trouble.SLOW))
        faults.append(Fault(trouble, rng.choice(nodes), start, start + rng.uniform(0.05, 0.6), rng.choice((1.0, 0.4))))
    kills = tuple(rng.uniform(0.001, 0.06) for _ in range(rng.choice((0, 0, 1, 1, 3))))
    traffic = None
    if rng.random() < 0.3:
        traffic = TrafficPlan(rng.choice((20.0, 200.0)), until_s=0.6, latest_s=0.05, only_clean=False)
    return RepairCase(policy, rng.choice((None, 40.0, 400.0)), tuple(faults), kills, traffic, undo=rng.random() < 0.25)


def draw_refusals(rng: random.Random) -> tuple[Refusals, Guardrails | None, bool]:
    """Draw which requests are failed: in half of the cases one of the first, in some of these a share of all.

    In a seventh every delete is failed: a write-back passes on by one what it has found. In a sixth guardrails are set:
    on levels, or on write times.
    """
    at = frozenset({rng.randrange(1, 30)}) if rng.random() < 0.5 else frozenset[int]()
    rate = rng.choice((0.0, 0.0, 0.2, 0.6)) if at else 0.0
    rails = None
    if rng.random() < 0.17:
        no_reads = {ALL: "reads at ALL are forbidden"} if rng.random() < 0.6 else {}
        no_writes = dict.fromkeys(rng.choice(((), (ALL,), (ALL, QUORUM))), "writes are forbidden")
        oldest = EPOCH_US - int(rng.uniform(5.0, 3_000.0) * 1e6) if rng.random() < 0.6 else None
        rails = Guardrails(no_reads, no_writes, oldest)
    unguarded = rng.random() < 0.5
    return Refusals(at, rate, deletes=rng.random() < 0.15), rails, unguarded


def run_repair_case(seed: int, *, ranged: bool = False) -> RepairOutcome:
    """Damage a cluster, let some nodes forget old deletes, repair it, and hold it against the laws.

    With `ranged` there is more damage, and most of it is repaired by ranges.
    """
    rng = random.Random(seed)
    loop = VirtualLoop()
    ring, replication = draw_ring(rng)
    table = draw_table(rng, "t")
    if rng.random() < 0.4:
        table = replace(table, read_repair="NONE")
    ranges = random.Random(f"ranges {seed}")
    limits = draw_limits(ranges) if ranged or ranges.random() < 0.3 else None
    if ranged or (limits and ranges.random() < 0.8):
        table = of_range_tables(table)
    refusals, rails, unguarded = draw_refusals(random.Random(f"refusals {seed}"))
    case = replace(
        draw_case(rng, ring.nodes),
        clocks=draw_clocks(seed, ring.nodes, unsure_s=0.0),
        refusals=refusals,
        guarded=rails,
        planned_unguarded=unguarded,
        max_deletes=random.Random(f"deletes {seed}").choice((_MOST, _MOST, 0, 0, 1, 3)),
        max_traces=random.Random(f"traces {seed}").choice((0, 2, DEFAULT_MOST_TRACES, DEFAULT_MOST_TRACES)),
        limits=limits,
    )
    if ranged:
        case = replace(case, faults=tuple(fault for fault in case.faults if fault.node not in case.down))
    schema = {"ks": keyspace("ks", replication, [table])}
    localities = draw_localities(seed, ring.nodes)
    cluster = SimCluster(loop, ring, schema, Capabilities(), rng, faults=case.faults, locality=localities)
    drawing = Drawing(rng, table)
    load(cluster, drawing)
    for _ in range(6 if ranged else 1):
        damage(cluster, drawing, Damage())
    delete_about_grace(cluster, drawing, case.clocks, random.Random(f"grace {seed}"))
    truth = _merges(cluster, table, case.down)
    for node in ring.nodes:
        if rng.random() < 0.5:
            collect_garbage(cluster.store(node, table), purged_before_us(case.clocks, node, table))
    if case.guarded and not case.planned_unguarded:
        cluster.guarded = dict.fromkeys(ring.nodes, case.guarded)
    return run_virtual(loop, _Play(case, loop, cluster, drawing, rng, random.Random(f"moves {seed}")).run(truth))


def delete_about_grace(cluster: SimCluster, drawing: Drawing, clocks: Clocks, rng: random.Random) -> None:
    """Write rows about gc_grace ago, and delete them on all but one of their replicas.

    Whether the deletes are purged by now depends on whose clock is asked.
    """
    apart_s = clocks.latest_s - clocks.earliest_s
    if apart_s < 1:
        return
    for key in drawing.keys[:2]:
        owners = cluster.replicas(drawing.table, key)
        age_s = drawing.table.gc_grace_seconds - rng.uniform(-5.0, apart_s)
        ts = EPOCH_US - int(age_s * 1e6)
        written = replace(drawing.write(ts, key=key), insert=True)
        if written.clustering is None or not written.cells:
            continue
        holder = rng.choice(owners)
        cluster.apply(drawing.table, written)
        gone = Delete(key, ts + 1, written.clustering, written.clustering)
        cluster.apply(drawing.table, gone, [node for node in owners if node != holder])


def purged_before_us(clocks: Clocks, node: Node, table: Table) -> int:
    """Return the write time before which a node has purged deletes.

    It does so by its own clock, and the server with the slowest one took them.
    """
    ahead_us = int((clocks.ahead_s[node] - clocks.earliest_s) * 1e6)
    return EPOCH_US + ahead_us - table.gc_grace_seconds * 1_000_000


def _merges(cluster: SimCluster, table: Table, down: frozenset[Node]) -> dict[Row, Shown]:
    up = [node for node in cluster.ring_before.nodes if node not in down]
    storages = {node: cluster.store(node, table) for node in up}
    return {row: merged(storages, cluster.replicas(table, row[1]), row, EPOCH_S) for row in rows_of(cluster, table)}


class _Play:
    """One repair from plan to undo."""

    def __init__(
        self,
        case: RepairCase,
        loop: VirtualLoop,
        cluster: SimCluster,
        drawing: Drawing,
        rng: random.Random,
        moves: random.Random,
    ) -> None:
        self._moves = moves
        self._case = case
        self._loop = loop
        self._cluster = cluster
        self._table = drawing.table
        self._drawing = drawing
        self._rng = rng
        self._clock = SimClock(loop, clocks_s=case.clocks.ahead_s, unsure_s=case.clocks.unsure_s)
        refused = random.Random(moves.getrandbits(64))
        self._writer = SimWriter(cluster, loop, drawing.table, case.faults, case.refusals, refused)

    async def run(self, truth: Mapping[Row, Shown]) -> RepairOutcome:
        rows = rows_of(self._cluster, self._table)
        before = self._copied()
        evidence = await CaseReader.open(self._cluster, self._clock)
        self._cluster.begin_reading()
        plan = await self._planned(evidence, rows)
        differing = await self._differing(evidence, plan, rows)
        written = self._cluster.changed_by_readers()
        journal = MemoryJournal(plan, random.Random(self._rng.getrandbits(64)))
        traffic = self._traffic()
        writing = asyncio.create_task(traffic.run()) if traffic else None
        if self._case.guarded:
            self._cluster.guarded = dict.fromkeys(self._cluster.ring_before.nodes, self._case.guarded)
        tally, resumed = await self._applied(plan, journal)
        if writing:
            await writing
        stopped_wrongly = [] if traffic else self._breaker_laws(before, rows, tally)
        if tally.stopped_at is not None:
            self._case = replace(self._case, max_deletes=_MOST)
            tally = await self._apply(plan, await self._looked_again(), journal)
        tally = await self._ranges_ended(plan, journal, tally)
        refused_still = self._refused_in_vain(tally)
        halfway, kept = self._copied(), journal.record()
        torn_record = by_rows(kept, rows, self._ref)
        lifted = self._lifts(kept)
        if lifted:
            self._case = replace(self._case, max_deletes=_MOST)
            tally = await self._apply(plan, await self._looked_again(), journal)
            kept = journal.record()
        record = by_rows(kept, rows, self._ref)
        scene = Scene(
            case_down=self._case.down,
            alone=frozenset(n for n in before if self._cluster.locality(n) is Locality.NODE_LOCAL),
            disturbed=len(self._case.faults) > len(self._case.down),
            refused=bool(self._writer.failed or self._case.guarded),
            policy=self._case.policy,
            rows=rows,
            owners={row: self._cluster.replicas(self._table, row[1]) for row in rows},
            before=before,
            after=self._copied(),
            traffic=tuple(mutation for _, mutation in traffic.sent) if traffic else (),
            touched=frozenset(traffic.touched) if traffic else frozenset(),
            truth=truth,
            now_s=EPOCH_S + int(self._loop.now) + 10,
            ranged=lie_in_ranges(plan, rows, self._ref),
        )
        torn_law = not scene.disturbed and not traffic
        broken = written + stopped_wrongly + refused_still + verdicts(scene, record) + forecast_laws(scene, record)
        broken += [] if kept.complete else ["the journal is not complete"]
        if torn_law:
            broken += torn(replace(scene, after=halfway), torn_record)
        if not (scene.disturbed or scene.refused or traffic or self._case.down):
            broken += _count_laws(kept, differing, resumed)
        # A node that is still down may leave too few replicas for a write at ALL.
        if lifted and not self._case.faults and Result.REFUSED in tally.results:
            broken.append("a row stays refused though nothing is refused any more")
        outcome = RepairOutcome(self._case, plan, tally, broken, resumed=resumed)
        if self._case.undo and not traffic and not outcome.broken:
            outcome.undone = await self._undone(kept, await self._looked_again(), journal)
            undone = by_rows(journal.record(), rows, self._ref)
            outcome.broken += undo_laws(scene, record, undone, self._copied())
            slowest_us = EPOCH_US + int((self._loop.now + self._case.clocks.earliest_s) * 1e6)
            outcome.broken += undone_ahead(undone, slowest_us)
        outcome.ranges_read = len(self._writer.ranges_read)
        return outcome

    def _breaker_laws(self, before: Held, rows: list[Row], tally: Tally) -> list[str]:
        """No row that most replicas held vanishes where none may, and nothing is stopped before as many have."""
        now_s = EPOCH_S + int(self._loop.now) + 10
        after = self._copied()
        gone = 0
        for row in rows:
            owners = self._cluster.replicas(self._table, row[1])
            held = sum(shown(before[node], row, now_s) is not None for node in owners)
            gone += 2 * held > len(owners) and all(shown(after[node], row, now_s) is None for node in owners)
        broken = []
        if gone and not self._case.max_deletes:
            broken.append(f"{gone} rows vanished, and none may")
        if tally.stopped_at is not None and gone < self._case.max_deletes:
            broken.append(f"stopped after {gone} rows had vanished, and {self._case.max_deletes} may")
        return broken

    def _refused_in_vain(self, tally: Tally) -> list[str]:
        if self._writer.failed or self._case.guarded or self._case.faults or Result.REFUSED not in tally.results:
            return []
        return ["a row counts as refused and nothing was refused"]

    def _lifts(self, record: Record) -> bool:
        """Have the servers refuse nothing any more, in half of the cases; return whether a resume has work then."""
        if self._moves.random() < 0.5 or not (record.open_rows or record.open_ranges):
            return False
        self._cluster.guarded = {}
        self._writer.refusals = Refusals()
        return True

    async def _looked_again(self) -> CaseReader:
        """Look at the ring as the next command does; in a third of the cases nodes answer elsewhere by then."""
        hosts = [node.host_id for node in self._cluster.ring_before.nodes]
        if self._moves.random() < 0.33:
            self._cluster.readdress(*self._moves.sample(hosts, self._moves.randint(1, len(hosts))))
        return await CaseReader.open(self._cluster, self._clock)

    async def _planned(self, evidence: CaseReader, rows: list[Row]) -> Plan:
        policy = self._case.policy
        options, search = PlanOptions(policy), DeleteSearch(self._cluster, self._case.max_traces)
        plan = await planned_on(self._cluster, self._table, policy, ())
        if self._case.limits and not self._case.down:
            ring = self._cluster.ring_before
            plan = replace(plan, ranges=await draw_ranges(self._moves, evidence, self._table, policy, ring))
        ranged = lie_in_ranges(plan, rows, self._ref)
        listed = [FoundRow(self._ref(row)) for row in rows if row not in ranged]
        return replace(plan, rows=tuple(await plan_batch(evidence, search, listed, options, "salt")))

    async def _differing(self, evidence: CaseReader, plan: Plan, rows: list[Row]) -> int:
        """Count the rows of planned ranges that their replicas do not hold alike."""
        ranged = lie_in_ranges(plan, rows, self._ref)
        return sum(not case.agreed for case in await evidence.read_many([self._ref(row) for row in ranged]))

    async def _ranges_ended(self, plan: Plan, journal: MemoryJournal, tally: Tally) -> Tally:
        """Go on with ranges that could not be read, once no node is in trouble any more."""
        for _ in range(3 if plan.ranges else 0):
            if not journal.record().complete:
                await asyncio.sleep(15.0)
                if tally.stopped_at is not None:
                    self._case = replace(self._case, max_deletes=_MOST)
                tally = await self._apply(plan, await self._looked_again(), journal)
        return tally

    def _ref(self, row: Row) -> RowRef:
        return _ref(self._table, row)

    async def _applied(self, plan: Plan, journal: MemoryJournal) -> tuple[Tally, int]:
        """Apply, kill it at the times drawn, and resume from the journal until it ends by itself."""
        resumed = 0
        for kill_s in self._case.kills_s:
            task = asyncio.create_task(self._apply(plan, await self._looked_again(), journal))
            done, _ = await asyncio.wait({task}, timeout=kill_s)
            if done:
                return task.result(), resumed
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            resumed += 1
        return await self._apply(plan, await self._looked_again(), journal), resumed

    async def _apply(self, plan: Plan, evidence: CaseReader, journal: MemoryJournal) -> Tally:
        guard = Guard(plan, self._cluster, self._writer, self._clock)
        actor = Actor(self._cluster, self._writer)
        limits = self._case.limits
        applier = Applier(plan, evidence, actor, guard, self._clock, journal, limits)  # type: ignore[arg-type]
        options = ApplyOptions(self._case.rate, max_deletes=self._case.max_deletes)
        return await applier.run(journal.record(), options, asyncio.Event(), lambda _: None)

    async def _undone(self, record: Record, evidence: CaseReader, journal: MemoryJournal) -> Tally:
        guard = Guard(record.plan, self._cluster, self._writer, self._clock)
        undoer = Undoer(evidence, self._writer, guard, self._clock)
        return await undoer.run(record, journal, Pace(self._clock, None), asyncio.Event(), lambda _: None)

    def _traffic(self) -> Traffic | None:
        if self._case.traffic is None:
            return None
        rng = random.Random(self._rng.getrandbits(64))
        return Traffic(self._loop, self._cluster, [self._drawing], self._case.traffic, rng)

    def _copied(self) -> Held:
        return {node: self._cluster.store(node, self._table).copied() for node in self._cluster.ring_before.nodes}


def _count_laws(record: Record, differing: int, resumed: int) -> list[str]:
    """Every row of a range that differs has its outcome, and no other row of it has one.

    A killed run may have merged one row of a partition, and with that passed a delete on that takes another one, of
    which nobody is told then.
    """
    counted = sum(chunk.account.rows for chunk in record.chunks.values())
    fits = counted <= differing if resumed else counted == differing
    return [] if fits else [f"{differing} rows of ranges differ, and {counted} have outcomes"]


async def planned_on(cluster: SimCluster, table: Table, policy: Policy, rows: Sequence[PlannedRow]) -> Plan:
    """Return the plan of these rows, for this cluster as it is now."""
    ring, schema = await cluster.ring(), await cluster.schema()
    tables = {table.full_name: fingerprint(schema[table.keyspace], table)}
    return Plan("r", "f", "", "", ring.cluster, ring.fingerprint, tables, policy, "salt", tuple(rows))


def rows_of(cluster: SimCluster, table: Table) -> list[Row]:
    """Return every row that any node has ever heard of."""
    names = row_names(cluster, table)
    return [(table.name, key, clustering) for key, clustering in names if clustering is not None or table.statics]


def _ref(table: Table, row: Row) -> RowRef:
    _, key, clustering = row
    columns = table.partition_key if clustering is None else table.primary_key
    parts = key if clustering is None else key + clustering
    named = {c.name: raw.hex() for c, raw in zip(columns, parts, strict=True)}
    return RowRef(table.keyspace, table.name, token_of(key), named)
