"""A whole check of a small cluster in memory: what it finds, and what it must not claim."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.checking import settle
from consistency.checking.changes import RING_CHANGED
from consistency.checking.scan import ScanOptions
from consistency.errors import ReplicaUnavailable, TopologyError
from consistency.model.cqltype import CqlType
from consistency.model.ownership import DISPUTED
from consistency.model.reading import CHECKED_DEPTHS, Capabilities, Depth, RawRow, Reading, Route
from consistency.model.ring import Replication
from consistency.model.schema import Keyspace, Table
from consistency.results.cause import CauseKind
from consistency.results.findings import State, read_findings
from consistency.results.kinds import Kind
from consistency.results.report import Report
from consistency.results.verdict import ExitCode, Verdict
from consistency.rows.merge_join import join_rows
from tests.simulation.histories import EPOCH_US
from tests.simulation.memory import Trouble
from tests.simulation.scenario import LONG_AGO_US, ROWS, Scenario, row
from tests.simulation.storage import Delete, token_of
from tests.simulation.values import int_bytes, long_bytes, make_table
from tests.simulation.vclock import run_virtual

ALWAYS = 1e9
OLD_SERVERS = Capabilities(hashes=False, collection_times=False)


def test_equal_replicas_are_consistent() -> None:
    """Everything was read, everything agrees: exit code 0, nothing failed or skipped."""
    scenario = Scenario()
    scenario.fill()
    report = scenario.check()
    assert (report.verdict, report.exit_code) == (Verdict.CONSISTENT, ExitCode.CONSISTENT)
    assert report.coverage.complete
    assert report.tables[0].rows == 40
    assert scenario.findings == []


def test_an_empty_table_is_consistent() -> None:
    """Nothing on all replicas is agreement."""
    assert Scenario().check().verdict is Verdict.CONSISTENT


@pytest.mark.parametrize("depth", CHECKED_DEPTHS)
@pytest.mark.parametrize("route", list(Route))
def test_each_damaged_row_gives_one_finding_of_its_gravest_kind(depth: Depth, route: Route) -> None:
    """Missing, stale, written in the future: a finding each; a tie shows at depth content alone."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1, 3])
    scenario.apply(row(2, 1, LONG_AGO_US + 5, v0=int_bytes(9)), on=[2, 3])
    scenario.apply(row(3, 1, LONG_AGO_US + 5, v0=int_bytes(8)), on=[1])
    scenario.apply(row(3, 1, LONG_AGO_US + 5, v0=int_bytes(9)), on=[2, 3])
    scenario.apply(row(4, 1, EPOCH_US + 3_600_000_000, v0=int_bytes(9)), on=[1])
    scenario.apply(row(5, 1, EPOCH_US + 3_600_000_000, v0=int_bytes(9)))
    report = scenario.check(depth=depth, route=route)
    kinds = {f.key["p0"]: f.kind for f in scenario.findings}
    wanted = {1: Kind.MISSING, 2: Kind.STALE, 3: Kind.TIE, 4: Kind.FUTURE_WRITE_TIME, 5: Kind.FUTURE_WRITE_TIME}
    if depth is Depth.VERSIONS:
        del wanted[3]
        assert any("different values written at the same time" in text for text in report.tables[0].blind)
    assert kinds == wanted
    assert len(scenario.findings) == len(wanted)
    assert report.verdict is Verdict.DIVERGENT
    assert "x" in report.tables[0].strip


def test_a_report_says_what_probably_happened() -> None:
    """Thirty rows of one minute that one replica lacks become a cause that names it; a few rows do not."""
    few, many = Scenario(), Scenario()
    for scenario, count in ((few, 5), (many, 30)):
        scenario.fill()
        for i in range(count):
            scenario.apply(row(i, 70, LONG_AGO_US + i * 1_000_000, v0=int_bytes(1)), on=[1, 2])
    assert few.check().likely_causes == ()
    report = many.check()
    (cause,) = report.likely_causes
    assert (cause.kind, cause.rows, cause.replicas) == (CauseKind.MISSED_WRITES, 30, ("10.0.0.3:9042",))
    assert report.as_json()["likely_causes"] == [cause.as_json()]
    assert "x" in report.tables[0].tracks["10.0.0.3:9042"]
    assert set(report.tables[0].tracks["10.0.0.1:9042"]) == {"="}


def test_a_factor_raised_without_repair_is_told_from_an_outage() -> None:
    """Rows that lie where two replicas would be, of three, are no node's outage: all lack whole ranges."""
    scenario = Scenario()
    before = Replication("NetworkTopologyStrategy", (("dc1", 2),))
    for i in range(240):
        written = row(i, 1, LONG_AGO_US + i * 1000, v0=int_bytes(1))
        owners = scenario.cluster.ring_before.replicas_of(token_of(written.key), before)
        scenario.apply(written, on=[scenario.nodes.index(node) + 1 for node in owners])
    (cause,) = scenario.check().likely_causes
    assert (cause.kind, cause.rows) == (CauseKind.REPLICATION_RAISED, 240)
    assert cause.replicas == tuple(node.name for node in scenario.nodes)


def test_a_static_difference_is_one_finding_of_the_partition() -> None:
    """However many rows the partition has, its static cells are compared once; the key is the partition's."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(1, None, s0=int_bytes(5)), on=[2])
    scenario.check()
    (found,) = scenario.findings
    assert (found.kind, dict(found.key), found.columns) == (Kind.MISSING, {"p0": 1}, ("s0",))
    assert {name: view.state for name, view in found.replicas.items()} == {
        "10.0.0.1:9042": State.MISSING,
        "10.0.0.2:9042": State.CURRENT,
        "10.0.0.3:9042": State.MISSING,
    }


def test_a_partition_that_holds_statics_alone_is_seen_by_old_servers() -> None:
    """Its clustering is null, and all of its regular cells."""
    table = make_table("t", ("text",), ("text",), ("int",), ("int",))
    scenario = Scenario(table, capabilities=OLD_SERVERS)
    for node, ts in ((1, 5), (2, 6), (3, 6)):
        static = replace(row(1, None, LONG_AGO_US + ts, s0=int_bytes(5)), key=(b"k",))
        scenario.apply(static, on=[node])
    report = scenario.check()
    assert report.tables[0].scheme == "content/server/remainder"
    assert [f.kind for f in scenario.findings] == [Kind.STALE]


def test_a_replica_that_does_not_answer_leaves_the_run_unknown() -> None:
    """Two of three agree; that is not all, and the report names whom it could not ask."""
    scenario = Scenario(faults=((Trouble.DOWN, 2, 0.0, ALWAYS),))
    scenario.fill()
    report = scenario.check()
    assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, ExitCode.INCOMPLETE)
    assert {u.replica for u in report.tables[0].unread} == {"10.0.0.2:9042"}
    assert report.coverage.failed * 3 == report.coverage.planned


def test_a_difference_among_those_that_answer_is_found_all_the_same() -> None:
    """Divergence beats incompleteness; the coverage tells both."""
    scenario = Scenario(faults=((Trouble.DOWN, 2, 0.0, ALWAYS),))
    scenario.fill()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    report = scenario.check()
    assert (report.verdict, len(scenario.findings)) == (Verdict.DIVERGENT, 1)
    assert report.coverage.failed


def test_a_replica_that_is_back_at_the_end_is_read_then() -> None:
    """A node that was away for a moment costs nothing: its leaves are tried once more."""
    scenario = Scenario(faults=((Trouble.DOWN, 2, 0.06, 0.09),))
    scenario.fill()
    small = ScanOptions(leaf_rows=2, leaves_at_once=1)
    assert scenario.check(scan=small).verdict is Verdict.CONSISTENT
    assert scenario.cluster.hit[Trouble.DOWN] > 0


def test_a_disturbed_digest_is_no_difference() -> None:
    """A wrong hash sends us to the rows, and the rows agree."""
    scenario = Scenario(faults=((Trouble.DISTURBED, 3, 0.0, ALWAYS),))
    scenario.fill()
    assert scenario.check(route=Route.SERVER).verdict is Verdict.CONSISTENT
    assert scenario.cluster.hit[Trouble.DISTURBED] > 0


def test_a_write_in_flight_is_no_difference() -> None:
    """A row that reaches its last replica within the settle window is never reported."""
    scenario = Scenario()
    scenario.fill()
    late = row(1, 50, EPOCH_US, v0=int_bytes(1))
    scenario.apply(late, on=[1, 2])
    scenario.loop.call_later(2.0, lambda: scenario.apply(late, on=[3]))
    assert scenario.check().verdict is Verdict.CONSISTENT


def test_a_row_deleted_while_it_settles_is_no_difference() -> None:
    """A queue's row: not everywhere yet at the first look, not everywhere any more at the second."""
    scenario = Scenario()
    scenario.fill()
    late = row(1, 50, EPOCH_US, v0=int_bytes(1))
    gone = Delete(late.key, EPOCH_US + 2_000_000, late.clustering, late.clustering)
    scenario.apply(late, on=[1, 2])
    scenario.loop.call_later(1.0, lambda: scenario.apply(late, on=[3]))
    scenario.loop.call_later(2.0, lambda: scenario.apply(gone, on=[3]))
    scenario.loop.call_later(4.0, lambda: scenario.apply(gone, on=[1, 2]))
    assert scenario.check().verdict is Verdict.CONSISTENT


def interrupted(stop_at_s: float) -> Report:
    """Interrupt the check of a table with a lost row, some time after its start."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    return scenario.check(stop_at_s=stop_at_s)


@pytest.mark.parametrize("stop_at_s", [0.0001, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0])
def test_an_interrupted_run_is_never_consistent(stop_at_s: float) -> None:
    """Whenever it was stopped, suspects that still wait included: not the run, and not the table."""
    report = interrupted(stop_at_s)
    assert (report.interrupted, report.exit_code) == (True, ExitCode.INTERRUPTED)
    assert report.verdict is Verdict.UNKNOWN
    assert report.tables[0].verdict is Verdict.UNKNOWN
    c = report.coverage
    assert c.planned == c.completed + c.skipped + c.failed


def test_an_interrupt_says_how_many_rows_were_not_judged() -> None:
    """Stopped inside the settle window, the suspect is counted as unsettled."""
    assert interrupted(1.0).tables[0].unsettled_rows == 1


def test_replication_that_was_altered_meanwhile_takes_the_verdict_back() -> None:
    """Another replica set was never scanned: it cannot be called consistent."""
    scenario = Scenario()
    scenario.fill()
    before = scenario.cluster._schema["ks"]
    scenario.cluster.change_schema = lambda schema: (
        {"ks": replace(before, replication=Replication("NetworkTopologyStrategy", (("dc1", 2),)))}
        if scenario.cluster.described_at
        else schema
    )
    report = scenario.check()
    assert report.verdict is Verdict.UNKNOWN
    assert "replication was altered" in report.tables[0].unread[0].reason


@pytest.mark.parametrize(
    ("tables", "words"), [({}, "dropped"), ({"t": replace(ROWS, columns=ROWS.columns[:-1])}, "altered")]
)
def test_a_table_that_was_altered_or_dropped_meanwhile_takes_the_verdict_back(
    tables: dict[str, Table], words: str
) -> None:
    """Its replicas were not read alike, or are not there: nothing that was read of it is believed."""
    scenario = Scenario()
    scenario.fill()
    before = scenario.cluster._schema["ks"]
    changed = replace(before, tables={ROWS.name: tables["t"]} if tables else {})
    scenario.cluster.change_schema = lambda schema: {"ks": changed} if scenario.cluster.described_at else schema
    report = scenario.check()
    assert report.verdict is Verdict.UNKNOWN
    assert f"the table was {words}" in report.tables[0].unread[0].reason


def test_the_whole_schema_is_read_at_the_beginning_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before differences are claimed it is read again: that is its version alone as long as nobody alters it."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    asked: list[str] = []
    before = dict(scenario.cluster._schema)

    async def schema() -> dict[str, Keyspace]:
        asked.append("whole")
        return before

    async def schema_again() -> dict[str, Keyspace]:
        asked.append("again")
        return before

    monkeypatch.setattr(scenario.cluster, "schema", schema)
    monkeypatch.setattr(scenario.cluster, "schema_again", schema_again)
    scenario.check()
    assert len(scenario.findings) == 1
    assert asked == ["whole", "again", "whole"]


@pytest.mark.parametrize("error", [TopologyError("no node would describe the ring"), ReplicaUnavailable("n: down")])
def test_a_cluster_that_cannot_be_described_at_the_end_costs_the_verdict_not_the_report(error: Exception) -> None:
    """The findings stand, the rest is unknown, nothing is raised."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])

    described = iter([scenario.cluster._ring])

    async def ring_now() -> object:
        for ring in described:
            return ring
        raise error

    scenario.cluster.ring_now = ring_now  # type: ignore[method-assign, assignment]
    report = scenario.check()
    assert (report.verdict, len(scenario.findings)) == (Verdict.DIVERGENT, 1)
    assert report.coverage.failed == report.coverage.planned


def test_a_difference_is_not_claimed_before_the_cluster_was_described_once_more() -> None:
    """The row may have other replicas by now; unknown is neither consistent nor divergent."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])

    async def ring_now() -> object:
        raise TopologyError("no node would describe the ring")

    scenario.cluster.ring_now = ring_now  # type: ignore[method-assign, assignment]
    report = scenario.check()
    assert (report.verdict, scenario.findings) == (Verdict.UNKNOWN, [])
    assert [t.unsettled_rows for t in report.tables] == [1]


def test_rows_of_a_range_that_changed_hands_are_unsettled_and_the_others_are_judged() -> None:
    """A node was replaced meanwhile: where it was an owner nothing is claimed, and the leaf counts as failed."""
    scenario = Scenario(dcs=("dc1",) * 4, factors=(("dc1", 2),))
    scenario.fill(40)
    replication = scenario.cluster.replication
    rows = [row(p, 50, v0=int_bytes(1)) for p in range(40)]
    for written in rows:
        scenario.apply(written, on=[int(scenario.cluster.replicas(scenario.table, written.key)[0].host_id[-1])])
    ring = scenario.cluster._ring
    later = replace(ring, nodes=(replace(ring.nodes[0], host_id="another"), *ring.nodes[1:]))
    scenario.cluster.ring_later = lambda: later
    report = scenario.check()
    untouched = [w for w in rows if ring.nodes[0] not in ring.replicas_of(token_of(w.key), replication)]
    assert 0 < len(untouched) < 40
    assert len(scenario.findings) == len(untouched)
    (table,) = report.tables
    assert table.unsettled_rows == 40 - len(untouched)
    assert 0 < table.coverage.failed < table.coverage.planned
    assert {u.reason for u in table.unread} == {RING_CHANGED}


def test_each_difference_is_claimed_after_a_description_of_its_own() -> None:
    """The ring changes once the first difference was claimed: the second one, which settles later, is not."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    scenario.apply(row(2, 50, EPOCH_US - 1_000_000, v0=int_bytes(1)), on=[1])
    ring = scenario.cluster._ring
    later = replace(ring, nodes=(replace(ring.nodes[0], host_id="another"), *ring.nodes[1:]))
    scenario.cluster.ring_later = lambda: later if scenario.findings else ring
    report = scenario.check()
    assert [f.key for f in scenario.findings] == [{"p0": 1, "c0": 50}]
    assert [t.unsettled_rows for t in report.tables] == [1]


def test_ranges_on_which_the_nodes_disagree_are_failed_before_they_are_read() -> None:
    """One node sees another owner there, and sends its writes to it: whatever differs there proves nothing."""
    scenario = Scenario(dcs=("dc1",) * 4, factors=(("dc1", 2),))
    scenario.fill(20)
    ring = scenario.cluster._ring
    view = replace(ring, nodes=(replace(ring.nodes[0], tokens=(ring.nodes[0].tokens[0] + 10**18,)), *ring.nodes[1:]))
    scenario.cluster._ring = replace(ring, views=(view,))
    report = scenario.check()
    assert report.verdict is Verdict.UNKNOWN
    (table,) = report.tables
    assert 0 < table.coverage.failed < table.coverage.planned
    assert {u.reason for u in table.unread} == {DISPUTED}


def test_ranges_with_one_replica_in_scope_are_skipped_and_counted() -> None:
    """SimpleStrategy knows no data centres: with --dc some ranges have one replica there, which proves nothing."""
    scenario = Scenario(dcs=("dc1", "dc1", "dc2"), factors=(("", 2),), strategy="SimpleStrategy")
    scenario.fill(20)
    report = scenario.check(dc="dc1")
    assert report.verdict is Verdict.UNKNOWN
    (table,) = report.tables
    assert (table.alone, table.coverage.skipped > 0, table.coverage.failed) == (table.alone, True, 0)
    assert table.alone > 0
    assert {u.replica for u in table.unread} <= {"10.0.0.1:9042", "10.0.0.2:9042"}
    assert len(report.replicas) == 2


def test_a_full_disk_ends_the_run_and_does_not_hang_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while a finding is written comes out at once, also while the scan waits for room for more suspects."""
    monkeypatch.setattr(settle, "_QUEUE_LIMIT", 5)
    scenario = Scenario()
    scenario.fill(40, 10)
    for p in range(40):
        scenario.apply(row(p, 50, v0=int_bytes(1)), on=[1])

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    scenario.watching.found = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space"):
        scenario.check()


def test_a_clustering_type_without_known_order_is_unknown_and_no_crash() -> None:
    """A custom type's rows cannot be paired; the other tables of the run are checked all the same."""
    scenario = Scenario()
    custom = CqlType("custom", label="org.example.Odd")
    columns = tuple(replace(c, type=custom) if c.kind == "clustering" else c for c in ROWS.columns)
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    keyspace = scenario.cluster._schema["ks"]
    scenario.cluster._schema["ks"] = replace(keyspace, tables={"t": replace(ROWS, columns=columns)})
    report = scenario.check()
    assert report.verdict is Verdict.UNKNOWN
    assert "org.example.Odd" in report.tables[0].unread[0].reason


def test_a_future_row_that_cannot_be_read_again_is_unsettled() -> None:
    """It was digested everywhere, then a replica went away: that is not the absence of a finding."""
    scenario = Scenario()
    scenario.fill()
    scenario.apply(row(5, 1, EPOCH_US + 3_600_000_000, v0=int_bytes(9)))

    async def down(*_: object) -> RawRow:
        raise ReplicaUnavailable("it went away")

    scenario.cluster.row = down  # type: ignore[method-assign]
    report = scenario.check()
    assert report.verdict is Verdict.UNKNOWN
    assert report.tables[0].unsettled_rows == 1


def test_rows_that_a_node_holds_but_does_not_own_are_found_on_request() -> None:
    """Only with --non-owners, and owners in other DCs are not taken for strangers under --dc."""
    factors = (("dc1", 1), ("dc2", 2))

    def two_dcs() -> Scenario:
        scenario = Scenario(dcs=("dc1", "dc1", "dc2", "dc2"), factors=factors)
        scenario.fill()
        return scenario

    assert two_dcs().check().verdict is Verdict.CONSISTENT
    limited = two_dcs()
    limited.check(dc="dc2", non_owners=True)
    assert limited.findings == []
    strange = two_dcs()
    key = (int_bytes(1),)
    owners = strange.cluster.replicas(ROWS, key)
    stranger = next(i for i, node in enumerate(strange.nodes, start=1) if node not in owners)
    strange.apply(row(1, 50, v0=int_bytes(1)), on=[stranger])
    strange.check(non_owners=True)
    assert [(f.kind, list(f.replicas)) for f in strange.findings] == [
        (Kind.NON_OWNER, [strange.nodes[stranger - 1].name])
    ]


def test_strays_of_a_keyspace_with_one_replica_are_found_on_request() -> None:
    """There is nothing to compare, but a row on a node that does not own it may be the only copy left."""

    def alone() -> Scenario:
        scenario = Scenario(dcs=("dc1", "dc1", "dc1"), factors=(("dc1", 1),))
        scenario.fill()
        return scenario

    clean = alone()
    report = clean.check(non_owners=True)
    assert clean.findings == []
    assert report.verdict is not Verdict.CONSISTENT
    stray = alone()
    key = (int_bytes(1),)
    stranger = next(i for i, node in enumerate(stray.nodes, start=1) if node not in stray.cluster.replicas(ROWS, key))
    stray.apply(row(1, 50, v0=int_bytes(1)), on=[stranger])
    report = stray.check(non_owners=True)
    assert [(f.kind, list(f.replicas)) for f in stray.findings] == [(Kind.NON_OWNER, [stray.nodes[stranger - 1].name])]
    assert report.verdict is Verdict.DIVERGENT


def test_the_findings_file_holds_what_was_counted(tmp_path: Path) -> None:
    """One line a finding, streamed, the same as the observer was told."""
    scenario = Scenario()
    scenario.fill()
    for p in range(3):
        scenario.apply(row(p, 50, v0=int_bytes(1)), on=[1])
    report = scenario.check(findings=tmp_path / "f.jsonl")
    assert list(read_findings(tmp_path / "f.jsonl")) == scenario.findings
    assert report.findings_by_kind == {"missing": 3}
    assert report.tables[0].divergent_rows == 3


BIG = make_table("big", ("int",), ("int",), (), ("int",))
BIG_READING = Reading(BIG, Depth.CONTENT, Capabilities())
_HEAD = (long_bytes(token_of((int_bytes(1),))), int_bytes(1))


async def one_partition(rows: int, changed: frozenset[int]) -> AsyncIterator[list[RawRow]]:
    """Stream one partition a page at a time, some rows with another value."""
    for start in range(0, rows, 1000):
        yield [
            (*_HEAD, int_bytes(c), int_bytes(c + (c in changed)), long_bytes(7), None)
            for c in range(start, min(rows, start + 1000))
        ]


@pytest.mark.parametrize(
    ("rows", "changed"), [(60_000, frozenset({5, 59_999})), (15_000, frozenset(range(0, 15_000, 3)))]
)
def test_a_partition_of_many_pages_streams_through_the_join(rows: int, changed: frozenset[int]) -> None:
    """Memory stays at a page a replica, also where a third of the rows differ."""
    scenario = Scenario(BIG)
    streams = {node: one_partition(rows, changed if i else frozenset()) for i, node in enumerate(scenario.nodes)}
    found = 0

    async def join() -> None:
        nonlocal found
        async for difference in join_rows(BIG_READING, streams, 0):
            assert not difference.name.static
            found += 1

    tracemalloc.start()
    try:
        run_virtual(scenario.loop, join())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == len(changed)
    assert peak < 4 * 2**20, f"{peak / 2**20:.1f} MiB"
