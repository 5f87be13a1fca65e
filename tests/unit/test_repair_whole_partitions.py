"""Partitions with more rows than are repaired together: every copy is in the journal before one row is written to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from consistency.errors import ReplicaRefused
from consistency.model.reading import RowState
from consistency.results.forecast import Forecast
from repair.applying import applier as applying
from repair.deciding.decide import Action
from repair.deciding.forecast import Change
from repair.keeping.entries import Fate, Place, Result
from repair.keeping.planfile import Plan
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Delete, Write
from tests.simulation.values import int_bytes
from tests.unit.test_forecast import left
from tests.unit.test_repair_applying import NODES, YOUNG_US, Stage, played

ROWS = 30


def partition_deleted_through_one(newer: int = 0) -> Stage:
    """Return a partition of thirty rows on all nodes, deleted on node 1 alone; the first rows are newer than that."""
    stage = Stage(rows=ROWS)
    for n, (key, clustering) in enumerate(stage.rows):
        written_us = YOUNG_US + (2 if n < newer else 0)
        write = Write(key, clustering, written_us, (("v0", None, int_bytes(7)),), insert=True)
        stage.cluster.apply(stage.table, write, NODES[1:] if n < newer else NODES)
    stage.cluster.apply(stage.table, Delete(stage.rows[0][0], YOUNG_US + 1), [NODES[0]])
    return stage


def eight_of(whole: Plan) -> Plan:
    """Return the plan with eight of its rows to act on, and the others left."""
    rows = [replace(row, action=Action.NONE) if n >= 8 else row for n, row in enumerate(whole.rows)]
    return replace(whole, rows=tuple(rows))


@pytest.fixture
def few_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take four rows of a partition together: more parts than there are lanes."""
    monkeypatch.setattr(applying, "_MOST_OF_PARTITION", 4)


@pytest.mark.parametrize("newer", [0, 8])
def test_what_one_merge_takes_of_a_large_partition_an_undo_brings_back(few_together: None, newer: int) -> None:
    """Also where the first rows come back, and the partition's delete takes only others."""
    stage = partition_deleted_through_one(newer)

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        tally = await stage.apply(plan, journal, max_deletes=3)
        assert tally.results == {Result.VERIFIED: ROWS}
        assert tally.deleted == ROWS - newer
        undone = await stage.undo(plan, journal)
        assert undone.changes == {Change.RESTORED: ROWS - newer}

    played(stage, play)
    assert left(stage) == ROWS


@pytest.mark.parametrize("together", [500, 4])
def test_a_row_that_is_left_alone_and_goes_with_its_neighbours_is_counted_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Merging a row passes its partition's delete on: it takes rows that the plan leaves, however few are acted on."""
    monkeypatch.setattr(applying, "_MOST_OF_PARTITION", together)
    stage = partition_deleted_through_one()

    async def play() -> None:
        plan = eight_of(await stage.plan())
        stopped = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), max_deletes=0)
        assert stopped.stopped_at == 0
        assert left(stage) == ROWS
        journal = MemoryJournal(plan, random.Random(1))
        tally = await stage.apply(plan, journal, max_deletes=ROWS)
        assert tally.results == {Result.VERIFIED: 8, Result.LEFT: ROWS - 8}
        assert tally.deleted == ROWS
        undone = await stage.undo(plan, journal)
        assert undone.changes == {Change.RESTORED: ROWS}

    played(stage, play)
    assert left(stage) == ROWS


def test_rows_that_are_sure_to_come_back_do_not_begin_where_others_may_go_with_them() -> None:
    """Eight rows that were written after the delete are planned; the breaker allows for none of the rest to go."""
    stage = partition_deleted_through_one(newer=8)

    async def play() -> None:
        whole = await stage.plan()
        rows = [
            replace(row, action=Action.NONE) if n >= 8 else replace(row, forecast=Forecast.RESTORE)
            for n, row in enumerate(whole.rows)
        ]
        plan = replace(whole, rows=tuple(rows))
        stopped = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), max_deletes=0)
        assert (stopped.stopped_at, stopped.deleted) == (0, 0)

    played(stage, play)
    assert left(stage) == ROWS


@pytest.mark.parametrize("together", [500, 4])
def test_a_partition_with_more_rows_at_risk_than_the_breaker_has_room_for_begins_as_one(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Eight rows that are acted on do not wait for the twenty-two that are left: all begin together, and end."""
    monkeypatch.setattr(applying, "_MOST_OF_PARTITION", together)
    stage = partition_deleted_through_one()

    async def play() -> None:
        plan = eight_of(await stage.plan())
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), max_deletes=10)
        assert (tally.done, tally.deleted) == (ROWS, ROWS)

    played(stage, play)


@pytest.mark.parametrize("together", [500, 4])
def test_what_others_delete_while_every_merge_is_refused_is_theirs(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Nothing was merged, so nothing was taken along: an undo does not bring back what an application has deleted."""
    monkeypatch.setattr(applying, "_MOST_OF_PARTITION", together)
    stage = partition_deleted_through_one()
    key, clustering = stage.rows[-1]

    async def play() -> None:
        plan = eight_of(await stage.plan())
        journal = MemoryJournal(plan, random.Random(1))

        async def refused(*_: object, **__: object) -> None:
            stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 9, clustering, clustering), NODES)
            raise ReplicaRefused("not today")

        with monkeypatch.context() as patched:
            patched.setattr(stage.writer, "through", refused)
            tally = await stage.apply(plan, journal, max_deletes=ROWS)
        assert tally.results == {Result.REFUSED: 8, Result.LEFT: ROWS - 8}
        assert tally.deleted == 0
        assert not (await stage.undo(plan, journal)).changes

    played(stage, play)
    assert left(stage) == ROWS - 1


def test_a_row_that_has_changed_since_the_plan_and_goes_with_its_neighbours_comes_back() -> None:
    """It is skipped, and taken all the same: written before its partition was deleted, and told of after the plan."""
    stage = partition_deleted_through_one()
    key, clustering = stage.rows[-1]

    async def play() -> None:
        plan = await stage.plan()
        late = Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(9)),), insert=True)
        stage.cluster.apply(stage.table, late, NODES[1:])
        journal = MemoryJournal(plan, random.Random(1))
        tally = await stage.apply(plan, journal, max_deletes=ROWS)
        assert tally.results == {Result.VERIFIED: ROWS - 1, Result.SKIPPED: 1}
        assert tally.deleted == ROWS
        assert (await stage.undo(plan, journal)).changes == {Change.RESTORED: ROWS}

    played(stage, play)
    assert left(stage) == ROWS


def test_a_row_that_an_earlier_run_has_left_alone_is_not_taken_by_a_resume_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every merge is refused at first; the resume takes rows along of which the first run had said all there was."""
    stage = partition_deleted_through_one()

    async def play() -> None:
        plan = eight_of(await stage.plan())
        journal = MemoryJournal(plan, random.Random(1))

        async def refused(*_: object, **__: object) -> None:
            raise ReplicaRefused("not today")

        with monkeypatch.context() as patched:
            patched.setattr(stage.writer, "through", refused)
            first = await stage.apply(plan, journal, max_deletes=ROWS)
        assert first.results == {Result.REFUSED: 8, Result.LEFT: ROWS - 8}
        assert left(stage) == ROWS
        second = await stage.apply(plan, journal, max_deletes=ROWS)
        assert second.results == {Result.VERIFIED: 8, Result.LEFT: ROWS - 8}
        assert second.deleted == ROWS
        assert (await stage.undo(plan, journal)).changes == {Change.RESTORED: ROWS}

    played(stage, play)
    assert left(stage) == ROWS


def test_every_intent_is_durable_before_the_first_merge(few_together: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first row is acted on the journal holds the copies of all thirty."""
    stage = partition_deleted_through_one()
    held: list[int] = []

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        through = stage.writer.through

        async def watched(*args: object, **named: object) -> None:
            held.append(len(journal.record().entries))
            await through(*args, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(stage.writer, "through", watched)
        await stage.apply(plan, journal)

    played(stage, play)
    assert set(held) == {ROWS}


def test_a_partition_that_the_breaker_does_not_let_begin_is_not_touched(few_together: None) -> None:
    """None may vanish: no row of it is merged, however many parts it has."""
    stage = partition_deleted_through_one()

    async def play() -> None:
        plan = await stage.plan()
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), max_deletes=0)
        assert (tally.stopped_at, tally.done) == (0, 0)

    played(stage, play)
    assert left(stage) == ROWS


def test_what_vanishes_with_its_neighbours_counts_for_the_breaker(few_together: None) -> None:
    """The partition is finished, with a single other one behind it that is not begun any more."""
    stage = partition_deleted_through_one()
    other = (int_bytes(10**6),)
    stage.rows.append((other, (int_bytes(0),)))
    stage.cluster.apply(stage.table, Write(other, (int_bytes(0),), YOUNG_US, (("v0", None, b"\0\0\0\1"),), insert=True))
    stage.cluster.apply(stage.table, Delete(other, YOUNG_US + 1), [NODES[0]])

    async def play() -> None:
        plan = await stage.plan()
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), rate=10.0, max_deletes=1)
        assert tally.stopped_at is not None
        assert tally.deleted == tally.stopped_at

    played(stage, play)


def test_rows_that_wait_while_their_neighbours_merge_takes_them_are_known_as_ours() -> None:
    """Thirty rows at ten a second: those that are read again, and are gone by then, come back with an undo."""
    stage = partition_deleted_through_one()

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        tally = await stage.apply(plan, journal, rate=10.0, max_deletes=ROWS)
        assert tally.results == {Result.VERIFIED: ROWS}
        assert tally.deleted == ROWS
        assert {entry.fate for entry in journal.record().entries.values()} == {Fate.DONE}
        await stage.undo(plan, journal)

    played(stage, play)
    assert left(stage) == ROWS


def test_what_others_write_meanwhile_is_theirs(few_together: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that somebody writes between its intent and its turn is left, and so does an undo leave it."""
    stage = partition_deleted_through_one(newer=8)
    key, clustering = stage.rows[-1]

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        intent = journal.intent

        async def then_written(number: int, before: Mapping[str, RowState | None]) -> Place:
            at = await intent(number, before)
            if number == ROWS - 1:
                later = Write(key, clustering, YOUNG_US + 5, (("v0", None, int_bytes(9)),), insert=True)
                stage.cluster.apply(stage.table, later)
            return at

        monkeypatch.setattr(journal, "intent", then_written)
        tally = await stage.apply(plan, journal)
        entry = journal.record().entries[ROWS - 1]
        assert entry.fate is not Fate.DONE
        assert tally.deleted == ROWS - 8 - 1
        await stage.undo(plan, journal)

    played(stage, play)
    assert left(stage) == ROWS
