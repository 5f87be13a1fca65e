"""Seeded histories: what was written before the scan, which replicas missed what, and what is written meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from consistency.model.cqltype import CqlType
from consistency.model.reading import ONE_REPLICA, Locality
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Column, Table
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN
from tests.simulation.memory import SimCluster
from tests.simulation.storage import Delete, Key, Mutation, Path, Write
from tests.simulation.values import draw_bytes
from tests.simulation.vclock import EPOCH_S, VirtualLoop

EPOCH_US = EPOCH_S * 1_000_000
_DAY_S = 86_400
RowKey = tuple[str, Key, Key | None]
"""Table, partition key, clustering key; None for the static row."""


def draw_localities(seed: int, nodes: Sequence[Node]) -> dict[Node, Locality]:
    """Return how answers are proven: by traces in a third of the cases, and in a fifth otherwise on each node.

    Nodes differ while they are restarted one by one with another setting. Drawn apart from the rest of the story.
    """
    dice = random.Random(f"locality {seed}")
    one = dice.choice((Locality.NODE_LOCAL, Locality.NODE_LOCAL, Locality.TRACED))
    mixed = dice.random() < 0.2
    return {node: dice.choice(ONE_REPLICA) if mixed else one for node in nodes}


def draw_ring(rng: random.Random) -> tuple[Ring, Replication]:
    """Draw a cluster of one or two DCs, some racks and vnodes, and a replication of at least two replicas."""
    dcs = rng.choice((("dc1",), ("dc1",), ("dc1", "dc2")))
    nodes: list[Node] = []
    tokens = set()
    for dc in dcs:
        for _ in range(rng.randint(2, 5 if len(dcs) == 1 else 3)):
            own = tuple(sorted({rng.randint(MIN_TOKEN + 1, MAX_TOKEN) for _ in range(rng.randint(1, 3))}))
            tokens.update(own)
            number = len(nodes) + 1
            rack = f"r{rng.randint(1, 3)}"
            nodes.append(Node(f"host-{number}", f"10.0.0.{number}", 9042, dc, rack, own, "5.0.8"))
    rf = {dc: rng.randint(2 if len(dcs) == 1 else 1, 3) for dc in dcs}
    return Ring("simulated", MURMUR3, tuple(nodes)), Replication("NetworkTopologyStrategy", tuple(sorted(rf.items())))


@dataclass
class Drawing:
    """Draws keys and mutations of one table."""

    rng: random.Random
    table: Table
    keys: list[Key] = field(default_factory=list)

    def __post_init__(self) -> None:
        wanted = self.rng.randint(1, 9)
        self.keys = list(dict.fromkeys(self.partition_key() for _ in range(wanted)))

    def partition_key(self) -> Key:
        """Draw a partition key."""
        return tuple(draw_bytes(self.rng, c.type.name) for c in self.table.partition_key)

    def clustering(self) -> Key:
        """Draw a clustering key, of few different ones, so that rows meet."""
        return tuple(draw_bytes(self.rng, c.type.name) for c in self.table.clustering)

    def write(
        self, ts: int, *, key: Key | None = None, expires: int | None = None, clustering: Key | None = None
    ) -> Write:
        """Draw an INSERT or UPDATE, now and then of the static row."""
        rng = self.rng
        key = key or rng.choice(self.keys)
        if self.table.statics and clustering is None and rng.random() < 0.25:
            cells, replaced = self._cells([c for c in self.table.statics if rng.random() < 0.8], ts)
            return Write(key, None, ts, cells, replaced, expires)
        cells, replaced = self._cells([c for c in self.table.regulars if rng.random() < 0.7], ts)
        insert = rng.random() < 0.7 or not cells
        return Write(key, clustering or self.clustering(), ts, cells, replaced, expires, insert)

    def _cells(
        self, columns: Sequence[Column], ts: int
    ) -> tuple[tuple[tuple[str, Path, bytes | None], ...], tuple[str, ...]]:
        cells: list[tuple[str, Path, bytes | None]] = []
        replaced: list[str] = []
        for column in columns:
            name, cql_type = column.name, column.type
            if not cql_type.is_multicell:
                cells.append((name, None, self._value(cql_type)))
                continue
            if self.rng.random() < 0.3:
                replaced.append(name)
            cells.extend((name, *self._element(cql_type, ts)) for _ in range(self.rng.randint(0, 3)))
        return tuple({(n, p): (n, p, v) for n, p, v in cells}.values()), tuple(replaced)

    def other_values(self, written: Write) -> Write:
        """Draw the same write with other values in its simple columns."""
        types = {c.name: c.type for c in self.table.statics + self.table.regulars}
        cells = tuple((n, path, self._value(types[n]) if path is None else v) for n, path, v in written.cells)
        return replace(written, cells=cells)

    def _value(self, cql_type: CqlType) -> bytes | None:
        if self.rng.random() < 0.1:
            return None
        if cql_type.is_collection:
            return bytes([0, 0, 0, 1, 0, 0, 0, 4]) + draw_bytes(self.rng, "int")
        return draw_bytes(self.rng, cql_type.name)

    def _element(self, cql_type: CqlType, ts: int) -> tuple[bytes, bytes | None]:
        rng = self.rng
        gone = rng.random() < 0.15
        if cql_type.name == "list":
            return ts.to_bytes(8, "big") + rng.randbytes(8), None if gone else draw_bytes(rng, "text")
        path = draw_bytes(rng, cql_type.args[0].name)
        if cql_type.name == "set":
            return path, None if gone else b""
        return path, None if gone else draw_bytes(rng, "int")

    def delete(self, ts: int, key: Key | None = None) -> Delete:
        """Draw a DELETE of a row, a range of rows or a partition."""
        key = key or self.rng.choice(self.keys)
        reach = self.rng.random()
        if reach < 0.2:
            return Delete(key, ts)
        low = self.clustering()
        if reach < 0.4 and self.table.clustering:
            return Delete(key, ts, low, self.clustering())
        return Delete(key, ts, low, low)


def rows_of(table: Table, mutation: Mutation, cluster: SimCluster) -> set[RowKey]:
    """Return the rows that a mutation can change on any node."""
    if isinstance(mutation, Write):
        return {(table.name, mutation.key, mutation.clustering)}
    if mutation.low is not None and mutation.low == mutation.high:
        return {(table.name, mutation.key, mutation.low)}
    found: set[RowKey] = {(table.name, mutation.key, None)}
    for node in cluster.replicas(table, mutation.key):
        partition = cluster.store(node, table).partitions.get(mutation.key)
        found |= {(table.name, mutation.key, clustering) for clustering in (partition.rows if partition else ())}
    return found


def load(cluster: SimCluster, drawing: Drawing) -> None:
    """Write the past that every replica knows: rows, overwrites, deletes, TTLs that have run out or are long."""
    rng, table = drawing.rng, drawing.table
    for _ in range(rng.randint(0, 40)):
        ts = EPOCH_US - rng.randint(3_600, 30 * _DAY_S) * 1_000_000 + rng.randrange(1_000_000)
        if rng.random() < 0.12:
            cluster.apply(table, drawing.delete(ts))
        else:
            ends = rng.choice((None, None, None, EPOCH_S + rng.randint(_DAY_S, 9 * _DAY_S), EPOCH_S - 60))
            cluster.apply(table, drawing.write(ts, expires=ends))


@dataclass
class Damage:
    """What was done to some replicas only, a line each, and every row that it reached."""

    told: list[str] = field(default_factory=list)
    rows: set[RowKey] = field(default_factory=set)


def damage(cluster: SimCluster, drawing: Drawing, done: Damage) -> None:
    """Have some mutations on some of their replicas only."""
    rng, table = drawing.rng, drawing.table
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        key = rng.choice(drawing.keys)
        owners = cluster.replicas(table, key)
        if len(owners) < 2:
            continue
        some = rng.sample(owners, rng.randint(1, len(owners) - 1))
        for mutation, nodes in _damage(rng, drawing, key, owners, some):
            done.rows |= rows_of(table, mutation, cluster)
            cluster.apply(table, mutation, nodes)
            done.told.append(f"{table.name} on {', '.join(map(str, nodes))} only: {mutation}")


def _damage(
    rng: random.Random, drawing: Drawing, key: Key, owners: Sequence[Node], some: Sequence[Node]
) -> list[tuple[Mutation, Sequence[Node]]]:
    ts = EPOCH_US - rng.choice((700, 3_600, 20 * _DAY_S)) * 1_000_000 + rng.randrange(10_000)
    shape = rng.random()
    others = [node for node in owners if node not in some]
    if shape < 0.15:  # one deletes what the others keep
        return [(drawing.delete(ts, key), some)]
    if shape < 0.3:  # two clients, one microsecond, one column each way
        clustering = drawing.clustering()
        one, other = (drawing.write(ts, key=key, clustering=clustering) for _ in range(2))
        if rng.random() < 0.5:  # every column both ways
            other = drawing.other_values(one)
        return [(one, some), (other, others)]
    if shape < 0.4:  # the same write with another TTL
        written = drawing.write(ts, key=key, expires=EPOCH_S + 2 * _DAY_S)
        longer = Write(
            written.key, written.clustering, ts, written.cells, written.replaced, EPOCH_S + 3 * _DAY_S, written.insert
        )
        return [(written, some), (longer, others)]
    if shape < 0.5:  # a client whose clock is an hour ahead, heard by some or by all
        return [(drawing.write(EPOCH_US + 3_600_000_000, key=key), owners if shape < 0.45 else some)]
    ends = rng.choice((None, None, EPOCH_S + 5 * _DAY_S))
    return [(drawing.write(ts, key=key, expires=ends), some)]


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """Live writes: how many a second, until when, how late a replica may get one, and how many never arrive."""

    per_second: float = 20.0
    until_s: float = 6.0
    latest_s: float = 0.02
    lost: float = 0.0
    only_clean: bool = True
    """Whether partitions that held a difference from the start are left alone."""
    clients_s: tuple[float, ...] = (0.0,)
    """How far the clocks of the clients are ahead; each write is some client's."""


@dataclass
class Traffic:
    """Clients that write through coordinators: each replica gets a write after a delay of its own, or never."""

    loop: VirtualLoop
    cluster: SimCluster
    drawings: Sequence[Drawing]
    plan: TrafficPlan
    rng: random.Random
    spared: frozenset[tuple[str, Key]] = frozenset()
    touched: set[RowKey] = field(default_factory=set)
    lossy: set[tuple[str, Key]] = field(default_factory=set)
    """Partitions of which a replica missed something: a lost delete also shows on rows that were still on their way."""
    sent: list[tuple[Table, Mutation]] = field(default_factory=list)
    writes: int = 0
    dropped: int = 0

    async def run(self) -> None:
        """Write until the plan's end, then wait until the last write has arrived."""
        while self.loop.now < self.plan.until_s:
            await asyncio.sleep(self.rng.expovariate(self.plan.per_second))
            drawing = self.rng.choice(self.drawings)
            mutation = self._draw(drawing)
            if (drawing.table.name, mutation.key) in self.spared:
                continue
            self.send(drawing.table, mutation)
            if isinstance(mutation, Write) and mutation.clustering is not None and self.rng.random() < 0.3:
                # A queue: what is written is deleted soon after.
                self.loop.call_later(self.rng.uniform(0.2, 4.0), self._consume, drawing.table, mutation)
        await asyncio.sleep(4.0 + self.plan.latest_s)

    def _draw(self, drawing: Drawing) -> Mutation:
        now_us = self._now_us()
        if self.rng.random() < 0.15:
            return drawing.delete(now_us)
        expires = EPOCH_S + int(self.loop.now) + self.rng.randint(1, 8) if self.rng.random() < 0.15 else None
        return drawing.write(now_us, expires=expires)

    def _now_us(self) -> int:
        # Clients' clocks are a little apart, and no two writes share a microsecond.
        self.writes += 1
        clients = self.plan.clients_s
        ahead_s = self.rng.uniform(-0.01, 0.01) + (self.rng.choice(clients) if len(clients) > 1 else clients[0])
        return EPOCH_US + int((self.loop.now + ahead_s) * 1000) * 1000 + self.writes % 1000

    def _consume(self, table: Table, written: Write) -> None:
        self.send(table, Delete(written.key, self._now_us(), written.clustering, written.clustering))

    def send(self, table: Table, mutation: Mutation) -> None:
        """Hand one mutation to every replica, each in its own time."""
        self.touched |= rows_of(table, mutation, self.cluster)
        self.sent.append((table, mutation))
        for node in self.cluster.replicas(table, mutation.key):
            if node == self.cluster.no_longer_written_to():
                continue
            if self.rng.random() < self.plan.lost:
                self.lossy.add((table.name, mutation.key))
                self.dropped += 1
                continue
            delay = self.rng.uniform(0.0005, self.plan.latest_s)
            self.loop.call_later(delay, self.cluster.apply, table, mutation, [node])
