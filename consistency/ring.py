"""The ring as it stood at one moment: nodes, tokens, and which replicas own which token ranges.

Placement follows Cassandra's own strategies: `NetworkTopologyStrategy.calculateNaturalReplicas` (racks
included) and `SimpleStrategy`. The driver's token map is not used: it swallows what it cannot place.
"""

from __future__ import annotations

import bisect
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from consistency.errors import TopologyError
from consistency.tokens import TokenRange, assert_tiles, merged, unwrapped

MURMUR3 = "org.apache.cassandra.dht.Murmur3Partitioner"


@dataclass(frozen=True, slots=True)
class Node:
    """One Cassandra node, identified by its host id; its name for people is `address:port`.

    `state` is what gossip says where the server shows it (NORMAL, BOOT, LEAVING, ...), else NORMAL for a
    node with tokens; `up` is whether it answers us.
    """

    host_id: str
    address: str
    port: int
    dc: str
    rack: str
    tokens: tuple[int, ...]
    release: str
    state: str = "NORMAL"
    up: bool = True

    @property
    def name(self) -> str:
        """`address:port`, as in every report."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor of the server's release, such as (5, 0)."""
        major, minor = self.release.split("-")[0].split(".")[:2]
        return int(major), int(minor)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Replication:
    """How a keyspace is replicated: the strategy's short class name and the replicas per DC.

    SimpleStrategy has no DCs; its one factor is under the empty name. `transient` holds the DCs with
    transient replicas, which hold no full copy and are not compared.
    """

    strategy: str
    factors: tuple[tuple[str, int], ...]
    transient: tuple[str, ...] = ()

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Replication:
        """Read the `replication` map of system_schema.keyspaces."""
        strategy = options.get("class", "").rsplit(".", 1)[-1]
        factors: list[tuple[str, int]] = []
        transient: list[str] = []
        for name, text in sorted(options.items()):
            if name == "class":
                continue
            dc = "" if strategy == "SimpleStrategy" and name == "replication_factor" else name
            full, _, part = text.partition("/")
            try:
                factors.append((dc, int(full)))
            except ValueError:
                msg = f"replication option {name!r} has the value {text!r}, which is not a replication factor"
                raise TopologyError(msg) from None
            if part:
                transient.append(dc)
        return cls(strategy, tuple(factors), tuple(transient))

    @property
    def replicated(self) -> bool:
        """Whether other nodes are meant to hold the same rows."""
        return self.strategy in {"NetworkTopologyStrategy", "SimpleStrategy"}

    def factor(self, dc: str) -> int:
        """Return the replicas in one DC, 0 where none are asked for."""
        return dict(self.factors).get(dc, 0)


@dataclass(frozen=True, slots=True)
class Arc:
    """Token ranges that the same replicas own."""

    replicas: tuple[Node, ...]
    ranges: tuple[TokenRange, ...]

    @property
    def share(self) -> float:
        """The part of the ring in this arc, from 0 to 1."""
        return sum(r.share for r in self.ranges)


@dataclass(frozen=True)
class Ring:
    """Every node of the cluster at one moment."""

    cluster: str
    partitioner: str
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if self.partitioner != MURMUR3:
            short = self.partitioner.rsplit(".", 1)[-1]
            msg = f"the cluster uses {short}; only Murmur3Partitioner can be checked by token range"
            raise TopologyError(msg)
        seen: dict[int, Node] = {}
        for node in self.nodes:
            for token in node.tokens:
                if token in seen:
                    msg = f"{node} and {seen[token]} both claim token {token}; see nodetool ring"
                    raise TopologyError(msg)
                seen[token] = node
        if not seen:
            msg = "no node of the cluster owns a token"
            raise TopologyError(msg)

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by `address:port`."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def owners(self) -> tuple[tuple[int, Node], ...]:
        """Every token with its owner, in ring order."""
        return tuple(sorted(((t, n) for n in self.nodes for t in n.tokens), key=lambda pair: pair[0]))

    @cached_property
    def fingerprint(self) -> str:
        """A name for exactly these nodes, places and tokens; it changes when ownership can change."""
        text = "\n".join(
            f"{n.host_id} {n.dc} {n.rack} {','.join(map(str, sorted(n.tokens)))}"
            for n in sorted(self.nodes, key=lambda n: n.host_id)
        )
        return hashlib.sha256(f"{self.cluster}\n{text}".encode()).hexdigest()[:32]

    @cached_property
    def datacenters(self) -> Mapping[str, tuple[Node, ...]]:
        """Token-owning nodes by DC."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            if node.tokens:
                found[node.dc].append(node)
        return {dc: tuple(nodes) for dc, nodes in sorted(found.items())}

    def arcs(self, replication: Replication) -> tuple[Arc, ...]:
        """Group the whole ring by replica set; the arcs tile the ring, in the order of their first token."""
        if not replication.replicated:
            msg = f"{replication.strategy} places no replicas on other nodes"
            raise TopologyError(msg)
        owned: dict[tuple[Node, ...], list[TokenRange]] = defaultdict(list)
        for token_range, replicas in self._placed(replication):
            owned[replicas].append(token_range)
        arcs = [Arc(replicas, merged(ranges)) for replicas, ranges in owned.items()]
        assert_tiles([r for arc in arcs for r in arc.ranges], [TokenRange.full_ring()])
        return tuple(sorted(arcs, key=lambda arc: arc.ranges[0]))

    def replicas_of(self, token: int, replication: Replication) -> tuple[Node, ...]:
        """Return the replicas that own one token, sorted by name."""
        index = bisect.bisect_left(self.owners, token, key=lambda pair: pair[0]) % len(self.owners)
        return next(self._walks(replication, [index]))

    def _placed(self, replication: Replication) -> Iterator[tuple[TokenRange, tuple[Node, ...]]]:
        tokens = [token for token, _ in self.owners]
        indexes = range(len(tokens))
        starts = [tokens[-1], *tokens[:-1]]
        for start, end, replicas in zip(starts, tokens, self._walks(replication, indexes), strict=True):
            for piece in unwrapped(start, end):
                yield piece, replicas

    def _walks(
        self, replication: Replication, indexes: range | list[int]
    ) -> Iterator[tuple[Node, ...]]:
        if replication.strategy == "SimpleStrategy":
            walk = self._simple_walk
        else:
            walk = self._network_walk
        factors = {dc: rf for dc, rf in replication.factors if rf > 0}
        for index in indexes:
            yield tuple(sorted(walk(index, factors), key=lambda node: (node.dc, node.address, node.port)))

    def _clockwise(self, index: int) -> Iterator[Node]:
        owners = self.owners
        for i in range(index, len(owners)):
            yield owners[i][1]
        for i in range(index):
            yield owners[i][1]

    def _simple_walk(self, index: int, factors: Mapping[str, int]) -> list[Node]:
        wanted = min(factors.get("", 0), sum(map(len, self.datacenters.values())))
        chosen: dict[str, Node] = {}
        if wanted:
            for node in self._clockwise(index):
                chosen.setdefault(node.host_id, node)
                if len(chosen) == wanted:
                    break
        return list(chosen.values())

    def _network_walk(self, index: int, factors: Mapping[str, int]) -> list[Node]:
        """NetworkTopologyStrategy: distinct racks first, repeats only where a DC has too few racks."""
        left = {dc: min(rf, len(self.datacenters.get(dc, ()))) for dc, rf in factors.items()}
        left = {dc: count for dc, count in left.items() if count}
        repeats = {dc: factors[dc] - self._rack_count[dc] for dc in left}
        chosen: dict[str, Node] = {}
        racks: set[tuple[str, str]] = set()
        for node in self._clockwise(index):
            if not left:
                break
            dc = node.dc
            if dc not in left or node.host_id in chosen:
                continue
            if (dc, node.rack) in racks:
                if repeats[dc] <= 0:
                    continue
                repeats[dc] -= 1
            racks.add((dc, node.rack))
            chosen[node.host_id] = node
            left[dc] -= 1
            if not left[dc]:
                del left[dc]
        return list(chosen.values())

    @cached_property
    def _rack_count(self) -> Mapping[str, int]:
        return {dc: len({n.rack for n in nodes}) for dc, nodes in self.datacenters.items()}


def primary_ranges(ring: Ring) -> Iterator[tuple[TokenRange, Node]]:
    """Yield every vnode's range with the node whose token ends it."""
    owners = ring.owners
    if len(owners) == 1:
        yield TokenRange.full_ring(), owners[0][1]
        return
    for piece in unwrapped(owners[-1][0], owners[0][0]):
        yield piece, owners[0][1]
    for (start, _), (end, node) in pairwise(owners):
        yield TokenRange(start, end), node
