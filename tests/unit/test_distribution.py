"""How the data lies on the nodes: read from their own tables, judged, and drawn."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from consistency.api import AuditReport
from consistency.auditing.distribution import distribute, judge_distribution
from consistency.cli.show.terminal.audit import print_audit
from consistency.cli.show.terminal.console import make_console
from consistency.cluster.holdings import read_holdings
from consistency.errors import ReplicaRefused
from consistency.model.holdings import HeldTable, NodeData
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Keyspace
from consistency.model.tokens import MIN_TOKEN, RING_SIZE
from consistency.results.report import Severity
from consistency.results.verdict import ExitCode

NODES = tuple(
    Node(f"host{i}", f"10.0.0.{i}", 9042, "dc1", f"r{i}", (MIN_TOKEN + RING_SIZE * i // 4,), "5.0.9")
    for i in range(1, 4)
)
RING = Ring("c", MURMUR3, NODES)
SHOP = {"shop": Keyspace("shop", Replication("NetworkTopologyStrategy", (("dc1", 3),)), {})}


def holds(*mebibytes: int, **figures: int) -> list[NodeData]:
    """Return what three nodes tell of one table."""
    return [
        NodeData(node, (HeldTable("shop", "orders", size, **figures),))
        for node, size in zip(NODES, mebibytes, strict=True)
    ]


def kinds(data: list[NodeData]) -> list[str]:
    """Return which rules are broken."""
    return [violation.kind for violation in judge_distribution(distribute(RING, SHOP, data))]


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [((1000, 1000, 1000), []), ((1000, 1000, 3000), ["uneven_data"]), ((1, 1, 90), []), ((0, 0, 0), [])],
)
def test_a_node_that_holds_more_than_its_ranges_say_is_named(sizes: tuple[int, ...], wanted: list[str]) -> None:
    """With RF 3 on three nodes each should hold a third; a few MiB in the wrong place are no news."""
    assert kinds(holds(*sizes)) == wanted


def test_what_a_node_should_hold_follows_from_its_ranges() -> None:
    """A keyspace of RF 1: the data is where the tokens are."""
    single = {"shop": Keyspace("shop", Replication("NetworkTopologyStrategy", (("dc1", 1),)), {})}
    found = distribute(RING, single, holds(400, 400, 800))
    assert [round(found.fair[node]) for node in NODES] == [800, 400, 400]
    assert [v.detail for v in judge_distribution(found)] == [
        "10.0.0.3:9042 holds 800 MiB, by its token ranges it should hold 400"
    ]


def test_large_partitions_and_tombstones_are_named_where_they_are_worst() -> None:
    """Each table once, with the node; what Cassandra itself does not warn of is no news."""
    data = holds(10, 10, 10, largest_mebibytes=99, tombstones_p99=999, tombstones_max=5_000)
    assert kinds(data) == []
    worse = replace(data[1].tables[0], largest_mebibytes=640, tombstones_p99=1_109)
    data[1] = replace(data[1], tables=(worse,))
    data[2] = replace(data[2], tables=(replace(worse, largest_mebibytes=200),))
    large, tombstones = judge_distribution(distribute(RING, SHOP, data))
    assert large.detail == "shop.orders has a partition of 640 MiB (10.0.0.2:9042)"
    assert "nodetool toppartitions shop orders" in large.remedy
    assert "1,109 tombstones and more, at most 5,000 (10.0.0.2:9042)" in tombstones.detail
    assert {large.severity, tombstones.severity} == {Severity.WARNING}


def test_a_node_that_does_not_tell_is_unknown() -> None:
    """It neither makes the others hot, nor does the audit pass."""
    data = holds(500, 500, 0)
    data[2] = NodeData(NODES[2], unread="no permission")
    found = distribute(RING, SHOP, data)
    (violation,) = judge_distribution(found)
    assert (violation.kind, violation.severity) == ("distribution_unread", Severity.UNKNOWN)
    assert NODES[2] not in found.fair
    report = AuditReport("c", 3, ("shop",), (violation,), found)
    assert report.exit_code is ExitCode.INCOMPLETE


class Told:
    """A connection to nodes with these tables; one refuses."""

    def __init__(self, tables: Mapping[str, list[dict[str, Any]]], refuses: Node | None = None) -> None:
        self._tables = tables
        self._refuses = refuses

    async def select(self, node: Node, cql: str) -> list[dict[str, Any]]:
        """Return the rows of the table that is asked."""
        if node == self._refuses:
            raise ReplicaRefused("no SELECT permission on system_views", node.name)
        return self._tables[cql.rpartition(" FROM ")[2]]


def test_what_the_servers_tell_is_put_together_by_table() -> None:
    """Sizes, largest partitions, tombstones, and the estimates of all ranges added up; other keyspaces are left out."""
    name = {"keyspace_name": "shop", "table_name": "orders"}
    other = {"keyspace_name": "system", "table_name": "local", "mebibytes": 1}
    tables = {
        "system_views.disk_usage": [{**name, "mebibytes": 12}, other],
        "system_views.max_partition_size": [{**name, "mebibytes": 3}],
        "system_views.tombstones_per_read": [{**name, "count": 9, "max": 70.0, "p99th": 61.2}],
        "system.size_estimates": [
            {**name, "mean_partition_size": 100, "partitions_count": 30},
            {**name, "mean_partition_size": 400, "partitions_count": 10},
        ],
    }
    connection: Any = Told(tables, refuses=NODES[1])
    down = replace(NODES[2], up=False)
    first, second, third = asyncio.run(read_holdings(connection, (*NODES[:2], down), ["shop"]))
    assert first.tables == (HeldTable("shop", "orders", 12, 3, 40, 175, 61, 70),)
    assert "no SELECT permission" in second.unread
    assert third.unread == "it does not answer"
    tables["system_views.tombstones_per_read"][0]["count"] = 0
    (first, *_) = asyncio.run(read_holdings(connection, NODES[:1], ["shop"]))
    assert first.tables[0].tombstones_p99 is None


def test_the_picture_has_a_bar_for_each_node_and_a_line_for_each_table() -> None:
    """Also at 80 columns; the JSON form holds every figure."""
    data = holds(100, 100, 400, largest_mebibytes=2, partitions=10, mean_bytes=5_000, tombstones_p99=4)
    data[0] = NodeData(NODES[0], unread="it does not answer")
    found = distribute(RING, SHOP, data)
    out = io.StringIO()
    report = AuditReport("c", 3, ("shop",), tuple(judge_distribution(found)), found)
    print_audit(make_console(out, environ={"COLUMNS": "80"}), report)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    bars = [line for line in text.splitlines() if "#" in line]
    assert [line.count("#") for line in bars] == [23, 6]
    assert all(line.index("|") == bars[0].index("|") for line in bars)
    (line,) = [line.split() for line in text.splitlines() if line.startswith("shop.orders ")]
    assert line == ["shop.orders", "2", "MiB", "5.0kB", "about", "20", "4", "0"]
    told = json.loads(json.dumps(report.as_json()))["distribution"]["nodes"]
    assert [node["mebibytes"] for node in told] == [0, 100, 400]
    assert told[0]["unread"] == "it does not answer"
    assert told[1]["tables"][0]["partitions"] == 10
