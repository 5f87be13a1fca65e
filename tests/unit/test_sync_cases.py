"""Rows are read on both sides for a sync only where both declare the columns as a comparison needs them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from consistency.comparing.opening import Cluster, Pair
from consistency.errors import UsageError
from consistency.model.cqltype import UserType, parse_type
from consistency.model.reading import Capabilities
from consistency.model.schema import Column, Table
from consistency.model.sides import Side
from consistency.rows.names import RowRef
from repair.sync.cases import PairCaseReader, PairRef
from repair.sync.policy import Direction
from tests.simulation.histories import draw_ring
from tests.simulation.memory import SimCluster
from tests.simulation.values import keyspace, make_table
from tests.simulation.vclock import SimClock, VirtualLoop, run_virtual

PLAIN = make_table("t", ("int",), ("int",), (), ("int",))


def typed(*fields: str) -> Table:
    """Return a table with a column of a user type that has these fields."""
    address = {"address": UserType("address", fields, ("int",) * len(fields))}
    return replace(PLAIN, columns=(*PLAIN.columns, Column("home", "regular", -1, parse_type("address", address))))


def descending(table: Table) -> Table:
    """Return a table in the other order."""
    columns = (replace(column, reversed=column.kind == "clustering") for column in table.columns)
    return replace(table, columns=tuple(columns))


def read(source: Table, target: Table) -> None:
    """Read a row for a sync of two clusters that have this table."""
    loop, rng = VirtualLoop(), random.Random(1)
    clusters = []
    for side, table in zip(Side, (source, target), strict=True):
        ring, replication = draw_ring(rng)
        schema = {"ks": keyspace("ks", replication, [table])}
        cluster = SimCluster(loop, ring, schema, Capabilities(), rng)
        clusters.append(Cluster(side, cluster, SimClock(loop)))
    ref = RowRef("ks", "t", -4069959284402364209, {"p0": "00000001", "c0": "00000002"})

    async def one() -> None:
        cases = await PairCaseReader.open(Pair(*clusters), Direction.TO_TARGET)
        await cases.read(PairRef.of(ref, ("ks", "t")))

    run_virtual(loop, one())


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (typed("street", "town"), typed("town", "street"), "column home"),
        (typed("street"), typed("street", "town"), "column home"),
        (PLAIN, descending(PLAIN), "column c0: int clustering 1 in the source, int clustering 1 descending"),
        (PLAIN, typed("street"), "column home: none in the source"),
    ],
)
def test_a_table_that_is_declared_otherwise_by_now_is_not_synced(source: Table, target: Table, told: str) -> None:
    """A field goes by its place within its type: it would be written into another one."""
    with pytest.raises(UsageError, match=rf"ks\.t=ks\.t: its columns are not the same \({told}.*; compare again$"):
        read(source, target)


@pytest.mark.parametrize("make", [lambda: PLAIN, lambda: typed("street", "town")])
def test_a_table_that_both_declare_alike_is(make: Callable[[], Table]) -> None:
    """Whatever its id is on either side."""
    read(make(), replace(make(), table_id="other"))
