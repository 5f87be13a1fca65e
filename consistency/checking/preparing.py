"""What a check knows before it reads a row: ring, schema, scope, how each table is read, and how long a row settles."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consistency import __version__
from consistency.checking.changes import Snapshot
from consistency.checking.scan import TableTask
from consistency.checking.settle_window import settled_how
from consistency.checking.tasks import CheckOptions, Tasks
from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import UsageError
from consistency.ledger.port import RunFacts
from consistency.model.ring import Arc, Ring
from consistency.model.schema import Keyspace
from consistency.model.scope import Scope, choose_tables
from consistency.model.servertime import iso_time
from consistency.results.findings import Header
from consistency.results.report import TableReport, not_scanned


@dataclass(frozen=True)
class Prepared:
    """One check, about to begin.

    `started_us` is by the servers' clocks, `started` for measuring. `refused` reports the tables that cannot be
    scanned. `shares`: by node, the most of the ring that it owns of any keyspace in scope. `notes` go into the report.
    """

    options: CheckOptions
    run_id: str
    started_us: int
    started: float
    ring: Ring
    schema: Mapping[str, Keyspace]
    scope: Scope
    tasks: tuple[TableTask, ...]
    refused: tuple[TableReport, ...]
    shares: Mapping[str, float]
    window_s: float
    notes: tuple[str, ...]
    piece: bool = False
    """Whether this is a piece of a check whose driver judges the whole, and looks back at ring and schema."""

    @property
    def snapshot(self) -> Snapshot:
        """The ring and the schema, which must stay as they are."""
        return Snapshot(self.ring, self.schema)

    @property
    def started_at(self) -> str:
        """When the check began, as it is written."""
        return iso_time(self.started_us)

    @property
    def header(self) -> Header:
        """What the findings file says of the check."""
        return Header(
            self.run_id, self.ring.cluster, self.ring.fingerprint, self.started_at, f"consistency {__version__}"
        )

    @property
    def facts(self) -> RunFacts:
        """What a recorder is told of the check."""
        tables, names, dc = self.scope.tables, self.options.names, self.options.dc
        return RunFacts(self.run_id, self.started_us, self.ring, self.schema, tables, names, dc)


async def prepare(reader: ClusterReader, clock: Clock, options: CheckOptions) -> Prepared:
    """Read ring and schema and decide how each table in scope is read; UsageError if a name does not exist."""
    run_id, started_us, started = options.run_id or str(uuid.uuid4()), clock.now_us(), clock.monotonic()
    ring, schema = await reader.ring(), await reader.schema()
    scope = choose_tables(schema, options.names, views=options.views)
    require_dc(ring, options.dc)
    planner = Tasks(reader, ring, schema, options)
    tasks: list[TableTask] = []
    refused: list[TableReport] = []
    for table in scope.tables:
        task = await planner.task(table)
        if isinstance(task, TableTask):
            tasks.append(task)
        else:
            refused.append(not_scanned(table.keyspace, table.name, task))
    window_s, notes = await settled_how(reader, clock, options.settle_window_s)
    return Prepared(
        options=options,
        run_id=run_id,
        started_us=started_us,
        started=started,
        ring=ring,
        schema=schema,
        scope=scope,
        tasks=tuple(tasks),
        refused=tuple(refused),
        shares=shares_of(planner.arcs_of.values()),
        window_s=window_s,
        notes=notes,
    )


def require_dc(ring: Ring, dc: str | None) -> None:
    """Raise UsageError when the cluster has no data centre `dc`: the check would compare nothing."""
    if dc is not None and dc not in ring.datacenters:
        msg = f"--dc {dc}: the cluster has no such data centre; it has {', '.join(ring.datacenters)}"
        raise UsageError(msg)


def shares_of(keyspaces: Iterable[tuple[Arc, ...]]) -> dict[str, float]:
    """Return the most of the ring that each node owns of any keyspace."""
    shares: dict[str, float] = {}
    for arcs in keyspaces:
        here: dict[str, float] = defaultdict(float)
        for arc in arcs:
            for node in arc.replicas:
                here[node.name] += arc.share
        shares.update({name: max(share, shares.get(name, 0)) for name, share in here.items()})
    return shares
