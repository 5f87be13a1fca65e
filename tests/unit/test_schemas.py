"""A table is what all nodes say that it is; where they do not agree it is unknown, and the nodes are named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from consistency.cluster import schemas
from consistency.cluster.connection import Connection
from consistency.cluster.schemas import Schemas, agreed_schema
from consistency.errors import ReplicaUnavailable, SchemaError
from consistency.model.cqltype import UserType, parse_type
from consistency.model.ring import Node, Replication
from consistency.model.schema import Keyspace, SchemaRows, Table, build_schema
from tests.unit.fake_cluster import nodes, table

ONE, TWO, THREE = nodes()
RF3 = Replication("NetworkTopologyStrategy", (("dc1", 3),))


def keyspace(*tables: Table, replication: Replication = RF3) -> dict[str, Keyspace]:
    """Return one keyspace of some tables."""
    return {"shop": Keyspace("shop", replication, {t.name: t for t in tables})}


def test_what_all_describe_alike_is_believed() -> None:
    """In however many versions: releases name one schema in different ways."""
    orders = table()
    found = agreed_schema([((ONE, TWO), keyspace(orders)), ((THREE,), keyspace(orders))])
    assert found == keyspace(orders)


def test_a_table_that_some_describe_otherwise_or_do_not_know_is_unreadable() -> None:
    """The fewest are named; the other tables are believed."""
    orders, other, newer = table(), table(value="w"), table(name="newer")
    one = keyspace(orders, newer, table(name="same"))
    found = agreed_schema([((ONE, TWO), one), ((THREE,), keyspace(other, table(name="same")))])["shop"]
    assert list(found.tables) == ["same"]
    assert "10.0.0.3:9042 describes its columns in another way" in found.unreadable["orders"]
    assert "10.0.0.3:9042 does not know the table" in found.unreadable["newer"]


def test_a_keyspace_that_some_do_not_know_or_replicate_otherwise_is_doubted_whole() -> None:
    """Nobody knows which replicas its rows have."""
    for other in ({}, keyspace(table(), replication=Replication("SimpleStrategy", (("", 2),)))):
        found = agreed_schema([((ONE, TWO), keyspace(table())), ((THREE,), other)])["shop"]
        assert (found.tables, list(found.unreadable)) == ({}, ["orders"])
        assert "10.0.0.3:9042" in found.unreadable["orders"]


def test_nodes_of_another_version_that_do_not_describe_it_make_all_of_it_unknown() -> None:
    """What they know may be anything."""
    found = agreed_schema([((ONE,), keyspace(table()))], mute=[(TWO,)])["shop"]
    assert found.tables == {}
    assert "10.0.0.2:9042 has another schema version" in found.unreadable["orders"]


def test_masks_and_fields_of_user_types_are_part_of_a_table() -> None:
    """Their names stay the same when they are altered."""
    orders = table()
    masked = replace(orders, columns=tuple(replace(c, masked=c.name == "v") for c in orders.columns))

    def with_type(*fields: str) -> Table:
        udt = UserType("address", fields, ("int",) * len(fields))
        column = replace(orders.columns[-1], type=parse_type("list<frozen<address>>", {"address": udt}))
        return replace(orders, columns=(*orders.columns[:-1], column))

    prints = [t.fingerprint for t in (orders, masked, with_type("a"), with_type("a", "b"), with_type("c"))]
    assert len(set(prints)) == 5


def test_a_column_that_was_dropped_and_added_again_is_another_one() -> None:
    """It has the name and the type of the first, and none of its values."""
    where = {"keyspace_name": "shop", "table_name": "orders"}
    replication = {"class": "SimpleStrategy", "replication_factor": "3"}
    kinds = {"id": "partition_key", "v": "regular"}

    def built(*dropped: tuple[str, int]) -> Table:
        rows = SchemaRows(
            keyspaces=[{"keyspace_name": "shop", "replication": replication}],
            tables=[{**where, "id": "1", "gc_grace_seconds": 1}],
            columns=[
                {**where, "column_name": name, "kind": kind, "type": "int", "clustering_order": "none", "position": 0}
                for name, kind in kinds.items()
            ],
            views=(),
            types=(),
            dropped=[{**where, "table_name": t, "column_name": "v", "dropped_time": when} for t, when in dropped],
        )
        return build_schema(rows)["shop"].tables["orders"]

    once, twice = built(("orders", 5)), built(("orders", 6))
    assert len({built().fingerprint, once.fingerprint, twice.fingerprint}) == 3
    assert built(("others", 5)) == built()


class Told:
    """Nodes that tell their schema version, and change it after some questions."""

    def __init__(self, versions: Mapping[Node, list[str]]) -> None:
        self.versions = {node.host_id: list(told) for node, told in versions.items()}

    async def select(self, node: Node, cql: str, **_: object) -> list[dict[str, Any]]:
        told = self.versions[node.host_id]
        if not told:
            msg = f"{node}: gone"
            raise ReplicaUnavailable(msg)
        return [{"schema_version": told.pop(0) if len(told) > 1 else told[0]}]


def read(told: Told, described: list[Node], monkeypatch: pytest.MonkeyPatch) -> dict[str, Keyspace]:
    """Read the schema; `described` is filled with the nodes that were asked for all of it."""

    async def describe(_: object, group: tuple[Node, ...]) -> dict[str, Keyspace]:
        described.append(group[0])
        return keyspace(table())

    monkeypatch.setattr(schemas, "_describe", describe)
    monkeypatch.setattr(schemas, "_BETWEEN_LOOKS_S", 0.0)
    return asyncio.run(Schemas(cast("Connection", told)).read(nodes(), patient=True))


def test_one_node_of_each_version_describes_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that is on its way is waited for; a node that is gone has no say."""
    asked: list[Node] = []
    read(Told({ONE: ["a"], TWO: ["a"], THREE: []}), asked, monkeypatch)
    assert asked == [ONE]
    asked.clear()
    read(Told({ONE: ["a", "b"], TWO: ["b"], THREE: ["b"]}), asked, monkeypatch)
    assert len(asked) == 1
    asked.clear()
    read(Told({ONE: ["a"], TWO: ["b"], THREE: ["b"]}), asked, monkeypatch)
    assert set(asked) == {ONE, TWO}
    with pytest.raises(SchemaError, match="no node would describe the schema"):
        read(Told({ONE: [], TWO: [], THREE: []}), asked, monkeypatch)


@pytest.mark.parametrize(
    ("versions", "again"),
    [
        ({ONE: ["a"], TWO: ["a"], THREE: ["a"]}, False),
        ({ONE: ["a", "b"], TWO: ["a", "b"], THREE: ["a", "b"]}, True),
        ({ONE: ["a"], TWO: ["a"], THREE: ["a", "old"]}, True),
        ({ONE: ["a"], TWO: ["a"], THREE: ["old", "old"]}, True),
        ({ONE: ["a"], TWO: ["a"], THREE: []}, True),
        ({ONE: [""], TWO: [""], THREE: [""]}, True),
    ],
    ids=["the same", "another", "an old node", "nodes that disagree", "a node that is gone", "none is told"],
)
def test_the_schema_is_read_again_unless_all_nodes_have_the_version_that_was_read(
    versions: dict[Node, list[str]], again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the nodes say, or do not say, leads to a whole look; what was read is changed by nobody."""
    described: list[Node] = []

    async def describe(_: object, group: tuple[Node, ...]) -> dict[str, Keyspace]:
        described.append(group[0])
        return keyspace(table())

    async def main() -> None:
        reads = Schemas(cast("Connection", Told(versions)))
        first = await reads.read(nodes(), patient=False)
        described.clear()
        second = await reads.read_again(nodes(), patient=False)
        assert second == first
        assert second is not first
        assert bool(described) == again

    monkeypatch.setattr(schemas, "_describe", describe)
    asyncio.run(main())


def test_a_node_that_went_and_came_back_is_believed_after_a_whole_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is gone nothing is known of its schema; nor is it before it was read at all."""
    described: list[Node] = []

    async def describe(_: object, group: tuple[Node, ...]) -> dict[str, Keyspace]:
        described.append(group[0])
        return keyspace(table())

    async def main() -> None:
        told = Told({ONE: ["a"], TWO: ["a"], THREE: []})
        reads = Schemas(cast("Connection", told))
        for expected in (1, 2):
            await reads.read_again(nodes(), patient=False)
            assert len(described) == expected
        told.versions[THREE.host_id] = ["a"]
        for _ in range(2):
            await reads.read_again(nodes(), patient=False)
            assert len(described) == 3

    monkeypatch.setattr(schemas, "_describe", describe)
    asyncio.run(main())
