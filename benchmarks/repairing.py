"""Check, repair and verify divergent rows, compared with `nodetool repair --full` on the same damage.

    python -m benchmarks.repairing --hosts 127.0.40.1 --table bench.repaired --json figures.json

is our side, in its own process: it runs the library and reports how long each step took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from benchmarks import sides
from benchmarks.bed import Bed, Shape, connected, damage, empty
from benchmarks.rounds import Figures, Sample, command
from consistency.api import check
from consistency.checking.listing import DEFAULT_MAX_FINDINGS
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.results.verdict import Verdict
from repair import ApplyOptions, apply, plan

BY_ROW, BY_RANGE, NODETOOL = "check + repair + verify", "the same, rows counted by range", "nodetool repair --full"
_MANY = 10_000
"""From so many divergent rows on they are also counted and merged as ranges."""


def repair_rows(bed: Bed, shape: Shape, divergent: int, rounds: int) -> Figures:
    """Damage and repair in alternation, ours and nodetool's; the first round of each is not measured.

    Where many rows differ ours runs in two ways: with the defaults, and at full speed with all rows counted by range.
    """
    runs: dict[str, _Run] = {BY_ROW: _by_row, NODETOOL: _theirs}
    if divergent >= _MANY:
        runs[BY_RANGE] = _by_range
    return _alternate(bed, shape, runs, rounds, lambda: damage(bed, shape, divergent))


def repair_a_lost_replica(bed: Bed, shape: Shape, rounds: int) -> Figures:
    """The same where one node holds nothing: ours with all rows counted by range, and nodetool's."""
    runs: dict[str, _Run] = {NODETOOL: _theirs, BY_RANGE: _by_range}
    return _alternate(bed, shape, runs, rounds, lambda: empty(bed, shape, 2))


_Run = Callable[[Bed, Shape], Sample]


def _alternate(bed: Bed, shape: Shape, runs: Mapping[str, _Run], rounds: int, damaging: Callable[[], None]) -> Figures:
    bed.ensure(shape)
    figures: Figures = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            damaging()
            before = bytes_between_nodes(bed)
            sample = run(bed, shape)
            moved = bytes_between_nodes(bed) - before
            if i:
                figures[name].append(replace(sample, facts={**sample.facts, "bytes_between_nodes": moved}))
    return figures


def _by_row(bed: Bed, shape: Shape) -> Sample:
    return _ours(bed, shape)


def _by_range(bed: Bed, shape: Shape) -> Sample:
    return _ours(bed, shape, "--by-range")


def _ours(bed: Bed, shape: Shape, *words: str) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/figures.json"
        words = (*words, "--table", shape.full_name, "--json", path)
        sample = command([sys.executable, "-m", "benchmarks.repairing", *bed.target, *words])
        return replace(sample, facts=json.loads(Path(path).read_text(encoding="utf-8")))


def _theirs(bed: Bed, shape: Shape) -> Sample:
    before = _streamed(bed)
    sample = sides.repair(bed, shape)
    return replace(sample, facts={"streamed_bytes": _streamed(bed) - before})


def bytes_between_nodes(bed: Bed) -> int:
    """Return how many bytes all nodes have sent each other in messages so far (gossip too, streams not)."""
    return _sum(bed, "SELECT sent_bytes AS bytes FROM system_views.internode_outbound")


def _streamed(bed: Bed) -> int:
    return _sum(bed, "SELECT bytes_sent AS bytes FROM system_views.streaming")


def _sum(bed: Bed, cql: str) -> int:
    async def run() -> int:
        async with connected(bed.settings) as (connection, reader):
            nodes = (await reader.ring()).nodes
            rows = [row for node in nodes for row in await connection.select(node, cql)]
            return sum(row["bytes"] or 0 for row in rows)

    return asyncio.run(run())


def main() -> None:
    """Check, plan, apply, and write the seconds of each step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repairing", description=__doc__)
    parser.add_argument("--hosts", required=True, help="addresses, separated by commas")
    parser.add_argument("--port", default="9042", help="the native port")
    parser.add_argument("--table", required=True, help="keyspace.table")
    parser.add_argument("--json", required=True, help="write the figures here")
    parser.add_argument("--by-range", action="store_true", help="list no row, and repair at full speed")
    options = parser.parse_args()
    scan = ScanOptions(max_findings=0 if options.by_range else DEFAULT_MAX_FINDINGS)
    pace = ApplyOptions(rate=None) if options.by_range else ApplyOptions()
    hosts = ",".join(f"{host}:{options.port}" for host in options.hosts.split(","))
    with tempfile.TemporaryDirectory() as directory:
        findings, journal = Path(directory) / "findings.jsonl", Path(directory) / "journal.jsonl"
        marks = [time.perf_counter()]
        report = check(options.table, hosts=hosts, options=CheckOptions(findings=findings, scan=scan))
        marks.append(time.perf_counter())
        made = plan(findings, hosts=hosts)
        marks.append(time.perf_counter())
        outcome = apply(made, journal, hosts=hosts, options=pace)
        marks.append(time.perf_counter())
        journal_bytes = journal.stat().st_size
    if report.verdict is not Verdict.DIVERGENT or outcome.reasons:
        msg = f"{report.verdict.value}; not verified: {dict(outcome.reasons)}"
        raise RuntimeError(msg)
    check_s, plan_s, apply_s = (b - a for a, b in pairwise(marks))
    figures = {
        "check_s": check_s,
        "plan_s": plan_s,
        "apply_s": apply_s,
        "rows": outcome.done,
        "journal_bytes": journal_bytes,
    }
    Path(options.json).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
