"""Whether the other nodes count on one that does not answer us: by their refusals at ALL, else by heartbeats."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from consistency.cluster import liveness as module
from consistency.cluster.liveness import with_liveness
from consistency.cluster.wire import ALL, THREE, TWO
from consistency.errors import ReplicaError, ReplicaForbidden, ReplicaTimeout, TooFewReplicas
from consistency.model.ring import MURMUR3, Node, Replication, Ring

SIMPLE = "org.apache.cassandra.locator.SimpleStrategy"
SPACES = {
    "system_distributed": {"class": SIMPLE, "replication_factor": "3"},
    "system_traces": {"class": SIMPLE, "replication_factor": "2"},
    "local": {"class": "org.apache.cassandra.locator.LocalStrategy"},
    "ks": {"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "dc1": "5"},
}


def nodes(count: int = 3) -> list[Node]:
    """Return nodes of four tokens each, by turns."""
    return [
        Node(
            f"host-{n}", f"10.0.0.{n}", 9042, "dc1", "r1", tuple(range(n, 4 * count + 1, count)), "5.0.8",
            broadcast=f"10.0.0.{n}:7000",
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


@dataclass
class Servers:
    """Nodes that answer queries as Cassandra does; `dead` is what their failure detectors say."""

    ring: Ring
    dead: set[int] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    hung: set[int] = field(default_factory=set)
    strangers: set[int] = field(default_factory=set)
    differs: dict[str, set[int]] = field(default_factory=dict)
    beats: dict[int, int] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def select(
        self, node: Node, cql: str, *, consistency: int = 1, timeout_s: float = 30.0
    ) -> list[Mapping[str, Any]]:
        """Answer."""
        assert node.up
        assert timeout_s <= module.WITHIN_S
        self.asked.append(cql)
        table = re.search(r"FROM (\S+)", cql)
        assert table is not None
        keyspace = table[1].partition(".")[0]
        if keyspace in self.forbidden or table[1] in self.forbidden:
            raise ReplicaForbidden("no right")
        if "token(" in cql:
            return self._read(node, keyspace, int(cql.split(" = ")[1].split(maxsplit=1)[0]), consistency)
        return list(self._rows(table[1]))

    def _rows(self, table: str) -> Sequence[Mapping[str, Any]]:
        known = [n for i, n in enumerate(self.ring.nodes, 1) if i not in self.strangers]
        places = [dict(zip(("address", "port"), n.broadcast.split(":"), strict=True)) for n in known]
        if table == "system_views.internode_outbound":
            return places
        if table == "system_views.gossip_info":
            for n in self.beats:
                self.beats[n] += 1
            return [
                place
                | {"heartbeat": self.beats.get(int(place["address"][-1]), 7), "status": None}
                | {"status_with_port": self.states.get(int(place["address"][-1]), "NORMAL,1")}
                for place in places
            ]
        if table == "system_schema.keyspaces":
            return [{"keyspace_name": name, "replication": options} for name, options in SPACES.items()]
        return [
            {"table_name": "T", "column_name": "k", "kind": "partition_key", "position": 0},
            {"table_name": "T", "column_name": "v", "kind": "regular", "position": -1},
        ]

    def _read(self, node: Node, keyspace: str, token: int, consistency: int) -> list[Mapping[str, Any]]:
        replication = Replication.parse(SPACES[keyspace])
        replicas = {self.ring.nodes.index(n) + 1 for n in self.ring.replicas_of(token, replication)}
        assert consistency == {"system_distributed": THREE, "system_traces": TWO, "ks": ALL}[keyspace]
        alive = replicas - self.differs.get(node.host_id, self.dead)
        if alive != replicas or len(replicas) < (5 if keyspace == "ks" else 0):
            raise TooFewReplicas("no", len(alive))
        if replicas & self.hung:
            raise ReplicaTimeout("no")
        return []


def servers(silent: Sequence[int], count: int = 3, **facts: Any) -> Servers:
    """Return nodes of which some do not answer us."""
    ring = tuple(replace(n, up=i not in silent) for i, n in enumerate(nodes(count), 1))
    return Servers(Ring("test", MURMUR3, ring), **facts)


def alive(given: Servers) -> list[bool | None]:
    """Return what is found out about each node."""
    return [node.alive for node in asyncio.run(with_liveness(given, given.ring)).nodes]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no heartbeat as long as a real one takes."""
    monkeypatch.setattr(module, "_HEARTBEATS_S", 0.4)


def test_a_healthy_cluster_pays_nothing() -> None:
    """Nobody is asked where everybody answers."""
    given = servers(())
    assert alive(given) == [None] * 3
    assert given.asked == []


def test_what_a_coordinator_counts_is_what_is_said() -> None:
    """A read of all replicas succeeds, or is refused with the number that live."""
    assert alive(servers((3,))) == [None, None, True]
    assert alive(servers((3,), dead={3})) == [None, None, False]
    assert alive(servers((2, 3), dead={2, 3})) == [None, False, False]


def test_one_dead_of_two_silent_ones_is_told_apart() -> None:
    """All three replicas do not tell which; ranges of two do."""
    assert alive(servers((2, 3), dead={2})) == [None, False, True]
    assert alive(servers((2, 3), dead={3})) == [None, True, False]


def test_more_replicas_asked_for_than_there_are_nodes() -> None:
    """RF 5 on three nodes is never met: what counts is how many live, of those that exist."""
    own = {"system_distributed", "system_traces"}
    assert alive(servers((3,), forbidden=own)) == [None, None, True]
    assert alive(servers((3,), forbidden=own, dead={3})) == [None, None, False]


def test_what_nodes_do_not_agree_on_is_not_known() -> None:
    """One side of a split network calls the other dead."""
    assert alive(servers((3,), differs={"host-1": {3}, "host-2": set()})) == [None, None, None]


def test_a_ghost_is_not_alive_because_a_read_succeeds() -> None:
    """Its row is in system.peers; the node asked never exchanged a message with it, and reads from others."""
    assert alive(servers((3,), strangers={3})) == [None, None, None]


def test_where_nothing_may_be_read_heartbeats_tell() -> None:
    """One that advances is alive; one that says it shuts down is not; one that stands still proves nothing."""
    spaces = set(SPACES)
    assert alive(servers((3,), forbidden=spaces, beats={3: 5})) == [None, None, True]
    assert alive(servers((3,), forbidden=spaces, states={3: "shutdown,true"})) == [None, None, False]
    assert alive(servers((3,), forbidden=spaces)) == [None, None, None]
    assert alive(servers((3,), hung={3}, forbidden={"ks"})) == [None, None, None]
    assert alive(servers((3,), forbidden={*spaces, "system_views.gossip_info"})) == [None, None, None]
    assert alive(servers((3,), forbidden={*spaces, "system_views", "system_schema"})) == [None, None, None]


def test_it_takes_three_seconds_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that does not answer in time tells nothing."""
    monkeypatch.setattr(module, "WITHIN_S", 0.05)

    class Slow(Servers):
        async def select(self, *_: Any, **__: Any) -> list[Mapping[str, Any]]:
            await asyncio.sleep(30)
            raise ReplicaError("never")

    assert alive(Slow(servers((3,)).ring)) == [None, None, None]


def test_with_nobody_to_ask_nothing_is_known() -> None:
    """No node answers."""
    assert alive(servers((1, 2, 3))) == [None] * 3


def test_nodes_of_every_data_centre_are_asked() -> None:
    """At most three."""
    given = [replace(n, dc=f"dc{i % 2}") for i, n in enumerate(nodes(6))]
    assert {n.host_id for n in module._who_to_ask(given)} == {"host-1", "host-2", "host-3"}
    given = [replace(n, dc="dc2" if i > 3 else "dc1") for i, n in enumerate(nodes(6))]
    assert {n.host_id for n in module._who_to_ask(given)} == {"host-1", "host-5", "host-2"}
