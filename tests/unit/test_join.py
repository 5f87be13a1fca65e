"""The merge-join: what it yields is what a plain comparison of dictionaries yields, whatever the pages."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.errors import InternalError
from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Column, Table
from consistency.model.servertime import ServerTime
from consistency.model.tokens import TokenRange
from consistency.results.kinds import Kind
from consistency.rows.classify import finding, judge_row
from consistency.rows.evidence import Evidence
from consistency.rows.merge_join import Difference, join_rows
from consistency.rows.reconcile import Persistence, persistence
from tests.simulation.histories import Damage, Drawing, RowKey, damage, load
from tests.simulation.memory import Pace, SimCluster
from tests.simulation.scenario import make_nodes
from tests.simulation.truth import truth
from tests.simulation.values import draw_table, keyspace
from tests.simulation.vclock import EPOCH_S, VirtualLoop, run_virtual

NODES = [Node(str(i), f"127.0.0.{i}", 9042, "dc1", "r1", (i,), "5.0.8") for i in (1, 2, 3)]


def column(name: str, kind: str, position: int = -1, cql: str = "int", *, descending: bool = False) -> Column:
    """Describe a column."""
    return Column(name, kind, position, parse_type(cql, {}), reversed=descending)


TABLE = Table(
    "ks",
    "t",
    "id",
    (
        column("p", "partition_key", 0),
        column("c", "clustering", 0, descending=True),
        column("s", "static"),
        column("v", "regular"),
    ),
)
READING = Reading(TABLE, Depth.CONTENT, Capabilities())

Partitions = dict[int, tuple[int | None, dict[int, int]]]
"""Partition key to its static value and its rows: clustering to value."""


def number(value: int | None) -> bytes | None:
    """Serialize an int."""
    return None if value is None else struct.pack(">i", value)


def raw_rows(partitions: Partitions) -> list[RawRow]:
    """Return the rows as a server sends them: by token (here the key itself), clustering descending."""
    out: list[RawRow] = []
    for p, (static, rows) in sorted(partitions.items()):
        head = (struct.pack(">q", p), number(p))
        static_cells = (number(static), None if static is None else struct.pack(">q", 7), None)
        if not rows and static is not None:
            out.append((*head, None, *static_cells, None, None, None))
        clusterings = sorted(rows, reverse=True)
        out.extend((*head, number(c), *static_cells, number(rows[c]), struct.pack(">q", 9), None) for c in clusterings)
    return out


async def pages(rows: Sequence[RawRow], size: int) -> AsyncIterator[list[RawRow]]:
    """Send rows a page at a time."""
    for i in range(0, len(rows), size):
        yield list(rows[i : i + size])


def joined(replicas: Sequence[Sequence[RawRow]], sizes: Sequence[int]) -> list[Difference]:
    """Join what each replica sends."""

    async def run() -> list[Difference]:
        streams = {node: pages(rows, size) for node, rows, size in zip(NODES, replicas, sizes, strict=False)}
        return [difference async for difference in join_rows(READING, streams, 1000)]

    return asyncio.run(run())


PARTITIONS = st.dictionaries(
    st.integers(0, 6),
    st.tuples(st.none() | st.integers(0, 1), st.dictionaries(st.integers(0, 5), st.integers(0, 1), max_size=6)),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(PARTITIONS, PARTITIONS, PARTITIONS, st.lists(st.integers(1, 7), min_size=3, max_size=3))
def test_the_join_finds_what_a_comparison_of_dictionaries_finds(
    one: Partitions, two: Partitions, three: Partitions, sizes: list[int]
) -> None:
    """Rows and statics that differ, each once, in ring order, however the replicas cut their pages."""
    replicas = [one, two, three]
    rows = {(p, c) for r in replicas for p, (_, cells) in r.items() for c in cells}
    wanted = {(p, c) for p, c in rows if len({r.get(p, (None, {}))[1].get(c) for r in replicas}) > 1}
    statics = {p for r in replicas for p in r}
    wanted_statics = {p for p in statics if len({r.get(p, (None, {}))[0] for r in replicas}) > 1}
    found = joined([raw_rows(r) for r in replicas], sizes)
    names = [tuple(struct.unpack(">i", part)[0] for part in d.name.key) for d in found]
    assert sorted(n for n, d in zip(names, found, strict=True) if not d.name.static) == sorted(wanted)
    assert sorted(n[0] for n, d in zip(names, found, strict=True) if d.name.static) == sorted(wanted_statics)
    assert [d.name.token for d in found] == sorted(d.name.token for d in found)


def test_rows_out_of_order_are_refused() -> None:
    """A replica whose rows do not come in Cassandra's order cannot be paired: the range is unknown."""
    rows = raw_rows({1: (None, {1: 0, 2: 0, 3: 0})})
    with pytest.raises(InternalError, match="order"):
        joined([rows, rows[::-1]], [10, 10])


def test_a_million_cells_of_equal_rows_are_passed_over_at_once() -> None:
    """Equal replicas are compared a chunk at a time: a hundred thousand rows take well under a second."""
    rows = raw_rows({p: (None, dict.fromkeys(range(100), 0)) for p in range(1000)})
    assert joined([rows, list(rows), list(rows)], [5000, 5000, 5000]) == []


def test_a_row_that_cql_cannot_name_makes_the_range_unknown() -> None:
    """A COMPACT STORAGE row may lack a clustering column: it is a row, and it is never passed over."""
    table = Table("ks", "t", "id", tuple(c for c in TABLE.columns if c.kind != "static"))
    reading = Reading(table, Depth.CONTENT, Capabilities())
    row = (struct.pack(">q", 1), number(1), None, number(5), struct.pack(">q", 9), None)

    async def run() -> list[Difference]:
        streams = {node: pages(rows, 5) for node, rows in zip(NODES, ([row], []), strict=False)}
        return [difference async for difference in join_rows(reading, streams, 1000)]

    with pytest.raises(InternalError, match="COMPACT STORAGE"):
        asyncio.run(run())


@pytest.mark.parametrize("depth", list(Depth))
def test_the_join_agrees_with_the_storage_on_tables_of_every_shape(depth: Depth) -> None:
    """Clustering of several types in either direction, statics, collections, pages of any size: the same rows."""
    for seed in range(120):
        rng = random.Random(seed)
        table = draw_table(rng, "t")
        nodes = make_nodes(("dc1",) * 3)
        schema = {"ks": keyspace("ks", Replication("NetworkTopologyStrategy", (("dc1", 3),)), [table])}
        loop = VirtualLoop()
        cluster = SimCluster(loop, Ring("c", MURMUR3, nodes), schema, Capabilities(), rng, Pace(page_rows=5))
        drawing = Drawing(rng, table)
        load(cluster, drawing)
        damage(cluster, drawing, Damage())
        reading = Reading(table, depth, Capabilities())
        found = run_virtual(loop, _names(cluster, reading, nodes))
        assert len(found) == len(set(found)), seed
        assert set(found) == set(truth(cluster, table, reading, EPOCH_S)), seed


async def _names(cluster: SimCluster, reading: Reading, nodes: Sequence[Node]) -> list[RowKey]:
    streams = {node: cluster.rows(node, reading, TokenRange.full_ring(), EPOCH_S) for node in nodes}
    width = len(reading.table.partition_key)
    return [
        (reading.table.name, d.name.key[:width], None if d.name.static else d.name.key[width:])
        async for d in join_rows(reading, streams, EPOCH_S)
    ]


def test_one_clustering_key_in_other_bytes_is_a_difference() -> None:
    """The decimals 1.0 and 1.00 are one row to Cassandra, and two to who reads them: nothing agrees here."""
    table = Table(
        "ks",
        "t",
        "id",
        (column("p", "partition_key", 0), column("c", "clustering", 0, "decimal"), column("v", "regular")),
    )
    reading = Reading(table, Depth.CONTENT, Capabilities())

    def rows(clustering: bytes) -> list[RawRow]:
        return [(struct.pack(">q", 1), number(1), clustering, number(7), struct.pack(">q", 9), None)]

    async def run() -> list[Difference]:
        sent = (b"\0\0\0\1\x0a", b"\0\0\0\1\x0a", b"\0\0\0\2\x64")
        streams = {node: pages(rows(clustering), 10) for node, clustering in zip(NODES, sent, strict=True)}
        return [difference async for difference in join_rows(reading, streams, EPOCH_S)]

    (found,) = asyncio.run(run())
    spelled = [state.spelling for state in found.states.values() if state is not None]
    assert spelled == [None, None, (number(1), b"\0\0\0\2\x64")]
    assert persistence(found.states, found.states) is Persistence.PRESENT
    held = Evidence(reading, found.name, tuple(NODES), found.states, {}, ServerTime.exactly(EPOCH_S * 1_000_000))
    judged = judge_row(held)
    assert judged.facts == (Kind.TIE,)
    told = finding(held, judged)
    assert told.columns == ("c",)
    assert [view.state.value for view in told.replicas.values()] == ["current", "current", "stale"]
