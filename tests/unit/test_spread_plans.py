"""A plan of a repair by several processes: the same, byte for byte, as by one."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consistency.checking.scan import ScanOptions
from consistency.cli import main
from consistency.errors import ConnectError, ConsistencyError
from consistency.results.forecast import Forecast
from consistency.rows.names import RowRef
from consistency.spreading.local import LocalWorkers
from consistency.spreading.messages import Order, Terms, Work
from consistency.spreading.port import Reads, Told, UnitFailed
from repair.deciding.case import CaseReader
from repair.deciding.decide import Rule
from repair.deciding.mergeable import RangeMerge
from repair.deciding.policy import Policy, Zombies
from repair.keeping.planfile import Plan
from repair.planning import planner
from repair.planning import spread as spread_planning
from repair.planning.planner import PlanOptions, make_plan
from repair.planning.spread import RowsUnit, Shared, prepared
from tests.simulation.scenario import Scenario, row
from tests.simulation.spreading import SimWorkers
from tests.simulation.values import int_bytes
from tests.support.stand_in_worker import cluster as stand_in
from tests.unit.fake_cluster import opener
from tests.unit.test_spreading import stand_ins

PARTITIONS, EACH = 12, 6


def damaged() -> Scenario:
    """Return a cluster of which some rows are stale, some missing, in partitions that show other rows."""
    scenario = Scenario()
    for key, clustering in itertools.product(range(PARTITIONS), range(EACH)):
        scenario.apply(row(key, clustering, v0=int_bytes(1)))
    for key in range(PARTITIONS):
        scenario.apply(row(key, 1, scenario_ts(10), v0=int_bytes(2)), on=[1])
        scenario.apply(row(key, EACH, scenario_ts(20 + key), v0=int_bytes(3)), on=[1, 2] if key % 2 else [3])
    return scenario


def scenario_ts(seconds: int) -> int:
    """Return a write time so long after the oldest."""
    from tests.simulation.scenario import LONG_AGO_US  # noqa: PLC0415

    return LONG_AGO_US + seconds * 1_000_000


class Crew:
    """Workers of a simulated cluster, and all that went between them and their driver."""

    def __init__(self, size: int, lost: float = 0.0) -> None:
        self.size = size
        self.lost = lost
        self.said: list[str] = []

    def shared(self, scenario: Scenario) -> Shared:
        """Return what decides rows by them."""

        async def reads(order: Order, told: Told) -> Reads:
            return await prepared(scenario.cluster, scenario.clock, order)

        workers = SimWorkers(reads, self.size, self.lost, 3)
        self.said = workers.said
        return Shared(scenario.cluster, scenario.clock, workers, Terms())


def planned(path: Path, options: PlanOptions, crew: Crew | None = None) -> Plan:
    """Plan the repair of what a check found."""
    scenario = damaged()
    deciding = crew.shared(scenario) if crew else None
    made: Plan = scenario.run(lambda: make_plan(scenario.cluster, scenario.clock, path, options, None, deciding))
    return replace(made, created_at="")


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a findings file; ids and salts are the same in every plan, and units small."""
    monkeypatch.setattr(planner.secrets, "token_hex", lambda size: "5a" * size)
    monkeypatch.setattr(spread_planning, "_MOST_ROWS", 5)
    path = tmp_path / "findings"
    damaged().check(findings=path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        PlanOptions(),
        PlanOptions(max_traces=0),
        PlanOptions(max_rows=3),
        PlanOptions(Policy(zombies=Zombies.RESTORE), only=frozenset({Rule.LAST_WRITE})),
        PlanOptions(forecasts=frozenset({Forecast.RESTORE})),
    ],
)
def test_a_plan_is_the_same_however_many_workers_decide(found: Path, options: PlanOptions) -> None:
    """1, 2 or 4 of them, also if some are lost on the way."""
    alone = planned(found, options).text()
    assert len(alone.splitlines()) > PARTITIONS
    for crew in (Crew(1), Crew(2), Crew(4), Crew(3, lost=0.4)):
        assert planned(found, options, crew).text() == alone


def test_deletes_are_looked_for_within_the_bound(found: Path) -> None:
    """As many traced reads as are allowed, whoever reads; which rows are not looked into is said."""
    all_of_them = planned(found, PlanOptions())
    assert Forecast.RESTORE in {row.forecast for row in all_of_them.rows}
    few = [planned(found, PlanOptions(max_traces=3), Crew(size)) for size in (1, 2, 4)]
    assert len({plan.text() for plan in few}) == 1
    restored = sum(row.forecast is Forecast.RESTORE for row in few[0].rows)
    assert 0 < restored < sum(row.forecast is Forecast.RESTORE for row in all_of_them.rows)
    alone = planned(found, PlanOptions(max_traces=3))
    assert [w for w in few[0].warnings if "max-traces" in w] == [w for w in alone.warnings if "max-traces" in w] != []


def test_ranges_stay_ranges_and_their_rows_are_decided_by_workers(tmp_path: Path, found: Path) -> None:
    """Rows that were counted are read by the driver, and decided as those that were listed."""
    damaged().check(scan=ScanOptions(max_findings=0), findings=tmp_path / "counted")
    for options in (PlanOptions(), PlanOptions(range_merge=RangeMerge.NEVER)):
        assert planned(tmp_path / "counted", options, Crew(2)).text() == planned(tmp_path / "counted", options).text()


def test_without_a_worker_there_is_no_plan(found: Path) -> None:
    """Part of a plan is none: it says so, and that one can plan again."""
    with pytest.raises(ConnectError, match=r"workers were lost .* plan again"):
        planned(found, PlanOptions(), Crew(2, lost=1.0))


def test_nothing_that_is_sent_is_a_secret(found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a password nor a value of a row: keys and digests go to workers and come back."""
    monkeypatch.setenv("CONSISTENCY_PASSWORD", "a-password-of-the-environment")
    crew = Crew(2)
    planned(found, PlanOptions(), crew)
    sent = "\n".join(crew.said)
    assert "last-write-wins" in sent
    hidden = ("a-password-of-the-environment", "password")
    assert [text for text in hidden if text in sent] == []


@pytest.mark.parametrize("unlike", ["ring", "table", ""])
def test_a_worker_that_sees_another_cluster_decides_nothing(unlike: str) -> None:
    """Another ring or another table than the driver's."""
    scenario = damaged()

    async def run() -> None:
        evidence = await CaseReader.open(scenario.cluster, scenario.clock)
        options: dict[str, Any] = {"policy": Policy().as_json(), "only": [], "forecasts": [], "salt": "s"}
        options["tables"] = {"ks.t": ["ks", "t"]}
        ring = "another" if unlike == "ring" else evidence.ring.fingerprint
        table = "another" if unlike == "table" else evidence.fingerprint(RowRef("ks", "t", 0, {}))
        await prepared(
            scenario.cluster, scenario.clock, Order(Work.PLAN, "", options, Terms(), 1, ring, {"ks.t": table})
        )

    if not unlike:
        scenario.run(run)
        return
    with pytest.raises(UnitFailed, match="driver"):
        scenario.run(run)


def test_a_unit_arrives_as_it_was_handed_out() -> None:
    """With keys, tokens and who holds a row."""
    unit = RowsUnit(3, (("ks", "t", -5, {"k": "00ff"}, True),), 7)
    assert RowsUnit.from_text(unit.as_text()) == unit
    assert unit.found[0].ref.key_hex == {"k": "00ff"}
    assert issubclass(UnitFailed, ConsistencyError)


def test_the_command_plans_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of their own decide what one decides; only the salt and the time are others."""
    cluster = stand_in(60, 0.0, [5, 33, 47])
    for place in ("consistency.cluster.session.open_cluster", "repair.api.open_cluster"):
        monkeypatch.setattr(place, opener(cluster))
    monkeypatch.setattr("repair.deciding.case._require_own_token", lambda _: None)  # its tokens are made up
    monkeypatch.setattr(planner.secrets, "token_hex", lambda size: "5a" * size)
    monkeypatch.setattr(LocalWorkers.__init__, "__defaults__", (stand_ins(0.0, 5, 33, 47, rows=60),))
    findings = str(tmp_path / "findings")
    assert CliRunner().invoke(main, ["check", "--settle", "0", "--quiet", "--findings", findings]).exit_code == 1
    plans = []
    for number, words in enumerate(([], ["--workers", "2"])):
        path = tmp_path / f"plan-{number}"
        result = CliRunner().invoke(main, ["repair", "plan", findings, "-o", str(path), *words])
        assert result.exit_code == 0, result.output
        plans.append(path.read_text().splitlines()[1:-1])
    assert len(plans[0]) == 3
    assert plans[0] == plans[1]
