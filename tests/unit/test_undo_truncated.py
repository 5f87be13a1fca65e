"""An undo brings nothing back into a table that was truncated since: only the nodes' records tell of that."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest

from consistency.errors import ReplicaUnavailable
from consistency.model.ring import Node
from repair.keeping.entries import Result
from repair.writing.writer import CqlWriter
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Delete, Write
from tests.simulation.values import int_bytes
from tests.unit.test_repair_applying import NODES, TABLE, YOUNG_US, Stage, played


def deleted_on_one() -> Stage:
    """Two replicas hold each row, the third its delete, which a repair spreads."""
    stage = Stage()
    for key, clustering in stage.rows:
        write = Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True)
        stage.cluster.apply(stage.table, write, [NODES[1]])
        stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 1, clustering, clustering), [NODES[0]])
    return stage


@pytest.mark.parametrize(
    ("after_s", "result", "back"),
    [(None, Result.UNDONE, {1, 2, 3}), (-3600, Result.UNDONE, {1, 2, 3}), (1, Result.NOT_UNDONE, set())],
)
def test_rows_of_a_table_that_was_truncated_since_stay_gone(
    after_s: float | None, result: Result, back: set[int]
) -> None:
    """The repair has deleted them, so they are absent before and after."""
    stage = deleted_on_one()

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        assert stage.holders() == set()
        if after_s is not None:
            stage.writer.truncations_us[TABLE.table_id] = stage.clock.now_us() + int(after_s * 1e6)
        tally = await stage.undo(plan, journal)
        assert tally.results == {result: 2}
        assert result is Result.UNDONE or all("truncated since" in reason for _, reason in tally.reasons)

    played(stage, play)
    assert stage.holders() == back


def test_where_a_node_does_not_tell_nothing_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It alone may know of the truncation; the reason names it, and another undo goes on."""
    stage = deleted_on_one()

    async def silent(nodes: tuple[Node, ...], table_id: str) -> int | None:
        raise ReplicaUnavailable("down", NODES[1])

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        with monkeypatch.context() as patched:
            patched.setattr(stage.writer, "truncated_us", silent)
            tally = await stage.undo(plan, journal)
        assert tally.results == {Result.NOT_UNDONE: 2}
        assert all("not known whether its table was truncated" in reason for _, reason in tally.reasons)
        assert stage.holders() == set()
        assert (await stage.undo(plan, journal)).results == {Result.UNDONE: 2}

    played(stage, play)
    assert stage.holders() == {1, 2, 3}


class _Connection:
    """Nodes whose records are these."""

    def __init__(self, records: dict[Node, dict[UUID, bytes] | None]) -> None:
        self._records = records

    async def select(self, node: Node, _: str) -> list[dict[str, object]]:
        if node not in self._records:
            raise ReplicaUnavailable("down", node)
        return [{"truncated_at": self._records[node]}]


def test_the_newest_record_of_all_nodes_counts() -> None:
    """A record is a segment, a place in it and the time in milliseconds; one node has none at all."""
    table, other = UUID(int=1), UUID(int=2)

    def record(at_ms: int) -> bytes:
        return (2**60).to_bytes(8, "big") + (99).to_bytes(4, "big") + at_ms.to_bytes(8, "big")

    def newest(records: dict[Node, dict[UUID, bytes] | None]) -> int | None:
        access = type("Access", (), {"connection": _Connection(records)})()
        return asyncio.run(CqlWriter(access).truncated_us(NODES, str(table)))

    first, second, third = NODES
    assert newest({first: {table: record(5), other: record(9)}, second: {table: record(7)}, third: None}) == 7000
    assert newest({first: None, second: {}, third: {other: record(9)}}) is None
    with pytest.raises(ReplicaUnavailable):
        newest({first: {other: record(9)}, second: None})
