"""The measurements, one function each: which sides run, on which table, and which ratios are taken."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import pairs as two_clusters
from benchmarks import sides
from benchmarks.bed import Bed, Shape, alter, connected, damage, empty
from benchmarks.repairing import BY_RANGE, BY_ROW, NODETOOL, repair_a_lost_replica, repair_rows
from benchmarks.rounds import Figures, Sample, Side, alternate, command
from benchmarks.traffic import DDL
from consistency.checking.plan import cut
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Table
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN


@dataclass(frozen=True, slots=True)
class Target:
    """Ours over theirs in wall time, and its limit."""

    ours: str
    theirs: str
    at_most: float


@dataclass(frozen=True)
class Row:
    """One measurement: what was measured, on how many rows, the figures of each side, and the targets."""

    suite: str
    title: str
    rows: int
    figures: Figures
    targets: tuple[Target, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes, and the number of rounds."""

    rows: int = 1_000_000
    large_rows: int = 200_000
    growth: tuple[int, ...] = (250_000, 1_000_000, 4_000_000)
    divergent: tuple[int, ...] = (1, 1_000, 10_000, 100_000)
    findings: int = 100_000
    rounds: int = 5
    seconds: float = 30.0


FLOOR, PREVIEW = "floor: count(*) of every replica", "nodetool repair --preview --full"
CONTENT, VERSIONS = "check, depth content", "check, depth versions"
IN_SERVERS, ON_CLIENT = "check, content in the servers", "check, content on the client"
COUNTED = "check --max-findings 0"
_REPAIR_LIMITS = ((1, 1.3), (1_000, 1.5), (10_000, 2.0), (1_000_000, 3.0))
"""Up to so many divergent rows of a million, a repair may take so many times as long as nodetool's."""


def speed(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """A clean table of small rows, and one of large rows, at both depths."""
    for shape, targets in (
        (
            Shape("small", sizes.rows),
            (Target(CONTENT, PREVIEW, 1.0), Target(CONTENT, FLOOR, 1.9)),
        ),
        (Shape("large", sizes.large_rows, row_bytes=2_000, per_partition=10), (Target(VERSIONS, PREVIEW, 0.7),)),
    ):
        bed.ensure(shape)
        runs = {
            FLOOR: sides.floor(bed, shape),
            CONTENT: sides.check(bed, shape, "--depth", "content"),
            VERSIONS: sides.check(bed, shape, "--depth", "versions"),
            PREVIEW: sides.preview(bed, shape),
        }
        figures = alternate({name: sides.with_servers(bed, run) for name, run in runs.items()}, sizes.rounds)
        yield Row("speed", f"{shape.rows:,} rows of {shape.row_bytes:,} bytes", shape.rows, figures, targets)


def older(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """Clean tables on a cluster before 5.0, whose servers hash rows of int keys and of text keys in two forms."""
    release = bed.sandbox.options.version.release
    for key in ("int", "text"):
        shape = Shape(f"older_{key}_{sizes.rows}", sizes.rows, key=key)
        bed.ensure(shape)
        runs = {
            IN_SERVERS: sides.receiving(bed, shape, "--depth", "content", "--route", "server"),
            ON_CLIENT: sides.receiving(bed, shape, "--depth", "content", "--route", "client"),
            PREVIEW: sides.preview(bed, shape),
        }
        figures = alternate({name: sides.with_servers(bed, run) for name, run in runs.items()}, sizes.rounds)
        targets = (Target(IN_SERVERS, ON_CLIENT, 0.7), Target(IN_SERVERS, PREVIEW, 1.5))
        title = f"{shape.rows:,} rows of {shape.row_bytes} bytes, {key} keys, Cassandra {release}"
        yield Row("older", title, shape.rows, figures, targets)


def growth(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """The same table at several sizes: how wall time, processor time and memory grow."""
    for rows in sizes.growth:
        shape = Shape("small" if rows == sizes.rows else f"small_{rows}", rows)
        bed.ensure(shape)
        figures = alternate({CONTENT: sides.check(bed, shape), PREVIEW: sides.preview(bed, shape)}, sizes.rounds)
        yield Row("growth", f"{rows:,} rows", rows, figures)


def columns(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """More columns to a row."""
    rows = sizes.rows // 4
    for more in (0, 5, 15):
        shape = Shape(f"wide_{more}_{rows}", rows, more_columns=more)
        bed.ensure(shape)
        figures = alternate({CONTENT: sides.check(bed, shape), PREVIEW: sides.preview(bed, shape)}, sizes.rounds)
        yield Row("columns", f"{rows:,} rows of {len(shape.columns)} columns", rows, figures)


def vnodes(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """The same table on a cluster with many tokens a node."""
    rows = sizes.rows // 4
    shape = Shape(f"wide_0_{rows}", rows)
    bed.ensure(shape)
    figures = alternate({CONTENT: sides.check(bed, shape), PREVIEW: sides.preview(bed, shape)}, sizes.rounds)
    yield Row("vnodes", f"{rows:,} rows, {bed.num_tokens} tokens a node", rows, figures)


def divergence(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """A growing number of differing rows: how wall time and memory grow."""
    shape = Shape("damaged", sizes.rows)
    bed.ensure(shape)
    for divergent in sorted({0, *sizes.divergent, sizes.findings}):
        sides.repair(bed, shape)  # all replicas equal again
        bed.settle()
        damage(bed, shape, divergent)
        accept = (1,) if divergent else (0,)
        with tempfile.TemporaryDirectory() as directory:
            findings, report = f"{directory}/findings.jsonl", f"{directory}/report.json"
            files = ("--findings", findings, "--json", report)
            runs = {
                CONTENT: sides.check(bed, shape, *files, accept=accept),
                COUNTED: sides.check(bed, shape, *files, "--max-findings", "0", accept=accept),
                PREVIEW: sides.preview(bed, shape, clean=False),
            }
            figures = alternate(runs, sizes.rounds)
            tables = json.loads(Path(report).read_text(encoding="utf-8"))["tables"]
            found = sum(table["divergent_rows"] for table in tables)
        title = f"{divergent:,} divergent rows of {sizes.rows:,}"
        yield Row("divergence", title, sizes.rows, figures, facts={"found": found})


def repair(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """Check, repair and verify against nodetool's repair, with the bytes that moved."""
    shape = Shape("damaged", sizes.rows)
    bed.ensure(shape)
    sides.repair(bed, shape)
    for divergent in sizes.divergent:
        limit = next(ratio for rows, ratio in _REPAIR_LIMITS if divergent <= rows)
        figures = repair_rows(bed, shape, divergent, sizes.rounds)
        title = f"{divergent:,} divergent rows of {sizes.rows:,}"
        ours = [name for name in (BY_ROW, BY_RANGE) if name in figures]
        yield Row("repair", title, sizes.rows, figures, tuple(Target(name, NODETOOL, limit) for name in ours))


def lost(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """One replica holds nothing: what finding that costs beside a clean check, and mending it beside nodetool."""
    shape, clean = Shape("damaged", sizes.rows), Shape("small", sizes.rows)
    bed.ensure(shape, clean)
    empty(bed, shape, 2)
    runs = {
        COUNTED: sides.check(bed, shape, "--max-findings", "0", accept=(1,)),
        CONTENT: sides.check(bed, clean),
    }
    title = f"one replica lacks all of {sizes.rows:,} rows"
    yield Row("lost", title, sizes.rows, alternate(runs, sizes.rounds), (Target(COUNTED, CONTENT, 4.0),))
    sides.repair(bed, shape)
    figures = repair_a_lost_replica(bed, shape, sizes.rounds)
    yield Row("lost", title, sizes.rows, figures, (Target(BY_RANGE, NODETOOL, 2.0),))


def pairs(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """Two clusters: a clean comparison beside one check, and the memory of many rows that one side lacks."""
    for found in two_clusters.measure(bed, sizes.rows, sizes.rounds):
        targets = (Target(two_clusters.COMPARED, two_clusters.CHECKED, two_clusters.AT_MOST),) if found.clean else ()
        yield Row("pairs", found.title, found.rows, found.figures, targets)


def foreground(bed: Bed, sizes: Sizes) -> Iterator[Row]:
    """The latency of a steady load of reads and writes: alone, beside checks, beside nodetool's preview."""
    shape = Shape("small", sizes.rows)
    bed.ensure(shape)

    async def table() -> None:
        async with connected(bed.settings) as (connection, reader):
            await alter(connection, (await reader.ring()).nodes, DDL)

    asyncio.run(table())
    beside: dict[str, Side | None] = {
        "alone": None,
        "beside a check": sides.check(bed, shape),
        "beside a check at full speed": sides.check(bed, shape, "--full-speed"),
        "beside nodetool's preview": sides.preview(bed, shape),
    }
    runs: dict[str, Side] = {name: _felt(bed, sizes.seconds, side) for name, side in beside.items()}
    figures = alternate(runs, sizes.rounds)
    yield Row("foreground", f"150 requests a second at QUORUM, {sizes.rows:,} rows checked", sizes.rows, figures)


def _felt(bed: Bed, seconds: float, side: Side | None) -> Side:
    """Return the load beside a side that runs repeatedly as long as the load lasts."""

    def run() -> Sample:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "figures.json"
            words = [sys.executable, "-m", "benchmarks.traffic", *bed.target, "--seconds", str(seconds)]
            running = sides.start([*words, "--json", str(path)])
            time.sleep(3.0)  # until the load is steady
            checked: list[float] = []
            while side is not None and running.poll() is None:
                checked.append(side().wall_s)
            if running.wait() != 0:
                raise RuntimeError("the load generator failed")
            facts = json.loads(path.read_text(encoding="utf-8"))
        return Sample(seconds, facts={**facts, "beside_s": sum(checked) / len(checked) if checked else 0.0})

    return run


def planning(_: Bed, sizes: Sizes) -> Iterator[Row]:
    """Planning on a synthetic ring of 1,000 nodes x 16 tokens in 3 DCs, RF 3 each; it needs no cluster."""
    words = [sys.executable, "-m", "benchmarks.suites"]
    figures = alternate({"planning": lambda: command(words)}, sizes.rounds)
    yield Row("planning", "1,000 nodes x 16 tokens x 3 DCs, RF 3 each, start-up included", 0, figures)


def plan_a_thousand_nodes() -> int:
    """Place the replicas and cut a table of a billion rows into leaves; return how many."""
    rng = random.Random(7)
    nodes = tuple(
        Node(
            f"host-{i}",
            f"10.{i % 3}.{i // 256}.{i % 256}",
            9042,
            f"dc{i % 3}",
            f"r{i // 3 % 3}",
            tuple(rng.randrange(MIN_TOKEN + 1, MAX_TOKEN) for _ in range(16)),
            "5.0.8",
        )
        for i in range(1_000)
    )
    factors = tuple((f"dc{i}", 3) for i in range(3))
    arcs = Ring("synthetic", MURMUR3, nodes).arcs(Replication("NetworkTopologyStrategy", factors))
    return len(cut(Table("ks", "t", "id", ()), arcs, 1_000_000_000).leaves)


SUITES: Mapping[str, Callable[[Bed, Sizes], Iterator[Row]]] = {
    "planning": planning,
    "speed": speed,
    "older": older,
    "growth": growth,
    "columns": columns,
    "vnodes": vnodes,
    "divergence": divergence,
    "repair": repair,
    "lost": lost,
    "foreground": foreground,
    "pairs": pairs,
}

if __name__ == "__main__":
    print(plan_a_thousand_nodes())
