"""A small cluster that a test sets up by hand: three nodes, every row on all of them, one int table."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from consistency.checking.run import run_check
from consistency.checking.tasks import CheckOptions
from consistency.cluster.table_reader import TableReader
from consistency.ledger.port import Recorder
from consistency.model.reading import Capabilities, Reading, Route
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Table
from consistency.model.tokens import MIN_TOKEN, RING_SIZE
from consistency.results.findings import Finding
from consistency.results.report import Report
from tests.simulation.cases import Watching
from tests.simulation.histories import EPOCH_US
from tests.simulation.memory import Fault, Pace, SimCluster, Trouble
from tests.simulation.storage import Mutation, Write
from tests.simulation.values import int_bytes, keyspace, make_table
from tests.simulation.vclock import SimClock, VirtualLoop, run_virtual

LONG_AGO_US = EPOCH_US - 3_600_000_000
"""An hour before the simulation starts: no write of then is still in flight."""
ROWS = make_table("t", ("int",), ("int",), ("int",), ("int", "text"))
"""p0, c0, one static s0, v0 int and v1 text."""


def make_nodes(dcs: Sequence[str]) -> tuple[Node, ...]:
    """Return a node a DC named, with tokens evenly spread; each has a rack of its own."""
    width = RING_SIZE // len(dcs)
    return tuple(
        Node(f"host-{i}", f"10.0.0.{i}", 9042, dc, f"r{i}", (MIN_TOKEN + width * i,), "5.0.8")
        for i, dc in enumerate(dcs, start=1)
    )


def row(key: int, clustering: int | None, ts: int = LONG_AGO_US, *, insert: bool = True, **cells: bytes) -> Write:
    """Return the write of a row, or of a static row where `clustering` is None; `cells` are column=value."""
    values = tuple((name, None, value) for name, value in cells.items())
    place = None if clustering is None else (int_bytes(clustering),)
    return Write((int_bytes(key),), place, ts, values, insert=insert and clustering is not None)


@dataclass
class Scenario:
    """The cluster, its loop and clock; `check` runs the real check to its end."""

    table: Table = ROWS
    dcs: tuple[str, ...] = ("dc1", "dc1", "dc1")
    factors: tuple[tuple[str, int], ...] = (("dc1", 3),)
    strategy: str = "NetworkTopologyStrategy"
    capabilities: Capabilities = field(default_factory=Capabilities)
    faults: tuple[tuple[Trouble, int, float, float], ...] = ()
    """(trouble, node number from 1, start, end)."""
    swapped: tuple[int, ...] = ()
    """Numbers of nodes that answer at each other's addresses, the first at the last one's; one alone at a new one."""

    def __post_init__(self) -> None:
        self.loop = VirtualLoop()
        self.nodes = make_nodes(self.dcs)
        ring = Ring("simulated", MURMUR3, self.nodes)
        schema = {"ks": keyspace("ks", Replication(self.strategy, self.factors), [self.table])}
        faults = [Fault(trouble, self.nodes[n - 1], start, end) for trouble, n, start, end in self.faults]
        rng = random.Random(1)
        self.cluster = SimCluster(self.loop, ring, schema, self.capabilities, rng, Pace(page_rows=4), faults)
        if self.swapped:
            self.cluster.readdress(*(self.nodes[n - 1].host_id for n in self.swapped))
        self.clock = SimClock(self.loop)
        self.watching = Watching()

    @property
    def findings(self) -> list[Finding]:
        """What the check found."""
        return self.watching.findings

    def apply(self, mutation: Mutation, on: Sequence[int] | None = None) -> None:
        """Have a mutation on the nodes of these numbers, on all owners where none are given."""
        self.cluster.apply(self.table, mutation, None if on is None else [self.nodes[n - 1] for n in on])

    def fill(self, partitions: int = 8, rows: int = 5) -> None:
        """Write the same rows everywhere."""
        for p in range(partitions):
            for c in range(rows):
                self.apply(row(p, c, v0=int_bytes(c), v1=b"text"))

    def check(self, stop_at_s: float | None = None, recorder: Recorder | None = None, **options: Any) -> Report:
        """Run the check; `stop_at_s` interrupts it then."""

        async def main() -> Report:
            stop = asyncio.Event()
            if stop_at_s is not None:
                self.loop.call_later(stop_at_s, stop.set)
            chosen = CheckOptions(("ks",), **options)
            return await run_check(self.cluster, self.clock, chosen, self.watching, stop, recorder)

        return self.run(main)

    def reads(self, reading: Reading, route: Route = Route.SERVER) -> TableReader:
        """Return what reads the table of its cluster."""
        return TableReader(self.cluster, reading, route, self.clock)

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        """Run something else on the scenario's loop; a scenario runs once."""

        async def run() -> Any:
            return await main()

        return run_virtual(self.loop, run())
