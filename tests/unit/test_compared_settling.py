"""When a difference between two clusters is claimed: after it has lasted, column by column, and of what both hold."""

from __future__ import annotations

import pytest

from consistency import InnerFinding, PairFinding, PairRange, Side, Verdict
from consistency.checking.scan import ScanOptions
from consistency.comparing.terms import Compare
from tests.simulation.histories import EPOCH_US
from tests.simulation.memory import Fault, Trouble
from tests.simulation.scenario import LONG_AGO_US, row
from tests.simulation.two_clusters import PairScenario
from tests.simulation.values import int_bytes

SOURCE, TARGET = Side.SOURCE, Side.TARGET
COUNTED = ScanOptions(max_findings=0)


def number(value: int) -> bytes:
    """Return a value of the column v0."""
    return int_bytes(value)


def filled() -> PairScenario:
    """Return two clusters with the same rows."""
    scenario = PairScenario()
    for side in Side:
        for p in range(4):
            scenario.apply(side, row(p, 1, v0=number(p), v1=b"text"))
    return scenario


def kinds(scenario: PairScenario) -> dict[int, str]:
    """Return what was found between the sides, by partition."""
    return {each.key["p0"]: each.kind.value for each in scenario.found if isinstance(each, PairFinding)}


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_a_write_that_has_not_reached_the_target_yet_is_no_difference(options: ScanOptions) -> None:
    """Listed or counted: it is there when both are read again."""
    scenario = filled()
    late = row(1, 1, EPOCH_US - 1000, v0=number(9))
    scenario.apply(SOURCE, late)
    scenario.apply(SOURCE, row(2, 7, EPOCH_US - 1000, v0=number(9)))
    scenario.later(2.0, TARGET, late)
    scenario.later(2.0, TARGET, row(2, 7, EPOCH_US - 1000, v0=number(9)))
    assert scenario.compare(scan=options).verdict is Verdict.CONSISTENT
    assert scenario.found == []


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_a_row_that_is_written_all_the_time_is_no_difference(options: ScanOptions) -> None:
    """At each reading the target is a write behind, never behind the same one twice: it cannot be judged."""
    scenario = filled()
    for n in range(500):
        write = row(1, 1, EPOCH_US + n * 100_000, v0=number(n))
        scenario.later(n * 0.1, SOURCE, write)
        scenario.later(n * 0.1 + 0.0999, TARGET, write)
    result = scenario.compare(scan=options)
    assert scenario.found == []
    assert result.verdict is Verdict.UNKNOWN
    assert result.tables[0].report.unsettled_rows == 1


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_a_row_that_is_deleted_at_last_is_no_difference(options: ScanOptions) -> None:
    """A queue: the row is inserted and deleted again, and the target hears of both a little later."""
    scenario = filled()
    scenario.apply(SOURCE, row(1, 5, EPOCH_US - 500, v0=number(1)))
    scenario.later(3.0, TARGET, row(1, 5, EPOCH_US - 500, v0=number(1)))
    assert scenario.compare(scan=options).verdict is Verdict.CONSISTENT
    assert scenario.found == []


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_what_lasts_is_claimed(options: ScanOptions) -> None:
    """Old and young, of each kind."""
    scenario = filled()
    scenario.apply(SOURCE, row(0, 1, LONG_AGO_US + 5, v0=number(9)))
    scenario.apply(SOURCE, row(1, 1, EPOCH_US - 1000, v0=number(9)))
    scenario.apply(TARGET, row(2, 9, EPOCH_US - 1000, v0=number(9)))
    scenario.apply(SOURCE, row(3, 9, LONG_AGO_US, v0=number(9)))
    result = scenario.compare(scan=options)
    assert result.findings_by_kind == {"only_source": 1, "only_target": 1, "value": 2}
    assert result.verdict is Verdict.DIVERGENT
    if options.max_findings is None:
        assert kinds(scenario) == {0: "value", 1: "value", 2: "only_target", 3: "only_source"}


def test_a_row_gives_its_gravest_kind_whichever_column_is_sure_first() -> None:
    """Another write time is sure after one window, a value that one side lacks only after two."""
    scenario = filled()
    for side, ts in ((SOURCE, EPOCH_US - 1000), (TARGET, EPOCH_US - 2000)):
        scenario.apply(side, row(1, 7, ts, v0=number(1)))
    scenario.apply(SOURCE, row(1, 7, EPOCH_US - 1000, v1=b"only here", insert=False))
    scenario.compare()
    (found,) = scenario.found
    assert isinstance(found, PairFinding)
    assert (found.kind.value, found.columns) == ("value", ("v0", "v1"))
    assert [fact.value for fact in found.facts] == ["value", "writetime"]


def test_a_write_in_flight_lends_its_kind_to_no_other_column() -> None:
    """One column was written at another time for good; in the other one the target is a write behind now and then."""
    scenario = filled()
    scenario.apply(TARGET, row(1, 1, LONG_AGO_US + 7, v0=number(1)))
    for n in range(400):
        write = row(1, 1, EPOCH_US + n * 100_000, insert=False, v1=b"%d" % n)
        scenario.later(n * 0.1, SOURCE, write)
        scenario.later(n * 0.1 + 0.09, TARGET, write)
    scenario.compare()
    (found,) = scenario.found
    assert isinstance(found, PairFinding)
    assert (found.kind.value, found.columns) == ("writetime", ("v0",))


def test_copies_that_each_cluster_stamps_are_the_same_by_values() -> None:
    """And a value that differs is found among them."""
    scenario = PairScenario()
    for side, ahead in ((SOURCE, 0), (TARGET, 1_234)):
        for p in range(4):
            scenario.apply(side, row(p, 1, LONG_AGO_US + ahead, v0=number(p)))
    scenario.apply(TARGET, row(2, 1, LONG_AGO_US + 5_000, v0=number(7)))
    scenario.compare(compare=Compare.VALUES)
    assert kinds(scenario) == {2: "value"}


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_a_value_that_is_set_to_and_fro_is_no_difference(options: ScanOptions) -> None:
    """By values every reading may look like the one before, although the target is a write behind another one."""
    scenario = filled()
    for n in range(500):
        for side, after_s in ((SOURCE, 0.0), (TARGET, 0.0999)):
            at_s = n * 0.1 + after_s
            scenario.later(at_s, side, row(1, 1, EPOCH_US + int(at_s * 1e6), v0=number(n % 2)))
    result = scenario.compare(compare=Compare.VALUES, scan=options)
    assert scenario.found == []
    assert result.verdict is Verdict.UNKNOWN
    assert result.tables[0].report.unsettled_rows == 1


def test_a_value_that_was_lost_is_found_although_the_other_side_is_written_anew() -> None:
    """The target kept what it held: only the source's copy has a new write time in every reading."""
    scenario = filled()
    scenario.apply(TARGET, row(1, 1, EPOCH_US - 500, v0=number(7)))
    for n in range(500):
        scenario.later(n * 0.1, SOURCE, row(1, 1, EPOCH_US + n * 100_000, v0=number(1)))
    scenario.compare(compare=Compare.VALUES)
    assert kinds(scenario) == {1: "value"}


def test_a_stale_replica_is_told_of_its_own_side_alone() -> None:
    """The target holds what the source's replicas come to."""
    scenario = filled()
    newest = row(1, 1, LONG_AGO_US + 5, v0=number(9))
    scenario.apply(SOURCE, newest, on=[2])
    scenario.apply(TARGET, newest)
    result = scenario.compare()
    (found,) = scenario.found
    assert isinstance(found, InnerFinding)
    assert found.side is SOURCE
    assert (found.finding.kind.value, result.verdict) == ("stale", Verdict.DIVERGENT)
    assert {name for name, view in found.finding.replicas.items() if view.state.value == "stale"} == {
        "10.0.0.1:9042",
        "10.0.0.3:9042",
    }


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_a_side_that_comes_to_disagree_is_told_of(options: ScanOptions) -> None:
    """The source lacks a write; then one of its replicas gets it, the others never do: the sides may be the same."""
    scenario = filled()
    newest = row(1, 1, LONG_AGO_US + 5, v0=number(9))
    scenario.apply(TARGET, newest)
    scenario.later(1.0, SOURCE, newest, on=[1])
    result = scenario.compare(scan=options, settle_window_s=2.0)
    assert result.verdict is Verdict.DIVERGENT
    (found,) = scenario.found
    if isinstance(found, InnerFinding):
        assert (found.side, found.finding.kind.value) == (SOURCE, "stale")
    else:
        assert isinstance(found, PairRange)
        assert found.inner == {SOURCE: 1}


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_a_row_that_reaches_all_of_one_side_late_is_compared_then(options: ScanOptions) -> None:
    """While some replicas of the source lack it, neither side may have it; then all have, and the target never does."""
    scenario = filled()
    young = row(1, 7, EPOCH_US - 1000, v0=number(9))
    scenario.apply(SOURCE, young, on=[1])
    scenario.later(3.0, SOURCE, young)
    result = scenario.compare(scan=options, settle_window_s=2.0)
    assert result.verdict is Verdict.DIVERGENT
    assert result.findings_by_kind == {"only_source": 1}


def test_a_counted_range_tells_the_sides_apart_too() -> None:
    """A row may be wrong between the sides and within one."""
    scenario = filled()
    scenario.apply(SOURCE, row(1, 1, LONG_AGO_US + 5, v0=number(9)), on=[2])
    result = scenario.compare(scan=COUNTED)
    (found,) = scenario.found
    assert isinstance(found, PairRange)
    assert found.inner == {SOURCE: 1}
    assert result.findings_by_kind == {"value": 1}
    assert result.tables[0].counted == 1


@pytest.mark.parametrize("options", [ScanOptions(), COUNTED])
def test_without_a_quorum_nothing_is_said_of_a_side(options: ScanOptions) -> None:
    """Two of three replicas of the source are away: the third one may be behind."""
    scenario = filled()
    scenario.apply(TARGET, row(1, 1, LONG_AGO_US + 5, v0=number(9)))
    source = scenario.clusters[SOURCE]
    source._faults = tuple(Fault(Trouble.DOWN, node, 0.0, 1e9) for node in source.ring_before.nodes[:2])
    result = scenario.compare(scan=options)
    assert scenario.found == []
    assert result.verdict is Verdict.UNKNOWN
