"""Time a check against the floor and against nodetool's preview, alternating, on one real cluster.

    python -m benchmarks --rows 200000 --rounds 5 --json figures.json

The floor is `count(*)` of every replica by token range, in the servers. Each side runs as a user runs it: the
check and nodetool as commands, start-up included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from consistency.driver import ALL, Connection
from consistency.errors import ReplicaError
from consistency.ring import Node, Ring
from consistency.session import open_cluster
from consistency.settings import ConnectionSettings
from consistency.tokens import TokenRange
from consistency.wire import Statement
from sandbox import Sandbox, SandboxOptions

_PER_BATCH = 100
_RANGES = 24


def main() -> None:
    """Run the benchmark and print its table."""
    options = _arguments()
    with tempfile.TemporaryDirectory(prefix="consistency-bench-") as directory:
        chosen = SandboxOptions(dir=Path(directory) / "sandbox", address_base=options.address_base)
        with Sandbox(chosen) as sandbox:
            settings = ConnectionSettings(tuple((n.address, n.port) for n in sandbox.nodes))
            asyncio.run(_load(settings, options.rows))
            for node in sandbox.nodes:
                sandbox.nodetool(node.n, "flush")
            sides = _sides(sandbox, settings)
            figures = _measure(sides, options.rounds)
    _print(figures, options.rows)
    if options.json:
        Path(options.json).write_text(
            json.dumps({"rows": options.rows, "seconds": figures}, indent=1), encoding="utf-8"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of about 100 bytes, on each of 3 replicas")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs, by turns")
    parser.add_argument("--address-base", default="127.0.40.1", help="address of the first node")
    parser.add_argument("--json", help="write the raw figures here")
    return parser.parse_args()


def _sides(sandbox: Sandbox, settings: ConnectionSettings) -> dict[str, Callable[[], None]]:
    hosts = ["--hosts", ",".join(sandbox.hosts), "--port", str(sandbox.nodes[0].port)]

    def check(depth: str) -> Callable[[], None]:
        command = [sys.executable, "-m", "consistency", "check", "bench", "--depth", depth, "--full-speed", *hosts]
        return lambda: _run(command)

    return {
        "floor: count(*) of every replica": lambda: asyncio.run(_floor(settings)),
        "check, depth content": check("content"),
        "check, depth versions": check("versions"),
        "nodetool repair --preview --full": lambda: _preview(sandbox),
    }


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"{' '.join(command[2:5])} ended with {done.returncode}: {done.stdout}{done.stderr}"
        raise RuntimeError(msg)


def _preview(sandbox: Sandbox) -> None:
    done = sandbox.nodetool(1, "repair", "--preview", "--full", "bench")
    if done.returncode != 0 or "in sync" not in done.stdout:
        msg = f"nodetool preview ended with {done.returncode}: {done.stdout[-500:]}"
        raise RuntimeError(msg)


async def _floor(settings: ConnectionSettings) -> None:
    async with open_cluster(settings) as (reader, _):
        ring, schema = await reader.ring(), await reader.schema()
        table = schema["bench"].tables["t"]
        gates = {node: asyncio.Semaphore(4) for node in ring.nodes}

        async def count(node: Any, piece: TokenRange) -> int:
            async with gates[node]:
                return await reader.count(node, table, piece)

        ranges = TokenRange.full_ring().split(_RANGES)
        await asyncio.gather(*(count(node, piece) for piece in ranges for node in ring.nodes))


async def _load(settings: ConnectionSettings, rows: int) -> None:
    async with open_cluster(settings) as (reader, _):
        ring = await reader.ring()
        connection = await Connection.open(settings)
        try:
            await _write(connection, ring, rows)
        finally:
            await connection.close()


async def _write(connection: Connection, ring: Ring, rows: int) -> None:
    await connection.execute(
        ring.nodes[0],
        Statement("CREATE KEYSPACE bench WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}"),
    )
    await connection.execute(
        ring.nodes[0], Statement("CREATE TABLE bench.t (p int, c int, a text, b bigint, d text, PRIMARY KEY (p, c))")
    )
    await asyncio.sleep(2.0)  # the schema reaches the other nodes by gossip
    pending = iter(enumerate(_batches(rows)))

    async def writer() -> None:
        for i, text in pending:
            await _insert(connection, ring.nodes[i % len(ring.nodes)], Statement(text, consistency=ALL))

    await asyncio.gather(*(writer() for _ in range(8)))


@retry(retry=retry_if_exception_type(ReplicaError), stop=stop_after_attempt(8), wait=wait_random_exponential(max=5.0))
async def _insert(connection: Connection, node: Node, statement: Statement) -> None:
    await connection.execute(node, statement)


def _batches(rows: int) -> Iterator[str]:
    for p in range(rows // _PER_BATCH):
        inserts = (
            f"INSERT INTO bench.t (p, c, a, b, d) VALUES ({p}, {c}, 'name-{p * _PER_BATCH + c:030d}', {c * 7},"
            f" 'value-{p * _PER_BATCH + c:030d}')"
            for c in range(_PER_BATCH)
        )
        yield f"BEGIN UNLOGGED BATCH {'; '.join(inserts)}; APPLY BATCH"


def _measure(sides: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    for run in sides.values():
        run()  # a cold JVM takes two to three times as long
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            figures[name].append(time.perf_counter() - started)
    return figures


def _print(figures: dict[str, list[float]], rows: int) -> None:
    medians = {name: statistics.median(seconds) for name, seconds in figures.items()}
    floor, peer = (medians[name] for name in (next(iter(medians)), list(medians)[-1]))
    print(f"{rows:,} rows on 3 replicas, {len(next(iter(figures.values())))} rounds by turns, seconds of wall time")
    print(f"{'work':<36}{'median':>8}{'min':>8}{'max':>8}{'x floor':>9}{'x nodetool':>12}")
    for name, seconds in figures.items():
        median = medians[name]
        low, high = min(seconds), max(seconds)
        print(f"{name:<36}{median:>8.2f}{low:>8.2f}{high:>8.2f}{median / floor:>9.2f}{median / peer:>12.2f}")


if __name__ == "__main__":
    main()
