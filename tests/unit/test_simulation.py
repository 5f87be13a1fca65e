"""Thousands of seeded clusters and histories: the check keeps its promises, and the simulation can tell when not."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.checking import account, run, scan, settlements
from consistency.ledger.port import RangeRead
from consistency.model.reading import Capabilities, Depth, Reading, Route
from consistency.model.tokens import TokenRange
from consistency.results.verdict import Coverage, Verdict
from tests.simulation.__main__ import verdict_of
from tests.simulation.cases import run_case
from tests.simulation.memory import Trouble
from tests.simulation.scenario import ROWS, Scenario, row
from tests.simulation.seeds import telling_first
from tests.simulation.storage import Delete, Mutation, Stored, TableStorage, Write, winner
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S, Stuck, VirtualLoop, run_virtual
from tests.support.figures import Figures

SEEDS = int(os.environ.get("CONSISTENCY_SEEDS", "400"))
"""How many histories are played; `python -m tests.simulation --seeds N` plays more."""


def test_no_row_is_both_listed_and_counted() -> None:
    """Where a server refuses a range after a row of it was listed, what is read anew is not counted once more."""
    assert run_case(5920).broken == []


def test_every_promise_is_kept_on_every_seed(figures: Figures) -> None:
    """Whatever is damaged, written, slow, down or stopped: no false alarm, no false peace, sums that add up."""
    verdicts: Counter[str] = Counter()
    broken: list[str] = []
    started = time.monotonic()
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, verdict, promises in pool.imap_unordered(verdict_of, range(SEEDS), chunksize=50):
            verdicts[verdict] += 1
            if promises:
                broken.append(f"python -m tests.simulation {seed}  # {promises[0][-300:]}")
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(verdicts.items()))
    figures.add(
        f"{verdicts.total():,} simulated checks in {time.monotonic() - started:.0f} s",
        f"{len(broken)} broke a promise ({counts}); replay one: python -m tests.simulation SEED",
    )
    assert not broken, "\n".join([f"{len(broken)} of {SEEDS} seeds broke a promise; replay:", *broken[:20]])
    assert verdicts[Verdict.SAMPLED.value] > SEEDS // 200, verdicts
    whole = [verdict.value for verdict in Verdict if verdict not in (Verdict.SAMPLED, Verdict.PART)]
    assert min(verdicts[verdict] for verdict in whole) > SEEDS // 20, verdicts


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    """A failing seed is one command to replay: neither the hash seed nor the machine's speed plays a part."""
    stories = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(stories) == 1
    assert "every promise was kept" in stories.pop()


def is_told(words: str, known: int) -> bool:
    """Whether a promise is said to be broken in these words, on the seed that told it the last time or on another."""
    return any(words in text for seed in telling_first(known, 400) for text in verdict_of(seed)[2])


def test_a_scanner_that_overlooks_leaves_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were no differing leaf ever descended into, the simulation would say what was missed."""
    monkeypatch.setattr(scan.Scan, "_descend_once", lambda *_: None)
    assert is_told("from the start to the end something was wrong", 2)
    assert is_told("not found", 4)


def test_a_ledger_that_calls_everything_clean_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that were not read, that differ, or whose ring changed: each would be told."""
    honest = account.Account.ranges_read

    def boastful(self: account.Account, *, waiting: bool) -> list[RangeRead]:
        return [replace(read, complete=True, clean=True) for read in honest(self, waiting=waiting)]

    monkeypatch.setattr(account.Account, "ranges_read", boastful)
    assert is_told("called clean, though from the start to the end something was wrong", 2)
    assert is_told("called clean that were not read on all replicas", 17)
    assert is_told("called clean, though they went to other replicas", 16)


def test_a_scanner_that_does_not_wait_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a difference claimed at once, writes in flight would be false alarms."""

    class Hasty(run.Settler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments[:3], 0.0)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "Settler", Hasty)
    assert is_told("but for writes in flight", 147)


def test_a_scanner_that_forgets_what_it_did_not_read_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were failures left out of the account, sums would not add up or peace would be false."""
    monkeypatch.setattr(Coverage, "closed", lambda coverage: coverage)
    assert is_told("does not add up", 24)
    monkeypatch.setattr(account.Account, "coverage", property(lambda ledger: Coverage(1, 1)))
    monkeypatch.setattr(scan.Scan, "_worth_another_try", staticmethod(lambda ledger: []))
    assert is_told("leaves were not read", 9)


def test_a_row_reported_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a damaged row reported twice, the simulation would say so."""
    once = settlements.Settlements._report

    async def twice(taking: object, found: object) -> None:
        await once(taking, found)  # type: ignore[arg-type]
        await once(taking, found)  # type: ignore[arg-type]

    monkeypatch.setattr(settlements.Settlements, "_report", twice)
    assert is_told("more than one finding", 0)


def test_time_jumps_and_fires_in_order() -> None:
    """An hour of sleep takes no time, and timers fire by their time however they were set."""
    loop, fired = VirtualLoop(), []

    async def main() -> None:
        for delay in (3600.0, 1.0, 60.0):
            loop.call_later(delay, fired.append, delay)
        await asyncio.sleep(4000)

    run_virtual(loop, main())
    assert fired == [1.0, 60.0, 3600.0]
    assert loop.now == pytest.approx(4000)


def test_a_program_that_hangs_is_stuck_and_not_waited_for() -> None:
    """A task that waits for what nobody will do fails at once."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run_virtual(VirtualLoop(), main())


CELLS = st.builds(
    Stored,
    st.integers(1, 3),
    st.none() | st.sampled_from([b"a", b"b"]),
    st.none() | st.sampled_from([EPOCH_S - 1, EPOCH_S + 9]),
)


@given(CELLS, CELLS, CELLS)
def test_reconciling_cells_is_a_lattice(one: Stored, two: Stored, three: Stored) -> None:
    """Commutative, associative and idempotent, as the convergence of replicas demands."""
    assert winner(one, two) == winner(two, one)
    assert winner(winner(one, two), three) == winner(one, winner(two, three))
    assert winner(one, one) == one


KEY = st.integers(0, 1).map(lambda n: (int_bytes(n),))
CLUSTERING = st.integers(0, 2).map(lambda n: (int_bytes(n),))
WRITES = st.builds(
    Write,
    KEY,
    CLUSTERING,
    st.integers(1, 9),
    st.lists(st.tuples(st.just("v0"), st.none(), st.none() | st.binary(max_size=1)), max_size=1).map(tuple),
    insert=st.booleans(),
)
DELETES = st.builds(Delete, KEY, st.integers(1, 9), CLUSTERING, CLUSTERING) | st.builds(Delete, KEY, st.integers(1, 9))


@settings(max_examples=200, deadline=None)
@given(st.lists(WRITES | DELETES, min_size=1, max_size=5))
def test_mutations_commute(mutations: list[Mutation]) -> None:
    """Whatever the order in which a replica gets them, a read shows the same."""
    shown = set()
    for order in itertools.islice(itertools.permutations(mutations), 24):
        storage = TableStorage(ROWS)
        for mutation in order:
            mutation.apply(storage)
        shown.add(repr([storage.visible_rows((int_bytes(p),), EPOCH_S) for p in (0, 1)]))
    assert len(shown) == 1


def test_tombstones_hide_what_is_older_and_nothing_else() -> None:
    """Row, range and partition deletes each cover their reach up to their time."""
    storage = TableStorage(ROWS)
    for c in range(4):
        row(1, c, 10 + c, v0=int_bytes(c)).apply(storage)
    key = (int_bytes(1),)

    def left() -> list[int]:
        rows = storage.visible_rows(key, EPOCH_S)
        return [int.from_bytes((r.clustering or (b"",))[0], "big") for r in rows]

    Delete(key, 10, (int_bytes(0),), (int_bytes(0),)).apply(storage)
    assert left() == [1, 2, 3]
    Delete(key, 12, (int_bytes(1),), (int_bytes(3),)).apply(storage)
    assert left() == [3]
    Delete(key, 13).apply(storage)
    assert left() == []


@pytest.mark.parametrize("route", list(Route))
def test_a_digest_depends_on_the_rows_alone(route: Route) -> None:
    """Equal rows, other pages: equal digests on all nodes; one row more on one node: another digest there."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(3, 77, v0=int_bytes(1)), on=[2])
    reading = Reading(ROWS, Depth.CONTENT, Capabilities())

    async def digests() -> list[object]:
        everything = TokenRange.full_ring()
        return [await scenario.cluster.digest(n, reading, route, everything, EPOCH_S) for n in scenario.nodes]

    first, second, third = scenario.run(digests)
    assert first == third != second


def test_every_trouble_strikes_somewhere() -> None:
    """The seeds reach each kind of fault, so that none of them is tested by name only."""
    missing, seeds = set(Trouble), iter(range(150))
    while missing:
        missing -= set(run_case(next(seeds)).cluster.hit)
