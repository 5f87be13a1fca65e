"""Rows that are counted by range: as many as a listing has, of the same kinds, and none that was only in flight."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from consistency.checking import descend, range_settling
from consistency.checking.scan import ScanOptions
from consistency.cli.show.browse.shelf import Shelf
from consistency.errors import ReplicaError, ReplicaTimeout, UsageError
from consistency.model.reading import Capabilities, Route
from consistency.model.ring import MURMUR3, Ring
from consistency.model.row_arrays import HashedRows, Shown, compare
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.results.findings import copy_findings, read_findings, read_ranges
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from consistency.results.report import Report
from consistency.results.verdict import ExitCode
from consistency.rows.explain import choose_finding
from consistency.watching.findings_folder import FindingsFolder
from repair.cli.repair import repair
from repair.cli.show import nodetool_commands
from repair.deciding.mergeable import RangeMerge
from repair.keeping.planfile import Plan
from repair.planning.planner import PlanOptions, make_plan
from tests.simulation.memory import Fault, Trouble
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.storage import Delete
from tests.simulation.values import int_bytes, make_table
from tests.simulation.vclock import EPOCH_S

PLAIN = make_table("t", ("int",), ("int",), (), ("int", "text"))
BLOBS = make_table("t", ("blob",), ("int",), (), ("int", "text"))
OLD = Capabilities(hashes=False, unchecked_text=True, collection_times=False)
"""What nodes of 4.1 can do."""
LISTED, COUNTED = ScanOptions(), ScanOptions(max_findings=0)
BY_ROWS = PlanOptions(range_merge=RangeMerge.NEVER)
_A_MONTH_AGO_US = (EPOCH_S - 30 * 86_400) * 1_000_000


def damaged(
    seed: int, route: Route | None = None, table: Any = PLAIN, capabilities: Capabilities | None = None
) -> Scenario:
    """Return a cluster with rows that differ in every way, in which nothing is done at random twice."""
    can = capabilities or Capabilities(hashes=route is None)
    rng, scenario = random.Random(seed), Scenario(table=table, capabilities=can)
    scenario.fill(12, 4)
    for p in range(12):
        c, nodes = rng.randrange(4), rng.sample([1, 2, 3], rng.choice((1, 2)))
        place = (int_bytes(c),)
        what = rng.randrange(6)
        if what == 0:
            scenario.apply(Delete((int_bytes(p),), LONG_AGO_US + 9, place, place), on=nodes)
        elif what == 1:
            scenario.apply(row(p, c, LONG_AGO_US + 7, v0=int_bytes(7)), on=nodes)
        elif what == 2:
            scenario.apply(row(p, c, LONG_AGO_US, v1=f"tie{p}".encode()), on=nodes)
        elif what == 3:
            scenario.apply(row(p, 90 + p, _A_MONTH_AGO_US, v0=int_bytes(1)), on=nodes[:1])
        elif what == 4:
            scenario.apply(row(p, 90 + p, LONG_AGO_US, v0=int_bytes(1)), on=nodes)
        else:
            scenario.apply(row(p, c, (EPOCH_S + 86_400) * 1_000_000, v0=int_bytes(1)), on=nodes)
    return scenario


@pytest.mark.parametrize("route", [None, Route.CLIENT])
@pytest.mark.parametrize("seed", range(6))
def test_as_many_rows_are_counted_as_a_listing_has_of_the_same_kinds(
    seed: int, route: Route | None, tmp_path: Path
) -> None:
    """By hashes that the servers make, and by rows that are joined here."""
    listed = damaged(seed, route).check(route=route, scan=LISTED, findings=tmp_path / "rows")
    counted = damaged(seed, route).check(route=route, scan=COUNTED, findings=tmp_path / "ranges")
    assert counted.findings_by_kind == listed.findings_by_kind
    assert counted.exit_code is listed.exit_code is ExitCode.DIVERGENT
    assert list(read_findings(tmp_path / "ranges")) == []
    ranges = list(read_ranges(tmp_path / "ranges"))
    for place, name in enumerate(sorted({name for found in ranges for name in found.replicas})):
        lacking = sum(f.replicas[name].state.value == "missing" for f in read_findings(tmp_path / "rows"))
        assert sum(found.replicas[name].missing for found in ranges) == lacking, place
    assert counted.tables[0].counted.rows == sum(found.rows for found in ranges)
    assert counted.tables[0].strip == listed.tables[0].strip
    assert counted.tables[0].divergent_rows == listed.tables[0].divergent_rows


@pytest.mark.parametrize("table", [PLAIN, BLOBS], ids=["remainder", "murmur3"])
@pytest.mark.parametrize("seed", range(3))
def test_servers_before_5_0_count_by_hashes_too(seed: int, table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both of their forms, without reading a row: expiries, write times and rows are told apart as in a listing."""

    def planted() -> Scenario:
        scenario = damaged(seed, table=table, capabilities=OLD)
        scenario.apply(row(20, 1, LONG_AGO_US, v0=int_bytes(1)))
        scenario.apply(replace(row(20, 1, LONG_AGO_US, v0=int_bytes(1)), expires=EPOCH_S + 86_400), on=[2])
        return scenario

    listed, counted = planted().check(scan=LISTED), planted()
    monkeypatch.setattr(counted.cluster, "rows", None)  # whoever reads rows fails
    report = counted.check(scan=COUNTED)
    assert report.findings_by_kind == listed.findings_by_kind
    assert report.findings_by_kind["expiry"] == 1
    assert report.coverage.failed == 0


@pytest.mark.parametrize("most", [1, 3, 5, 11])
def test_no_more_rows_are_listed_than_asked_for(most: int, tmp_path: Path) -> None:
    """The others are counted, and none is both."""
    whole = damaged(1).check(scan=LISTED)
    options = ScanOptions(leaf_rows=2, leaves_at_once=1, max_findings=most)
    report = damaged(1).check(scan=options, findings=tmp_path / "f")
    rows, ranges = list(read_findings(tmp_path / "f")), list(read_ranges(tmp_path / "f"))
    assert len(rows) <= most
    assert ranges
    assert report.findings_by_kind == whole.findings_by_kind
    assert sum(found.rows for found in ranges) == sum(whole.findings_by_kind.values()) - len(rows)


def test_rows_that_were_in_flight_are_not_counted() -> None:
    """What differs in the first reading and agrees in the second was a write under way."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(6, 4)
    for p in range(6):
        scenario.apply(row(p, 1, LONG_AGO_US + 5, v0=int_bytes(50)), on=[1])

    def arrive() -> None:
        for p in range(5):
            scenario.apply(row(p, 1, LONG_AGO_US + 5, v0=int_bytes(50)))

    scenario.loop.call_later(1.0, arrive)
    report = scenario.check(scan=COUNTED, settle_window_s=5.0)
    assert report.findings_by_kind == {"stale": 1}


@pytest.mark.parametrize("seed", range(3))
def test_rows_whose_keys_have_one_hash_are_all_counted(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two partitions of one token, say: none of them hides the other, and a leaf that differs is never consistent."""
    scenario = damaged(seed)
    honest = scenario.cluster.hashed_rows

    async def colliding(*asked: Any, most: int | None) -> HashedRows:
        found = await honest(*asked, most=most)
        return replace(found, keys=found.keys % 5)

    monkeypatch.setattr(scenario.cluster, "hashed_rows", colliding)
    assert scenario.check(scan=COUNTED).findings_by_kind == damaged(seed).check(scan=LISTED).findings_by_kind


@pytest.mark.parametrize("refused", [{Shown.ROWS}, {Shown.ROWS, Shown.KINDS}])
def test_rows_that_a_server_cannot_hash_are_counted_all_the_same(
    refused: set[Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are joined here from the first reading to the last, also where it could hash them the second time."""
    scenario = damaged(2)
    honest = scenario.cluster.hashed_rows

    async def refusing(*asked: Any, most: int | None) -> HashedRows:
        if asked[-1] in refused:
            raise ReplicaTimeout("it takes too long")
        return await honest(*asked, most=most)

    monkeypatch.setattr(scenario.cluster, "hashed_rows", refusing)
    report = scenario.check(scan=COUNTED)
    assert report.findings_by_kind == damaged(2).check(scan=LISTED).findings_by_kind
    assert report.coverage.failed == 0


def test_a_range_that_cannot_be_hashed_the_second_time_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hashed first cannot be told from rows that were joined later: nothing of it is called consistent."""
    scenario = damaged(2)
    honest = scenario.cluster.hashed_rows

    async def refusing(*asked: Any, most: int | None) -> HashedRows:
        if asked[-1] is Shown.KINDS:
            raise ReplicaTimeout("it takes too long")
        return await honest(*asked, most=most)

    monkeypatch.setattr(scenario.cluster, "hashed_rows", refusing)
    report = scenario.check(scan=COUNTED)
    assert report.exit_code is ExitCode.INCOMPLETE
    assert report.coverage.failed > 0


@pytest.mark.parametrize("route", [None, Route.CLIENT])
@pytest.mark.parametrize(("counted", "waiting"), [(descend.MOST_COUNTED, 1), (5, 1), (5, range_settling.MOST_WAITING)])
def test_large_ranges_are_cut_and_few_rows_wait_at_once(
    counted: int, waiting: int, route: Route | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the bounds of memory are, the same rows are counted, or listed where a partition is too large."""
    monkeypatch.setattr(descend, "MOST_COUNTED", counted)
    monkeypatch.setattr(range_settling, "MOST_WAITING", waiting)
    for seed in range(3):
        report = damaged(seed, route).check(route=route, scan=COUNTED)
        assert report.findings_by_kind == damaged(seed, route).check(route=route, scan=LISTED).findings_by_kind
        assert report.coverage.failed == 0
        assert 0 < report.tables[0].counted.rows <= sum(report.findings_by_kind.values())


def test_rows_that_keep_changing_are_unknown() -> None:
    """A row that no two readings show alike is not judged, and the verdict says so."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(6, 4)

    def change(version: int = 1) -> None:
        scenario.apply(row(1, 1, LONG_AGO_US + version, v0=int_bytes(version)), on=[1])
        scenario.loop.call_later(0.5, change, version + 1)

    change()
    report = scenario.check(scan=COUNTED, settle_window_s=2.0)
    assert report.findings_by_kind == {}
    assert report.tables[0].unsettled_rows == 1
    assert report.exit_code is ExitCode.INCOMPLETE


def test_a_row_with_a_ttl_is_counted_though_its_time_runs_out(tmp_path: Path) -> None:
    """What is left of a TTL is hashed: every reading of a range is as of the first one's instant."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(3, 2)
    write = row(1, 1, LONG_AGO_US + 5, v0=int_bytes(9))
    scenario.apply(type(write)(**{**_fields(write), "expires": EPOCH_S + 5_000}), on=[2])
    assert scenario.check(scan=COUNTED).findings_by_kind == {"stale": 1}


def _fields(write: Any) -> dict[str, Any]:
    return {name: getattr(write, name) for name in write.__dataclass_fields__}


def test_an_interrupt_leaves_what_was_not_judged_unknown() -> None:
    """Rows that wait for their second reading are neither found nor forgotten."""
    report = damaged(2).check(scan=COUNTED, settle_window_s=60.0, stop_at_s=10.0)
    assert report.interrupted
    assert report.tables[0].unsettled_rows > 0
    assert report.coverage.failed > 0


def test_ranges_are_planned_row_by_row_as_a_listing_is(tmp_path: Path) -> None:
    """A plan of counted ranges has the rows, the rules and the forecasts of a plan of the listed rows."""

    def planned(options: ScanOptions) -> Plan:
        scenario = damaged(3)
        path = tmp_path / f"{options.max_findings}"
        scenario.check(scan=options, findings=path)
        plan: Plan = asyncio_in(scenario, path)
        return plan

    def asyncio_in(scenario: Scenario, path: Path) -> Any:
        again = damaged(3)
        return again.run(lambda: make_plan(again.cluster, again.clock, path, BY_ROWS))

    by_rows, by_ranges = planned(LISTED), planned(COUNTED)
    told = [{(str(r.ref.identity), r.rule, r.action, r.forecast) for r in plan.rows} for plan in (by_rows, by_ranges)]
    assert told[0] == told[1]
    assert told[0]


def test_nodetool_commands_cover_the_ranges(tmp_path: Path) -> None:
    """Each names the table and the replicas, and lies between two tokens; a file without ranges says so."""
    simulated = damaged(4)
    simulated.check(scan=ScanOptions(leaf_rows=2, max_findings=0), findings=tmp_path / "f")
    damaged(4).check(scan=LISTED, findings=tmp_path / "rows")
    tokens = [token for token, _ in simulated.cluster.ring_before.owners]
    lines = nodetool_commands(list(read_ranges(tmp_path / "f")), tokens)
    covered = [tuple(map(int, (line.split()[4], line.split()[6]))) for line in lines]
    assert all(
        line.startswith("nodetool repair --full -st ") and " ks t  # on one of 10.0.0.1" in line for line in lines
    )
    for found in read_ranges(tmp_path / "f"):
        start, end = found.token_range.start, found.token_range.end
        inside = sorted((max(s, start), min(e, end)) for s, e in covered if s < end and start < e)
        assert (inside[0][0], inside[-1][1]) == (start, end)
        assert all(one[1] == other[0] for one, other in pairwise(inside))
    assert not any(s < token < e for s, e in covered for token in tokens)
    refused = CliRunner().invoke(repair, ["plan", str(tmp_path / "rows"), "--print-nodetool"])
    assert "--max-findings 0" in refused.output
    assert refused.exit_code == ExitCode.USAGE


def test_nodetool_commands_name_hostile_tables_and_join_ranges_that_overlap() -> None:
    """A watch's file may hold a range of an earlier visit beside a newer one that it overlaps."""
    held = {"10.0.0.1:9042": RangeView(missing=1)}
    ranges = [RangeFinding("ks", "a; rm x", TokenRange(*ends), {Kind.MISSING: 1}, held) for ends in ((0, 9), (5, 20))]
    what = "ks 'a; rm x'  # on one of 10.0.0.1:9042"
    assert nodetool_commands(ranges, [-5, 0, 20]) == [f"nodetool repair --full -st 0 -et 20 {what}"]
    cut = [f"nodetool repair --full -st {start} -et {end} {what}" for start, end in ((0, 3), (3, 7), (7, 20))]
    assert nodetool_commands(ranges, [-5, 3, 7, 21]) == cut


def test_a_whole_ring_is_repaired_by_each_node_for_its_own_ranges() -> None:
    """Of a table that differs all over one command is enough, where as many as the ring has tokens would be asked."""
    held = {"10.0.0.1:9042": RangeView(missing=1), "10.0.0.2:9042": RangeView()}
    found = RangeFinding("ks", "t", TokenRange(MIN_TOKEN, MAX_TOKEN), {Kind.MISSING: 1}, held)
    assert nodetool_commands([found], [3, 7]) == [
        "nodetool repair --full -pr ks t  # on each of 10.0.0.1:9042, 10.0.0.2:9042, one after the other"
    ]


def test_a_range_that_cannot_be_read_whole_is_not_planned_in_part(tmp_path: Path) -> None:
    """A row that the silent replica lacks would be left out: the plan waits, and says of which range."""
    damaged(3).check(scan=COUNTED, findings=tmp_path / "f")
    again = damaged(3)
    again.cluster._faults = (Fault(Trouble.DOWN, again.nodes[1], 0.0, 1e9),)
    with pytest.raises(ReplicaError, match=r"rows of ks\.t in .* cannot be read, plan again later") as refused:
        again.run(lambda: make_plan(again.cluster, again.clock, tmp_path / "f", BY_ROWS))
    assert refused.value.exit_code == ExitCode.INCOMPLETE


def test_rows_keep_their_numbers_beside_ranges(tmp_path: Path) -> None:
    """The third row of a file is its third row, wherever ranges stand between."""
    source = tmp_path / "f"
    damaged(1).check(scan=ScanOptions(leaf_rows=2, leaves_at_once=1, max_findings=4), findings=source)
    rows = list(read_findings(source))
    assert copy_findings(source, tmp_path / "one", {len(rows)}, "--out") == 1
    assert list(read_findings(tmp_path / "one")) == rows[-1:]


def test_a_file_that_has_both_is_looked_through_and_explained_by_its_rows(tmp_path: Path) -> None:
    """The browser and explain number rows alone; a file without any says what it counts instead."""
    both, none = tmp_path / "both", tmp_path / "none"
    damaged(1).check(scan=ScanOptions(leaf_rows=2, leaves_at_once=1, max_findings=4), findings=both)
    damaged(1).check(scan=COUNTED, findings=none)
    rows, shelf = list(read_findings(both)), Shelf(both)
    assert [shelf.finding(entry) for entry in shelf.entries] == rows
    assert shelf.counted == sum(found.rows for found in read_ranges(both)) > 0
    assert choose_finding(both, len(rows)).finding == rows[-1]
    assert choose_finding(both, 1).total == len(rows)
    assert Shelf(none).entries == []
    with pytest.raises(UsageError, match="--max-findings all"):
        choose_finding(none, 1)


def test_the_latest_findings_of_a_watch_keep_ranges_that_were_not_read_again(tmp_path: Path) -> None:
    """Ranges of an earlier visit stay until all of them is read anew; those of this visit are added."""
    folder, scenario = FindingsFolder(tmp_path), damaged(1)
    options = ScanOptions(leaf_rows=2, leaves_at_once=1, max_findings=0)
    first = scenario.check(scan=options, findings=folder.of_visit("ks.t", "1"))
    ring = Ring("simulated", MURMUR3, scenario.nodes)
    folder.keep(first, "ks.t", ring, sliced=False, reached=None)
    latest = tmp_path / "ks.t.jsonl"
    before = list(read_ranges(latest))
    gone = before[0].token_range
    again = damaged(1).check(scan=options, findings=folder.of_visit("ks.t", "2"), only_tokens={"ks.t": frozenset()})
    folder.keep(again, "ks.t", ring, sliced=True, reached=[gone])
    left = [found for found in before if found.token_range != gone]
    assert set(map(_place, left)) <= set(map(_place, read_ranges(latest)))


def _place(found: RangeFinding) -> tuple[int, int, int]:
    return found.token_range.start, found.token_range.end, found.rows


def _arrays(held: dict[int, int]) -> HashedRows:
    keys = np.array(list(held), np.uint64)
    hashes = np.array([[value, 0] for value in held.values()], np.uint64).reshape(-1, 2)
    return HashedRows(keys.astype(np.int64), keys, hashes, keys, keys, np.zeros((len(held), 1), np.int64))


@given(st.lists(st.dictionaries(st.integers(0, 30), st.integers(0, 2)), min_size=2, max_size=6))
def test_arrays_are_compared_as_sets_are(replicas: list[dict[int, int]]) -> None:
    """Exactly the keys that some replica lacks or holds with another hash."""
    everything = {key for held in replicas for key in held}
    wanted = {key for key in everything if len({held.get(key) for held in replicas}) > 1}
    found = compare([_arrays(held) for held in replicas])
    assert set(found.keys.tolist()) == wanted
    assert Counter(found.present.sum(axis=1).tolist()) == Counter(
        sum(key in held for held in replicas) for key in wanted
    )


def test_the_kinds_that_a_listing_has_are_all_met() -> None:
    """The damage of this module has every kind that a row's copies can show."""
    met: Counter[str] = Counter()
    for seed in range(6):
        report: Report = damaged(seed).check(scan=LISTED)
        met.update(report.findings_by_kind)
    assert set(met) == {kind.value for kind in Kind} - {Kind.NON_OWNER.value, Kind.EXPIRY.value}
