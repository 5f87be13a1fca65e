"""The ring at one moment: nodes, tokens, and which replicas own which token ranges.

Placement follows Cassandra's own strategies, `NetworkTopologyStrategy.calculateNaturalReplicas` (racks
included) and `SimpleStrategy`; the tests compare it with a transcript of both. The driver's token map is not
used, because it silently drops what it cannot place.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING

from consistency.errors import TopologyError
from consistency.model.identity import cluster_id
from consistency.model.tokens import TokenRange, assert_tiles, merged, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MURMUR3 = "org.apache.cassandra.dht.Murmur3Partitioner"

NOT_IN_THE_RING = frozenset({"BOOT", "BOOT_REPLACE", "BOOTSTRAPPING", "JOINING", "LEFT", "REMOVED"})
"""Gossip states (VersionedValue) of a node that announces tokens that it does not own yet, or no longer owns."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Why a node does not answer us: `clause` says it without the node's name, `way_out` what an operator can do.

    `{node}` in the way out stands for the node.
    """

    clause: str
    way_out: str

    def __str__(self) -> str:
        return self.clause


@dataclass(frozen=True, slots=True)
class Node:
    """One Cassandra node, identified by its host id; its name for people is `address:port`.

    `state` is the gossip state if the server shows it (NORMAL, BOOT, LEAVING, ...), else NORMAL for a node with
    tokens. `broadcast` is its `address:port` between nodes, as traces name it.

    `up` is whether it answers us, `silence` why it does not, if that is known. `alive` is whether the other nodes
    count on a node that does not answer us, or None if that is not known.
    """

    host_id: str
    address: str = field(compare=False)
    port: int = field(compare=False)
    dc: str = field(compare=False)
    rack: str = field(compare=False)
    tokens: tuple[int, ...] = field(compare=False, repr=False)
    release: str = field(compare=False)
    state: str = field(default="NORMAL", compare=False)
    up: bool = field(default=True, compare=False)
    broadcast: str = field(default="", compare=False)
    silence: Silence | None = field(default=None, compare=False)
    alive: bool | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """`address:port`, as in every report."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor of the server's release, such as (5, 0), or (0, 0) if it is not known yet."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def owned(self) -> tuple[int, ...]:
        """The tokens that place replicas: none while the node joins, or after it has left."""
        return () if self.state.upper() in NOT_IN_THE_RING else self.tokens

    def __hash__(self) -> int:
        # A node is hashed for each of its ranges; hashing its tokens each time would dominate planning.
        return hash(self.host_id)

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
        """Read the `replication` map of system_schema.keyspaces; options of other strategies are not interpreted."""
        strategy = options.get("class", "").rsplit(".", 1)[-1]
        factors: list[tuple[str, int]] = []
        transient: list[str] = []
        known = strategy in {"NetworkTopologyStrategy", "SimpleStrategy"}
        for name, text in sorted(options.items()) if known else ():
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
        """Whether other nodes should hold the same rows."""
        return self.strategy in {"NetworkTopologyStrategy", "SimpleStrategy"}

    @property
    def asked(self) -> int:
        """How many replicas of a row the options ask for, even if there are too few nodes."""
        return sum(rf for _, rf in self.factors)

    def factor(self, dc: str) -> int:
        """Return the replicas in one DC, 0 if the options ask for none."""
        return dict(self.factors).get(dc, 0)


@dataclass(frozen=True, slots=True)
class Arc:
    """All token ranges with the same replicas; those that touch are one."""

    replicas: tuple[Node, ...]
    ranges: tuple[TokenRange, ...]

    @property
    def share(self) -> float:
        """The part of the ring in this arc, from 0 to 1."""
        return sum(r.share for r in self.ranges)


def around(arcs: Sequence[Arc], tokens: Iterable[int]) -> tuple[Arc, ...]:
    """Return the arcs reduced to these tokens, with a range of one token each."""
    found: dict[tuple[Node, ...], list[TokenRange]] = {}
    ranges = sorted(((r.start, r.end, arc.replicas) for arc in arcs for r in arc.ranges), key=lambda item: item[1])
    ends = [end for _, end, _ in ranges]
    for token in sorted(set(tokens)):
        at = bisect.bisect_left(ends, token)
        if at < len(ranges) and ranges[at][0] < token:
            found.setdefault(ranges[at][2], []).append(TokenRange.at(token))
    return tuple(Arc(replicas, tuple(owned)) for replicas, owned in found.items())


@dataclass(frozen=True, slots=True)
class Doubt:
    """A point of the ring on which nodes disagree; `kind` is the audit's, `nodes` are those that differ."""

    kind: str
    detail: str
    remedy: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ring:
    """Every node of the cluster at one moment, as all answering nodes agree.

    `views` are the rings that single nodes see instead if they would place replicas elsewhere; `doubts` say what is
    wrong there. `unplaced` are nodes, by their address between nodes, that gossip shows as owners but whose tokens no
    node tells: then no range has known owners. `schema_versions` maps the host id of each answering node to its schema
    version.
    """

    cluster: str
    partitioner: str
    nodes: tuple[Node, ...]
    views: tuple[Ring, ...] = field(default=(), repr=False, compare=False)
    doubts: tuple[Doubt, ...] = field(default=(), repr=False, compare=False)
    unplaced: tuple[str, ...] = field(default=(), repr=False, compare=False)
    schema_versions: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.partitioner != MURMUR3:
            short = self.partitioner.rsplit(".", 1)[-1]
            msg = f"the cluster uses {short}; only Murmur3Partitioner can be checked by token range"
            raise TopologyError(msg)
        seen: dict[int, Node] = {}
        for node in self.nodes:
            for token in node.owned:
                if token in seen:
                    msg = f"{node} and {seen[token]} both claim token {token}; see nodetool ring"
                    raise TopologyError(msg)
                seen[token] = node
        if not seen:
            msg = "no node of the cluster owns a token"
            raise TopologyError(msg)

    @cached_property
    def host_ids(self) -> frozenset[str]:
        """The identities of the nodes, which do not depend on addresses."""
        return frozenset(node.host_id for node in self.nodes)

    @property
    def cluster_id(self) -> str:
        """A short id for the first sighting of this cluster; a ledger keeps it while nodes come and go."""
        return cluster_id(self.cluster, self.host_ids)

    @cached_property
    def owners(self) -> tuple[tuple[int, Node], ...]:
        """Every token with its owner, in ring order."""
        return tuple(sorted(((t, n) for n in self.nodes for t in n.owned), key=lambda pair: pair[0]))

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """Every token, in ring order."""
        return tuple(token for token, _ in self.owners)

    @property
    def disputed(self) -> bool:
        """Whether some ranges have unknown owners."""
        return bool(self.views or self.unplaced)

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """Nodes by host id."""
        return {node.host_id: node for node in self.nodes}

    @cached_property
    def fingerprint(self) -> str:
        """A fingerprint of the nodes, places and tokens; it changes when ownership can change."""
        text = "\n".join(
            f"{n.host_id} {n.dc} {n.rack} {','.join(map(str, sorted(n.owned)))}"
            for n in sorted(self.nodes, key=lambda n: n.host_id)
        )
        return hashlib.sha256(f"{self.cluster}\n{text}".encode()).hexdigest()[:32]

    @cached_property
    def datacenters(self) -> Mapping[str, tuple[Node, ...]]:
        """Token-owning nodes by DC."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            if node.owned:
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
        return self._placement(replication)[index]

    def _placed(self, replication: Replication) -> Iterator[tuple[TokenRange, tuple[Node, ...]]]:
        starts = [self.tokens[-1], *self.tokens[:-1]]
        for start, end, replicas in zip(starts, self.tokens, self._placement(replication), strict=True):
            for piece in unwrapped(start, end):
                yield piece, replicas

    @cached_property
    def _placements(self) -> dict[Replication, tuple[tuple[Node, ...], ...]]:
        return {}

    def _placement(self, replication: Replication) -> tuple[tuple[Node, ...], ...]:
        """Return the replicas of the range that ends at each token of `owners`, cached by replication."""
        if replication not in self._placements:
            self._placements[replication] = self._place(replication)
        return self._placements[replication]

    def _place(self, replication: Replication) -> tuple[tuple[Node, ...], ...]:
        if replication.strategy == "SimpleStrategy":
            owners = [node for _, node in self.owners]
            return tuple(_clockwise_replicas(owners, replication.factor(""), by_rack=False))
        wanted = [(dc, rf) for dc, rf in sorted(replication.factors) if rf > 0 and dc in self.datacenters]
        if not wanted:
            return ((),) * len(self.owners)
        by_dc = [self._place_in_dc(dc, rf) for dc, rf in wanted]
        return tuple(tuple(chain.from_iterable(parts)) for parts in zip(*by_dc, strict=True))

    def _place_in_dc(self, dc: str, rf: int) -> Iterator[tuple[Node, ...]]:
        """Yield one DC's replicas for each token of `owners`: those of the DC's own next token clockwise."""
        placed = _clockwise_replicas([n for _, n in self.owners if n.dc == dc], rf, by_rack=True)
        upcoming = 0
        for _, node in self.owners:
            yield placed[upcoming % len(placed)]
            upcoming += node.dc == dc


def _clockwise_replicas(owners: Sequence[Node], rf: int, *, by_rack: bool) -> list[tuple[Node, ...]]:
    """Return, for each token's owner, the replicas clockwise from it: racks first, then the next nodes.

    Cassandra walks from every token until it has met enough racks, which takes a whole round for a rack of one
    node. One backward walk keeps racks and nodes in the order of their next token instead, so a token costs `rf`
    steps. The replicas of a token are sorted by DC and address.
    """
    nodes: OrderedDict[str, Node] = OrderedDict()
    racks: OrderedDict[str, Node] = OrderedDict()
    placed: list[tuple[Node, ...]] = []
    for last_round in (False, True):  # the first round learns what follows the last token
        for node in reversed(owners):
            rack = node.rack if by_rack else ""
            nodes[node.host_id] = racks[rack] = node
            nodes.move_to_end(node.host_id)
            racks.move_to_end(rack)
            if last_round:
                placed.append(_nearest(nodes, racks, rf))
    return placed[::-1]


def _nearest(nodes: OrderedDict[str, Node], racks: OrderedDict[str, Node], rf: int) -> tuple[Node, ...]:
    """Pick the nearest node of each rack, then, if there are fewer racks than `rf`, the nearest other nodes."""
    rf = min(max(rf, 0), len(nodes))  # an operator may ask for any number
    chosen = list(islice(reversed(racks.values()), rf))
    if len(chosen) < rf:
        spare = (node for node in reversed(nodes.values()) if node not in chosen)
        chosen += list(islice(spare, rf - len(chosen)))
    return tuple(sorted(chosen, key=lambda node: (node.dc, node.address, node.port)))
