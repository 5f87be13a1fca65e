"""What a driver of workers costs, and what workers gain, without a cluster.

`python -m benchmarks.spreading` prints both. Planning: rings of up to 1,000 nodes, in data centres of 100, up to 500
tables of 200 leaves, 100 workers that answer at once. Seconds and memory are the driver's own; what it costs to make
the answers of workers is not counted.

Client: the client route where the client is the limit. Servers are simulated: a digest hashes pages that lie in memory,
as the client does with those that arrive. So what is measured is the client's own work, spread over processes. What a
command loads before is counted on neither side: whole commands are what benchmarks/spread_checks.py measures.
"""
# ruff: noqa: D102, ARG002, SLF001 - stand-ins for a cluster, as those of the tests

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import xxhash

from consistency.checking.run import run_check
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cluster.clock import SystemClock
from consistency.ledger.port import RangeRead
from consistency.ledger.table_account import TableRead, read_json, table_json
from consistency.model.reading import Depth, Route
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Keyspace
from consistency.model.tokens import MIN_TOKEN, RING_SIZE
from consistency.model.tree import Digest
from consistency.results.report import TableReport
from consistency.results.tree_report import TreeReport
from consistency.results.verdict import Coverage
from consistency.spreading.checked import run_spread
from consistency.spreading.local import LocalWorkers
from consistency.spreading.messages import Order, Terms, Unit, UnitRead
from consistency.spreading.nursery import Nursery
from consistency.spreading.planning import CutTable
from tests.unit.fake_cluster import FakeCluster, port, table

PER_DC, PER_NODE, LEAVES = 100, 2, 200
SIZES = ((100, 50), (200, 100), (500, 250), (1_000, 500))
"""Nodes and tables."""
ROW_BYTES = 100
ROWS = 80_000_000
PAGE = bytes(5_000 * ROW_BYTES)


class Wide(FakeCluster):
    """A cluster of many nodes in data centres, each with a keyspace of its own; its tables have LEAVES leaves."""

    def __init__(self, nodes: int, tables: int) -> None:
        super().__init__(node_count=3)
        step, dcs = RING_SIZE // (nodes * PER_NODE), nodes // PER_DC
        made = tuple(
            Node(
                f"host-{i:04}", f"10.{i // 250}.{i % 250}.1", 9042, f"dc{i % dcs}", f"r{i % 3}",
                tuple(MIN_TOKEN + step * (i + nodes * j) + 1 for j in range(PER_NODE)), "5.0.8",
            )
            for i in range(nodes)
        )  # fmt: skip
        self.rings(Ring("wide", MURMUR3, made))
        self._keyspaces = {}
        for dc in range(dcs):
            name = f"ks{dc}"
            names = [f"t{i}" for i in range(tables // dcs)]
            how = Replication("NetworkTopologyStrategy", ((f"dc{dc}", 3),))
            self._keyspaces[name] = Keyspace(name, how, {n: table(name, n) for n in names})

    async def schema(self) -> dict[str, Keyspace]:
        return dict(self._keyspaces)

    async def count(self, node: Any, table: Any, token_range: Any) -> int:
        # As many rows as make LEAVES leaves of a table, wherever it is looked.
        return max(1, round(LEAVES * 10 * token_range.share))


class Answering:
    """100 workers that answer at once; `spent` seconds of this process were theirs."""

    size, at_once = 100, 200

    def __init__(self, cluster: Wide, options: CheckOptions) -> None:
        self._cluster = cluster
        self._options = options
        self.spent = 0.0
        self.bytes = self.messages = self.leaves = 0

    async def start(self, order: str, told: Any) -> None:
        began = time.process_time()
        from consistency.checking.preparing import prepare  # noqa: PLC0415

        self.bytes += len(order) * self.size
        assert Order.from_text(order).readers == self.size
        prepared = await prepare(port(self._cluster), SystemClock(), self._options)
        self._tasks = {task.reading.table.full_name: task for task in prepared.tasks}
        self._cut: dict[str, CutTable] = {}
        self.spent += time.process_time() - began

    async def read(self, unit: str) -> str:
        await asyncio.sleep(0)
        began = time.process_time()
        told = Unit.from_text(unit)
        if told.table not in self._cut:
            self._cut.clear()
            self._cut[told.table] = CutTable(self._tasks[told.table], told.rows, self._options.scan.leaf_rows)
        cut = self._cut[told.table]
        arcs = cut.leaves_of(told)
        leaves = [leaf for arc in arcs for leaf in arc]
        self.leaves += len(leaves)
        now = time.time_ns() // 1000
        reads = [RangeRead(leaf.token_range, leaf.replicas, now, complete=True, clean=True) for leaf in leaves]
        digest = os.urandom(16)
        trees = tuple(
            TreeReport(arc[0].replicas, "content/client", tuple((leaf.token_range, (digest,) * 3) for leaf in arc), 0)
            for arc in arcs
        )
        digests = 3 * len(leaves)
        task = cut.task
        report = TableReport(
            task.reading.table.keyspace, task.reading.table.name, "content", "client", "node-local", 10 * len(leaves),
            0, 0, 0.1, Coverage(digests, digests), strip=" " * 64,
            ranges=len(leaves), ranges_read=len(leaves), trees=trees,
            tracks={n.name: "=" * 64 for arc in arcs for n in arc[0].replicas},
        )  # fmt: skip
        read = read_json(TableRead(task.reading.table, Depth.CONTENT, tuple(reads), non_owners=False))
        came = UnitRead(told.number, table_json(report), (read,), (), (), (), (0, 0), interrupted=False).as_text()
        self.messages += 2
        self.bytes += len(unit) + len(came)
        self.spent += time.process_time() - began
        return came

    async def stop(self) -> None:
        """Nothing is under way."""

    async def close(self) -> None:
        """Nothing is held."""


def plan(nodes: int, tables: int) -> dict[str, float]:
    """Drive one size; return its figures."""
    cluster = Wide(nodes, tables)
    options = CheckOptions(settle_window_s=0.0, route=Route.CLIENT, scan=ScanOptions(leaf_rows=10, max_findings=10_000))
    workers = Answering(cluster, options)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    report = asyncio.run(run_spread(port(cluster), SystemClock(), options, workers, Terms()))
    seconds = time.process_time() - began - workers.spent
    assert report.coverage.complete, report.coverage
    return {
        "nodes": nodes,
        "tables": tables,
        "leaves": workers.leaves,
        "driver_seconds": round(seconds, 2),
        "memory_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "messages": workers.messages,
        "message_mb": round(workers.bytes / 1e6, 1),
    }


class Recorded(FakeCluster):
    """Replicas whose pages are in memory: a digest hashes as many bytes as a leaf of them has."""

    async def count(self, node: Any, table: Any, token_range: Any) -> int:
        return round(ROWS * token_range.share)

    async def digest(self, node: Any, reading: Any, route: Any, token_range: Any, now_s: int, **_: Any) -> Digest:
        rows = round(ROWS * token_range.share)
        state = xxhash.xxh3_128()
        for _ in range(max(1, rows // 5_000)):
            # The way of a page: received in pieces, put together, its rows looked over, hashed.
            body = b"".join(PAGE[at : at + 65_536] for at in range(0, len(PAGE), 65_536))
            for at in range(0, len(body), 1_024):
                body.find(b"\x01", at, at + 1_024)
            state.update(body)
            await asyncio.sleep(0)
        return Digest(rows, state.digest())


def client(workers: int) -> tuple[float, float]:
    """Check 3 x 80 M rows of 100 bytes by so many workers, 0 for this process alone.

    Returns the seconds that it took, and the processor's time of the process that had most to do: so long it takes if
    nothing else runs.
    """

    async def run() -> tuple[float, float]:
        cluster = Recorded()
        options = CheckOptions(settle_window_s=0.0, route=Route.CLIENT)
        words = (sys.executable, "-m", "benchmarks.spreading", "worker")
        crew = LocalWorkers(max(1, workers), cluster._ring.host_ids, words)
        if workers:
            crew._nursery = await _loaded(Nursery(words))
        began, busy = time.monotonic(), time.process_time()
        if not workers:
            report = await run_check(port(cluster), SystemClock(), options)
            most = time.process_time() - busy
        else:
            times: dict[int, float] = {}
            watching = asyncio.create_task(_watch(crew, times))
            report = await run_spread(port(cluster), SystemClock(), options, crew, Terms())
            watching.cancel()
            most = max(times.values())
        assert report.coverage.complete
        return time.monotonic() - began, most

    return asyncio.run(run())


async def _loaded(nursery: Nursery) -> Nursery:
    """Wait until a nursery is ready, as that of a command is by the time that it is needed."""
    forked = await nursery.fork()
    forked.hears.close()
    forked.says.close()
    return nursery


async def _watch(crew: LocalWorkers, times: dict[int, float]) -> None:
    """Note the processor's time of each worker, its start included."""
    while True:
        for pid in crew.pids:
            spent = psutil.Process(pid).cpu_times()
            times[pid] = spent.user + spent.system
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _recorded(*_: Any, **__: Any) -> AsyncIterator[tuple[Any, SystemClock]]:
    yield port(Recorded()), SystemClock()


def main() -> None:
    """Print the figures of both; each size in a process of its own, as memory is not given back."""
    if sys.argv[1:2] == ["worker"]:
        from consistency.cli import worker  # noqa: PLC0415
        from consistency.cluster import session  # noqa: PLC0415

        session.open_cluster = _recorded  # type: ignore[assignment]
        worker.main()
    elif sys.argv[1:2] == ["plan"]:
        print(json.dumps(plan(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        for nodes, tables in SIZES:
            words = [sys.executable, "-m", "benchmarks.spreading", "plan", str(nodes), str(tables)]
            print(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip(), flush=True)
        for workers in (0, 1, 2):
            seconds, busiest = client(workers)
            print(f"{workers or 'no'} workers: {seconds:.1f} s, the busiest process {busiest:.1f} s", flush=True)


if __name__ == "__main__":
    main()
