"""One seed, one case: draw a cluster and its history and run the real check on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from consistency.checking.observer import Silent
from consistency.checking.plan import TablePlan
from consistency.checking.run import run_check
from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.ledger.port import RangeRead, RunFacts
from consistency.model.reading import Capabilities, Depth, Reading, Route
from consistency.model.ring import Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding
from consistency.results.range_findings import RangeFinding
from consistency.results.report import Report
from consistency.results.tree_report import TreeReport
from tests.simulation.clocks import draw_clients, draw_clocks
from tests.simulation.histories import Damage, Drawing, Traffic, TrafficPlan, damage, draw_localities, draw_ring, load
from tests.simulation.memory import Fault, Pace, SimCluster, Trouble
from tests.simulation.promises import Case, Outcome, broken_promises
from tests.simulation.truth import truth, written_ahead
from tests.simulation.values import draw_table, keyspace
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual

CAPABILITIES = (
    Capabilities(),
    Capabilities(),
    Capabilities(hashes=False, unchecked_text=True, collection_times=False, timed=True),
    Capabilities(hashes=False, collection_times=False, timed=False),
)


class Watching(Silent):
    """Remembers what the check said while it ran."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.counted: list[RangeFinding] = []
        self.plans: list[TablePlan] = []

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def found_range(self, finding: RangeFinding) -> None:
        self.counted.append(finding)

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        self.plans.append(plan)


class Remembering:
    """What a ledger is told; asked when ranges were read last, it makes something up."""

    cluster_id = ""

    def __init__(self, seed: int) -> None:
        self.reads: dict[str, list[RangeRead]] = {}
        self._rng = random.Random(f"ages {seed}")

    def begin(self, facts: RunFacts) -> None:
        """Nothing to keep."""

    def last_tried(self, table: Table, depth: Depth, ranges: Sequence[TokenRange]) -> Sequence[int]:
        return [self._rng.choice((0, 1, 2)) * 60_000_000 for _ in ranges]

    def found(self, finding: Finding, depth: Depth) -> None:
        """Nothing to keep."""

    def found_range(self, finding: RangeFinding, depth: Depth) -> None:
        """Nothing to keep."""

    def table_read(
        self,
        table: Table,
        depth: Depth,
        ranges: Sequence[RangeRead],
        *,
        non_owners: bool,
        trees: Sequence[TreeReport] = (),
    ) -> None:
        self.reads[table.name] = list(ranges)

    def end(self, report: Report) -> None:
        """Nothing to keep."""


def draw_case(seed: int, rng: random.Random, ring: Ring) -> Case:
    """Draw what will happen: a third of the cases is quiet, the others have traffic, faults, stops or changes."""
    quiet = rng.random() < 0.3
    traffic = None if quiet or rng.random() < 0.3 else _traffic(rng)
    faulty = not quiet and rng.random() < 0.45
    capabilities = rng.choice(CAPABILITIES)
    options = CheckOptions(
        names=("ks",),
        depth=rng.choice((None, None, Depth.VERSIONS, Depth.CONTENT)),
        route=rng.choice((None, None, Route.SERVER, Route.CLIENT)),
        scan=ScanOptions(
            leaf_rows=rng.choice((2, 10, 20_000)), leaves_at_once=rng.randint(1, 6), max_findings=_max_findings(seed)
        ),
        run_time_s=_run_time(seed),
        sample=_sample(seed),
    )
    moment = rng.choice((None, None, None, None, rng.uniform(0.0, 8.0), rng.uniform(0.0, 0.3))) if not quiet else None
    change = rng.choice(("ring", "schema", "", "", "", "", "", ""))
    return Case(
        seed=seed,
        capabilities=capabilities,
        options=options,
        pace=Pace(latency_s=rng.choice((0.0005, 0.005, 0.05)), page_rows=rng.choice((1, 3, 50))),
        traffic=traffic,
        faults=tuple(_faults(rng, ring)) if faulty else (),
        stop_at_s=moment,
        ring_changes_at_s=rng.uniform(0.01, 6.0) if change == "ring" and not quiet else None,
        schema_changes_at_s=rng.uniform(0.01, 6.0) if change == "schema" and not quiet else None,
        clocks=draw_clocks(seed, ring.nodes, rng.choice((0.0, 0.0, 1.5)), most_s=None if capabilities.timed else 20.0),
    )


def _run_time(seed: int) -> float | None:
    """Return how long a run may last: a tenth of them is cut short. Drawn apart from the rest of the story."""
    rng = random.Random(f"run time {seed}")
    return rng.choice((0.0, 0.05, 0.3, 100.0)) if rng.random() < 0.1 else None


def _sample(seed: int) -> Sample | None:
    """Return which part is read: of a tenth of those that are not cut short, a sample."""
    rng = random.Random(f"sample {seed}")
    if rng.random() >= 0.1 or _run_time(seed) is not None:
        return None
    return rng.choice((Sample(share=1.0, seed=seed), Sample(share=0.3, seed=seed), Sample(within_s=0.3, seed=seed)))


def _max_findings(seed: int) -> int | None:
    """Return how many rows are listed: in half of the cases all. Drawn apart from the rest of the story."""
    return random.Random(f"listing {seed}").choice((None, None, None, 0, 1, 4))


def _traffic(rng: random.Random) -> TrafficPlan:
    return TrafficPlan(
        per_second=rng.choice((3.0, 15.0, 40.0)),
        until_s=rng.uniform(1.0, 9.0),
        latest_s=rng.choice((0.01, 0.2, 2.0)),
        lost=rng.choice((0.0, 0.0, 0.1)),
        only_clean=rng.random() < 0.5,
    )


def _faults(rng: random.Random, ring: Ring) -> list[Fault]:
    out: list[Fault] = []
    for _ in range(rng.randint(1, 3)):
        node, trouble = rng.choice(ring.nodes), rng.choice(list(Trouble))
        shape = rng.random()
        if shape < 0.25:  # all the time
            out.append(Fault(trouble, node, 0.0, 1e9, rng.choice((1.0, 0.3, 0.05))))
        elif shape < 0.5:  # flapping
            out.extend(Fault(trouble, node, start, start + 0.2) for start in (i * 0.5 for i in range(20)))
        else:
            start = rng.uniform(0.0, 3.0)
            out.append(Fault(trouble, node, start, start + rng.uniform(0.05, 4.0), rng.choice((1.0, 0.5))))
    return out


Checked = Callable[[SimCluster, SimClock, CheckOptions, Watching, asyncio.Event, Remembering], Awaitable[Report]]
"""How a case is checked: what it was found to be is told to the one who watches and to the one who remembers."""


def run_case(seed: int, checked: Checked = run_check) -> Outcome:
    """Run one seed to its end on virtual time; `checked` is what is tried."""
    rng = random.Random(seed)
    loop = VirtualLoop()
    ring, replication = draw_ring(rng)
    tables = [draw_table(rng, f"t{i}") for i in range(rng.choice((1, 1, 2)))]
    case = draw_case(seed, rng, ring)
    schema = {"ks": keyspace("ks", replication, tables)}
    cluster = SimCluster(
        loop, ring, schema, case.capabilities, rng, case.pace, case.faults, draw_localities(seed, ring.nodes)
    )
    if case.traffic is not None:
        clients = draw_clients(seed, case.clocks, case.options.scan.max_skew_s)
        case = replace(case, traffic=replace(case.traffic, clients_s=clients))
    cluster.skew_s = dict(case.clocks.ahead_s)  # where we cannot name the instant, TTLs run by the servers' own clocks
    drawings = [Drawing(rng, table) for table in tables]
    done = Damage()
    for drawing in drawings:
        load(cluster, drawing)
        damage(cluster, drawing, done)
    return run_virtual(loop, _play(case, loop, cluster, drawings, done, rng, checked))


async def _play(
    case: Case,
    loop: VirtualLoop,
    cluster: SimCluster,
    drawings: Sequence[Drawing],
    done: Damage,
    rng: random.Random,
    checked: Checked,
) -> Outcome:
    tables = [drawing.table for drawing in drawings]
    planted = {row: what for table in tables for row, what in truth(cluster, table, None, EPOCH_S).items()}
    reading_all = {t.name: Reading(t, Depth.CONTENT, case.capabilities) for t in tables}
    ahead_s = case.clocks.latest_s + case.clocks.unsure_s
    future = {row for table in tables for row in written_ahead(cluster, reading_all[table.name], ahead_s)}
    traffic = _traffic_of(case, loop, cluster, drawings, done, rng)
    _arm_changes(case, loop, cluster)
    clock = SimClock(loop, clocks_s=case.clocks.ahead_s, unsure_s=case.clocks.unsure_s)
    watching, stop = Watching(), asyncio.Event()
    writing = asyncio.create_task(traffic.run()) if traffic else None
    if case.stop_at_s is not None:
        loop.call_later(case.stop_at_s, stop.set)
    remembering = Remembering(case.seed)
    cluster.begin_reading()
    report = await checked(cluster, clock, case.options, watching, stop, remembering)
    seconds = loop.now
    if writing:
        await writing
    later_s = EPOCH_S + int(loop.now) + 1
    still = {row for table in tables for row in truth(cluster, table, None, later_s)}
    outcome = Outcome(
        case, report, watching.findings, watching.counted, planted, still, future, done, cluster, traffic,
        watching.plans, seconds, remembering.reads,
    )  # fmt: skip
    outcome.broken = cluster.changed_by_readers() + broken_promises(outcome, {table.name: table for table in tables})
    return outcome


def _traffic_of(
    case: Case,
    loop: VirtualLoop,
    cluster: SimCluster,
    drawings: Sequence[Drawing],
    done: Damage,
    rng: random.Random,
) -> Traffic | None:
    if case.traffic is None:
        return None
    spared = frozenset((row[0], row[1]) for row in done.rows) if case.traffic.only_clean else frozenset()
    return Traffic(loop, cluster, drawings, case.traffic, random.Random(rng.getrandbits(64)), spared)


def _arm_changes(case: Case, loop: VirtualLoop, cluster: SimCluster) -> None:
    if case.ring_changes_at_s is not None:
        at_s, replaced = case.ring_changes_at_s, case.seed % 2 == 0
        cluster.ring_later = lambda: _changed_ring(cluster, loop.now >= at_s, replaced=replaced)
        if replaced:
            first = cluster.ring_before.nodes[0]
            cluster.no_longer_written_to = lambda: first if loop.now >= at_s else None
    if case.schema_changes_at_s is not None:
        cluster.change_schema = lambda schema: (
            _changed_schema(schema, case.seed % 3) if loop.now >= (case.schema_changes_at_s or 0.0) else schema
        )


def _changed_ring(cluster: SimCluster, changed: bool, *, replaced: bool) -> Ring:
    """Return the ring with a node replaced by a new one, or with tokens that moved by one."""
    ring = cluster.ring_before
    if not changed:
        return ring
    first, *others = ring.nodes
    if replaced:
        return replace(ring, nodes=(replace(first, host_id="a new host"), *others))
    return replace(ring, nodes=(replace(first, tokens=tuple(t + 1 for t in first.tokens)), *others))


def _changed_schema(schema: dict[str, Keyspace], how: int) -> dict[str, Keyspace]:
    before = schema["ks"]
    name, table = next(iter(before.tables.items()))
    if how == 0:
        return {"ks": replace(before, tables={n: t for n, t in before.tables.items() if n != name})}
    if how == 1:
        altered = replace(table, columns=table.columns[:-1])
        return {"ks": replace(before, tables={**before.tables, name: altered})}
    factors = tuple((dc, rf + 1) for dc, rf in before.replication.factors)
    return {"ks": replace(before, replication=Replication("NetworkTopologyStrategy", factors))}
