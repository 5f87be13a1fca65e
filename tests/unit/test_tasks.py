"""How a table is read: by which locality, told of those nodes alone that are read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from consistency.checking.scan import TableTask
from consistency.checking.tasks import CheckOptions, Tasks
from consistency.model.reading import Capabilities, Locality
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Keyspace
from tests.simulation.values import make_table

TABLE = make_table("t", ("int",), (), (), ("text",))
DCS = ("dc1", "dc1", "dc1", "dc2", "dc2")
NODES = tuple(Node(f"host-{n}", f"10.0.0.{n}", 9042, dc, "r", (n * 1000,), "5.0.8") for n, dc in enumerate(DCS, 1))


class Reader:
    """Asks those nodes by NODE_LOCAL that allow it, and traces the others."""

    capabilities = Capabilities()

    def __init__(self, allowing: str) -> None:
        self.allowing = allowing

    def locality(self, node: Node) -> Locality:
        """Return what proves that an answer is this node's own."""
        return Locality.NODE_LOCAL if node.host_id[-1] in self.allowing else Locality.TRACED


def told(allowing: str, factors: tuple[tuple[str, int], ...], *views: Ring, **options: Any) -> str:
    """Return by which locality a table is said to be read, or why it is not read."""
    replication = Replication("NetworkTopologyStrategy", factors)
    schema = {"ks": Keyspace("ks", replication, {"t": TABLE})}
    ring = Ring("c", MURMUR3, NODES, views)
    tasks = Tasks(cast("Any", Reader(allowing)), ring, schema, CheckOptions(**options))
    task = asyncio.run(tasks.task(TABLE))
    return task.locality if isinstance(task, TableTask) else task


@pytest.mark.parametrize(
    ("allowing", "factors", "options", "said"),
    [
        ("12345", (("dc1", 3), ("dc2", 2)), {}, "node-local"),
        ("123", (("dc1", 3), ("dc2", 2)), {}, "node-local+traced"),
        ("123", (("dc1", 3), ("dc2", 2)), {"dc": "dc1"}, "node-local"),
        ("123", (("dc1", 3),), {}, "node-local"),
        ("123", (("dc2", 1),), {}, "one replica, so there is nothing to compare"),
        ("123", (("dc2", 1),), {"non_owners": True}, "traced"),
    ],
)
def test_the_locality_of_a_table_is_that_of_its_replicas(
    allowing: str, factors: tuple[tuple[str, int], ...], options: dict[str, Any], said: str
) -> None:
    """Of replicas in scope; of the only replicas if a table that has one each is searched for strays."""
    assert told(allowing, factors, **options) == said


def test_the_locality_of_a_table_says_nothing_of_ranges_that_are_set_aside() -> None:
    """A node whose replicas the nodes do not agree on is not read there."""
    disputing = Ring("c", MURMUR3, tuple(node for node in NODES if node.host_id != "host-3"))
    assert told("12", (("dc1", 2),)) == "node-local+traced"
    assert told("12", (("dc1", 2),), disputing) == "node-local"
