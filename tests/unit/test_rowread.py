"""Rows read by the batch: which can be asked for together, and that they come out as if read one by one."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from consistency.cluster import selects
from consistency.cluster.key_batches import MOST_KEYS, batches, partition_lists
from consistency.cluster.port import Key
from consistency.errors import ReplicaRefused, ReplicaUnavailable
from consistency.model.cqlbytes import split_sequence
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.ring import Node
from consistency.rows.names import RowName
from consistency.rows.read import read_state, read_states
from tests.simulation.memory import Trouble
from tests.simulation.scenario import ROWS, Scenario, row
from tests.simulation.storage import token_of
from tests.simulation.values import int_bytes, make_table
from tests.simulation.vclock import EPOCH_S

READING = Reading(ROWS, Depth.CONTENT, Capabilities())
COMPOSITE = Reading(make_table("t", ("int", "text"), ("int", "int")), Depth.CONTENT, Capabilities())
MAPS = Reading(make_table("t", ("int",), ("int",), (), ("map<text, int>",)), Depth.CONTENT, Capabilities())
PLAIN = Reading(make_table("t", ("int",)), Depth.CONTENT, Capabilities())


def key(*numbers: int) -> Key:
    """Serialize a key of ints."""
    return tuple(map(int_bytes, numbers))


def test_rows_of_one_partition_are_asked_for_together() -> None:
    """One statement with the partition bound and the clustering keys as a list."""
    (batch,) = batches(READING, [key(1, c) for c in range(3)])
    assert "(c0) IN" not in batch.cql
    assert batch.cql.endswith("WHERE p0 = ? AND c0 IN ?")
    listed = int_bytes(3) + b"".join(int_bytes(4) + int_bytes(c) for c in range(3))
    assert batch.values == (int_bytes(1), listed)
    assert batch.expects([key(1, 0), key(1, 2)])
    assert not batch.expects([key(1, 3)])


def test_rows_of_one_clustering_key_are_asked_for_together() -> None:
    """One statement over several partitions; a table without clustering columns always has that."""
    (batch,) = batches(READING, [key(p, 7) for p in range(3)])
    assert batch.cql.endswith("WHERE p0 IN ? AND c0 = ?")
    assert batch.values[1:] == (int_bytes(7),)
    (batch,) = batches(PLAIN, [key(p) for p in range(3)])
    assert batch.cql.endswith("WHERE p0 IN ?")


def test_a_key_of_several_columns_is_bound_in_its_order() -> None:
    """The last partition column takes the list; several clustering columns are a list of tuples."""
    across = [(int_bytes(1), text, int_bytes(2), int_bytes(3)) for text in (b"a", b"bb")]
    (batch,) = batches(COMPOSITE, across)
    assert batch.cql.endswith("WHERE p0 = ? AND p1 IN ? AND c0 = ? AND c1 = ?")
    assert batch.values == (int_bytes(1), b"\0\0\0\2\0\0\0\1a\0\0\0\2bb", int_bytes(2), int_bytes(3))
    within = [(int_bytes(1), b"a", int_bytes(2), int_bytes(c)) for c in (3, 4)]
    (batch,) = batches(COMPOSITE, within)
    assert batch.cql.endswith("WHERE p0 = ? AND p1 = ? AND (c0, c1) IN ?")
    assert len(batch.values[2]) == 4 + 2 * (4 + 16)


def test_collections_forbid_a_list_of_clustering_keys() -> None:
    """The server refuses that; such rows are asked for one by one, or across partitions."""
    assert [b.cql for b in batches(MAPS, [key(1, 1), key(1, 2)])] == [selects.select_row(MAPS)] * 2
    (batch,) = batches(MAPS, [key(1, 1), key(2, 1)])
    assert batch.cql.endswith("WHERE p0 IN ? AND c0 = ?")


ONE_VALUE = {
    "decimal": [int_bytes(1) + b"\x0a", int_bytes(2) + b"\x64", int_bytes(3) + b"\x03\xe8"],
    "varint": [b"\x07", b"\0\x07", b"\0\0\x07"],
    "double": [bytes.fromhex(f"7ff800000000000{n}") for n in range(3)],
    "boolean": [b"\1", b"\2", b"\3"],
    "frozen<tuple<int, decimal>>": [b"\xff" * 4 + part for part in (b"", b"\xff" * 4, b"\xff" * 8)],
    "'org.acme.Point'": [b"a", b"b", b"c"],
    "frozen<tuple<float>>": [b"\0\0\0\1a", b"\0\0\0\1b", b"\0\0\0\1c"],
}
"""By type: spellings of one value, or bytes of which nobody knows that they are not."""


@pytest.mark.parametrize("kind", ONE_VALUE)
@pytest.mark.parametrize("clustering", [(), ("int",)])
@pytest.mark.parametrize("first", [(), ("int",)])
def test_no_list_names_two_partitions_that_are_one_to_the_servers(
    kind: str, clustering: tuple[str, ...], first: tuple[str, ...]
) -> None:
    """The servers read the first of them alone: rows of the others would pass for missing on every replica."""
    reading = Reading(make_table("t", (*first, kind), clustering), Depth.CONTENT, Capabilities())
    others = [int_bytes(2) + bytes([n]) for n in range(80)] if kind == "decimal" else []
    spelled = ONE_VALUE[kind] + others
    width = len(first) + 1
    for row_of in (int_bytes(7), None):  # one clustering key, or another for each
        keys = [
            (*map(int_bytes, range(len(first))), part, *[row_of or int_bytes(n)] * len(clustering))
            for n, part in enumerate(spelled)
        ]
        made = list(batches(reading, keys, page_rows=5_000))
        assert sorted(k for batch in made for k in batch.keys) == sorted(keys)
        for batch in made:
            assert len({key[width - 1] for key in batch.keys} & set(ONE_VALUE[kind])) < 2
        assert len(made) < len(keys) or not others
        lists = list(partition_lists(reading.table, [key[:width] for key in keys]))
        named = [part for values in lists for part in split_sequence(values[-1])]
        assert sorted(p or b"" for p in named) == sorted(spelled)
        assert all(len(set(split_sequence(values[-1])) & set(ONE_VALUE[kind])) < 2 for values in lists)


def test_rows_with_nothing_in_common_are_crossed() -> None:
    """Every clustering key of a few in every partition of a few: what else that brings is no surprise, others are."""
    (batch,) = batches(READING, [key(p, 10 + p) for p in range(3)], page_rows=100)
    assert batch.cql.endswith("WHERE p0 IN ? AND c0 IN ?")
    assert batch.values == tuple(
        int_bytes(3) + b"".join(int_bytes(4) + int_bytes(i) for i in each) for each in (range(3), range(10, 13))
    )
    assert batch.expects([key(0, 10), key(2, 10)])
    assert not batch.expects([key(2, 13)])
    assert not batch.expects([key(3, 10)])


def test_large_rows_are_not_crossed() -> None:
    """Where a page holds few rows, and where collections forbid a list: one by one."""
    assert len(list(batches(READING, [key(p, 10 + p) for p in range(3)], page_rows=63))) == 3
    assert len(list(batches(MAPS, [key(p, 10 + p) for p in range(3)], page_rows=100))) == 3


@pytest.mark.parametrize("page_rows", [0, 5_000])
@pytest.mark.parametrize("reading", [READING, MAPS, PLAIN, COMPOSITE])
def test_every_key_is_asked_for_exactly_once(reading: Reading, page_rows: int) -> None:
    """Whatever keys are given, also twice, and never too many in one statement."""
    rng = random.Random(3)
    width = len(reading.table.primary_key)
    keys = [key(*(rng.randrange(30) for _ in range(width))) for _ in range(500)]
    made = list(batches(reading, keys, page_rows=page_rows))
    asked = [k for batch in made for k in batch.keys]
    assert sorted(asked) == sorted(set(keys))
    assert max(len(batch.keys) for batch in made) <= MOST_KEYS
    assert len(made) < len(asked)


def names(rows: Sequence[tuple[int, int | None]]) -> list[RowName]:
    """Name rows, a static one where there is no clustering key."""
    return [RowName(token_of(key(p)), key(p) if c is None else key(p, c), static=c is None) for p, c in rows]


@pytest.mark.parametrize("trouble", [None, "refused", "down"])
def test_many_rows_come_out_as_if_read_one_by_one(trouble: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are there, rows that are not, static rows; also where a node refuses batches, or is down."""
    scenario = Scenario(faults=((Trouble.DOWN, 2, 0.0, 1e9),) if trouble == "down" else ())
    scenario.fill(4, 3)
    scenario.apply(row(1, 1, v0=int_bytes(9)), on=[1])
    wanted = names([(1, 1), (1, 2), (2, 1), (3, None), (9, 9), (9, None)])
    batched = scenario.cluster.rows_by_key

    async def refuse(node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        if node == scenario.nodes[0]:
            raise ReplicaRefused("no lists here")
        return await batched(node, reading, keys, now_s)

    if trouble == "refused":
        monkeypatch.setattr(scenario.cluster, "rows_by_key", refuse)

    async def main() -> None:
        seen = await read_states(scenario.cluster, READING, wanted, scenario.nodes, EPOCH_S)
        for name, (states, unread) in zip(wanted, seen, strict=True):
            assert list(unread) == ([scenario.nodes[1]] if trouble == "down" else [])
            for node in states:
                assert states[node] == await read_state(scenario.cluster, READING, name, node, EPOCH_S)
            assert len(states) + len(unread) == 3
        assert [all(s is None for s in states.values()) for states, _ in seen] == [False] * 3 + [True] * 3

    scenario.run(main)


def test_a_node_that_is_down_is_asked_once_for_a_batch() -> None:
    """And not again for each of its rows."""
    scenario = Scenario()
    scenario.fill(4, 3)
    asked: list[int] = []

    async def down(node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        asked.append(len(keys))
        raise ReplicaUnavailable("down")

    async def main() -> None:
        scenario.cluster.rows_by_key = down  # type: ignore[method-assign]
        before = scenario.cluster.asked.total()
        await read_states(scenario.cluster, READING, names([(1, 1), (1, 2)]), scenario.nodes, EPOCH_S)
        assert asked == [2, 2, 2]
        assert scenario.cluster.asked.total() == before

    scenario.run(main)
