"""Results as pages show them, made up: of a check an outage among damage of every kind, and of two clusters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone

from consistency.cli.show.page.collect import Collector
from consistency.cli.show.page.token_line import PairCollector
from consistency.model.sides import Side
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange
from consistency.results.comparison import ComparedCluster, ComparedTable, Comparison, SchemaDifference
from consistency.results.diagnosis import CauseCounter
from consistency.results.findings import Finding, ReplicaView, State, WriteTime, differing_replicas
from consistency.results.kinds import Kind
from consistency.results.pair_findings import InnerFinding, PairFinding, PairKind, PairRange, SideView
from consistency.results.report import Report, Severity, TableReport, Unread, Violation, not_scanned
from consistency.results.verdict import Coverage

NODES = tuple(f"10.0.0.{i}:9042" for i in range(1, 7))
PLACES = {name: "dc1" if i < 3 else "dc2" for i, name in enumerate(NODES)}
HOSTILE = "</script><script>alert(1)</script>\u2028\u202e<img src=x onerror=alert(1)>\x1b[2J\"'&שלום"
CANARY = "canary-key-4711"
CANARY_HEX = CANARY.encode().hex()
NIGHT_US = int(datetime(2026, 7, 14, 2, 10, tzinfo=timezone.utc).timestamp()) * 1_000_000
_CELLS = 64


def made_up(count: int, *, seed: int = 1, hostile: bool = False) -> tuple[Report, Collector]:
    """Return a divergent report with `count` findings; hostile text stands wherever text comes from a cluster."""
    rng = random.Random(seed)
    collector, causes = Collector(), CauseCounter()
    names = (HOSTILE, "orders by day") if hostile else ("orders", "customers")
    behind: dict[str, set[int]] = {}
    for i in range(count):
        found = _finding(rng, i, names)
        collector.found(found)
        causes.add(found)
        for name in differing_replicas(found):
            behind.setdefault(name, set()).add(_cell(found.token))
    tables = (
        *(_table(n, behind, rng) for n in names),
        _clean("invoices", 48_210_334),
        _clean("sessions", 1_204),
        replace(
            _clean("events", 9_120_000),
            coverage=Coverage(planned=510, completed=468, failed=42),
            strip="=" * 40 + "?" * 6 + "=" * 18,
            tracks={n: "=" * 40 + ("?" if n == NODES[4] else "=") * 6 + "=" * 18 for n in NODES},
            unread=(Unread(NODES[4], (TokenRange(0, RING_SIZE // 11),), "timed out after 12 s, tried 4 times"),),
        ),
    )
    report = Report(
        run_id="6f1d6a52-3b6e-4f0f-9e6e-0c5a3c1c9d11",
        cluster=HOSTILE if hostile else "prod-eu",
        started_at="2026-07-15T04:00:12+00:00",
        seconds=754.2,
        tables=tables,
        violations=_violations(),
        findings_by_kind=_kinds(collector),
        replicas=NODES,
        findings_path="findings.jsonl",
        likely_causes=causes.causes(),
        places=PLACES,
        not_checked={"shop.orders_by_day": "materialized view of orders: check its table"},
    )
    return report, collector


def _kinds(collector: Collector) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in collector.rows:
        counts[row.finding.kind.value] = counts.get(row.finding.kind.value, 0) + 1
    return dict(sorted(counts.items()))


def _finding(rng: random.Random, number: int, names: tuple[str, ...]) -> Finding:
    kind = rng.choices(list(Kind), [60, 18, 3, 2, 4, 1, 3])[0]
    token = rng.randrange(MIN_TOKEN + 1, MAX_TOKEN)
    start = rng.randrange(4) > 0
    replicas = [NODES[2], *rng.sample([n for n in NODES if n != NODES[2]], 2)] if start else rng.sample(NODES, 3)
    outage = kind in (Kind.MISSING, Kind.STALE) and start and rng.random() < 0.97
    time_us = NIGHT_US + rng.randrange(900_000_000) if outage else NIGHT_US - rng.randrange(40 * 86_400_000_000)
    if kind is Kind.FUTURE_WRITE_TIME:
        time_us = NIGHT_US * 1000
    bad = replicas[0] if outage else rng.choice(replicas)
    views = {name: _view(kind, name == bad, time_us, rng) for name in sorted(replicas)}
    if kind is Kind.NON_OWNER:
        views = {bad: views[bad]}
    columns = () if kind is Kind.NON_OWNER else ("state", "total") if kind is not Kind.STALE else ("state",)
    key = {"customer": rng.randrange(10**6), "day": "2026-07-14", "id": f"{CANARY}-{number}"}
    return Finding(kind, "shop", rng.choice(names), token, key, {"id": CANARY_HEX}, views, columns, (kind,))


def _view(kind: Kind, bad: bool, time_us: int, rng: random.Random) -> ReplicaView:
    times: dict[str, WriteTime] = {
        "state": time_us,
        "total": time_us,
        "tags": [time_us - 5, None, time_us],
        "note": time_us - 900_000_000,
    }
    if not bad:
        return ReplicaView(State.MISSING if kind is Kind.ZOMBIE_SUSPECT else State.CURRENT, times)
    if kind is Kind.MISSING:
        return ReplicaView(State.MISSING)
    if kind is Kind.STALE:
        return ReplicaView(State.STALE, {**times, "state": time_us - rng.randrange(1, 10**10)})
    return ReplicaView(State.STALE if kind is Kind.TIE else State.CURRENT, times)


def _cell(token: int) -> int:
    return min(_CELLS - 1, (token - MIN_TOKEN) * _CELLS // (RING_SIZE + 1))


def _clean(name: str, rows: int) -> TableReport:
    return TableReport(
        keyspace="shop",
        table=name,
        depth="content",
        route="server",
        locality="node-local",
        rows=rows,
        divergent_rows=0,
        unsettled_rows=0,
        seconds=41.7,
        coverage=Coverage(planned=510, completed=510),
        strip="=" * _CELLS,
        blind=("deletes that left no live row on any replica (CQL does not show tombstones)",),
        tracks=dict.fromkeys(NODES, "=" * _CELLS),
    )


def _table(name: str, behind: dict[str, set[int]], rng: random.Random) -> TableReport:
    some = {n: {c for c in cells if n == NODES[2] or rng.random() < 0.2} for n, cells in behind.items()}
    every = {cell for cells in some.values() for cell in cells}
    return replace(
        _clean(name, 21_904_118),
        divergent_rows=5_000,
        strip="".join("x" if i in every else "=" for i in range(_CELLS)),
        tracks={n: "".join("x" if i in some.get(n, ()) else "=" for i in range(_CELLS)) for n in NODES},
    )


def _violations() -> tuple[Violation, ...]:
    return (
        Violation(
            "rf_below_minimum",
            "billing",
            "dc2 keeps 2 replicas of each row, the minimum is 3",
            "ALTER KEYSPACE billing WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 3}",
        ),
        Violation("rack_skew", "shop", "racks of dc1 own 40%, 35% and 25%", "even out the tokens", Severity.WARNING),
    )


# A comparison.


def made_up_pair(count: int, *, hostile: bool = False) -> tuple[Comparison, PairCollector]:
    """Return a divergent comparison with `count` listed rows of a table, and as many that are counted by range."""
    rng, collector = random.Random(2), PairCollector()
    cluster, name = (HOSTILE, HOSTILE) if hostile else ("prod-eu", "orders")
    found = [_pair_finding(rng, number, name, hostile=hostile) for number in range(count)]
    inner = [InnerFinding(Side.SOURCE, _finding(rng, number, (name,))) for number in range(3)]
    fifth = TokenRange(MIN_TOKEN, MIN_TOKEN + RING_SIZE // 5)
    ranges = [PairRange("shop", "events", ("shop", "events"), fifth, {PairKind.ONLY_SOURCE: count}, {})]
    for each in (*found, *inner, *ranges):
        collector.take(each)
    cells = "x" * 13 + "=" * (_CELLS - 13)
    tables = (
        _compared(_strewn(name), Counter(each.kind.value for each in found), len(inner), f"shop2.{name}"),
        replace(
            _compared(replace(_sided(_clean("events", 9_120_000)), strip=cells, divergent_rows=count)),
            kinds={"only_source": count},
            counted=count,
        ),
        _compared(replace(_sided(_clean("sessions", 4_031)), unread=(_unread(),), coverage=Coverage(510, 508, 0, 2))),
        _compared(not_scanned("shop", "carts", "the target has no such table"), target=""),
        _compared(_sided(_clean("invoices", 48_210_334))),
    )
    clusters = {side: _cluster(f"{cluster} {side}", HOSTILE if hostile else "dc1") for side in Side}
    return (
        Comparison(
            run_id="6f1d6a52-3b6e-4f0f-9e6e-0c5a3c1c9d11",
            started_at="2026-07-15T04:00:12+00:00",
            seconds=812.4,
            compare="writetimes",
            tolerated_s=0,
            read="replicas",
            clusters=clusters,
            tables=tables,
            top=(*found[:17], *inner),
            not_checked={"shop.orders_by_day": "materialized view of orders: compare its table"},
            findings_path="differing.jsonl",
            notes=("target: the clocks of 10.1.0.1:9042 and 10.1.0.2:9042 are 2.1 s apart",),
        ),
        collector,
    )


def _pair_finding(rng: random.Random, number: int, name: str, *, hostile: bool) -> PairFinding:
    kind = rng.choices(list(PairKind), [50, 10, 20, 15, 5])[0]
    us = NIGHT_US - rng.randrange(10**10)
    held = SideView(merged=True, writetimes={"state": us}, expires={})
    source = SideView(merged=False) if kind is PairKind.ONLY_TARGET else held
    target = SideView(merged=False) if kind is PairKind.ONLY_SOURCE else replace(held, writetimes={"state": us + 7})
    key = {"id": f"{CANARY}-{number}"}
    column = HOSTILE if hostile else "state"
    columns = () if kind in (PairKind.ONLY_SOURCE, PairKind.ONLY_TARGET) else (column,)
    token = rng.randrange(MIN_TOKEN + 1, MAX_TOKEN)
    sides = {Side.SOURCE: source, Side.TARGET: target}
    return PairFinding(kind, "shop", name, ("shop2", name), token, key, {"id": CANARY_HEX}, sides, columns, (kind,))


def _sided(report: TableReport) -> TableReport:
    """Return a table as it was read on the nodes of both sides."""
    return replace(report, tracks={f"{side} {node}": "=" * _CELLS for side in Side for node in NODES[:3]})


def _strewn(name: str) -> TableReport:
    """Return a table whose rows differ all around the ring, on one replica of the source too."""
    report = _sided(_clean(name, 21_904_118))
    behind = "=" * 20 + "x" * 3 + "=" * (_CELLS - 23)
    tracks = {**report.tracks, f"source {NODES[1]}": behind}
    return replace(report, strip="x=" * (_CELLS // 2), tracks=tracks, divergent_rows=4_711)


def _unread() -> Unread:
    return Unread(f"target {NODES[2]}", (TokenRange(0, RING_SIZE // 11),), "timed out after 12 s, tried 4 times")


def _compared(
    report: TableReport, kinds: Mapping[str, int] | None = None, inner: int = 0, target: str | None = None
) -> ComparedTable:
    schema = (SchemaDifference("gc_grace_seconds", "864000", "3600"),) if report.depth else ()
    counterpart = report.full_name if target is None else target
    by_side = {Side.SOURCE: {"stale": inner} if inner else {}, Side.TARGET: {}}
    return ComparedTable(report, counterpart, "writetimes", dict(kinds or {}), by_side, 0, schema)


def _cluster(name: str, dc: str) -> ComparedCluster:
    read = NODES[:3]
    return ComparedCluster(name, "0" * 16, dict.fromkeys(read, dc), dict.fromkeys(read, "5.0.9"))
