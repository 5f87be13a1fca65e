"""Many simulated syncs of two clusters: killed, refused, under live writes, undone; and wrong ones are caught."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.rows.cells import Atom
from repair.sync import decide, run, still_right
from repair.writing.statements import write_cells
from tests.simulation.seeds import telling_first
from tests.simulation.syncing import run_sync

SEEDS = int(os.environ.get("CONSISTENCY_REPAIR_SEEDS", "600")) // 2
_NEEDED = (
    "missing-there write", "older-there write", "older-there write+delete", "extra-row none", "extra-row delete",
    "extra-cells delete", "newer-there none", "side-disagrees none", "keys-alone none", "not-addressable none",
    "no-write-times none", "verified", "still-divergent", "skipped", "resumed", "stopped", "undone",
)  # fmt: skip


def outcome_of(seed: int) -> tuple[int, Counter[str], list[str]]:
    """Run one sync; what it raises is a broken law too."""
    try:
        outcome = run_sync(seed)
    except Exception:  # noqa: BLE001 - whatever it raises is what is looked for
        return seed, Counter(["raised"]), [traceback.format_exc()]
    return seed, outcome.counts, outcome.broken


def test_every_law_holds_on_every_seed() -> None:
    """Equal as far as is compared, nothing else touched on either side, newer writes stay, kills change nothing."""
    seen: Counter[str] = Counter()
    broken: list[str] = []
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, counts, laws in pool.imap_unordered(outcome_of, range(SEEDS), chunksize=25):
            seen.update(counts)
            broken += [f"seed {seed}: {law[-300:]}" for law in laws[:1]]
    assert not broken, "\n".join([f"{len(broken)} of {SEEDS} seeds broke a law:", *broken[:20]])
    if SEEDS >= 300:
        assert not [what for what in _NEEDED if not seen[what]], seen


@settings(max_examples=20, deadline=None)
@given(st.integers(min_value=0, max_value=2**48))
def test_every_law_holds_on_seeds_nobody_chose(seed: int) -> None:
    """Each run plays syncs that were never played before."""
    assert run_sync(seed).broken == []


def _anew(evidence: Any, cells: dict[Any, Atom]) -> Any:
    return write_cells(evidence, {name: replace(atom, writetime=evidence.now_us) for name, atom in cells.items()})


def _never_ending(evidence: Any, cells: dict[Any, Atom]) -> Any:
    return write_cells(evidence, {name: replace(atom, expires=None) for name, atom in cells.items()})


@pytest.mark.parametrize(
    ("module", "name", "wrong", "known"),
    [
        (run, "write_cells", _anew, 0),
        (run, "write_cells", _never_ending, 94),
        (decide._Look, "newer", frozenset(), 270),
        (decide, "_not_deletable", lambda _: "", 12),
        (still_right, "foreign", lambda *_: False, 188),
    ],
    ids=["written anew", "without expiry", "newer is forgotten", "deleted all the same", "others are us"],
)
def test_a_wrong_sync_is_caught(
    module: Any, name: str, wrong: Any, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that is wrong in one place breaks a law within a few hundred seeds."""
    monkeypatch.setattr(module, name, wrong)
    assert any(outcome_of(seed)[2] for seed in telling_first(known, 300))
