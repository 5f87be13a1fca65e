"""Before anything is written: a row is as planned on both sides, or as a killed run left it, or it has its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.model.reading import RowState
from consistency.model.sides import Side
from consistency.rows.names import RowRef
from repair.deciding.copies import copies
from repair.keeping.entries import Entry, Fate, Outcome, Result
from repair.sync.cases import PairRef
from repair.sync.decide import Decision, decide
from repair.sync.planfile import SideGround, Summary, SyncHeader, SyncPlan, SyncRow
from repair.sync.still_right import Row, look, untouched
from tests.unit.test_sync_decide import KEEP, A, B, case, cell, row

REF = PairRef.of(RowRef("ks", "t", 1, {"p0": "00000001"}), ("ks", "t"))
GROUNDS = {side: SideGround("c", "r", frozenset()) for side in Side}
PLAN = SyncPlan(SyncHeader("r", "f", "", "", KEEP, "salt", GROUNDS), Summary(), Path("plan"), 0, 0)
NEWER = row(cell(5, 10_000_009), cell(2))


def planned(giver: Sequence[RowState | None], taker: Sequence[RowState | None]) -> SyncRow:
    """Return the row as it is planned of this evidence."""
    found = case(giver, taker)
    decision = decide(found, KEEP)
    return SyncRow(REF, decision.rule, decision.action, decision.sentence, found.seen("salt"), found.read)


def looked(
    was: tuple[Sequence[RowState | None], Sequence[RowState | None]],
    now: tuple[Sequence[RowState | None], Sequence[RowState | None]],
    entry: Entry | None = None,
    owners: int = 0,
) -> Decision | Outcome:
    """Look at a row that was planned of one evidence and is another by now."""
    return look(Row(0, planned(*was), entry or Entry()), case(*now, owners=owners), PLAN)


def begun(taker: Sequence[RowState | None]) -> Entry:
    """Return what a journal knows of a row that a killed run had begun with."""
    return Entry(copies(case([A], taker).taker))


def test_a_row_that_is_as_planned_is_acted_on() -> None:
    """Nothing has changed on either side."""
    assert isinstance(looked(([A], [None]), ([A], [None])), Decision)


@pytest.mark.parametrize(("now", "side"), [(([NEWER], [None]), "source"), (([A], [row(cell(1, 3))]), "target")])
def test_a_row_that_changed_on_either_side_is_skipped(
    now: tuple[Sequence[RowState | None], Sequence[RowState | None]], side: str
) -> None:
    """Also where the same would be done with it."""
    found = looked(([A], [None]), now)
    assert isinstance(found, Outcome)
    assert (found.result, f"changed on the {side}" in found.reason) == (Result.SKIPPED, True), found.reason


def test_a_replica_that_is_not_read_any_more_leaves_the_row_for_later() -> None:
    """Unknown, so that a resume goes on with it."""
    found = looked(([A, A, A], [None]), ([A, A], [None]), owners=3)
    assert isinstance(found, Outcome)
    assert found.result is Result.UNKNOWN


def test_a_row_that_is_the_same_by_now_is_verified() -> None:
    """Whoever brought it; what a killed run of ours wrote is known to be ours."""
    found = looked(([A], [None]), ([A], [A]))
    assert isinstance(found, Outcome)
    assert (found.result, found.fate, found.after) == (Result.VERIFIED, Fate.NONE, None)
    ours = looked(([A], [None]), ([A], [A]), begun([None]))
    assert isinstance(ours, Outcome)
    assert (ours.result, ours.fate, len(ours.changed)) == (Result.VERIFIED, Fate.DONE, 1)


def test_a_killed_run_is_gone_on_with() -> None:
    """Half of the cells have come: the others are written too."""
    found = looked(([A], [None]), ([A], [row(cell(1))]), begun([None]))
    assert isinstance(found, Decision)
    assert len(found.write) == 1


def test_what_others_wrote_meanwhile_is_not_ours() -> None:
    """A cell that was neither there before nor is the giver's: the row is left, and an undo will not touch it."""
    found = looked(([A], [None]), ([A], [row(cell(1), cell(9, 10_000_050))]), begun([None]))
    assert isinstance(found, Outcome)
    assert (found.result, found.fate) == (Result.SKIPPED, Fate.UNKNOWN)
    changed = looked(([A], [None]), ([B], [row(cell(1))]), begun([None]))
    assert isinstance(changed, Outcome)
    assert "changed on the source" in changed.reason


def test_rows_that_are_left_are_not_read() -> None:
    """But for those that were the same: they must be so now."""
    left = planned([A], [B])
    assert untouched(left) is not None
    assert untouched(planned([A], [A])) is None
    assert untouched(planned([A], [None])) is None
    differs = look(Row(0, planned([A], [A]), Entry()), case([A], [None]), PLAN)
    assert isinstance(differs, Outcome)
    assert differs.result is Result.SKIPPED
    later = look(Row(0, replace(left, seen=case([A], [None]).seen("salt")), Entry()), case([A], [None]), PLAN)
    assert isinstance(later, Outcome)
    assert "decided differently" in later.reason
