"""Copies that differ in nothing but their expiry: a digest does not tell them apart, so the servers compare them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from consistency.cluster.by_token import token_of
from consistency.model.cqltype import parse_type
from consistency.model.reading import Cell, RowState
from consistency.model.ring import Node
from consistency.model.schema import Column, Table
from consistency.rows.names import RowName
from repair.applying import applier as applying
from repair.deciding.copies import left_by_time
from repair.deciding.decide import Action, Rule
from repair.deciding.forecast import Change
from repair.keeping.entries import Result
from repair.keeping.planfile import Plan
from repair.undoing.undo import Proof, proof
from repair.writing.statements import merging_read_by_token
from tests.simulation.memory import Fault, Trouble
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Write
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_range_merging import HOUR_AGO_US, PARTITIONS, TABLE, results
from tests.unit.test_range_merging import Stage as RangeStage
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


def expiring(stage: Stage, lasts_s: int, nodes: Sequence[Node] = NODES[:2]) -> None:
    """Have two nodes hold the rows until so many seconds after the start, and the third lack them."""
    stage.rows = [((KEY,), (int_bytes(c),)) for c in range(30)]
    for key, clustering in stage.rows:
        cells = (("v0", None, int_bytes(7)),)
        stage.cluster.apply(
            stage.table, Write(key, clustering, YOUNG_US, cells, (), EPOCH_S + lasts_s, insert=True), nodes
        )


@pytest.mark.parametrize("together", [4, 500])
def test_rows_that_expire_while_they_are_repaired_are_not_deleted(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Their age took them: they are counted neither as deleted nor by the breaker, and there is nothing to undo."""
    monkeypatch.setattr(applying, "_MOST_OF_PARTITION", together)
    stage = Stage(rows=0)
    expiring(stage, lasts_s=4)

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        tally = await stage.apply(plan, journal, rate=5, max_deletes=1)
        assert tally.results == {Result.VERIFIED: 30}
        assert tally.changes.keys() == {Change.RESTORED, Change.UNCHANGED}
        assert tally.stopped_at is None
        assert Proof.CHANGED in map(proof, journal.record().entries.values())
        gone = [entry for entry in journal.record().entries.values() if entry.change is Change.UNCHANGED]
        assert gone
        assert {proof(entry) for entry in gone} == {Proof.UNCHANGED}

    played(stage, play)


def test_rows_that_expire_before_a_resume_do_not_stop_it() -> None:
    """A run was killed after it had said what it would do; by the time of the next one its rows have expired."""
    stage = Stage(rows=0)
    expiring(stage, lasts_s=30)

    async def play() -> None:
        plan = await stage.plan()
        journal = await stage.begun(plan)
        await asyncio.sleep(60)
        tally = await stage.apply(plan, journal, max_deletes=0)
        assert (tally.results, tally.deleted, tally.stopped_at) == ({Result.VERIFIED: 30}, 0, None)
        assert (await stage.undo(plan, journal)).results == {Result.UNCHANGED: 30}

    played(stage, play)


def test_rows_of_a_range_that_expire_before_a_resume_do_not_stop_it() -> None:
    """The same of rows that were counted and not listed: the breaker has room for one, and needs none for them."""
    stage = RangeStage()
    for p in PARTITIONS:
        cells = (("v0", None, int_bytes(8)),)
        written = Write((int_bytes(p),), (int_bytes(5),), HOUR_AGO_US, cells, (), EPOCH_S + 30, insert=True)
        stage.cluster.apply(TABLE, written, NODES[:2])
    stage.write(PARTITIONS[0], 6, 8, HOUR_AGO_US, (1, 2))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        keep, killed = journal.note, asyncio.Event()

        async def told(data: Mapping[str, Any]) -> None:
            await keep(data)
            killed.set()
            await asyncio.sleep(1.0)

        journal.note = told  # type: ignore[method-assign]
        task = asyncio.create_task(stage.apply(plan, journal, max_deletes=100))
        await killed.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        journal.note = keep  # type: ignore[method-assign]
        assert any(chunk.open and chunk.waiting for chunk in journal.record().chunks.values())
        await asyncio.sleep(60)
        tally = await stage.apply(plan, journal, max_deletes=1)
        assert (tally.deleted, tally.stopped_at) == (0, None)
        assert set(results(tally)) == {Result.VERIFIED}

    stage.played(play)


@pytest.mark.parametrize(
    ("before", "now", "left"),
    [
        (cell(expires=9), None, None),
        (cell(expires=10), None, None),
        (cell(expires=11), None, cell(expires=11)),
        (cell(), None, cell()),
        (cell(expires=9), cell(None), cell(None)),
        (RowState((Cell(b"s", (1, 2), (9, 9)),)), None, None),
        (RowState((Cell(b"s", (1, 2), (9, None)),)), None, RowState((Cell(b"s", (1, 2), (9, None)),))),
        (RowState((*cell(expires=9).cells, *cell().cells)), None, RowState((*cell(None).cells, *cell().cells))),
    ],
)
def test_what_time_has_left_of_a_copy(before: RowState, now: RowState | None, left: RowState | None) -> None:
    """A row goes for its age only if all of it has expired; one that is there all the same keeps its key."""
    assert left_by_time({"h": before}, {"h": now}, 10) == {"h": left}


def test_a_row_that_was_begun_and_is_not_read_for_a_while_is_gone_on_with() -> None:
    """A node dies in the middle of an apply: what had been begun then is done by a resume that finds the node again."""
    stage = Stage(faults=(Fault(Trouble.DOWN, NODES[0], 3.0, 12.0),))

    async def play() -> None:
        plan = await stage.plan()
        journal = await stage.begun(plan)
        await asyncio.sleep(5)
        tally = await stage.apply(plan, journal)
        assert tally.results == {Result.UNKNOWN: 2}
        assert all("not read now" in reason for _, reason in tally.reasons)
        assert journal.record().open_rows == [0, 1]
        await asyncio.sleep(10)
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}

    played(stage, play)
