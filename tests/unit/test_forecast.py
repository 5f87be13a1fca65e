"""What a repair would do to a row, what it did, and where it stops: rows come back, change, or vanish."""

from __future__ import annotations

import random

import pytest

from consistency.model.reading import Capabilities, Depth, Reading, RowState
from consistency.results.forecast import Forecast
from repair.applying.outcomes import proven
from repair.deciding.decide import Action, Decision, Rule
from repair.deciding.forecast import Change, change, forecast, may_vanish
from repair.keeping.entries import Fate, Outcome, Result
from tests.simulation.repair_laws import shown
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Delete, Write
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_repair_applying import NODES, YOUNG_US, Stage, played
from tests.unit.test_repair_decide import cell, evidence, table

TWO = Reading(table("text"), Depth.CONTENT, Capabilities()).regulars
RECONCILE = Decision(Rule.LAST_WRITE, Action.RECONCILE)


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([cell("a"), cell("b"), cell("a")], Forecast.UPDATE),
        ([cell("a"), cell("a"), None], Forecast.UNKNOWN),
        ([cell("a"), None, None], Forecast.UNKNOWN),
        ([cell(None), cell(None), cell("a")], Forecast.UNKNOWN),
        ([cell(None), cell(None), None], Forecast.UNKNOWN),
        ([cell(None)] * 3, Forecast.UPDATE),
    ],
)
def test_only_what_every_replica_shows_is_known_to_stay(states: list[RowState | None], told: Forecast) -> None:
    """An absent row may be a deleted one; so may a row of which no cell is on all replicas."""
    assert forecast(evidence(*states), RECONCILE) is told


def test_what_is_not_done_has_no_forecast_and_a_purge_deletes() -> None:
    """The purge of all there is of a row deletes it."""
    held = evidence(cell("a"), None, None)
    assert forecast(held, Decision(Rule.ZOMBIE)) is None
    every = frozenset(name for cells in held.copies.values() for name in cells)
    assert forecast(held, Decision(Rule.ZOMBIE, Action.PURGE, suspects=every)) is Forecast.DELETE


def test_a_row_that_a_minority_holds_is_none_that_most_held() -> None:
    """The breaker counts rows that readers at quorum saw."""
    assert may_vanish(evidence(cell("a"), cell("a"), None), RECONCILE)
    assert not may_vanish(evidence(cell("a"), None, None), RECONCILE)
    assert not may_vanish(evidence(cell("a"), cell("b"), cell("a")), RECONCILE)


def test_what_became_of_a_row_is_told_from_its_copies() -> None:
    """Of copies before and after, by node."""
    a, b = cell("a"), cell("b")

    def became(before: list[RowState | None], after: list[RowState | None]) -> Change:
        return change(TWO, dict(zip("xyz", before, strict=True)), dict(zip("xyz", after, strict=True)))

    assert became([a, a, None], [a, a, a]) is Change.RESTORED
    assert became([a, a, None], [None, None, None]) is Change.DELETED
    assert became([a, a, b], [b, b, b]) is Change.UPDATED
    assert became([a, a, b], [a, a, b]) is Change.UNCHANGED
    assert became([a, a, cell(None)], [cell(None)] * 3) is Change.CELLS_DELETED


def deleted_through_one(rows: int, partitions: bool = False) -> Stage:
    """Return rows on all three nodes, all of them deleted on node 1 alone."""
    stage = Stage(rows=rows)
    if partitions:
        stage.rows = [((int_bytes(n),), (int_bytes(0),)) for n in range(rows)]
    for key, clustering in stage.rows:
        write = Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True)
        stage.cluster.apply(stage.table, write)
        stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 1, clustering, clustering), [NODES[0]])
    return stage


def left(stage: Stage) -> int:
    """Count the rows that some node still shows."""
    stores = [stage.cluster.store(node, stage.table) for node in NODES]
    now_s = EPOCH_S + int(stage.loop.now)
    return sum(any(shown(s, ("t", *row), now_s) is not None for s in stores) for row in stage.rows)


@pytest.mark.parametrize(("allowed", "gone"), [(None, 10), (0, 0), (7, 7), (30, 30)])
def test_no_more_rows_vanish_than_were_allowed(allowed: int | None, gone: int) -> None:
    """Thirty partitions deleted through node 1: it stops at what may vanish, ten if nobody says, and says so."""
    stage = deleted_through_one(30, partitions=True)

    async def play() -> None:
        plan = await stage.plan()
        assert plan.forecast == {Forecast.UNKNOWN: 30}
        assert {row.lacking for row in plan.rows} == {(NODES[0].name,)}
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), max_deletes=allowed)
        assert tally.deleted == gone == tally.results[Result.VERIFIED]
        assert tally.stopped_at == (None if allowed == 30 else gone)

    played(stage, play)
    assert left(stage) == 30 - gone


def test_a_partition_that_was_begun_is_finished_and_undo_brings_all_of_it_back() -> None:
    """Twenty rows that one partition delete takes: all are in the journal, and none is lost."""
    stage = Stage(rows=20)
    for key, clustering in stage.rows:
        stage.cluster.apply(stage.table, Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True))
    stage.cluster.apply(stage.table, Delete(stage.rows[0][0], YOUNG_US + 1), [NODES[0]])

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        tally = await stage.apply(plan, journal, max_deletes=3)
        assert tally.deleted == 20
        undone = await stage.undo(plan, journal)
        assert undone.results == {Result.UNDONE: 20}
        assert undone.changes == {Change.RESTORED: 20}

    played(stage, play)
    assert left(stage) == 20


def test_resume_counts_what_vanished_before_and_goes_on_with_more() -> None:
    """Ten have vanished: a resume that allows ten stops at once, one that allows thirty ends."""
    stage = deleted_through_one(30, partitions=True)

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        await stage.apply(plan, journal)
        again = await stage.apply(plan, journal)
        assert (again.stopped_at, again.deleted) == (10, 10)
        whole = await stage.apply(plan, journal, max_deletes=30)
        assert (whole.stopped_at, whole.deleted) == (None, 30)

    played(stage, play)


def test_a_repair_that_deletes_nothing_is_not_stopped() -> None:
    """A hundred rows that never arrived at node 1, and none may vanish but the ten."""
    stage = Stage(rows=100)
    for key, clustering in stage.rows:
        write = Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True)
        stage.cluster.apply(stage.table, write, NODES[1:])

    async def play() -> None:
        plan = await stage.plan()
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)))
        assert (tally.stopped_at, tally.changes) == (None, {Change.RESTORED: 100})

    played(stage, play)


def test_rows_that_a_minority_held_do_not_count_in_a_resume() -> None:
    """Five rows of node 3 alone vanished in the first run: the resume lets the one row of all nodes begin."""
    stage = Stage(rows=5)
    for key, clustering in stage.rows:
        stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 1, clustering, clustering), [NODES[0]])
    held = ((int_bytes(2),), (int_bytes(0),))
    stage.rows.append(held)
    stage.cluster.apply(stage.table, Write(*held, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True))
    stage.cluster.apply(stage.table, Delete(held[0], YOUNG_US + 1), [NODES[0]])

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        first = await stage.apply(plan, journal, max_deletes=0)
        assert (first.stopped_at, first.deleted) == (0, 5)
        whole = await stage.apply(plan, journal, max_deletes=1)
        assert (whole.stopped_at, whole.deleted) == (None, 6)

    played(stage, play)


def test_what_others_did_is_no_change_of_ours() -> None:
    """A row that we were refused, and that somebody deleted meanwhile."""
    before, gone = {"x": cell("a"), "y": None}, {"x": None, "y": None}
    refused = Outcome(Result.REFUSED, "", gone)
    assert proven(refused, TWO, before, Fate.NONE, 0).change is None
    assert proven(refused, TWO, before, Fate.UNKNOWN, 0).change is Change.DELETED
    assert proven(Outcome(Result.REFUSED, "", before), TWO, before, Fate.NONE, 0).change is Change.UNCHANGED
