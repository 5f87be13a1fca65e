"""A sample: what it reads, what it claims, and that the bound it names holds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.checking import sampling
from consistency.checking.account import Account
from consistency.checking.leaves import LeafResult
from consistency.checking.plan import Leaf, TablePlan
from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions
from consistency.errors import UsageError
from consistency.model.tokens import TokenRange
from consistency.results.report import NOT_IN_SAMPLE, Report
from consistency.results.sample import Bound, SampledTable, bound, fewer_than
from consistency.results.verdict import ExitCode, Verdict
from tests.simulation.memory import Trouble
from tests.simulation.scenario import ROWS, Scenario, row
from tests.simulation.values import int_bytes

SMALL = ScanOptions(leaf_rows=2)
RUNS = 700
"""Clusters by kind of damage."""


def sampled(scenario: Scenario, sample: Sample, **options: Any) -> Report:
    """Check a sample of a table in many small ranges."""
    return scenario.check(sample=sample, scan=SMALL, **options)


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_FEWEST_ROWS", 1)


def full(scenario: Scenario) -> Scenario:
    """Fill the table of a scenario with 200 partitions of a row."""
    scenario.fill(200, 1)
    return scenario


def test_a_sample_without_a_difference_is_sampled_and_never_consistent() -> None:
    """Its own word, exit code 0, and how much it read; the rest is left out on purpose."""
    report = sampled(full(Scenario()), Sample(share=0.2, seed=1))
    assert (report.verdict, report.exit_code) == (Verdict.SAMPLED, ExitCode.CONSISTENT)
    (table,) = report.tables
    assert table.verdict is Verdict.SAMPLED
    assert 0.2 * table.ranges <= table.ranges_read < 0.5 * table.ranges
    assert {unread.reason for unread in table.unread} == {NOT_IN_SAMPLE}
    assert report.coverage.skipped > 0 == report.coverage.failed
    assert "?" not in table.strip
    assert report.bound is not None
    assert report.bound.of_ranges == table.ranges
    assert report.as_json()["sample"]["bound"]["rows_read"] == table.rows
    assert not table.put_off
    assert not table.worth_another_try


def test_a_sample_of_everything_finds_everything() -> None:
    """And is a sample all the same: nobody asked for the whole."""
    scenario = full(Scenario())
    damaged = random.Random(2).sample(range(200), 17)
    for p in damaged:
        scenario.apply(row(p, 50, v0=int_bytes(1)), on=[1])
    report = sampled(scenario, Sample(share=1.0))
    assert report.verdict is Verdict.DIVERGENT
    assert sorted(f.key["p0"] for f in scenario.findings) == sorted(damaged)
    assert report.bound is None
    clean = sampled(full(Scenario()), Sample(share=1.0))
    assert clean.verdict is Verdict.SAMPLED
    assert clean.bound is not None
    assert clean.bound.ranges == 1


def test_a_seed_draws_the_same_sample_again() -> None:
    """Another one draws another."""

    def ranges(seed: int) -> list[TokenRange]:
        report = sampled(full(Scenario()), Sample(share=0.1, seed=seed))
        return [r for unread in report.tables[0].unread for r in unread.ranges]

    assert ranges(5) == ranges(5) != ranges(6)


def test_a_sample_that_was_not_read_whole_is_unknown() -> None:
    """A replica that is down, or an interrupt: nothing is claimed, and no bound is told."""
    down = full(Scenario(faults=((Trouble.DOWN, 2, 0.0, 1e9),)))
    report = sampled(down, Sample(share=0.2))
    assert (report.verdict, report.exit_code, report.bound) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE, None)
    assert report.tables[0].sample is not None
    assert report.tables[0].sample.share == 0
    report = sampled(full(Scenario()), Sample(share=0.2), stop_at_s=0.05)
    assert (report.verdict, report.exit_code, report.bound) == (Verdict.UNKNOWN, ExitCode.INTERRUPTED, None)


def test_a_sample_ends_in_its_time_and_every_set_of_replicas_has_its_share() -> None:
    """However much there is to read; where nothing was reached nothing is claimed."""
    scenario = full(Scenario(dcs=("dc1",) * 6))
    report = sampled(scenario, Sample(within_s=0.1, seed=3))
    (table,) = report.tables
    assert report.seconds < 2
    assert report.verdict is Verdict.SAMPLED
    assert 0 < table.ranges_read < table.ranges
    assert table.sample is not None
    assert table.sample.share > 0
    nothing = sampled(full(Scenario()), Sample(within_s=1e-9))
    assert (nothing.verdict, nothing.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE)


def test_where_the_time_was_over_before_each_set_of_replicas_had_its_share_nothing_is_claimed() -> None:
    """Some ranges were read and agree: that says nothing of replicas that were not asked at all."""
    scenario = full(Scenario(dcs=("dc1",) * 12))
    report = scenario.check(sample=Sample(within_s=0.14), scan=ScanOptions(leaf_rows=2, leaves_at_once=1))
    (table,) = report.tables
    assert 0 < table.ranges_read < 12
    assert (report.verdict, table.verdict, report.bound) == (Verdict.UNKNOWN, Verdict.UNKNOWN, None)


def test_a_range_that_had_to_be_cut_is_one_range_of_the_sample() -> None:
    """A server refused it as a whole, and read its parts: no more of the table was read for that."""
    pieces = TokenRange(0, 1_000).split(10)
    arc = tuple(Leaf(piece, ()) for piece in pieces)
    account = Account(TablePlan(ROWS, (arc,), 100))
    account.record(LeafResult(arc[0], 0, {}, {}))
    for part in account.cut(arc[1], arc[1].token_range.split(5)):
        account.record(LeafResult(part, 0, {}, {}))
    assert account.sampled.share == 0.2
    for part in account.cut(arc[2], arc[2].token_range.split(5))[1:]:
        account.record(LeafResult(part, 0, {}, {}))
    assert account.sampled.share == 0.2


@pytest.mark.parametrize(
    "wrong", [{}, {"share": 0.0}, {"share": 1.5}, {"within_s": 0.0}, {"share": 0.1, "within_s": 1.0}]
)
def test_a_sample_of_no_size_is_refused(wrong: dict[str, float]) -> None:
    """Or of two sizes, or beyond the whole."""
    with pytest.raises(UsageError, match="a sample"):
        Sample(**wrong)


@pytest.mark.parametrize(
    ("share", "fewer"), [(1.0, 1), (0.95, 1), (0.5, 5), (0.05, 59), (0.02, 149), (0.001, 2_995), (1e-6, 2_995_731)]
)
def test_the_bound_is_the_one_of_the_books(share: float, fewer: int) -> None:
    """Three in the sample's size for small shares (the rule of three), one where all was read."""
    assert fewer_than(share) == fewer


@given(st.floats(1e-6, 1.0), st.floats(0.5, 0.999))
def test_the_bound_is_the_smallest_number_that_is_ruled_out(share: float, confidence: float) -> None:
    """So many would be missed with no more than the chance that is left, one fewer with more."""
    number = fewer_than(share, confidence)
    chance = 1 - confidence
    assert (1 - share) ** number <= chance * (1 + 1e-6)
    assert number == 1 or (1 - share) ** (number - 1) > chance * (1 - 1e-6)


@pytest.mark.parametrize(("share", "confidence"), [(0.0, 0.95), (1.1, 0.95), (0.5, 1.0), (0.5, 0.0)])
def test_figures_that_are_no_share_are_refused(share: float, confidence: float) -> None:
    """Instead of a bound that means nothing."""
    with pytest.raises(UsageError, match="share"):
        fewer_than(share, confidence)


def test_the_least_share_of_any_table_decides() -> None:
    """Where a table, or a set of replicas, was not reached, nothing is proven of the whole."""
    tables = [SampledTable(0.5, 0, 1_000), SampledTable(0.1, 0, 1_000)]
    assert bound(tables, ranges=400, rows_read=600) == Bound(29, 400, 600, 2_000, 1e6 * fewer_than(0.3) / 2_000)
    assert bound([*tables, SampledTable(0.0, 0, 1_000)], ranges=400, rows_read=600) is None
    assert bound([], ranges=0, rows_read=0) is None


def test_a_sample_that_rules_nothing_out_says_so() -> None:
    """Fewer than 65 of 64 ranges, or more than a million rows in a million, are no finding."""
    small = bound([SampledTable(2 / 64, 0, 509)], ranges=64, rows_read=16)
    smallest = bound([SampledTable(1 / 64, 0, 2)], ranges=64, rows_read=1)
    enough = bound([SampledTable(0.5, 0, 509)], ranges=64, rows_read=250)
    assert small is not None
    assert smallest is not None
    assert enough is not None
    assert "of 64 token ranges" in enough.sentence
    assert "too small" not in enough.sentence
    assert "rows in a million" in small.sentence
    assert "of 64" not in small.sentence
    assert "65" not in small.sentence
    assert "too small to say in how many" in small.sentence
    assert "million" not in smallest.sentence
    assert "too small to say how many rows differ" in smallest.sentence


@cache
def leaves(sets: int, each: int) -> Sequence[Sequence[Leaf]]:
    """Return the leaves of some sets of replicas."""
    return [[Leaf(TokenRange(n, n + 1), ()) for n in range(s * each, (s + 1) * each)] for s in range(sets)]


def draw(arcs: Sequence[Sequence[Leaf]], share: float, seed: int) -> set[Leaf]:
    """Return the leaves of a sample."""
    return {leaf for some in sampling._drawn(arcs, Sample(share=share, seed=seed)) for leaf in some}


def placed(arcs: Sequence[Sequence[Leaf]], count: int, how: str, dice: random.Random) -> set[Leaf]:
    """Choose the leaves that differ: anywhere, side by side, or in one set of replicas."""
    every = [leaf for arc in arcs for leaf in arc]
    if how == "anywhere":
        return set(dice.sample(every, count))
    if how == "together":
        start = dice.randrange(len(every) - count + 1)
        return set(every[start : start + count])
    return set(dice.sample(dice.choice(arcs), count))


@pytest.mark.parametrize("how", ["anywhere", "together", "in one set"])
def test_the_bound_holds_in_95_of_100_clusters(how: str) -> None:
    """2,100 clusters, each with just as many ranges that differ as its sample is to rule out: it shows one."""
    missed = 0
    for seed in range(RUNS):
        dice = random.Random(seed)
        arcs = leaves(dice.choice((1, 3, 6)), dice.choice((100, 200)))
        share = dice.choice((0.05, 0.1, 0.3))
        drawn = draw(arcs, share, seed)
        least = min(len(drawn.intersection(arc)) / len(arc) for arc in arcs)
        count = fewer_than(least)
        missed += not drawn & placed(arcs, min(count, len(arcs[0])), how, dice)
    assert missed <= 0.05 * RUNS, missed


def test_the_bound_of_rows_holds_where_rows_are_lost_one_by_one() -> None:
    """Partitions lie anywhere by their hash: 2,100 clusters with as many lost rows as are ruled out."""
    missed = 0
    for seed in range(3 * RUNS):
        dice = random.Random(seed)
        share, ranges, each = dice.choice((0.05, 0.1, 0.3)), 200, 10
        drawn = {leaf.token_range.start for leaf in draw(leaves(1, ranges), share, seed)}
        proven = bound([SampledTable(share, 0, ranges * each)], ranges=ranges, rows_read=len(drawn) * each)
        assert proven is not None
        lost = dice.sample(range(ranges * each), round(proven.per_million * ranges * each / 1e6))
        missed += not any(place // each in drawn for place in lost)
    assert missed <= 0.05 * 3 * RUNS, missed
