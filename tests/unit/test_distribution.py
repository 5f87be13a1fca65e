"""How the data lies on the nodes: read from their own tables, judged, and drawn."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consistency.api import AuditReport
from consistency.auditing.distribution import distribute, judge_distribution
from consistency.cli.show.page.audit import render_audit
from consistency.cli.show.page.collect import Collector
from consistency.cli.show.page.render import render_page
from consistency.cli.show.terminal.advice import Typed
from consistency.cli.show.terminal.audit import print_audit
from consistency.cli.show.terminal.console import make_console
from consistency.cluster.holdings import read_holdings
from consistency.errors import ReplicaRefused
from consistency.model.holdings import HeldTable, NodeData
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Keyspace
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange
from consistency.results.distribution import Distribution, Share, by_rack, rows_by_node
from consistency.results.report import Severity, TableReport
from consistency.results.tree_report import TreeReport
from consistency.results.verdict import ExitCode
from tests.simulation.cases import run_case
from tests.unit.conftest import Shell
from tests.unit.test_page import Page
from tests.unit.test_terminal import report, table_report

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


# In pages, and as a check has counted.


def read_whole(name: str, rows: tuple[int, ...], *widths: float) -> TableReport:
    """Return a table of which three nodes were read, each with ranges of its own and so much of the ring."""
    trees, start = [], MIN_TOKEN
    for node, width in zip(NODES, widths, strict=True):
        end = min(MAX_TOKEN, start + int(RING_SIZE * width))
        trees.append(TreeReport((node,), "s", ((TokenRange(start, end), (b"x",)),), 0))
        start = end
    held = {node.host_id: count for node, count in zip(NODES, rows, strict=True)}
    return replace(table_report(table=name), trees=tuple(trees), held=held)


def test_a_check_tells_how_many_rows_each_node_holds_beside_its_ranges() -> None:
    """Of tables that were read whole, added up; a table that was not is left out."""
    tables = [
        read_whole("a", (500, 300, 200), 0.5, 0.25, 0.25),
        read_whole("b", (0, 0, 1000), 0.25, 0.25, 0.5),
        replace(read_whole("c", (9, 9, 9), 0.3, 0.3, 0.3), held={}),
    ]
    shares = rows_by_node(tables)
    assert [(share.name, share.held, round(share.fair), share.hot) for share in shares] == [
        ("10.0.0.3:9042", 1200, 750, True), ("10.0.0.1:9042", 500, 750, False), ("10.0.0.2:9042", 300, 500, False),
    ]  # fmt: skip
    assert sum(share.held for share in shares) == round(sum(share.fair for share in shares))
    assert replace(report(), tables=tuple(tables)).as_json()["rows_by_node"][0] == {
        "node": "10.0.0.3:9042", "dc": "dc1", "rack": "r3", "rows": 1200, "by_ranges": 750,
    }  # fmt: skip


def test_data_centres_are_not_held_against_each_other() -> None:
    """A node holds its part of what its own data centre holds."""
    far = replace(NODES[2], dc="dc2")
    table = read_whole("a", (500, 500, 3000), 0.4, 0.4, 0.2)
    whole = TreeReport((far,), "s", ((TokenRange(MIN_TOKEN, MAX_TOKEN), (b"x",)),), 0)
    shares = rows_by_node([replace(table, trees=(*table.trees[:2], whole))])
    assert {share.name: round(share.fair) for share in shares} == {
        "10.0.0.1:9042": 500, "10.0.0.2:9042": 500, "10.0.0.3:9042": 3000,
    }  # fmt: skip


def test_the_rows_of_simulated_checks_add_up() -> None:
    """Whatever the ring: each data centre should hold what it holds."""
    seen = 0
    for seed in range(40):
        shares = run_case(seed).report.rows_by_node
        for dc in {share.dc for share in shares}:
            held = sum(share.held for share in shares if share.dc == dc)
            assert held == pytest.approx(sum(share.fair for share in shares if share.dc == dc))
            seen += held > 0
    assert seen > 10


def test_racks_are_added_up_and_one_with_a_silent_node_is_not_known() -> None:
    """What a rack holds is that of all its nodes."""
    shares = [Share("a", "dc1", "r1", 10, 20), Share("b", "dc1", "r1", 5, 1), Share("c", "dc1", "r2", 0, 0, "is down")]
    one, two = by_rack(shares)
    assert (one.name, one.held, one.fair, one.unread) == ("r1", 15, 21, "")
    assert two.unread == "c: is down"


def audited(data: list[NodeData]) -> AuditReport:
    """Return an audit with what nodes tell."""
    found = distribute(RING, SHOP, data)
    return AuditReport("c", 3, ("shop",), tuple(judge_distribution(found)), found)


def uneven() -> list[NodeData]:
    """Return nodes of which one holds most of the data, and one tells nothing."""
    data = holds(1000, 1000, 9000, largest_mebibytes=640, partitions=1000, mean_bytes=512, tombstones_p99=7)
    data[0] = NodeData(NODES[0], unread="it is down")
    return data


def test_the_page_draws_what_the_terminal_prints() -> None:
    """Nodes and racks with their bars, the tables, and the rules; nothing runs in it, nothing is loaded."""
    text = render_audit(audited(uneven()))
    page = Page(text)
    words = " ".join(page.text.split())
    for said in ("Unknown", "9,000 MiB, by its ranges", "it is down", "Data by rack", "640 MiB", "about 2,000", "512B",
                 "large partition", "bucket its partition key", "nodetool toppartitions"):  # fmt: skip
        assert said in words, said
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "img"} == set()
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "script-src" not in policy
    bars = [attributes for tag, attributes in page.tags if tag == "rect" and attributes.get("height") == "6"]
    assert [bar["class"] for bar in bars] == ["unread", "agreed", "agreed", "unread"]
    assert max(float(bar["width"] or 0) for bar in bars) == 100


def test_hostile_names_stay_text_in_an_audit() -> None:
    """Of racks, tables and nodes."""
    evil = "</style><script>alert(1)</script>"
    data = [NodeData(replace(NODES[0], rack=evil), (HeldTable(evil, evil, 10, 10),), ""), *holds(1, 1, 1)[1:]]
    page = Page(render_audit(AuditReport(evil, 3, (evil,), (), Distribution(tuple(data), {}))))
    assert "script" not in {tag for tag, _ in page.tags}
    assert evil in page.text


def test_the_page_of_a_check_draws_the_rows_by_node() -> None:
    """And leaves the section out where no table was read whole."""
    tables = (read_whole("a", (500, 300, 200), 0.5, 0.25, 0.25),)
    words = " ".join(Page(render_page(replace(report(), tables=tables), Collector(), Typed(), keys=False)).text.split())
    assert "Rows by node" in words
    assert "300 rows, by its ranges 250" in words
    assert "Rows by node" not in render_page(report(), Collector(), Typed(), keys=False)


def test_the_command_writes_the_page(shell: Shell, tmp_path: Path) -> None:
    """Mode 0600; '-' is refused, because a page is no output for a pipe."""
    path = tmp_path / "audit.html"
    result = shell.run("audit", "--html", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert "consistency audit" in path.read_text()
    assert result.exit_code in (0, 1)
    assert shell.run("audit", "--html", "-").exit_code == 2
    assert shell.run("audit", "--html", str(path), "--json", str(path)).exit_code == 2
