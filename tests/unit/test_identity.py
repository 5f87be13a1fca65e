"""A node is its host id, a cluster its name and any of its nodes: whatever is stored finds both again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from consistency.auditing.preflight import Answer
from consistency.auditing.preflight_facts import PreflightOptions, known_differences, run_preflight
from consistency.cli import main
from consistency.errors import UsageError
from consistency.ledger import migrate, open_ledger, store
from consistency.ledger.history import Standing, read_history
from consistency.model.identity import cluster_id, sharing_most
from consistency.model.ring import MURMUR3, Ring
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, FindingsWriter, Header, read_findings
from consistency.results.kinds import Kind
from consistency.results.report import Report
from consistency.rows.explain import choose_finding, explain
from consistency.watching.findings_folder import FindingsFolder
from consistency.watching.metrics import RunEnd, render
from repair.applying.guard import Guard, PlanRefused
from repair.applying.outcomes import Tally
from repair.applying.pace import Pace
from repair.deciding.case import CaseReader
from repair.keeping.entries import Result
from repair.planning.planner import PlanOptions, make_plan
from repair.undoing.undo import Undoer
from tests.simulation.memory import readdressed
from tests.simulation.repair_laws import shown
from tests.simulation.repairing import MemoryJournal
from tests.simulation.scenario import ROWS, Scenario, row
from tests.simulation.storage import Write
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S
from tests.unit.fake_cluster import FakeCluster, opener
from tests.unit.test_history import CARTS, NODES, NOW_US, ORDERS, both, run
from tests.unit.test_ledger import night, states
from tests.unit.test_repair_applying import NODES as STAGE_NODES
from tests.unit.test_repair_applying import TABLE, YOUNG_US, Stage, played
from tests.unit.test_takedown import ONE_DC, ask, facts, scripted

SWAPS = [(), (1, 2), (1, 3), (2, 1, 3), (2,)]
"""Who answers at whose address later: nobody moved, two exchanged theirs, all three did, one has a new one."""


def moved(*numbers: int) -> Ring:
    """Return the simulated ring after such a move."""
    return readdressed(Ring("simulated", MURMUR3, ONE_DC), [f"host-{n}" for n in numbers])


def swap(stage: Stage, numbers: tuple[int, ...]) -> None:
    """Move nodes of a repair's stage."""
    if numbers:
        stage.cluster.readdress(*(f"h{n}" for n in numbers))


# Clusters.


def test_a_cluster_is_the_one_that_shares_most_nodes() -> None:
    """One node is enough, none is not; of equals the first."""
    known = {1: {"a", "b", "c"}, 2: {"c", "d"}, 3: {"d", "e"}}
    assert sharing_most(known, {"c", "d", "x"}) == 2
    assert sharing_most(known, {"a"}) == 1
    assert sharing_most(known, {"d"}) == 2
    assert sharing_most(known, {"x"}) is None
    assert cluster_id("test", {"b", "a"}) == cluster_id("test", ["a", "c"]) != cluster_id("test", {"b", "c"})
    assert cluster_id("test", {"a"}) != cluster_id("other", {"a"})


def test_a_cluster_keeps_its_number_and_id_while_all_its_nodes_are_replaced(tmp_path: Path) -> None:
    """One by one; the file tells the nodes it has now, by the addresses they have now."""
    seen = NODES
    with open_ledger(tmp_path / "l") as ledger:
        for place in range(3):
            run(ledger, 1, *both(ORDERS), ring=Ring("test", MURMUR3, seen))
            seen = tuple(replace(n, host_id=f"new-{i}") if i == place else n for i, n in enumerate(seen))
        seen = tuple(replace(n, address=f"10.9.9.{i}") for i, n in enumerate(seen))
        run(ledger, 0.5, *both(ORDERS), ring=Ring("test", MURMUR3, seen))
        (known,) = ledger.past().known_clusters()
    assert known.cluster_id == Ring("test", MURMUR3, NODES).cluster_id != Ring("test", MURMUR3, seen).cluster_id
    assert known.nodes == ("10.9.9.0:9042", "10.9.9.1:9042", "10.9.9.2:9042")


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_cluster_is_known_by_the_nodes_it_has_before_those_it_had(tmp_path: Path, order: str) -> None:
    """A node that moved on from a to b, data and all, does not take a along, whichever was known first."""
    rings = {w: Ring("test", MURMUR3, tuple(replace(n, host_id=f"{w}-{i}") for i, n in enumerate(NODES))) for w in "ab"}
    lost = replace(rings["a"], nodes=rings["a"].nodes[1:])
    with_it = replace(rings["b"], nodes=(rings["a"].nodes[0], *rings["b"].nodes[1:]))
    with open_ledger(tmp_path / "l") as ledger:
        for ring in (*(rings[word] for word in order), lost, with_it):
            run(ledger, 1, *both(ORDERS), ring=ring)
        past = ledger.past()
        b, a = past.known_clusters()
        assert past.of_nodes("test", {"a-0"}) == past.of_nodes("test", {"b-0"}) == b.number
        assert past.of_nodes("test", {"a-1"}) == a.number


TWIN = Ring("test", MURMUR3, tuple(replace(n, host_id=f"twin-{i}", address=f"10.1.0.{i}") for i, n in enumerate(NODES)))


def two_of_one_name(path: Path, now_us: int = NOW_US) -> None:
    """Record a cluster that is overdue and, later, another one of its name that is not."""
    with open_ledger(path) as ledger:
        run(ledger, 12, *both(ORDERS), *both(CARTS), now_us=now_us)
        run(ledger, 1, *both(ORDERS), ring=TWIN, now_us=now_us)


def test_of_two_clusters_of_one_name_the_overdue_one_is_shown_first(tmp_path: Path) -> None:
    """Both are there, the exit code is that of the worse; each can be had alone by its id."""
    two_of_one_name(tmp_path / "l")
    with open_ledger(tmp_path / "l") as ledger:
        worse = read_history(ledger, NOW_US)
        (better,) = worse.others
        assert (worse.standing, int(worse.exit_code)) == (Standing.OVERDUE, 1)
        assert (better.standing, int(better.exit_code)) == (Standing.IN_TIME, 0)
        assert worse.cluster == better.cluster == "test"
        assert better.nodes == ("10.1.0.0:9042", "10.1.0.1:9042", "10.1.0.2:9042")
        assert [int(read_history(ledger, NOW_US, cluster=each.cluster_id).exit_code) for each in (worse, better)] == [
            1,
            0,
        ]
        assert read_history(ledger, NOW_US, cluster="test") == worse
        alone = read_history(ledger, NOW_US, names=["shop.carts"])
        assert (alone.cluster_id, alone.others) == (worse.cluster_id, ())
        with pytest.raises(
            UsageError, match=rf"knows test \({worse.cluster_id}\), test|knows test \({better.cluster_id}\)"
        ):
            read_history(ledger, NOW_US, cluster="nosuch")


def test_the_command_shows_two_clusters_of_one_name_by_id_and_nodes(tmp_path: Path) -> None:
    """Text and JSON."""
    two_of_one_name(tmp_path / "l", time.time_ns() // 1000)
    words = ["history", "--ledger", str(tmp_path / "l"), "--json", str(tmp_path / "h.json")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1, result.output
    data = json.loads((tmp_path / "h.json").read_text())
    (other,) = data["others"]
    assert (data["standing"], data["exit_code"], other["standing"], other["exit_code"]) == ("overdue", 1, "in time", 0)
    first, _, second = result.stdout.partition(
        f"test  {other['cluster_id']}  10.1.0.0:9042, 10.1.0.1:9042, 10.1.0.2:9042"
    )
    assert first.startswith(f"test  {data['cluster_id']}  {', '.join(data['nodes'])}\n")
    assert "OVERDUE" in first
    assert "Every range of 1 table was clean" in " ".join(second.split())
    alone = CliRunner().invoke(main, [*words, "--cluster", other["cluster_id"]])
    assert (alone.exit_code, json.loads((tmp_path / "h.json").read_text())["others"]) == (0, [])


def test_the_clusters_id_is_in_report_and_metrics_and_stays_with_a_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node that gave the id is replaced: the ledger remembers, a run without one cannot."""
    ids = []
    for word in ("host-1", "replaced"):
        cluster = FakeCluster().fill(5)
        old = asyncio.run(cluster.ring())
        first = min(old.nodes, key=lambda n: n.host_id)
        cluster.rings(replace(old, nodes=tuple(replace(n, host_id=word) if n == first else n for n in old.nodes)))
        monkeypatch.setattr("consistency.cluster.session.open_cluster", opener(cluster))
        for name in ("with", "without"):
            ledger = ["--ledger", str(tmp_path / "l")] if name == "with" else []
            files = ["--json", str(tmp_path / "r.json"), "--metrics", str(tmp_path / "m.prom")]
            assert CliRunner().invoke(main, ["check", "--settle", "0", *ledger, *files]).exit_code == 0
            found = json.loads((tmp_path / "r.json").read_text())
            ids.append(found["cluster_id"])
            line = f'consistency_cluster_info{{cluster_id="{found["cluster_id"]}",cluster_name="test"}} 1.0'
            assert line in (tmp_path / "m.prom").read_text()
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert "cluster_info" not in render(RunEnd(0.0, 1.0, 4))


# Nodes that answer elsewhere: the ledger and what rests on it.


@pytest.mark.parametrize("numbers", SWAPS)
def test_a_row_is_the_same_row_wherever_its_replicas_answer(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """New, then still there, also of a node's stray copy; every range stays clean that was."""
    dcs, factors = ("dc1",) * 4, (("dc1", 2),)

    def damage(scenario: Scenario) -> None:
        owners = scenario.cluster.replicas(ROWS, (int_bytes(1),))
        for number, node in enumerate(scenario.nodes, start=1):
            if node not in owners:
                scenario.apply(row(1, 50, v0=int_bytes(1)), on=[number])
        scenario.cluster.apply(ROWS, row(2, 50, v0=int_bytes(1)), scenario.cluster.replicas(ROWS, (int_bytes(2),))[:1])

    with open_ledger(tmp_path / "l") as ledger:
        for number, places in enumerate(((), numbers), start=1):
            night(ledger, number, damage, scenario=Scenario(dcs=dcs, factors=factors, swapped=places), non_owners=True)
        assert states(ledger) == {"still there": 3}


@pytest.mark.parametrize("numbers", SWAPS)
def test_preflight_knows_the_node_of_the_only_current_copy_wherever_it_answers(
    tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    """Checked at one address, asked at another: that node must stay up, the two others need not."""
    scenario = Scenario()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    with open_ledger(tmp_path / "l") as ledger:
        scenario.check(recorder=ledger.recorder())
    now = moved(*numbers)
    known = known_differences(tmp_path / "l", now)
    given = facts(nodes=now.nodes)
    answers = {node.host_id: ask(given, at, known).answer for at, node in enumerate(given.ring.nodes, start=1)}
    assert answers == {"host-1": Answer.NO, "host-2": Answer.YES, "host-3": Answer.YES}


def test_whoever_waits_for_a_node_waits_for_that_node() -> None:
    """Two exchange their addresses meanwhile: the answer is about the one that was meant."""
    given = facts(down=(3,))
    now = facts(nodes=readdressed(given.ring, ["host-1", "host-2"]).nodes)
    look = scripted(given, now)
    options = PreflightOptions(wait_s=30, every_s=0.01)
    answer = asyncio.run(run_preflight(look, "10.0.0.1", options))
    assert (answer.node.host_id, answer.node.name, answer.answer) == ("host-1", "10.0.0.2:9042", Answer.YES)


# A ledger from before host ids.

V1 = """
CREATE TABLE secret (key BLOB NOT NULL);
CREATE TABLE clusters (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE hosts (cluster INTEGER NOT NULL, host_id TEXT NOT NULL, PRIMARY KEY (cluster, host_id)) WITHOUT ROWID;
CREATE TABLE replica_sets (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
"""
"""What was different then."""
_KEPT = ("secret", "runs", "run_findings", "tables", "spans", "findings")


def made_old(path: Path) -> None:
    """Turn a ledger into what an earlier version would have written of the same runs."""
    with open_ledger(path) as ledger:
        clusters = ledger.past().known_clusters()
        names = {n.host_id: n.name for n in ONE_DC}
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    hosts = db.execute("SELECT cluster, host_id FROM hosts").fetchall()
    sets = db.execute("SELECT id, hosts FROM replica_sets").fetchall()
    for statement in V1.split(";")[1:-1]:
        db.execute(f"DROP TABLE {statement.split()[2]}")
        db.execute(statement)
    for name in ("roots", "leaf_hashes", "parts", "merged", "pairs", "compared"):
        db.execute(f"DROP TABLE {name}")
    db.executemany("INSERT INTO clusters VALUES (?, ?)", [(c.number, c.name) for c in clusters])
    db.executemany("INSERT INTO hosts VALUES (?, ?)", hosts)
    old = [(i, ",".join(names[h] for h in text.split(",") if h)) for i, text in sets]
    db.executemany("INSERT INTO replica_sets VALUES (?, ?)", old)
    db.execute("PRAGMA user_version = 1")
    db.close()


def dumped(path: Path, tables: tuple[str, ...] = _KEPT) -> dict[str, list[object]]:
    """Return what is in these tables."""
    db = sqlite3.connect(path)
    found = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    found["version"] = db.execute("PRAGMA user_version").fetchall()
    db.close()
    return found


def old_ledger(path: Path, *damage: Callable[[Scenario], object], **options: object) -> None:
    """Write a night into a ledger of the earlier version."""
    with open_ledger(path) as ledger:
        night(ledger, 1, *damage, **options)
    made_old(path)


def lost_on_two(scenario: Scenario) -> None:
    """Leave the current copy on node 1 alone."""
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])


def test_a_ledger_from_before_host_ids_loses_nothing(tmp_path: Path) -> None:
    """Runs, ages and rows stay; the row is found again as the same, and then by host id."""
    path = tmp_path / "l"
    old_ledger(path, lost_on_two)
    before = dumped(path)
    with open_ledger(path, create=False) as ledger:
        (known,) = ledger.past().known_clusters()
        assert (known.cluster_id, known.nodes) == (moved().cluster_id, ("host-1...", "host-2...", "host-3..."))
        assert [b.by_address for b in ledger.past().behind(known.number)] == [True]
    assert dumped(path) == {**before, "version": [(store.SCHEMA_VERSION,)]}
    with open_ledger(path) as ledger:
        night(ledger, 2, lost_on_two, scenario=Scenario(swapped=(1, 2)))
        (known,) = ledger.past().known_clusters()
        assert states(ledger) == {"still there": 1}
        (behind,) = ledger.past().behind(known.number)
        assert (behind.replicas, behind.by_address) == ({"host-2", "host-3"}, False)
        assert set(known.nodes) == {n.name for n in ONE_DC}


def test_what_is_known_by_address_alone_makes_no_yes(tmp_path: Path) -> None:
    """Until the next check it is unknown where the current copy is, with the command that tells."""
    path = tmp_path / "l"
    old_ledger(path, lost_on_two)
    known = known_differences(path, moved(1, 2))
    for number in (1, 2, 3):
        answer = ask(facts(), number, known)
        assert (answer.answer, [r.kind for r in answer.reasons]) == (Answer.UNKNOWN, ["behind_not_known"])
        assert "check ks.t again with this ledger" in answer.line


def test_a_stray_copy_from_before_host_ids_is_still_there(tmp_path: Path) -> None:
    """It was entered under its node's address."""
    path = tmp_path / "l"
    dcs, factors = ("dc1",) * 4, (("dc1", 2),)

    def stray(scenario: Scenario) -> None:
        owners = scenario.cluster.replicas(ROWS, (int_bytes(1),))
        stranger = next(i for i, node in enumerate(scenario.nodes, start=1) if node not in owners)
        scenario.apply(row(1, 50, v0=int_bytes(1)), on=[stranger])

    scenario = Scenario(dcs=dcs, factors=factors)
    with open_ledger(path) as ledger:
        recorder = ledger.recorder()
        found = recorder.found
        recorder.found = lambda finding, depth: found(without_host_ids(finding), depth)  # type: ignore[method-assign]
        scenario.fill()
        stray(scenario)
        scenario.check(recorder=recorder, non_owners=True)
        night(ledger, 2, stray, scenario=Scenario(dcs=dcs, factors=factors), non_owners=True)
        assert states(ledger) == {"still there": 1}


def test_addresses_never_pass_for_host_ids(tmp_path: Path) -> None:
    """Of a finding that has none, whoever made it, the ledger says so."""
    with open_ledger(tmp_path / "l") as ledger:
        run(ledger, 1, *both(ORDERS), rows=(1,))
        (known,) = ledger.past().known_clusters()
        assert [b.by_address for b in ledger.past().behind(known.number)] == [True]


def without_host_ids(finding: Finding) -> Finding:
    """Return a finding as an earlier version would have made it."""
    return replace(finding, replicas={name: replace(view, host_id="") for name, view in finding.replicas.items()})


def test_a_kill_in_the_middle_of_the_migration_leaves_the_old_ledger(tmp_path: Path) -> None:
    """Wherever it strikes; whoever opens it next finishes it, with nothing lost."""
    path = tmp_path / "l"
    old_ledger(path, lost_on_two)
    before = dumped(path)
    program = (
        "import os, pathlib, signal, sqlite3, sys\n"
        "from consistency.ledger import open_ledger\n"
        "left = [int(sys.argv[2])]\n"
        "def trace(_):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "from consistency.ledger import store\n"
        "real = store.migrate\n"
        "def migrate(db, to):\n"
        "    db.set_trace_callback(trace)\n"
        "    real(db, to)\n"
        "store.migrate = migrate\n"
        "open_ledger(pathlib.Path(sys.argv[1])).close()\n"
    )
    for statements in (1, 6, 11, 15):
        done = subprocess.run([sys.executable, "-c", program, str(path), str(statements)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert dumped(path) == before, statements
    with open_ledger(path, create=False) as ledger:
        assert [b.by_address for b in ledger.past().behind(1)] == [True]
    assert dumped(path) == {**before, "version": [(store.SCHEMA_VERSION,)]}


def test_a_migration_that_fails_leaves_the_ledger_to_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of it is said in a line; nothing is moved aside."""
    path = tmp_path / "l"
    old_ledger(path)

    def full(*_: object) -> str:
        msg = "database or disk is full"
        raise sqlite3.OperationalError(msg)

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "id_of_hosts", full)
        with pytest.raises(UsageError, match="full or failing disk"):
            open_ledger(path)
    with open_ledger(path) as ledger:
        assert (ledger.note, len(ledger.past().known_clusters())) == ("", 1)


# Findings.


def found_by(scenario: Scenario, path: Path, **options: object) -> Path:
    """Check, and return the findings file."""
    scenario.fill()
    scenario.check(findings=path, **options)
    return path


def test_every_replica_of_a_finding_has_its_host_id(tmp_path: Path) -> None:
    """Whichever state it is in, and read back as written; a file without them is read too."""
    scenario = Scenario(swapped=(1, 3))
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    path = found_by(scenario, tmp_path / "f")
    (finding,) = read_findings(path)
    names = {node.host_id: node.name for node in moved(1, 3).nodes}
    assert {view.host_id: name for name, view in finding.replicas.items()} == names
    assert Finding.from_json(json.loads(json.dumps(finding.as_json()))) == finding
    old = without_host_ids(finding)
    assert "host_id" not in json.dumps(old.as_json())
    assert Finding.from_json(json.loads(json.dumps(old.as_json()))) == old


def test_a_stray_copy_is_looked_for_on_the_node_that_held_it(tmp_path: Path) -> None:
    """Not on the one that has its address now; a file that knows addresses alone is refused."""
    dcs, factors = ("dc1",) * 4, (("dc1", 2),)
    scenario = Scenario(dcs=dcs, factors=factors)
    owners = scenario.cluster.replicas(ROWS, (int_bytes(1),))
    strangers = [i for i, node in enumerate(scenario.nodes, start=1) if node not in owners]
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=strangers[:1])
    path = found_by(scenario, tmp_path / "f", non_owners=True)
    later = Scenario(dcs=dcs, factors=factors, swapped=tuple(strangers))
    later.fill()
    later.apply(row(1, 50, v0=int_bytes(1)), on=strangers[:1])
    seen = later.run(lambda: explain(later.cluster, later.clock, choose_finding(path, 1)))
    assert {node.host_id for node in seen.non_owners} == {f"host-{strangers[0]}"}
    assert seen.facts == (Kind.NON_OWNER,)
    chosen = choose_finding(path, 1)
    old = replace(chosen, finding=without_host_ids(chosen.finding))
    last = Scenario(dcs=dcs, factors=factors)
    with pytest.raises(UsageError, match="only by its address; run the check again"):
        last.run(lambda: explain(last.cluster, last.clock, old))


def report_of(path: Path, found: int) -> Report:
    """Return the report of a visit."""
    return Report("run", "simulated", "", 1.0, (), (), {"missing": found}, findings_path=str(path))


def carried(folder: Path, ring: Ring, *before: Finding) -> list[Finding]:
    """Return what a table's findings file holds after a visit that reached none of the rows found before."""
    header = Header("run", "simulated", ring.fingerprint, "", "")
    for name, some in (("ks.t.jsonl", before), ("ks.t.jsonl.visit", ())):
        with FindingsWriter(folder / name, header) as writer:
            for finding in some:
                writer.write(finding)
    kept = FindingsFolder(folder).keep(
        report_of(folder / "ks.t.jsonl.visit", 0), "ks.t", ring, sliced=True, reached=[TokenRange(0, 1)]
    )
    assert kept.findings_path == str(folder / "ks.t.jsonl")
    return list(read_findings(folder / "ks.t.jsonl"))


@pytest.mark.parametrize("numbers", SWAPS)
def test_what_a_watch_carries_over_is_told_by_the_addresses_of_now(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """A replica that is gone by its host id: its address may be another node's."""
    scenario = Scenario()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    (finding,) = read_findings(found_by(scenario, tmp_path / "f"))
    now = moved(*numbers)
    (kept,) = carried(tmp_path, now, finding)
    names = {node.name: node.host_id for node in now.nodes}
    assert {name: view.host_id for name, view in kept.replicas.items()} == names
    assert {v.host_id: v for v in kept.replicas.values()} == {v.host_id: v for v in finding.replicas.values()}
    nodes = tuple(replace(n, host_id="new") if n.host_id == "host-2" else n for n in now.nodes)
    (kept,) = carried(tmp_path, replace(now, nodes=nodes), finding)
    assert kept.replicas["host-2"] == finding.replicas["10.0.0.2:9042"]
    assert "new" not in {view.host_id for view in kept.replicas.values()}
    assert len(kept.replicas) == 3


def test_a_watch_carries_nothing_over_from_another_cluster(tmp_path: Path) -> None:
    """Of one name, in the same directory; an old file's rows stay as they were."""
    scenario = Scenario()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    (finding,) = read_findings(found_by(scenario, tmp_path / "f"))
    assert carried(tmp_path, TWIN, finding) == []
    old = without_host_ids(finding)
    assert carried(tmp_path, moved(1, 2), old) == [old]


# Repair: between plan and apply, apply and resume, apply and undo.


def held(stage: Stage) -> dict[str, list[object]]:
    """Return what every node shows of each row, by host id."""
    stores = {node.host_id: stage.cluster.store(node, TABLE) for node in STAGE_NODES}
    now_s = EPOCH_S + int(stage.loop.now)
    return {host: [shown(s, ("t", key, c), now_s) for key, c in stage.rows] for host, s in stores.items()}


async def again(stage: Stage) -> None:
    """Look at the ring anew, as every command does."""
    stage.evidence = await CaseReader.open(stage.cluster, stage.clock)


async def undone(stage: Stage, journal: MemoryJournal) -> Tally:
    """Undo as the command does."""
    await again(stage)
    record = journal.record()
    guard = Guard(record.plan, stage.cluster, stage.writer, stage.clock)
    undoer = Undoer(stage.evidence, stage.writer, guard, stage.clock)
    return await undoer.run(record, journal, Pace(stage.clock, None), asyncio.Event(), lambda _: None)  # type: ignore[arg-type]


Tallies = list[tuple[dict[Result, int], dict[str, list[object]]]]


def story(swaps: dict[str, tuple[int, ...]], *, killed: bool = True) -> Tallies:
    """Plan, apply (with a kill and a resume, or at once) and undo, with nodes moved before each; tell all outcomes."""
    stage = Stage()
    for key, clustering in stage.rows:  # a majority, so that an undo has something to go back to
        stage.cluster.apply(
            TABLE, Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True), STAGE_NODES[1:2]
        )
    told: Tallies = []

    async def play() -> None:
        plan = await stage.plan()
        swap(stage, swaps.get("apply", ()))
        await again(stage)
        journal = await stage.begun(plan) if killed else MemoryJournal(plan, random.Random(1))
        swap(stage, swaps.get("resume", ()))
        await again(stage)
        told.append((dict((await stage.apply(plan, journal)).results), held(stage)))
        swap(stage, swaps.get("undo", ()))
        told.append((dict((await undone(stage, journal)).results), held(stage)))

    played(stage, play)
    return told


@pytest.mark.parametrize("moment", ["apply", "resume", "undo"])
@pytest.mark.parametrize("numbers", SWAPS[1:])
def test_a_repair_does_the_same_wherever_its_nodes_answer_by_then(moment: str, numbers: tuple[int, ...]) -> None:
    """Moved between plan and apply, between a kill and its resume, before an undo: every cell of every node."""
    unmoved = story({})
    assert [results for results, _ in unmoved] == [{Result.VERIFIED: 2}, {Result.UNDONE: 2}]
    assert story({moment: numbers}) == unmoved
    assert story({moment: numbers}, killed=False) == unmoved


@pytest.mark.parametrize("numbers", SWAPS)
def test_a_plan_is_the_same_wherever_the_nodes_answer_since_the_check(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """Exchanged between check and plan: the same rows by the same rules, what was seen by host id."""
    scenario = Scenario()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    path = found_by(scenario, tmp_path / "f")
    later = Scenario(swapped=numbers)
    later.fill()
    later.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    plan = later.run(lambda: make_plan(later.cluster, later.clock, path, PlanOptions()))
    (planned,) = plan.rows
    assert plan.host_ids == set(planned.seen) == {"host-1", "host-2", "host-3"}
    assert planned.seen["host-2"] == planned.seen["host-3"] != planned.seen["host-1"]


def test_another_cluster_of_the_name_is_named_as_that(tmp_path: Path) -> None:
    """By plan and by apply; a ring of which one node is left has changed."""
    scenario = Scenario()
    scenario.apply(row(1, 50, v0=int_bytes(1)), on=[1])
    path = found_by(scenario, tmp_path / "f")
    for hosts, said in (
        (("x", "y", "z"), "another cluster called 'simulated'"),
        (("host-1", "y", "z"), "ring has changed"),
    ):
        later = Scenario()
        nodes = (replace(n, host_id=h) for n, h in zip(later.nodes, hosts, strict=True))
        later.cluster.rings(replace(later.cluster.ring_before, nodes=tuple(nodes)))
        with pytest.raises(UsageError, match=said):
            later.run(lambda now=later: make_plan(now.cluster, now.clock, path, PlanOptions()))  # type: ignore[misc]
        stage = Stage()

        async def play(stage: Stage = stage, hosts: tuple[str, ...] = hosts, said: str = said) -> None:
            plan = await stage.plan()
            ring = stage.cluster.ring_before
            renamed = (replace(n, host_id=h.replace("host-", "h")) for n, h in zip(ring.nodes, hosts, strict=True))
            stage.cluster.rings(replace(ring, nodes=tuple(renamed)))
            with pytest.raises(PlanRefused, match=said):
                await Guard(plan, stage.cluster, stage.writer, stage.clock).check()

        played(stage, play)
