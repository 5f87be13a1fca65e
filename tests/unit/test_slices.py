"""Runs of bounded time: which ranges come first, what is said of the rest, and that in the end all were read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.checking.oldest_first import oldest_first
from consistency.checking.scan import Scan, ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.errors import UsageError
from consistency.ledger import LedgerFile, open_ledger
from consistency.model.tokens import TokenRange
from consistency.results.report import Report
from consistency.results.verdict import ExitCode, Verdict
from tests.simulation.memory import Trouble
from tests.simulation.scenario import ROWS, Scenario, row
from tests.simulation.values import int_bytes
from tests.simulation.vclock import SimClock

NAMES = ("a", "b", "c")
ALWAYS = 1e9


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerFile]:
    """Return a new ledger."""
    with open_ledger(tmp_path / "test.ledger") as opened:
        yield opened


def three_tables(number: int, **faults: object) -> Scenario:
    """Return a cluster with three tables, some days after the epoch."""
    scenario = Scenario(**faults)  # type: ignore[arg-type]
    scenario.clock = SimClock(scenario.loop, skew_s=number * 86_400)
    cluster = scenario.cluster
    tables = {name: replace(ROWS, name=name, table_id=name) for name in NAMES}
    cluster._schema["ks"] = replace(cluster._schema["ks"], tables=tables)
    for node in scenario.nodes:
        first = cluster._stores[node].pop(ROWS.full_name)
        cluster._stores[node] = {t.full_name: type(first)(t) for t in tables.values()}
    for table in tables.values():
        for p in range(60):
            cluster.apply(table, row(p, 1, v0=int_bytes(1)))
    return scenario


def sliced(ledger: LedgerFile | None, scenario: Scenario, seconds: float) -> Report:
    """Check for some seconds."""
    recorder = None if ledger is None else ledger.recorder()
    scan = ScanOptions(leaf_rows=2, leaves_at_once=1)
    report = scenario.check(recorder=recorder, run_time_s=seconds, scan=scan)
    assert recorder is None or not recorder.problem
    return report


def digested(scenario: Scenario) -> set[tuple[str, TokenRange]]:
    """Return which ranges of which tables were digested on any node."""
    return {(table, token_range) for _, table, token_range in scenario.cluster.digested}


def test_slices_go_round_all_tables_and_start_again_with_the_oldest(ledger: LedgerFile) -> None:
    """Each begins where the one before ended; no range is read twice before every one was read once."""
    seen: list[set[tuple[str, TokenRange]]] = []
    planned = 0
    for number in range(1, 30):
        scenario = three_tables(number)
        report = sliced(ledger, scenario, 0.15)
        planned = sum(t.ranges for t in report.tables)
        read = sum(t.ranges_read for t in report.tables)
        seen.append(digested(scenario))
        assert len(seen[-1]) == read > 0
        assert report.verdict is Verdict.UNKNOWN
        if sum(map(len, seen)) >= planned:
            break
    assert len(seen) > 2
    before_last: set[tuple[str, TokenRange]] = set()
    for part in seen[:-1]:
        assert not part & before_last
        before_last |= part
    assert len(before_last | seen[-1]) == planned
    past = ledger.past()
    ((cluster, _),) = past.clusters()
    assert [t.never for t in past.tables(cluster)] == [0.0] * 3
    again = three_tables(30)
    sliced(ledger, again, 0.05)
    assert digested(again) <= seen[0]


def test_what_is_left_for_the_next_run_is_skipped_not_failed(ledger: LedgerFile) -> None:
    """Exit code 3 for what was not reached alone; the report counts the ranges and gives the reason."""
    report = sliced(ledger, three_tables(1), 0.15)
    assert (report.exit_code, report.coverage.failed) == (ExitCode.INCOMPLETE, 0)
    assert report.coverage.skipped > 0
    assert report.coverage.planned == report.coverage.completed + report.coverage.skipped
    assert all("left for the next run" in u.reason for t in report.tables for u in t.unread)
    assert {t.put_off for t in report.tables if t.ranges_read < t.ranges} == {True}


def test_a_slice_that_reaches_everything_is_consistent(ledger: LedgerFile) -> None:
    """Enough time is as good as no limit."""
    report = sliced(ledger, three_tables(1), 1e6)
    assert (report.verdict, report.exit_code) == (Verdict.CONSISTENT, ExitCode.CONSISTENT)
    assert sum(t.ranges_read for t in report.tables) == sum(t.ranges for t in report.tables)


def test_runs_without_time_read_one_range_each_and_claim_nothing_of_the_others(ledger: LedgerFile) -> None:
    """A cluster so busy that planning takes the whole time of a run is still checked in the end."""
    tried: set[tuple[str, TokenRange]] = set()
    planned = -1
    while len(tried) != planned:
        scenario = three_tables(len(tried) + 1)
        report = sliced(ledger, scenario, 0.0)
        assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE)
        assert sum(t.ranges_read for t in report.tables) == 1
        assert not digested(scenario) & tried
        tried |= digested(scenario)
        planned = sum(t.ranges for t in report.tables)


def test_a_difference_in_the_ranges_reached_is_found(ledger: LedgerFile) -> None:
    """What was digested is compared, settled and reported, although the time is over."""
    found: set[int] = set()
    for number in range(1, 30):
        scenario = three_tables(number)
        for name, p in zip(NAMES, range(3), strict=True):
            table = scenario.cluster._schema["ks"].tables[name]
            scenario.cluster.apply(table, row(p, 50, v0=int_bytes(1)), [scenario.nodes[0]])
        report = sliced(ledger, scenario, 0.15)
        assert (report.exit_code is ExitCode.DIVERGENT) == bool(scenario.findings)
        found |= {int(f.key["p0"]) for f in scenario.findings}
        if found == {0, 1, 2}:
            return
    pytest.fail(f"only {found} were found")


def test_ranges_that_cannot_be_read_do_not_hold_up_the_others(ledger: LedgerFile) -> None:
    """A node is down for weeks: every slice still goes on to ranges that were not tried yet."""
    tried: set[tuple[str, TokenRange]] = set()
    planned = -1
    for number in range(1, 40):
        scenario = three_tables(number, faults=((Trouble.DOWN, 2, 0.0, ALWAYS),))
        report = sliced(ledger, scenario, 0.15)
        planned = sum(t.ranges for t in report.tables)
        tried |= digested(scenario)
        if len(tried) == planned:
            break
    assert len(tried) == planned


def test_an_interrupted_slice_is_unknown_for_what_it_did_not_reach(ledger: LedgerFile) -> None:
    """An interrupt is no plan: the rest is failed, not left on purpose."""
    scenario = three_tables(1)
    scan = ScanOptions(leaf_rows=2, leaves_at_once=1)
    report = scenario.check(stop_at_s=0.15, recorder=ledger.recorder(), run_time_s=100.0, scan=scan)
    assert report.exit_code is ExitCode.INTERRUPTED
    assert report.coverage.skipped == 0
    assert report.coverage.failed > 0


def test_a_ring_that_changed_under_a_slice_leaves_nothing_completed(ledger: LedgerFile) -> None:
    """Ranges that were not reached and ranges that cannot be believed add up."""
    scenario = three_tables(1)
    ring = scenario.cluster._ring
    scenario.cluster.ring_later = lambda: replace(
        ring, nodes=(*ring.nodes[1:], replace(ring.nodes[0], host_id="another"))
    )
    report = sliced(ledger, scenario, 0.15)
    assert (report.coverage.completed, report.coverage.failed) == (0, report.coverage.planned)


def test_without_a_ledger_a_slice_begins_anywhere_and_says_what_it_left() -> None:
    """The library can do without; it is the command that insists."""
    report = sliced(None, three_tables(1), 0.15)
    assert 0 < report.coverage.completed < report.coverage.planned


def test_strays_cannot_be_looked_for_in_slices() -> None:
    """Refused before anything is read."""
    with pytest.raises(UsageError, match="--non-owners"):
        CheckOptions(non_owners=True, run_time_s=1.0)


def test_slices_keep_the_ranges_of_a_table_together() -> None:
    """Never read first, then by age to the minute: a table that was read within one stays one slice_."""
    pieces = TokenRange.full_ring().split(4)
    minute = 60_000_000
    scans: list[Scan] = [object(), object()]  # type: ignore[list-item]
    leaves = [object() for _ in pieces]
    times = [[5 * minute, 5 * minute + 9, 0, 0], [0, 5 * minute + 5, 7 * minute, 5 * minute]]
    slices = oldest_first(zip(scans, [leaves, leaves], times, strict=True))  # type: ignore[arg-type]
    assert [(scans.index(t.scan), [leaves.index(x) for x in t.leaves]) for t in slices] == [
        (0, [2, 3]),
        (1, [0]),
        (0, [0, 1]),
        (1, [1, 3, 2]),
    ]
