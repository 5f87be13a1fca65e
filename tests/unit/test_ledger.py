"""What the ledger remembers of runs: clean passes, rows that differ, and what makes either void."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.checking.scan import ScanOptions
from consistency.errors import LedgerError, UsageError
from consistency.ledger import LedgerFile, TableAge, open_ledger
from consistency.ledger.lock import one_run
from consistency.ledger.port import RangeRead, RunFacts
from consistency.ledger.store import APPLICATION_ID, Store
from consistency.model.reading import Depth
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Table
from consistency.model.tokens import MIN_TOKEN, RING_SIZE, TokenRange
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.results.report import RepairSummary, Report, TableReport
from consistency.results.verdict import Coverage, ExitCode, Verdict
from consistency.rows.names import RowRef
from repair.deciding.decide import Action, Rule
from repair.deciding.policy import Policy
from repair.keeping.entries import Outcome, Result
from repair.keeping.journal import Journal
from repair.keeping.planfile import Plan, PlannedRow
from repair.nightly.night import remember, remember_or_warn
from tests.simulation.histories import EPOCH_US
from tests.simulation.memory import Trouble
from tests.simulation.scenario import LONG_AGO_US, ROWS, Scenario, make_nodes, row
from tests.simulation.storage import token_of
from tests.simulation.values import int_bytes, keyspace, make_table
from tests.simulation.vclock import SimClock

DAY_US = 86_400_000_000
ALWAYS = 1e9
SMALL = ScanOptions(leaf_rows=2)
NODES = make_nodes(("dc1",) * 3)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerFile]:
    """Return a new ledger."""
    with open_ledger(tmp_path / "test.ledger") as opened:
        yield opened


Damage = Callable[[Scenario], object]


def lose(key: int) -> Damage:
    """Return what leaves two replicas without a row."""
    return lambda scenario: scenario.apply(row(key, 50, v0=int_bytes(1)), on=[1])


def tie(scenario: Scenario) -> None:
    """Give replicas different values written at one time."""
    scenario.apply(row(3, 1, LONG_AGO_US + 5, v0=int_bytes(8)), on=[1])
    scenario.apply(row(3, 1, LONG_AGO_US + 5, v0=int_bytes(9)), on=[2, 3])


def night(
    ledger: LedgerFile, number: int, *damage: Damage, scenario: Scenario | None = None, **options: object
) -> Report:
    """Check a filled cluster, some days after the epoch, after some damage."""
    scenario = scenario or Scenario()
    scenario.clock = SimClock(scenario.loop, skew_s=number * 86_400)
    scenario.fill()
    for each in damage:
        each(scenario)
    options.setdefault("scan", SMALL)
    recorder = ledger.recorder()
    report = scenario.check(recorder=recorder, **options)  # type: ignore[arg-type]
    assert not recorder.problem
    return report


def table(ledger: LedgerFile) -> TableAge:
    """Return what is known of the only table."""
    past = ledger.past()
    ((cluster, _),) = past.clusters()
    (found,) = past.tables(cluster)
    return found


def states(ledger: LedgerFile) -> dict[str, int]:
    """Return how many rows are in which state."""
    return dict(table(ledger).states)


def test_a_table_that_nobody_wrote_to_has_the_same_root_tomorrow(ledger: LedgerFile) -> None:
    """Unchanged since the first night that saw it; a row that is written on all replicas changes one leaf."""
    report = night(ledger, 1)
    (tree,) = table(ledger).trees
    assert tree.root is not None
    assert tree.root.hex() == report.as_json()["tables"][0]["trees"][0]["root"]
    assert table(ledger).unchanged_since_us is None  # once is no proof
    night(ledger, 2)
    night(ledger, 3)
    (same,) = table(ledger).trees
    assert (same.root, same.changed, same.leaves, same.since_us) == (tree.root, 0, tree.leaves, tree.since_us)
    assert table(ledger).unchanged_since_us == tree.since_us < same.read_us
    night(ledger, 4, lambda scenario: scenario.apply(row(1, 50, LONG_AGO_US + 9, v0=int_bytes(1))))
    (other,) = table(ledger).trees
    assert other.root not in {None, tree.root}
    assert other.leaves > other.changed == 1
    assert table(ledger).unchanged_since_us is None


def test_replicas_that_differ_have_no_root_in_common(ledger: LedgerFile) -> None:
    """Nothing is unchanged then, and what was not read says nothing about what it is now."""
    night(ledger, 1)
    night(ledger, 2)
    since = table(ledger).unchanged_since_us
    night(ledger, 3, scenario=Scenario(faults=((Trouble.DOWN, 2, 0.0, ALWAYS),)))
    assert table(ledger).unchanged_since_us == since is not None
    night(ledger, 4, lose(1))
    (tree,) = table(ledger).trees
    assert (tree.root, table(ledger).unchanged_since_us) == (None, None)


def test_a_clean_run_is_a_clean_pass_of_every_range(ledger: LedgerFile) -> None:
    """The age counts from the start of the read, and the run is there with its figures."""
    report = night(ledger, 1)
    found = table(ledger)
    assert found.never == 0.0
    assert found.oldest_us is not None
    assert EPOCH_US + DAY_US <= found.oldest_us < EPOCH_US + DAY_US + 1_000_000
    assert (found.gc_grace_s, found.differing, found.came_back) == (ROWS.gc_grace_seconds, 0, 0)
    past = ledger.past()
    ((cluster, name),) = past.clusters()
    (run,) = past.runs(cluster)
    assert (name, run.run_id, run.ended, run.verdict, run.exit_code) == (
        "simulated",
        report.run_id,
        True,
        "consistent",
        int(report.exit_code),
    )
    assert run.coverage == report.coverage


def test_a_row_is_new_still_there_gone_and_comes_back(ledger: LedgerFile) -> None:
    """Its identity holds over runs, and that it came back stays known while it differs."""
    told = []
    for number, damage in enumerate(((lose(1),), (lose(1),), (), (lose(1),), (lose(1), lose(2)), ()), start=1):
        night(ledger, number, *damage)
        told.append((states(ledger), table(ledger).came_back))
    assert told == [
        ({"new": 1}, 0),
        ({"still there": 1}, 0),
        ({"gone": 1}, 0),
        ({"came back": 1}, 1),
        ({"new": 1, "still there": 1}, 1),
        ({"gone": 2}, 0),
    ]
    past = ledger.past()
    ((cluster, _),) = past.clusters()
    runs = past.runs(cluster)[::-1]
    assert [r.states["new"] for r in runs] == [1, 0, 0, 0, 1, 0]
    assert [r.states["came back"] for r in runs] == [0, 0, 0, 1, 0, 0]
    assert [r.states["gone"] for r in runs] == [0, 0, 1, 0, 0, 2]
    assert runs[4].findings_by_kind == {"missing": 2}


def test_a_row_that_was_repaired_and_differs_again_came_back(ledger: LedgerFile, tmp_path: Path) -> None:
    """The journal of the repair tells; what was not proven, or is not known of the check, is no repair."""
    report = night(ledger, 1, lose(1), lose(2))
    plan = plan_of(report.run_id, 1, 2)

    async def repair() -> None:
        journal = Journal.create(tmp_path / "j", plan)
        await journal.outcome(0, Outcome(Result.VERIFIED))
        await journal.outcome(1, Outcome(Result.DIVERGENT))
        journal.close()

    asyncio.run(repair())
    assert remember(ledger.path, tmp_path / "j") == 1
    assert states(ledger) == {"new": 1, "repaired": 1}
    assert remember(ledger.path, tmp_path / "j") == 0
    assert ledger.repaired("no such run", [("ks", "t", {"p0": "00000002", "c0": "00000032"})]) == 0
    assert table(ledger).differing == 1
    night(ledger, 2, lose(1), lose(2))
    assert states(ledger) == {"came back": 1, "still there": 1}


def test_a_run_that_repaired_what_it_found_ended_as_its_process_did(ledger: LedgerFile) -> None:
    """Exit code and verdict are those after the repair; what was found stays in the run's figures."""
    report = night(ledger, 1, lose(1))
    assert report.exit_code is ExitCode.DIVERGENT
    repaired = RepairSummary(rows=1, acted_on=1, results={"verified": 1}, checked_again=Verdict.CONSISTENT)
    remember_or_warn(ledger.path, None, pytest.fail, replace(report, repair=repaired))
    ((cluster, _),) = ledger.past().clusters()
    (run,) = ledger.past().runs(cluster)
    assert (run.verdict, run.exit_code, run.findings_by_kind) == ("consistent", 0, {"missing": 1})


def plan_of(run_id: str, *keys: int) -> Plan:
    """Return the plan to repair what `lose` damaged."""
    rows = tuple(
        PlannedRow(
            RowRef("ks", "t", token_of((int_bytes(k),)), {"p0": int_bytes(k).hex(), "c0": int_bytes(50).hex()}),
            Rule.LAST_WRITE,
            Action.RECONCILE,
            "why",
            {},
        )
        for k in keys
    )
    return Plan("plan", run_id, "2026", "0.1", "simulated", "ring", {"ks.t": "fp"}, Policy(settle_s=2.5), "salt", rows)


def test_a_range_with_a_row_that_differs_keeps_its_age_and_the_others_are_young(ledger: LedgerFile) -> None:
    """Only what all replicas agree on counts as a clean pass."""
    night(ledger, 1)
    night(ledger, 3, lose(1))
    found = table(ledger)
    assert found.oldest_us is not None
    assert found.oldest_us < EPOCH_US + 2 * DAY_US
    spans = ledger._store.db.execute("SELECT start, end, clean_us FROM spans").fetchall()
    old = [(start, end) for start, end, clean_us in spans if clean_us < EPOCH_US + 2 * DAY_US]
    token = token_of((int_bytes(1),))
    assert len(spans) > 1
    assert len(old) == 1
    assert old[0][0] < token <= old[0][1]


def test_a_replica_that_is_down_leaves_its_ranges_unchecked(ledger: LedgerFile) -> None:
    """Two of three agreeing is not a clean pass, and a row that was not looked at everywhere is not gone."""
    night(ledger, 1, lose(1))
    report = night(ledger, 2, scenario=Scenario(faults=((Trouble.DOWN, 2, 0.0, ALWAYS),)))
    assert report.verdict is Verdict.UNKNOWN
    assert states(ledger) == {"new": 1}
    found = table(ledger)
    assert found.oldest_us is not None
    assert found.oldest_us < EPOCH_US + 2 * DAY_US


def test_the_ranges_that_were_finished_before_an_interrupt_count(ledger: LedgerFile) -> None:
    """Some were, some were not; a leaf that differs was not judged yet and does not."""
    report = night(ledger, 1, lose(1), stop_at_s=0.07, scan=ScanOptions(leaf_rows=2, leaves_at_once=1))
    assert report.interrupted
    found = table(ledger)
    assert 0.0 < found.never < 1.0
    (token,) = [token_of((int_bytes(1),))]
    rows = ledger._store.db.execute("SELECT clean_us FROM spans WHERE start < ? AND end >= ?", (token, token))
    assert [clean for (clean,) in rows] in ([], [0])


@pytest.mark.parametrize("stop_at_s", [0.07, 1.0, None])
def test_nothing_read_over_a_ring_that_changed_counts(ledger: LedgerFile, stop_at_s: float | None) -> None:
    """Whether the run ended by itself or was interrupted: it looks again before anything counts as clean."""
    scenario = Scenario()
    ring = scenario.cluster._ring
    moved = replace(ring, nodes=(*ring.nodes[1:], replace(ring.nodes[0], host_id="another")))
    scenario.cluster.ring_later = lambda: moved
    report = night(ledger, 1, scenario=scenario, stop_at_s=stop_at_s)
    assert report.coverage.completed == 0
    assert table(ledger).never == 1.0
    assert table(ledger).oldest_us is None


def test_an_interrupt_while_the_cluster_is_silent_ends_soon_and_nothing_counts(ledger: LedgerFile) -> None:
    """Whether anything changed could not be asked: unchecked."""
    scenario = Scenario()

    async def silent() -> Ring:
        await scenario.clock.sleep(1e6)
        return scenario.cluster._ring

    scenario.cluster.ring_now = silent  # type: ignore[method-assign]
    night(ledger, 1, scenario=scenario, stop_at_s=0.5)
    assert scenario.loop.now < 60
    assert table(ledger).never == 1.0


def test_an_altered_table_is_unchecked_again(ledger: LedgerFile) -> None:
    """No earlier pass saw the new column; the rows that differed are still known."""
    night(ledger, 1, lose(1))
    assert table(ledger).never < 1.0
    assert table(ledger).trees
    ledger.recorder().begin(facts(replace(ROWS, columns=(*ROWS.columns, replace(ROWS.columns[-1], name="v9")))))
    assert table(ledger).never == 1.0
    assert table(ledger).trees == ()
    assert states(ledger) == {"new": 1}


def facts(
    table: Table = ROWS, nodes: tuple[Node, ...] = NODES, factors: tuple[tuple[str, int], ...] = (("dc1", 3),)
) -> RunFacts:
    """Return how a run on a cluster with one table begins."""
    schema = {"ks": keyspace("ks", Replication("NetworkTopologyStrategy", factors), [table])}
    return RunFacts("run", EPOCH_US + 9 * DAY_US, Ring("simulated", MURMUR3, nodes), schema, (table,))


def test_a_table_that_was_dropped_is_forgotten_and_one_made_anew_is_another(ledger: LedgerFile) -> None:
    """Their rows differ no more, and nobody waits for their clean pass."""
    night(ledger, 1, lose(1))
    ledger.recorder().begin(facts(replace(ROWS, table_id="another")))
    assert (states(ledger), table(ledger).never) == ({}, 1.0)
    ledger.recorder().begin(facts(make_table("u", ("int",), (), (), ("int",))))
    assert table(ledger).full_name == "ks.u"


def test_a_range_that_other_nodes_own_now_is_unchecked_and_the_others_are_not(ledger: LedgerFile) -> None:
    """RF 2 on four nodes; one node takes half of another's range."""
    dcs, factors = ("dc1",) * 4, (("dc1", 2),)
    night(ledger, 1, scenario=Scenario(dcs=dcs, factors=factors))
    assert table(ledger).never == 0.0
    nodes = make_nodes(dcs)
    new = replace(nodes[0], host_id="host-5", address="10.0.0.5", tokens=(MIN_TOKEN + RING_SIZE // 8,))
    ledger.recorder().begin(facts(nodes=(*nodes, new), factors=factors))
    # The new node is the first or the second replica of what ends at its own token or at the one before.
    assert 0.2 < table(ledger).never < 0.6
    ledger.recorder().begin(facts(nodes=(*nodes, new), factors=factors))
    assert 0.2 < table(ledger).never < 0.6


def test_a_run_over_one_dc_is_no_clean_pass(ledger: LedgerFile) -> None:
    """The replicas of the other DC were not compared; nor does it say that a row is gone."""
    dcs, factors = ("dc1", "dc1", "dc2", "dc2"), (("dc1", 2), ("dc2", 2))
    night(ledger, 1, lose(1), scenario=Scenario(dcs=dcs, factors=factors))
    night(ledger, 2, scenario=Scenario(dcs=dcs, factors=factors), dc="dc1")
    found = table(ledger)
    assert dict(found.states) == {"new": 1}
    assert found.oldest_us is not None
    assert found.oldest_us < EPOCH_US + 2 * DAY_US


def test_a_lesser_depth_does_not_say_that_a_tie_is_gone(ledger: LedgerFile) -> None:
    """It could not have seen it; a reading of the values can."""
    night(ledger, 1, tie, depth=Depth.CONTENT)
    night(ledger, 2, depth=Depth.VERSIONS)
    assert states(ledger) == {"new": 1}
    night(ledger, 3, depth=Depth.CONTENT)
    assert states(ledger) == {"gone": 1}


def test_a_stray_row_is_gone_only_when_it_was_looked_for(ledger: LedgerFile) -> None:
    """A run without --non-owners says nothing of it, and it keeps no range from being clean."""
    dcs, factors = ("dc1",) * 4, (("dc1", 2),)

    def stray(scenario: Scenario) -> None:
        owners = scenario.cluster.replicas(ROWS, (int_bytes(1),))
        stranger = next(i for i, node in enumerate(scenario.nodes, start=1) if node not in owners)
        scenario.apply(row(1, 50, v0=int_bytes(1)), on=[stranger])

    night(ledger, 1, stray, scenario=Scenario(dcs=dcs, factors=factors), non_owners=True)
    assert (states(ledger), table(ledger).never) == ({"new": 1}, 0.0)
    night(ledger, 2, scenario=Scenario(dcs=dcs, factors=factors))
    assert states(ledger) == {"new": 1}
    night(ledger, 3, scenario=Scenario(dcs=dcs, factors=factors), non_owners=True)
    assert states(ledger) == {"gone": 1}


def test_it_is_known_which_replicas_were_behind(ledger: LedgerFile) -> None:
    """By host id, with the token; this is what tells whether a node may go down."""
    night(ledger, 1, lose(1))
    past = ledger.past()
    ((cluster, _),) = past.clusters()
    (behind,) = past.behind(cluster)
    assert (behind.keyspace, behind.table, behind.token) == ("ks", "t", token_of((int_bytes(1),)))
    assert (behind.replicas, behind.by_address) == ({"host-2", "host-3"}, False)
    night(ledger, 2)
    assert list(past.behind(cluster)) == []


def test_two_clusters_of_one_name_are_two(ledger: LedgerFile) -> None:
    """Many are called Test Cluster: without a node in common nothing of one counts for the other."""
    night(ledger, 1)
    ledger.recorder().begin(facts(nodes=tuple(replace(n, host_id=f"other-{n.host_id}") for n in NODES)))
    past = ledger.past()
    newest, oldest = past.clusters()
    assert past.tables(newest[0])[0].never == 1.0
    assert past.tables(oldest[0])[0].never == 0.0
    assert past.of_nodes("simulated", {"host-1"}) == oldest[0]
    assert past.of_nodes("simulated", {"other-host-2"}) == newest[0]
    assert past.of_nodes("simulated", {"nobody"}) is None


def test_a_run_that_was_killed_has_no_end_and_no_clean_pass(ledger: LedgerFile) -> None:
    """Its findings were real and are kept; what it read does not count."""
    recorder = ledger.recorder()
    recorder.begin(facts())
    for number in range(2_000):
        recorder.found(finding(number), Depth.CONTENT)
    assert states(ledger) == {"new": 2_000}
    past = ledger.past()
    ((cluster, _),) = past.clusters()
    (run,) = past.runs(cluster)
    assert (run.ended, run.verdict) == (False, "")
    assert table(ledger).never == 1.0


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    """Killed while it writes, again and again: the next run finds a whole file, and no pass that was not finished."""
    program = (
        "import pathlib, sys\n"
        "from tests.unit import test_ledger as t\n"
        "with t.open_ledger(pathlib.Path(sys.argv[1])) as ledger:\n"
        "    print('open', flush=True)\n"
        "    while True:\n"
        "        recorder = ledger.recorder()\n"
        "        recorder.begin(t.facts())\n"
        "        for number in range(5_000):\n"
        "            recorder.found(t.finding(number), t.Depth.CONTENT)\n"
        "        print('entered', flush=True)\n"
    )
    path = tmp_path / "l"
    for milliseconds, entered in ((0, False), (20, False), (90, False), (20, True)):
        words = [sys.executable, "-c", program, str(path)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as writing:
            assert writing.stdout is not None
            assert writing.stdout.readline() == "open\n"
            if entered:
                assert writing.stdout.readline() == "entered\n"
            time.sleep(milliseconds / 1000)
            writing.kill()
        with open_ledger(path) as ledger:
            assert ledger.note == ""
            for cluster, _ in ledger.past().clusters():
                assert not any(run.ended for run in ledger.past().runs(cluster))
                assert [t.never for t in ledger.past().tables(cluster)] == [1.0]
    with open_ledger(path) as ledger:
        assert states(ledger)


def finding(number: int) -> Finding:
    """Return a finding on a row of its own."""
    views = {"10.0.0.1:9042": ReplicaView(State.CURRENT), "10.0.0.2:9042": ReplicaView(State.MISSING)}
    key = {"p0": f"{number:08x}"}
    token = (number * 2**40) % 2**62
    return Finding(Kind.MISSING, "ks", "t", token, {"p0": number}, key, views)


# The file.


def test_the_file_is_private_and_holds_no_key(tmp_path: Path) -> None:
    """Mode 0600 for it and for what SQLite keeps beside it, also where it was open to others before."""
    path = tmp_path / "l"
    path.touch(mode=0o644)
    secret = b"a very private key"
    scenario = Scenario(make_table("t", ("text",), ("int",), (), ("int",)))
    with open_ledger(path) as ledger:
        write = replace(row(1, 50, v0=int_bytes(1)), key=(secret,))
        scenario.apply(write, on=[1])
        recorder = ledger.recorder()
        report = scenario.check(recorder=recorder)
        assert report.findings_by_kind == {"missing": 1}
        files = list(tmp_path.iterdir())
        assert len(files) == 3
        for file in files:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert secret not in file.read_bytes()
            assert secret.hex().encode() not in file.read_bytes()


def test_what_cannot_be_committed_is_not_there(tmp_path: Path) -> None:
    """As on a full disk: the same process must not read what no other one ever will."""
    store = Store.open(tmp_path / "l", create=True, shared=True)
    store.db.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(tmp_path / "l", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM merged").fetchall()  # who reads a shared file keeps others from committing
        with pytest.raises(sqlite3.OperationalError, match="locked"), store.transaction() as db:
            db.execute("INSERT INTO merged VALUES ('part', 'run')")
    assert store.db.execute("SELECT * FROM merged").fetchall() == []
    store.close()


def damaged(path: Path, how: str) -> None:
    """Damage a ledger."""
    whole = path.read_bytes()
    if how == "garbage":
        path.write_bytes(b"not a database, whatever its name says\n" * 200)
    elif how == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "overwritten":
        path.write_bytes(whole[:4096] + b"\xff" * 8192 + whole[12288:])
    elif how == "emptied":
        with sqlite3.connect(path) as db:
            db.execute("DROP TABLE spans")
        db.close()
    elif how == "robbed":
        with sqlite3.connect(path) as db:
            db.execute("DROP TABLE compared")
        db.close()
    elif how == "misspelled":
        at = whole.index(b"NOT NULL", whole.index(b"CREATE TABLE compared"))
        path.write_bytes(whole[:at] + b"NOT NUL\xcc" + whole[at + 8 :])


@pytest.mark.parametrize("how", ["garbage", "cut short", "overwritten", "emptied", "robbed", "misspelled"])
def test_a_damaged_file_is_moved_aside_and_everything_is_unchecked(tmp_path: Path, how: str) -> None:
    """One line says so, the file is kept, and a new ledger begins: it is never taken for clean."""
    path = tmp_path / "l"
    (tmp_path / "l.0123456789ab.lock").touch()  # as every run leaves one
    with open_ledger(path) as ledger:
        night(ledger, 1)
    damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"is damaged .*, so nothing counts as checked") as caught:
        open_ledger(path, create=False)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    with open_ledger(path) as ledger:
        (aside,) = tmp_path.glob("l.damaged-*Z")
        assert aside.read_bytes() == before
        assert "everything is unchecked" in ledger.note
        assert ledger.past().clusters() == ()
        night(ledger, 2)
        assert table(ledger).never == 0.0
    with open_ledger(path) as ledger:
        assert ledger.note == ""


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_file_that_never_was_a_ledger_stays_as_it_is(tmp_path: Path, mode: int) -> None:
    """Notes, a password, whatever the path was mistyped for: neither moved, nor replaced, nor made private."""
    ring = Ring("simulated", MURMUR3, tuple(NODES))
    path = tmp_path / "precious.txt"
    path.write_text("notes\n" * 50)
    path.chmod(mode)
    with pytest.raises(UsageError, match="is not a ledger; it is not replaced"):
        open_ledger(path)
    with pytest.raises(LedgerError, match=r"is not a ledger .* nothing counts as checked; name another file"):
        open_ledger(path, create=False)
    with pytest.raises(UsageError, match="is not a ledger; it is not replaced"), one_run(ring, path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
    assert path.read_text() == "notes\n" * 50
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """Another program's database, a newer ledger, a directory: refused before anything is read."""
    other, newer = tmp_path / "other.db", tmp_path / "newer"
    for path, application, version in ((other, 7, 1), (newer, APPLICATION_ID, 99)):
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE t (x)")
        db.execute(f"PRAGMA application_id = {application}")
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
    for path, said in ((other, "another program's"), (newer, "schema 99"), (tmp_path, "not a regular file")):
        with pytest.raises(UsageError, match=said):
            open_ledger(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["newer", "other.db"]


def test_a_ledger_that_is_not_there_is_unknown_not_clean(tmp_path: Path) -> None:
    """Reading one creates none."""
    with pytest.raises(LedgerError, match="nothing counts as checked") as caught:
        open_ledger(tmp_path / "l", create=False)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "l").exists()


def test_a_ledger_that_cannot_be_written_costs_no_check(ledger: LedgerFile) -> None:
    """The disk is full, or worse: the verdict stands, a line says that the run does not count."""
    ledger._store.db.execute("PRAGMA query_only = ON")
    scenario = Scenario()
    scenario.fill()
    lose(1)(scenario)
    recorder = ledger.recorder()
    report = scenario.check(recorder=recorder, scan=SMALL)
    assert report.findings_by_kind == {"missing": 1}
    assert "could not be written" in recorder.problem
    assert "\n" not in recorder.problem


def whole_report() -> Report:
    """Return a report with some figures."""
    one = TableReport("ks", "t", "content", "server", "node-local", 1, 100_000, 0, 1.0, Coverage(30_000, 30_000))
    return Report("run", "simulated", "2026", 1.0, (one,), (), {"missing": 100_000})


@pytest.mark.no_cover  # tracing would be timed too
def test_a_large_run_is_written_in_seconds_and_in_little_memory(ledger: LedgerFile) -> None:
    """20,000 findings and 10,000 ranges; memory is that of a batch, however many there are."""
    pieces = TokenRange.full_ring().split(10_000)
    reads = [RangeRead(r, NODES, EPOCH_US, complete=True, clean=i % 2 == 0) for i, r in enumerate(pieces)]
    started = time.process_time()
    write(ledger, 20_000, reads)
    seconds = time.process_time() - started
    assert states(ledger) == {"new": 20_000}
    assert seconds < 8, f"{seconds:.1f} s"
    tracemalloc.start()
    write(ledger, 10_000, [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert states(ledger) == {"new": 10_000, "still there": 10_000}
    assert peak < 8 * 2**20, f"{peak / 2**20:.1f} MiB"


def write(ledger: LedgerFile, findings: int, reads: list[RangeRead]) -> None:
    """Write one run."""
    recorder = ledger.recorder()
    recorder.begin(facts())
    for number in range(findings):
        recorder.found(finding(number), Depth.CONTENT)
    recorder.table_read(ROWS, Depth.CONTENT, reads, non_owners=False)
    recorder.end(whole_report())
    assert not recorder.problem


def test_a_keyspace_with_one_replica_is_not_waited_for(ledger: LedgerFile) -> None:
    """There is nothing to compare; tables of other keyspaces that no run was about are unchecked."""
    scenario = Scenario()
    scenario.cluster._schema["one"] = keyspace("one", Replication("NetworkTopologyStrategy", (("dc1", 1),)), [])
    alone = make_table("alone", ("int",), (), (), ("int",))
    scenario.cluster._schema["one"] = replace(
        scenario.cluster._schema["one"], tables={"alone": replace(alone, keyspace="one")}
    )
    scenario.cluster._schema["more"] = keyspace("more", Replication("NetworkTopologyStrategy", (("dc1", 3),)), [])
    scenario.cluster._schema["more"] = replace(
        scenario.cluster._schema["more"], tables={"m": replace(alone, keyspace="more", name="m")}
    )
    night(ledger, 1, scenario=scenario)
    past = ledger.past()
    ((cluster, _),) = past.clusters()
    assert [(t.full_name, t.never) for t in past.tables(cluster)] == [("ks.t", 0.0), ("more.m", 1.0)]


def test_rows_that_are_counted_are_one_fact_a_range_and_hide_no_listed_one(ledger: LedgerFile) -> None:
    """A row that was listed is not gone because the next night only counts it; both are gone after a clean night."""
    night(ledger, 1, lose(1))
    assert states(ledger) == {"new": 1}
    counting = ScanOptions(leaf_rows=2, max_findings=0)
    night(ledger, 2, lose(1), scan=counting)
    assert states(ledger) == {"new": 2}
    past = ledger.past()
    ((cluster, _),) = past.clusters()
    hosts = {found.replicas for found in past.behind(cluster)}
    assert hosts == {frozenset({"host-2", "host-3"})}
    night(ledger, 3)
    assert states(ledger) == {"gone": 2}
