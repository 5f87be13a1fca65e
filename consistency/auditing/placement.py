"""Where the replicas of one keyspace are: per data centre, with shares of the ring, ownership and live nodes."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from consistency.model.ring import Arc, Node, Replication, Ring

_NOT_SERVING = frozenset({"SHUTDOWN", "HIBERNATE"})
"""Gossip states (VersionedValue) in which other nodes send a node no requests, even if it answers us."""


def quorum(rf: int) -> int:
    """Return the replicas of `rf` that make a quorum (ConsistencyLevel.quorumFor)."""
    return rf // 2 + 1


def serves(node: Node) -> bool:
    """Return whether other nodes can count on this one for reads and writes, even if it does not answer us."""
    return (node.up or node.alive is True) and node.state.upper() not in _NOT_SERVING


def may_serve(node: Node) -> bool:
    """Return whether other nodes may count on this one: it serves, or that is not known."""
    return serves(node) or not_known(node)


def not_known(node: Node) -> bool:
    """Return whether a node does not answer us and nothing says whether the others can count on it."""
    return not node.up and node.alive is None and node.state.upper() not in _NOT_SERVING


def ownership(ring: Ring, replication: Replication) -> dict[Node, float]:
    """Return the part of all rows that each token-owning node holds, from 0 to 1.

    This is the effective ownership of `nodetool status KEYSPACE`; over a DC it sums to the replicas that the
    DC really has, min(RF, nodes).
    """
    return dict(Placement(ring, replication).ownership)


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that share one replication factor: a DC, or (named "") the whole cluster under SimpleStrategy.

    `rf` is what the options ask for; `placed` is what the nodes allow.
    """

    dc: str
    rf: int
    nodes: tuple[Node, ...]

    @property
    def label(self) -> str:
        """The DC's name, or words for the cluster."""
        return self.dc or "the cluster"

    @property
    def placed(self) -> int:
        """Replicas that each range really has in this group."""
        return min(self.rf, len(self.nodes))

    @property
    def racks(self) -> Mapping[tuple[str, str], tuple[Node, ...]]:
        """Nodes by DC and rack."""
        found: dict[tuple[str, str], list[Node]] = defaultdict(list)
        for node in self.nodes:
            found[node.dc, node.rack].append(node)
        return {rack: tuple(nodes) for rack, nodes in sorted(found.items())}

    def members(self, replicas: Iterable[Node]) -> list[Node]:
        """Return those of some replicas that belong to this group."""
        return [node for node in replicas if not self.dc or node.dc == self.dc]


@dataclass(frozen=True, slots=True)
class Live:
    """Replicas of a part of the ring: `sure` of them serve; `most` do if those that are not known serve too."""

    replicas: tuple[Node, ...]
    sure: int
    most: int
    share: float

    @classmethod
    def of(cls, replicas: Iterable[Node], share: float) -> Live:
        """Count the live ones among some replicas."""
        members = tuple(replicas)
        return cls(members, sum(map(serves, members)), sum(map(may_serve, members)), share)

    @property
    def down(self) -> list[Node]:
        """Those that do not serve."""
        return [node for node in self.replicas if not may_serve(node)]

    @property
    def not_known(self) -> list[Node]:
        """Those that may serve."""
        return [node for node in self.replicas if not_known(node)]


@dataclass(frozen=True)
class Placement:
    """One replication on one ring; only for strategies that place replicas (`Replication.replicated`)."""

    ring: Ring
    replication: Replication

    @cached_property
    def arcs(self) -> tuple[Arc, ...]:
        """The whole ring by replica set."""
        return self.ring.arcs(self.replication)

    @cached_property
    def shares(self) -> tuple[tuple[tuple[Node, ...], float], ...]:
        """Each replica set with its part of the ring, from 0 to 1."""
        return tuple((arc.replicas, arc.share) for arc in self.arcs)

    @property
    def simple(self) -> bool:
        """Whether the placement ignores DCs and racks."""
        return self.replication.strategy == "SimpleStrategy"

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups with an RF of at least one and a node of the cluster, by DC name."""
        if self.simple:
            everyone = tuple(node for nodes in self.ring.datacenters.values() for node in nodes)
            rf = self.replication.factor("")
            return (Group("", rf, everyone),) if rf > 0 else ()
        return tuple(
            Group(dc, rf, self.ring.datacenters.get(dc, ()))
            for dc, rf in sorted(self.replication.factors)
            if rf > 0 and dc in known_dcs(self.ring)
        )

    @cached_property
    def ownership(self) -> Mapping[Node, float]:
        """The part of all rows that each token-owning node holds, from 0 to 1."""
        owned: dict[Node, float] = {n: 0.0 for nodes in self.ring.datacenters.values() for n in nodes}
        for replicas, share in self.shares:
            for node in replicas:
                owned[node] += share
        return owned

    @cached_property
    def impaired(self) -> Mapping[str, tuple[Live, ...]]:
        """By group, the arcs with a replica that may not serve, or with fewer replicas than the RF."""
        doubtful = {node for node in self.ring.nodes if not serves(node)}
        return {group.dc: tuple(self._impaired(group, doubtful)) for group in self.groups}

    def _impaired(self, group: Group, doubtful: set[Node]) -> Iterator[Live]:
        if not doubtful.intersection(group.nodes) and group.placed == group.rf:
            return
        for replicas, share in self.shares:
            live = Live.of(group.members(replicas), share)
            if live.sure < group.rf:
                yield live

    def share_within_a_rack(self, group: Group, at_least: int) -> float:
        """Return the part of the ring that has `at_least` replicas of the group in a single rack."""
        return sum(
            share
            for replicas, share in self.shares
            if max(Counter((n.dc, n.rack) for n in group.members(replicas)).values(), default=0) >= at_least
        )


def known_dcs(ring: Ring) -> frozenset[str]:
    """Return the DCs that have a node, with or without tokens; nodes that have left do not count."""
    return frozenset(n.dc for n in ring.nodes if n.state.upper() not in {"LEFT", "REMOVED"})
