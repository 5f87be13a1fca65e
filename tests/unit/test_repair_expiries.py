"""Copies that differ in nothing but their expiry: a digest does not tell them apart, so the servers compare them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from consistency.cluster.by_token import token_of
from consistency.model.cqltype import parse_type
from consistency.model.schema import Column, Table
from consistency.rows.names import RowName
from repair.deciding.decide import Action, Rule
from repair.keeping.entries import Result
from repair.writing.statements import merging_read_by_token
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Write
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_repair_applying import NODES, YOUNG_US, Stage, played
from tests.unit.test_repair_decide import cell, evidence

KEY = int_bytes(1)


def written(stage: Stage, *, insert: bool) -> None:
    """Write each row on every replica, a second later each time and with one TTL, as a client that tries again does."""
    stage.rows = [((KEY,), (int_bytes(c),)) for c in range(2)]
    for key, clustering in stage.rows:
        for number, node in enumerate(NODES):
            cells = (("v0", None, int_bytes(7)),)
            expires = EPOCH_S + 90_000 + number
            stage.cluster.apply(stage.table, Write(key, clustering, YOUNG_US, cells, (), expires, insert), [node])


@pytest.mark.parametrize("insert", [False, True])
def test_the_latest_expiry_gets_to_every_replica(insert: bool) -> None:
    """Of an UPDATE nothing else differs; the mark of an INSERT expires too, and shows in the digests."""
    stage = Stage(rows=0)
    written(stage, insert=insert)
    found = []

    async def play() -> None:
        plan = await stage.plan()
        assert {(row.rule, row.action) for row in plan.rows} == {(Rule.EXPIRY, Action.RECONCILE)}
        found.append(await stage.apply(plan, MemoryJournal(plan, random.Random(1))))

    played(stage, play)
    assert found[0].results == {Result.VERIFIED: 2}, found[0].reasons
    one, *others = stage.copies()
    assert all(other == one for other in others)
    rows = stage.cluster.store(NODES[0], stage.table).partitions[KEY,].rows.values()
    assert {held.expires for row in rows for held in row.cells.values()} == {EPOCH_S + 90_002}


def _table(*clustering: str, static: bool = False) -> Table:
    kinds = [("p", "partition_key", 0), ("q", "partition_key", 1)]
    kinds += [(name, "clustering", n) for n, name in enumerate(clustering)]
    kinds += [("s", "static", 0)] * static + [("v", "regular", 0)]
    return Table("ks", "t", "1", tuple(Column(*kind, parse_type("int", {})) for kind in kinds))


@pytest.mark.parametrize(
    ("of", "static", "said", "bound"),
    [
        (_table(), False, "SELECT v FROM ks.t WHERE {}", 0),
        (_table("c"), False, "SELECT v FROM ks.t WHERE {} AND c = ? ALLOW FILTERING", 1),
        (
            _table("c", "d", static=True),
            True,
            "SELECT s, c FROM ks.t WHERE {} AND c IN () AND d IN () ALLOW FILTERING",
            0,
        ),
    ],
    ids=["alone in its partition", "one of its partition", "static"],
)
def test_what_is_read_is_one_row_by_its_token(of: Table, static: bool, said: str, bound: int) -> None:
    """No other row of its partition, and of a row no static column."""
    partition = (KEY, KEY)
    key = partition if static else (*partition, *[KEY] * len(of.clustering))
    name = RowName(token_of(partition), key, static=static)
    read = merging_read_by_token(replace(evidence(cell(), cell(), cell(), of=of), name=name))
    assert read.cql == said.format(f"token(p, q) > {name.token - 1} AND token(p, q) <= {name.token}")
    assert read.values == (KEY,) * bound
