"""Tables are read one after the other, and the rows that are counted settle beside the tables that follow."""

from __future__ import annotations

import pytest

from consistency.checking import scanning
from consistency.checking.scan import ScanOptions
from consistency.results.report import Report
from consistency.results.verdict import ExitCode
from tests.simulation.memory import Trouble
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.values import int_bytes
from tests.unit.test_slices import ALWAYS, three_tables

COUNTED = ScanOptions(max_findings=0)
WINDOW_S = 30.0


def damaged(**faults: object) -> Scenario:
    """Return a cluster with three tables of which node 2 has a newer version of one row each."""
    scenario = three_tables(1, **faults)
    for table in scenario.cluster._schema["ks"].tables.values():
        scenario.cluster.apply(table, row(7, 1, LONG_AGO_US + 5, v0=int_bytes(9)), [scenario.nodes[1]])
    return scenario


def checked(scenario: Scenario, stop_at_s: float | None = None) -> tuple[Report, float]:
    """Check with a long window and count what differs; return how many seconds it took too."""
    report = scenario.check(stop_at_s, scan=COUNTED, settle_window_s=WINDOW_S)
    return report, scenario.loop.time()


def test_the_windows_of_all_tables_pass_at_once() -> None:
    """A keyspace of many small tables takes as long to count as one of them does."""
    report, seconds = checked(damaged())
    assert [table.divergent_rows for table in report.tables] == [1, 1, 1]
    assert report.exit_code is ExitCode.DIVERGENT
    assert WINDOW_S < seconds < 2 * WINDOW_S


def test_a_table_waits_while_too_many_rows_of_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in memory: then one table comes after the other, and as many rows are counted."""
    monkeypatch.setattr(scanning, "_MOST_BESIDE", 0)
    report, seconds = checked(damaged())
    assert [table.divergent_rows for table in report.tables] == [1, 1, 1]
    assert seconds > 3 * WINDOW_S


def test_rows_that_are_not_counted_when_a_run_ends_are_unknown() -> None:
    """An interrupt reaches the tables whose rows still settle, and none of them is called anything else."""
    report, seconds = checked(damaged(), stop_at_s=WINDOW_S / 2)
    assert seconds < WINDOW_S
    assert report.exit_code is ExitCode.INTERRUPTED
    assert [table.divergent_rows for table in report.tables] == [0, 0, 0]
    assert all(table.verdict.value == "unknown" for table in report.tables)


def test_a_replica_that_goes_meanwhile_leaves_its_tables_unknown() -> None:
    """What was digested as unlike, and could not be counted, is no peace, in any of the tables."""
    report, _ = checked(damaged(faults=((Trouble.DOWN, 3, WINDOW_S / 2, ALWAYS),)))
    assert all(table.verdict.value == "unknown" for table in report.tables)
    assert report.exit_code is ExitCode.INCOMPLETE
