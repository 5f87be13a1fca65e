"""A report and its findings as a page shows them, made up: an outage among damage of every kind."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timezone

from consistency.cli.show.page.collect import Collector
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange
from consistency.results.diagnosis import CauseCounter
from consistency.results.findings import Finding, ReplicaView, State, WriteTime, differing_replicas
from consistency.results.kinds import Kind
from consistency.results.report import Report, Severity, TableReport, Unread, Violation
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
