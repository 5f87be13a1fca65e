"""Hundreds of simulated pairs of clusters: what differs is found by its name, and the simulation can tell when not."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from multiprocessing import get_context

import pytest

from consistency.comparing import rows, run, settling
from consistency.comparing.rows import Held
from consistency.results.verdict import Verdict
from consistency.rows.read import States
from tests.simulation.seeds import telling_first
from tests.simulation.two_clusters import run_pair
from tests.support.figures import Figures

SEEDS = int(os.environ.get("CONSISTENCY_SEEDS", "400")) // 4
"""How many pairs are compared."""


def verdict_of(seed: int) -> tuple[int, str, list[str]]:
    """Return what came of a seed, and what was broken."""
    outcome = run_pair(seed)
    return seed, outcome.result.verdict.value, outcome.broken


def test_every_promise_is_kept_on_every_pair(figures: Figures) -> None:
    """Damage on either side, on some replicas, dual writes, faults, versions: no false finding and no false peace."""
    verdicts: Counter[str] = Counter()
    broken: list[str] = []
    started = time.monotonic()
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, verdict, promises in pool.imap_unordered(verdict_of, range(SEEDS), chunksize=25):
            verdicts[verdict] += 1
            broken += [f"seed {seed}: {promise[-300:]}" for promise in promises[:1]]
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(verdicts.items()))
    spent = time.monotonic() - started
    figures.add(f"{verdicts.total():,} simulated comparisons in {spent:.0f} s", f"{len(broken)} broken ({counts})")
    assert not broken, "\n".join(broken[:20])
    whole = [verdict.value for verdict in Verdict if verdict is not Verdict.PART]
    assert min(verdicts[verdict] for verdict in whole) > SEEDS // 100, verdicts


def is_told(words: str, seeds: Iterable[int]) -> bool:
    """Whether a promise is said to be broken in these words on any of the seeds."""
    return any(words in text for seed in seeds for text in verdict_of(seed)[2])


def test_a_comparison_that_does_not_wait_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a difference claimed at once, dual writes in flight would be false alarms."""

    class Hasty(run.PairSettler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments[:3], 0.0, arguments[4])  # type: ignore[arg-type]

    monkeypatch.setattr(run, "PairSettler", Hasty)
    assert is_told("is a false alarm", range(400))


def test_a_comparison_that_forgets_the_target_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that only the target holds are what other tools never see."""
    honest = rows._held

    def blind(copies: States) -> Held:
        return Held.NO if honest(copies) is Held.YES else honest(copies)

    monkeypatch.setattr(rows, "_held", blind)
    assert is_told("found as None", range(400))


def test_a_comparison_that_takes_what_is_missing_for_never_there_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a replica lacks may be deleted there: then the other side, which has the delete, is right."""
    honest = rows._held
    monkeypatch.setattr(rows, "_held", lambda copies: Held.YES if honest(copies) is Held.PERHAPS else honest(copies))
    assert is_told("is a false alarm", telling_first(148, 400))


def test_a_comparison_that_hides_what_one_side_disagrees_on_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sides may come to the same, and one of them is ill all the same."""
    monkeypatch.setattr(settling, "_torn", lambda *_: {})
    assert is_told("disagrees with itself on", telling_first(45, 400))
