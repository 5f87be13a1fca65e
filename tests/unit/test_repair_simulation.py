"""Random histories of writes, deletes and TTLs on random subsets of replicas: repair ends in the merge, or abstains.

With nodes down, outages, kills and resumes, live writes, purged deletes and undo in the middle of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.rows.cells import Atom, AtomName
from repair.applying import actions, range_work
from repair.deciding import decide
from repair.deciding.case import Case
from repair.writing.statements import Write, write_cells
from tests.simulation.__main__ import range_repair_of, repair_of
from tests.simulation.repairing import run_repair_case
from tests.simulation.seeds import telling_first

SEEDS = int(os.environ.get("CONSISTENCY_REPAIR_SEEDS", "600"))
"""How many repairs are played; `python -m tests.simulation --repair --seeds N` plays more."""
_NEEDED = (
    "last-write-wins reconcile", "last-write-wins write-back", "zombie-suspect none", "zombie-suspect purge",
    "resumed", "undone", "skipped", "waits-for-node", "verified", "forecast restore", "forecast unknown",
)  # fmt: skip


def test_every_law_holds_on_every_seed() -> None:
    """Nothing covered comes back, nothing live goes, no write time goes back, no live write is lost."""
    seen: Counter[str] = Counter()
    broken: list[str] = []
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, counts, laws in pool.imap_unordered(repair_of, range(SEEDS), chunksize=50):
            seen.update(counts)
            if laws:
                broken.append(f"python -m tests.simulation --repair {seed}  # {laws[0][-300:]}")
    assert not broken, "\n".join([f"{len(broken)} of {SEEDS} seeds broke a law; replay:", *broken[:20]])
    for what in _NEEDED:
        assert seen[what] > SEEDS // 500, (what, seen)


def test_every_law_holds_where_ranges_are_merged() -> None:
    """The same of ranges that are merged as ranges, with more damage: no row of them is treated otherwise."""
    seen: Counter[str] = Counter()
    broken: list[str] = []
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, counts, laws in pool.imap_unordered(range_repair_of, range(SEEDS // 2), chunksize=25):
            seen.update(counts)
            if laws:
                broken.append(f"python -m tests.simulation --ranges {seed}  # {laws[0][-300:]}")
    assert not broken, "\n".join([f"{len(broken)} of {SEEDS // 2} seeds broke a law; replay:", *broken[:20]])
    for what in ("ranges merged", "undone ranges", "resumed", "left-alone", "refused"):
        assert seen[what] > SEEDS // 500, (what, seen)


def test_the_laws_can_tell_of_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repairer that reads at ALL over what is to be left breaks a law within a few hundred seeds."""
    monkeypatch.setattr(range_work, "is_simple", lambda _: True)
    assert any(run_repair_case(seed, ranged=True).broken for seed in telling_first(55, 400))


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0, max_value=2**48))
def test_every_law_holds_on_seeds_nobody_chose(seed: int) -> None:
    """Each run plays repairs that were never played before."""
    assert run_repair_case(seed).broken == []


def _without_zombies(_: Case) -> None:
    return None


def _as_a_new_write(evidence: Case, cells: Mapping[AtomName, Atom]) -> list[Write]:
    return write_cells(evidence, {name: replace(atom, writetime=evidence.now_us) for name, atom in cells.items()})


async def _nothing(*_: object) -> None:
    return None


@pytest.mark.parametrize(
    ("where", "name", "wrong", "known"),
    [
        (decide, "zombie_suspects", _without_zombies, 59),
        (actions, "write_cells", _as_a_new_write, 7),
        (actions.Actor, "_propagate_deletes", _nothing, 31),
    ],
    ids=["no quarantine", "new write times", "deletes not passed on"],
)
def test_the_laws_can_tell(
    where: object, name: str, wrong: object, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repairer that is wrong in one place breaks a law within a few hundred seeds."""
    monkeypatch.setattr(where, name, wrong)
    assert any(run_repair_case(seed).broken for seed in telling_first(known, 400))
