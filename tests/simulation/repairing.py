"""The repairer against the in-memory cluster: a writer that understands its statements, and the laws.

Whatever happened before: what repair makes visible on a replica is what Cassandra's own merge of the replicas
that are up shows, and what it takes away that merge does not show.
"""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, replace
from typing import Any

from consistency.errors import ReplicaUnavailable
from consistency.reading import Capabilities
from consistency.ring import Node
from consistency.schema import Keyspace, Table
from repair.actions import Actor
from repair.applying import Applier, ApplyOptions, Tally
from repair.decide import Action
from repair.evidence import EvidenceReader, RowRef
from repair.guard import Guard
from repair.journal import Result
from repair.planfile import Plan
from repair.planner import PlanOptions, plan_row
from repair.policy import Policy, Require, Zombies
from repair.statements import Write as Statement
from tests.simulation.histories import Damage, Drawing, damage, draw_ring, load
from tests.simulation.memory import Fault, SimCluster, Trouble
from tests.simulation.storage import NEVER, Delete, Key, Stored, TableStorage, Write, token_of
from tests.simulation.truth import row_names
from tests.simulation.values import draw_table, keyspace
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual

_UPDATE = re.compile(r"UPDATE (\S+) USING TIMESTAMP \? AND TTL \? SET (\S+?)(\[\?\])? = (.*) WHERE ")
_DELETE = re.compile(r"DELETE (?:(\S+?)(\[\?\])? )?FROM (\S+) USING TIMESTAMP \? WHERE ")
_SELECT = re.compile(r"SELECT .* FROM (\S+) WHERE ")


def _long(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", "big", signed=True)


class SimWriter:
    """The port `RowWriter` on simulated storage."""

    def __init__(self, cluster: SimCluster, tables: dict[str, Table], down: Node | None) -> None:
        self._cluster = cluster
        self._tables = tables
        self._down = down

    async def schema_versions(self, nodes: tuple[Node, ...]) -> set[str]:
        return {"one"}

    async def on(self, node: Node, write: Statement) -> None:
        await asyncio.sleep(0.001)
        if node == self._down:
            msg = f"{node}: down"
            raise ReplicaUnavailable(msg)
        table, mutation = self._mutation(write)
        mutation.apply(self._cluster.store(node, table))

    async def through(self, node: Node, write: Statement, *, at_all: bool) -> None:
        await asyncio.sleep(0.001)
        found = _SELECT.match(write.cql)
        assert found, "every replica of the simulation takes NODE_LOCAL writes"
        table = self._tables[found[1]]
        split = len(table.partition_key)
        key = tuple(part or b"" for part in write.values)
        owners = self._cluster.replicas(table, key[:split])
        up = [owner for owner in owners if owner != self._down]
        if len(up) < (len(owners) if at_all else len(owners) // 2 + 1):
            msg = f"{node}: too few replicas"
            raise ReplicaUnavailable(msg)
        if table.read_repair != "BLOCKING":
            return
        clustering = None if " IN ()" in write.cql else key[split:]
        merged = TableStorage(table)
        for owner in up:
            merge_row(self._cluster.store(owner, table), merged, key[:split], clustering)
        for owner in up:
            merge_row(merged, self._cluster.store(owner, table), key[:split], clustering)

    def _mutation(self, write: Statement) -> tuple[Table, Write | Delete]:
        values = list(write.values)
        if found := _UPDATE.match(write.cql):
            table = self._tables[found[1]]
            ts, ttl = _long(values.pop(0)), _long(values.pop(0))
            expires = (write.now_s or 0) + ttl if ttl else None
            name = found[2]
            if found[3]:  # m[?] = ?
                path, value = values.pop(0), values.pop(0)
            elif "+ ?" in found[4]:  # s = s + ?
                raw = values.pop(0) or b""
                path, value = raw[8:], b""
            else:
                path, value = None, values.pop(0)
            key, clustering = self._key(table, values)
            return table, Write(key, clustering, ts, ((name, path, value),), (), expires)
        found = _DELETE.match(write.cql)
        assert found, write.cql
        table = self._tables[found[3]]
        path = values.pop(0) if found[2] else None
        ts = _long(values.pop(0))
        key, clustering = self._key(table, values)
        if found[1]:
            return table, Write(key, clustering, ts, ((found[1], path, None),))
        return table, Delete(key, ts, clustering, clustering)

    @staticmethod
    def _key(table: Table, values: list[bytes | None]) -> tuple[Key, Key | None]:
        key = tuple(part or b"" for part in values)
        split = len(table.partition_key)
        static = bool(table.clustering) and len(key) == split
        return key[:split], None if static else key[split:]


def merge_row(source: TableStorage, target: TableStorage, key: Key, clustering: Key | None) -> None:
    """Merge one row with every deletion that covers it, as a read at ALL does."""
    held = source.partitions.get(key)
    if held is None:
        return
    into = target.partition(key)
    into.deleted = max(into.deleted, held.deleted)
    if clustering is None:
        theirs, ours = held.static, into.static
    else:
        if clustering not in held.rows and not held.ranges:
            return
        theirs, ours = source.row(key, clustering), target.row(key, clustering)
        covering = [r.ts for r in held.ranges if not (theirs.order < r.low or r.high < theirs.order)]
        ours.deleted = max([ours.deleted, *covering])
    ours.deleted = max(ours.deleted, theirs.deleted)
    if theirs.liveness is not None:
        ours.put_liveness(theirs.liveness)
    for name, cell in theirs.cells.items():
        ours.put(name, cell)
    for name, ts in theirs.complex_deleted.items():
        ours.complex_deleted[name] = max(ours.complex_deleted.get(name, ts), ts)


def collect_garbage(storage: TableStorage, before_us: int) -> None:
    """Compact: drop what deletions cover, then the deletions that are older than gc_grace."""
    for key, partition in storage.partitions.items():
        for row in [partition.static, *partition.rows.values()]:
            covered = max(partition.deleted_at(row) if row is not partition.static else partition.deleted, row.deleted)
            for (name, path), cell in list(row.cells.items()):
                reach = max(covered, row.complex_deleted.get(name, covered) if path is not None else covered)
                if cell.ts <= reach or (cell.value is None and cell.ts < before_us):
                    del row.cells[name, path]
            if row.liveness is not None and row.liveness.ts <= covered:
                row.liveness = None
            row.complex_deleted = {n: ts for n, ts in row.complex_deleted.items() if ts >= before_us}
            row.deleted = row.deleted if row.deleted >= before_us else NEVER
        partition.deleted = partition.deleted if partition.deleted >= before_us else NEVER
        partition.ranges = [r for r in partition.ranges if r.ts >= before_us]
        assert key == partition.key


class _NoJournal:
    def intent(self, number: int, before: Any) -> None: ...

    def outcome(self, number: int, result: Result, reason: str, after: Any = None) -> None: ...


Row = tuple[str, Key, Key | None]
Shown = dict[tuple[str, bytes | None], Stored] | None


@dataclass
class RepairOutcome:
    """What came of one seed; `broken` are the laws that did not hold, a sentence each."""

    plan: Plan
    tally: Tally
    broken: list[str]


def run_repair_case(seed: int) -> RepairOutcome:
    """Damage a cluster, repair it, hold it against the merge."""
    rng = random.Random(seed)
    loop = VirtualLoop()
    ring, replication = draw_ring(rng)
    table = draw_table(rng, "t")
    if rng.random() < 0.4:
        table = replace(table, read_repair="NONE")
    down = rng.choice(ring.nodes) if rng.random() < 0.25 else None
    faults = [Fault(Trouble.DOWN, down, 0.0, 1e9)] if down else []
    schema: dict[str, Keyspace] = {"ks": keyspace("ks", replication, [table])}
    cluster = SimCluster(loop, ring, schema, Capabilities(), rng, faults=faults)
    drawing = Drawing(rng, table)
    load(cluster, drawing)
    damage(cluster, drawing, Damage())
    truth = {r: _merged(cluster, table, r, EPOCH_S + 100, down) for r in _rows(cluster, table)}
    for node in ring.nodes:
        if rng.random() < 0.5:
            collect_garbage(cluster.store(node, table), (EPOCH_S - table.gc_grace_seconds) * 1_000_000)
    policy = Policy(
        rng.choice((Zombies.QUARANTINE, Zombies.QUARANTINE, Zombies.RESTORE, Zombies.PURGE)), Require.QUORUM
    )
    return run_virtual(loop, _play(loop, cluster, table, policy, down, truth))


async def _play(
    loop: VirtualLoop, cluster: SimCluster, table: Table, policy: Policy, down: Node | None, truth: dict[Row, Shown]
) -> RepairOutcome:
    clock = SimClock(loop)
    now_s = EPOCH_S + 100  # no cell of the histories expires during a run
    rows = _rows(cluster, table)
    before = {
        (node, row): _shown(cluster.store(node, table), row, now_s)
        for row in rows
        for node in cluster.replicas(table, row[1])
    }
    merged = {row: _merged(cluster, table, row, now_s, down) for row in rows}
    evidence = await EvidenceReader.open(cluster, clock)
    refs = [_ref(table, row) for row in rows]
    planned = [await plan_row(evidence, ref, PlanOptions(policy), "salt") for ref in refs]
    ring = await cluster.ring()
    made = Plan(
        "r",
        "f",
        "",
        "",
        ring.cluster,
        ring.fingerprint,
        {table.full_name: table.fingerprint},
        policy,
        "salt",
        tuple(planned),
    )
    writer = SimWriter(cluster, {table.quoted: table}, down)
    guard = Guard(made, cluster, writer, clock)
    applier = Applier(made, evidence, Actor(cluster, writer), guard, clock, _NoJournal())  # type: ignore[arg-type]
    done: dict[int, Result] = {}
    record = applier._journal.outcome

    def outcome(number: int, result: Result, reason: str, after: Any = None) -> None:
        done[number] = result
        record(number, result, reason, after)

    applier._journal.outcome = outcome  # type: ignore[method-assign]
    tally = await applier.run({}, ApplyOptions(), asyncio.Event(), lambda _: None)
    broken = []
    for number, row in enumerate(rows):
        acts = planned[number].action
        for node in cluster.replicas(table, row[1]):
            now = _shown(cluster.store(node, table), row, now_s)
            broken += _laws(
                f"seed row {number} on {node} ({planned[number].rule.value}, {acts.value})",
                before[node, row],
                now,
                merged[row],
                purges=acts is Action.PURGE,
            )
            if policy.zombies is not Zombies.RESTORE:
                copies = [before[owner, row] for owner in cluster.replicas(table, row[1])]
                broken += _raised(f"row {number} on {node}", before[node, row], now, truth[row], copies)
            proved = done[number] in (Result.VERIFIED, Result.WAITING)
            writes = acts in (Action.RECONCILE, Action.WRITE_BACK)
            if writes and proved and node != down and (now or {}) != (merged[row] or {}):
                broken.append(f"row {number} on {node}: {done[number].value} but not the merge: {now} != {merged[row]}")
        # A row marker newer than every cell cannot be seen, so no DELETE of ours reaches it: said, not hidden.
        bare = any(_shown(cluster.store(node, table), row, now_s) == {} for node in cluster.replicas(table, row[1]))
        excused = down is not None or (acts is Action.WRITE_BACK and bare)
        failed = done[number] in (Result.UNKNOWN, Result.DIVERGENT)
        if acts in (Action.RECONCILE, Action.WRITE_BACK) and failed and not excused:
            broken.append(f"row {number}: {planned[number].rule.value} {acts.value} ended {done[number].value}")
    return RepairOutcome(made, tally, broken)


def _laws(where: str, before: Shown, now: Shown, merged: Shown, *, purges: bool) -> list[str]:
    out = []
    for name, cell in (now or {}).items():
        was = (before or {}).get(name)
        if was != cell and (merged or {}).get(name) != cell:
            out.append(f"{where}: {name} shows {cell}, which is not what the merge shows")
        if was is not None and cell.ts < was.ts:
            out.append(f"{where}: {name} went back in time")
    for name, cell in (before or {}).items():
        if (merged or {}).get(name) == cell and (now or {}).get(name) != cell and not purges:
            out.append(f"{where}: {name} was live and is gone")
    if before is not None and merged is not None and now is None and not purges:
        out.append(f"{where}: the row was live and is gone")
    return out


def _raised(where: str, before: Shown, now: Shown, truth: Shown, copies: list[Shown]) -> list[str]:
    """Name cells that came to a replica though a purged delete covers them and a minority held any version."""
    out = []
    for name, cell in (now or {}).items():
        holders = sum(name in (copy or {}) for copy in copies)
        if (before or {}).get(name) != cell and (truth or {}).get(name) != cell and holders <= len(copies) // 2:
            out.append(f"{where}: {name} was deleted and came back: {cell}")
    bare = sum(copy is not None for copy in copies)
    if now is not None and before is None and truth is None and bare <= len(copies) // 2:
        out.append(f"{where}: the row was deleted and came back")
    return out


def _rows(cluster: SimCluster, table: Table) -> list[Row]:
    names = row_names(cluster, table)
    return [(table.name, key, clustering) for key, clustering in names if clustering is not None or table.statics]


def _merged(cluster: SimCluster, table: Table, row: Row, now_s: int, down: Node | None) -> Shown:
    storage = TableStorage(table)
    for node in cluster.replicas(table, row[1]):
        if node != down:
            merge_row(cluster.store(node, table), storage, row[1], row[2])
    return _shown(storage, row, now_s)


def _shown(storage: TableStorage, row: Row, now_s: int) -> Shown:
    _, key, clustering = row
    seen = storage.visible_static(key, now_s) if clustering is None else storage.visible_row(key, clustering, now_s)
    if seen is None:
        return None
    return {(name, path): cell for name, cells in seen.cells.items() for path, cell in cells.items()}


def _ref(table: Table, row: Row) -> RowRef:
    _, key, clustering = row
    columns = table.partition_key if clustering is None else table.primary_key
    parts = key if clustering is None else key + clustering
    return RowRef(
        table.keyspace, table.name, token_of(key), {c.name: raw.hex() for c, raw in zip(columns, parts, strict=True)}
    )
