"""The sides of a comparison: our commands, nodetool's, and the floor under both."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.bed import KEYSPACE, Bed, Shape, connected
from benchmarks.rounds import Sample, Side, command, timed
from consistency.cluster.selects import count_rows
from consistency.cluster.wire import NODE_LOCAL, Statement
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange

FLOOR_RANGES = 24
_FLOOR_AT_ONCE = 4


def check(bed: Bed, shape: Shape, *options: str, accept: tuple[int, ...] = (0,)) -> Side:
    """Return `consistency check` of one table, run as a command."""
    words = [sys.executable, "-m", "consistency", "check", shape.full_name, *options, *bed.target]
    return lambda: command(words, accept=accept)


def receiving(bed: Bed, shape: Shape, *options: str) -> Side:
    """Return `consistency check` of a clean table with what it received from the nodes."""

    def run() -> Sample:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "received.json"
            words = [sys.executable, "-m", "benchmarks.received", str(path), "check", shape.full_name]
            sample = command([*words, *options, *bed.target])
            received = json.loads(path.read_text(encoding="utf-8"))
        return replace(sample, facts={**sample.facts, "received_kB": received / 1000})

    return run


def with_servers(bed: Bed, side: Side) -> Side:
    """Add to a side's figures the processor time that the nodes spent meanwhile."""
    processes = [psutil.Process(node.pid) for node in bed.sandbox.nodes if node.pid is not None]

    def spent() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    def run() -> Sample:
        before = spent()
        sample = side()
        return replace(sample, facts={**sample.facts, "servers_cpu_s": spent() - before})

    return run


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """Start a command that runs beside others."""
    return subprocess.Popen(words)


def preview(bed: Bed, shape: Shape, *, clean: bool = True) -> Side:
    """Return `nodetool repair --preview --full` of one table."""

    def run() -> Sample:
        return nodetool(bed, "repair", "--preview", "--full", KEYSPACE, shape.name, says="in sync" if clean else "")

    return run


def repair(bed: Bed, shape: Shape) -> Sample:
    """Run `nodetool repair --full` on one table."""
    return nodetool(bed, "repair", "--full", KEYSPACE, shape.name, says="Repair completed successfully")


def nodetool(bed: Bed, *words: str, says: str = "") -> Sample:
    """Run nodetool on the first node, and require its message of success."""
    output = []
    sample = timed(lambda: output.append(bed.sandbox.nodetool(1, *words)))
    done = output[0]
    if done.returncode != 0 or says not in done.stdout:
        msg = f"nodetool {' '.join(words)} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
        raise RuntimeError(msg)
    return sample


def floor(bed: Bed, shape: Shape) -> Side:
    """Return `count(*)` of every replica by token range, each from its own storage: the cost of just reading rows."""

    async def run() -> None:
        async with connected(bed.settings) as (connection, reader):
            ring, schema = await reader.ring(), await reader.schema()
            table = schema[KEYSPACE].tables[shape.name]
            gates = {node: asyncio.Semaphore(_FLOOR_AT_ONCE) for node in ring.nodes}

            async def count(node: Node, piece: TokenRange) -> None:
                async with gates[node]:
                    await connection.execute(node, Statement(count_rows(table, piece), consistency=NODE_LOCAL))

            ranges = TokenRange.full_ring().split(FLOOR_RANGES)
            await asyncio.gather(*(count(node, piece) for piece in ranges for node in ring.nodes))

    return lambda: timed(lambda: asyncio.run(run()))
