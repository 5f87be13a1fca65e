"""A repair that had no effect on a row is not done again every night, but once the row has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consistency.model.reading import Cell, RowState
from consistency.rows.names import RowRef
from repair.deciding.copies import Copies, state_digest
from repair.deciding.decide import Action, Rule
from repair.deciding.policy import Policy
from repair.keeping.entries import Fate, Outcome, Result
from repair.keeping.journal import Journal
from repair.keeping.planfile import Plan, PlannedRow
from repair.nightly.tried import leave_what_was_in_vain, tried_in_vain

HELD = RowState((Cell(b"v", 5),))
COPIES: Copies = {"a": HELD, "b": HELD, "c": None}


def plan(
    copies: Copies,
    action: Action = Action.RECONCILE,
    *,
    at: str = "2026-11-27T03:00:00",
    salt: str = "s",
    key: str = "01",
) -> Plan:
    """Return a plan of one row."""
    seen = {host: state_digest(state, salt) for host, state in copies.items()}
    row = PlannedRow(RowRef("ks", "t", 7, {"id": key}), Rule.LAST_WRITE, action, "newest wins", seen)
    return Plan("run", "check", at, "0.1", "c", "ring", {"ks.t": "fp"}, Policy(), salt, (row,))


def night(directory: Path, name: str, made: Plan, outcome: Outcome, before: Copies = COPIES) -> None:
    """Leave the journal of a night behind."""
    journal = Journal.create(directory / f"{name}.journal.jsonl", made)

    async def work() -> None:
        await journal.intent(0, before)
        await journal.outcome(0, outcome)

    asyncio.run(work())
    journal.close()


IN_VAIN = Outcome(Result.DIVERGENT, "a delete hides it", COPIES, Fate.DONE)
TODAY = {"at": "2026-11-28T03:00:00", "salt": "another"}


def test_what_had_no_effect_is_left_alone_the_next_night(tmp_path: Path) -> None:
    """With when it was tried, and why it had none."""
    night(tmp_path, "one", plan(COPIES), IN_VAIN)
    (row,) = leave_what_was_in_vain(plan(COPIES, **TODAY), tried_in_vain(tmp_path)).rows
    assert (row.action, row.rule) == (Action.NONE, Rule.OUT_OF_REACH)
    assert row.sentence == "tried in vain on 2026-11-27, and no copy has changed since: a delete hides it"


@pytest.mark.parametrize(
    "today",
    [
        plan({**COPIES, "b": None}, **TODAY),
        plan({"a": HELD, "b": HELD}, **TODAY),
        plan({**COPIES, "a": RowState((Cell(b"v", 6),))}, **TODAY),
        plan(COPIES, Action.WRITE_BACK, **TODAY),
        plan(COPIES, **TODAY, key="02"),
    ],
)
def test_what_has_changed_is_tried_again(tmp_path: Path, today: Plan) -> None:
    """Another copy, fewer of them, another write time, another way to do it, another row."""
    night(tmp_path, "one", plan(COPIES), IN_VAIN)
    assert leave_what_was_in_vain(today, tried_in_vain(tmp_path)) == today


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Result.VERIFIED, "", COPIES, Fate.DONE),
        Outcome(Result.REFUSED, "a guardrail", COPIES),
        Outcome(Result.UNKNOWN, "no answer", COPIES, Fate.UNKNOWN),
        Outcome(Result.DIVERGENT, "it went half-way", {**COPIES, "b": None}, Fate.DONE, frozenset({"b"})),
        Outcome(Result.DIVERGENT, "not read after"),
    ],
)
def test_what_may_have_an_effect_another_time_is_tried_again(tmp_path: Path, outcome: Outcome) -> None:
    """Refused, unknown, half done: none of these says that doing it is in vain."""
    night(tmp_path, "one", plan(COPIES), outcome)
    assert not tried_in_vain(tmp_path)


def test_the_last_night_counts(tmp_path: Path) -> None:
    """Whatever the files are called; what cannot be read tells nothing."""
    night(tmp_path, "z", plan(COPIES), IN_VAIN)
    night(tmp_path, "a", plan(COPIES, at="2026-11-28T03:00:00"), Outcome(Result.VERIFIED, "", COPIES, Fate.DONE))
    (tmp_path / "torn.journal.jsonl").write_bytes(b'{"type": ')
    (tmp_path / "torn.journal.jsonl").chmod(0o600)
    assert not tried_in_vain(tmp_path)
