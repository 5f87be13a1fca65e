"""One seed, one case: draw a cluster and its history, run the real check on it, hold the result to its promises."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from consistency.checking import CheckOptions, run_check
from consistency.findings import Finding
from consistency.observer import Silent
from consistency.plan import Leaf, TablePlan
from consistency.reading import Capabilities, CellColumn, Depth, Reading, Route
from consistency.report import Report
from consistency.ring import Node, Replication, Ring
from consistency.scan import ScanOptions
from consistency.schema import Keyspace, Table
from consistency.verdict import ExitCode, Verdict
from tests.simulation.histories import Damage, Drawing, RowKey, Traffic, TrafficPlan, damage, draw_ring, load
from tests.simulation.memory import Fault, Pace, SimCluster, Trouble, path_order
from tests.simulation.storage import Key, Visible
from tests.simulation.values import draw_table, keyspace
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual

CAPABILITIES = (
    Capabilities(),
    Capabilities(),
    Capabilities(hashes=False, collection_times=False, timed=True),
    Capabilities(hashes=False, collection_times=False, timed=False),
)


@dataclass(frozen=True)
class Case:
    """Everything that a seed stands for."""

    seed: int
    capabilities: Capabilities
    options: CheckOptions
    pace: Pace
    traffic: TrafficPlan | None
    faults: tuple[Fault, ...]
    stop_at_s: float | None
    ring_changes_at_s: float | None
    schema_changes_at_s: float | None
    clock_skew_s: float

    @property
    def exact(self) -> bool:
        """Whether nothing happens that could keep the check from finding everything."""
        quiet = self.traffic is None or (self.traffic.only_clean and not self.traffic.lost)
        drifts = self.ring_changes_at_s is not None or self.schema_changes_at_s is not None
        return quiet and not drifts and not self.faults and self.stop_at_s is None


class Watching(Silent):
    """Remembers what the check said while it ran."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.plans: list[TablePlan] = []

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        self.plans.append(plan)


@dataclass
class Outcome:
    """What came of a case; `broken` are the promises that were not kept, a sentence each."""

    case: Case
    report: Report
    findings: list[Finding]
    planted: dict[RowKey, str]
    still: set[RowKey]
    future: set[RowKey]
    """Rows on which all replicas agree, with a write time in the future."""
    damage: Damage
    cluster: SimCluster
    traffic: Traffic | None
    plans: list[TablePlan]
    seconds: float
    broken: list[str] = field(default_factory=list)


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
        scan=ScanOptions(leaf_rows=rng.choice((2, 10, 20_000)), leaves_at_once=rng.randint(1, 6)),
    )
    moment = rng.choice((None, None, None, rng.uniform(0.0, 8.0))) if not quiet else None
    change = rng.choice(("ring", "schema", "", "", "", "", "", ""))
    return Case(
        seed=seed,
        capabilities=capabilities,
        options=options,
        pace=Pace(latency_s=rng.choice((0.0005, 0.005, 0.05)), page_rows=rng.choice((1, 3, 50))),
        traffic=traffic,
        faults=tuple(_faults(rng, ring)) if faulty else (),
        stop_at_s=moment,
        ring_changes_at_s=rng.uniform(0.0, 6.0) if change == "ring" and not quiet else None,
        schema_changes_at_s=rng.uniform(0.0, 6.0) if change == "schema" and not quiet else None,
        clock_skew_s=rng.choice((0.0, 0.0, 1.5)),
    )


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


def run_case(seed: int) -> Outcome:
    """Run one seed to its end on virtual time."""
    rng = random.Random(seed)
    loop = VirtualLoop()
    ring, replication = draw_ring(rng)
    tables = [draw_table(rng, f"t{i}") for i in range(rng.choice((1, 1, 2)))]
    case = draw_case(seed, rng, ring)
    schema = {"ks": keyspace("ks", replication, tables)}
    cluster = SimCluster(loop, ring, schema, case.capabilities, rng, case.pace, case.faults)
    drawings = [Drawing(rng, table) for table in tables]
    done = Damage()
    for drawing in drawings:
        load(cluster, drawing)
        damage(cluster, drawing, done)
    return run_virtual(loop, _play(case, loop, cluster, drawings, done, rng))


async def _play(
    case: Case,
    loop: VirtualLoop,
    cluster: SimCluster,
    drawings: Sequence[Drawing],
    done: Damage,
    rng: random.Random,
) -> Outcome:
    tables = [drawing.table for drawing in drawings]
    planted = {row: what for table in tables for row, what in truth(cluster, table, None, EPOCH_S).items()}
    reading_all = {t.name: Reading(t, Depth.CONTENT, case.capabilities) for t in tables}
    future = {row for table in tables for row in written_ahead(cluster, reading_all[table.name], case.clock_skew_s)}
    traffic = _traffic_of(case, loop, cluster, drawings, done, rng)
    _arm_changes(case, loop, cluster)
    clock, watching, stop = SimClock(loop, case.clock_skew_s), Watching(), asyncio.Event()
    writing = asyncio.create_task(traffic.run()) if traffic else None
    if case.stop_at_s is not None:
        loop.call_later(case.stop_at_s, stop.set)
    report = await run_check(cluster, clock, case.options, watching, stop)
    seconds = loop.now
    if writing:
        await writing
    later_s = EPOCH_S + int(loop.now) + 1
    still = {row for table in tables for row in truth(cluster, table, None, later_s)}
    outcome = Outcome(
        case, report, watching.findings, planted, still, future, done, cluster, traffic, watching.plans, seconds
    )
    outcome.broken = broken_promises(outcome, {table.name: table for table in tables})
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
        cluster.ring_later = lambda: _changed_ring(cluster, loop.now >= (case.ring_changes_at_s or 0.0))
    if case.schema_changes_at_s is not None:
        cluster.change_schema = lambda schema: (
            _changed_schema(schema, case.seed % 3) if loop.now >= (case.schema_changes_at_s or 0.0) else schema
        )


def _changed_ring(cluster: SimCluster, changed: bool) -> Ring:
    ring = cluster.ring_before
    if not changed:
        return ring
    first, *others = ring.nodes
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


# The truth, from the storage itself.


def truth(cluster: SimCluster, table: Table, reading: Reading | None, now_s: int) -> dict[RowKey, str]:
    """Return the rows on which owners differ as a read shows them, with what each holds; None reads everything."""
    reading = reading or Reading(table, Depth.CONTENT, Capabilities())
    found: dict[RowKey, str] = {}
    for key, clustering in _row_names(cluster, table):
        held: dict[Node, Any] = {}
        for node in cluster.replicas(table, key):
            store = cluster.store(node, table)
            seen = store.visible_static(key, now_s) if clustering is None else store.visible_row(key, clustering, now_s)
            held[node] = _shown(reading.statics if clustering is None else reading.regulars, seen)
        if len({repr(cells) for cells in held.values()}) > 1:
            found[table.name, key, clustering] = "; ".join(f"{node}: {cells}" for node, cells in held.items())
    return found


def written_ahead(cluster: SimCluster, reading: Reading, skew_s: float) -> set[RowKey]:
    """Return the rows on which all owners agree, with a visible cell written more than a minute ahead."""
    limit_us = (EPOCH_S + 120 + int(skew_s)) * 1_000_000
    differing = truth(cluster, reading.table, None, EPOCH_S)
    found: set[RowKey] = set()
    for key, clustering in _row_names(cluster, reading.table):
        row = (reading.table.name, key, clustering)
        node = cluster.replicas(reading.table, key)[0]
        shown = _held(cluster, reading, node, key, clustering, EPOCH_S)
        times = [cell[2] for cells in shown or () for cell in cells if cell[2] is not None]
        if row not in differing and max(times, default=0) > limit_us:
            found.add(row)
    return found


def _row_names(cluster: SimCluster, table: Table) -> list[tuple[Key, Key | None]]:
    names: dict[tuple[Key, Key | None], None] = {}
    for node in cluster.ring_before.nodes:
        for key, partition in cluster.store(node, table).partitions.items():
            names[key, None] = None
            names.update(dict.fromkeys((key, clustering) for clustering in partition.rows))
    return list(names)


def _held(
    cluster: SimCluster, reading: Reading, node: Node, key: Key, clustering: Key | None, now_s: int
) -> list[list[tuple[Any, ...]]] | None:
    store = cluster.store(node, reading.table)
    if clustering is None:
        return _shown(reading.statics, store.visible_static(key, now_s))
    return _shown(reading.regulars, store.visible_row(key, clustering, now_s))


def _shown(columns: Sequence[CellColumn], seen: Visible | None) -> list[list[tuple[Any, ...]]] | None:
    if seen is None:
        return None
    shown: list[list[tuple[Any, ...]]] = []
    for column in columns:
        cells = seen.cells.get(column.column.name, {})
        paths = sorted(cells, key=path_order(column.column)) if column.column.type.is_multicell else list(cells)
        named = column.value and column.column.type.name != "list"
        shown.append(
            [
                (
                    path if named else None,
                    cells[path].value if column.value else None,
                    cells[path].ts if column.writetime else None,
                    cells[path].expires if column.ttl else None,
                )
                for path in paths
                if column.width
            ]
        )
    return shown if any(shown) or seen.clustering is not None else None


# The promises.


def row_of(finding: Finding, table: Table) -> RowKey:
    """Return which row a finding is about."""
    names = [c.name for c in table.partition_key]
    key = tuple(bytes.fromhex(finding.key_hex[name]) for name in names)
    clustering = [finding.key_hex.get(c.name) for c in table.clustering]
    static = bool(table.clustering) and None in clustering
    return finding.table, key, None if static else tuple(bytes.fromhex(text or "") for text in clustering)


def broken_promises(outcome: Outcome, tables: Mapping[str, Table]) -> list[str]:
    """Return the promises that were not kept, a sentence each."""
    out = [*_coverage(outcome), *_verdict(outcome), *_findings(outcome, tables)]
    if outcome.case.exact:
        out += _exactness(outcome, tables)
    return out


def _coverage(outcome: Outcome) -> list[str]:
    out = []
    report = outcome.report
    for name, c in [("all", report.coverage), *((t.full_name, t.coverage) for t in report.tables)]:
        if c.planned != c.completed + c.skipped + c.failed or min(c.planned, c.completed, c.skipped, c.failed) < 0:
            out.append(f"coverage of {name} does not add up: {c}")
    if len(report.tables) != len({t.full_name for t in report.tables}) or not report.tables:
        out.append("a table is reported twice, or none is")
    return out


def _verdict(outcome: Outcome) -> list[str]:
    """Hold every `consistent`, of the run and of each table, against what was there to be found."""
    case, report = outcome.case, outcome.report
    out = []
    if report.verdict is Verdict.CONSISTENT:
        # Violations of replication, such as an RF of 2, make the exit code 1 whatever the verdict.
        if report.interrupted or report.exit_code not in (ExitCode.CONSISTENT, ExitCode.DIVERGENT):
            out.append(f"consistent with exit code {int(report.exit_code)}")
        described = outcome.cluster.described_at
        for what, at in (("ring", case.ring_changes_at_s), ("schema", case.schema_changes_at_s)):
            if at is not None and described and described[-1] >= at:
                out.append(f"consistent, though the {what} changed at {at:.2f} s")
    touched = outcome.traffic.touched if outcome.traffic else set()
    lasting = {row for row in outcome.planted if row in outcome.still and row not in touched}
    missed = (lasting & _seeable(outcome)) | (outcome.future - touched)
    plans = {plan.table.name: plan for plan in outcome.plans}
    for table in report.tables:
        if table.verdict is not Verdict.CONSISTENT:
            continue
        hidden = [row for row in missed if row[0] == table.table]
        if hidden:
            out.append(f"{table.table} consistent, though from the start to the end something was wrong with {hidden}")
        plan = plans[table.table]
        unread = [leaf for leaf in plan.leaves if not _was_read(outcome.cluster, plan.table, leaf)]
        if unread:
            out.append(f"{table.table} consistent, though {len(unread)} leaves were not read on all replicas")
    return out


def _was_read(cluster: SimCluster, table: Table, leaf: Leaf) -> bool:
    return all((node, table.name, leaf.token_range) in cluster.digested for node in leaf.replicas)


def _seeable(outcome: Outcome) -> set[RowKey]:
    """Return the rows that differ in what the run's own reading shows."""
    found: set[RowKey] = set()
    for plan in outcome.plans:
        table = plan.table
        depth = next(t.depth for t in outcome.report.tables if t.table == table.name)
        reading = Reading(table, Depth(depth), outcome.case.capabilities)
        found |= set(truth(outcome.cluster, table, reading, EPOCH_S + 3600))
    return found


def _findings(outcome: Outcome, tables: Mapping[str, Table]) -> list[str]:
    out = []
    rows = [row_of(finding, tables[finding.table]) for finding in outcome.findings]
    twice = [row for row, count in Counter(rows).items() if count > 1]
    if twice:
        out.append(f"more than one finding on {twice}")
    lossy = outcome.traffic.lossy if outcome.traffic else set()
    false = [row for row in rows if row not in outcome.damage.rows and row not in lossy]
    if false:
        out.append(f"a finding on rows whose replicas never differed but for writes in flight: {false}")
    if sum(outcome.report.findings_by_kind.values()) != len(rows):
        out.append(f"{len(rows)} findings were told, {outcome.report.findings_by_kind} counted")
    if rows and outcome.report.verdict is not Verdict.DIVERGENT:
        out.append(f"{len(rows)} findings and the verdict {outcome.report.verdict.value}")
    return out


def _exactness(outcome: Outcome, tables: Mapping[str, Table]) -> list[str]:
    if not outcome.plans:
        return []
    planned = {plan.table.name for plan in outcome.plans}
    expected = {row for row in _seeable(outcome) if row in outcome.planted and row[0] in planned}
    expected |= {row for row in outcome.future if row[0] in planned}
    found = {row_of(finding, tables[finding.table]) for finding in outcome.findings}
    out = []
    if found != expected:
        out.append(f"found too much: {found - expected}; not found: {expected - found}")
    whole = all(not t.coverage.skipped for t in outcome.report.tables)
    if outcome.traffic is None and not expected and whole and outcome.report.verdict is not Verdict.CONSISTENT:
        out.append(f"nothing differs and nothing went wrong, yet the verdict is {outcome.report.verdict.value}")
    return out
