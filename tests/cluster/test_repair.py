"""Repair on a real cluster: each kind of damage is put right, deletes win, nothing comes back, nothing else moves."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cassandra import ConsistencyLevel
from cassandra.query import SimpleStatement

from consistency.results.findings import read_findings
from consistency.results.kinds import Kind
from consistency.results.verdict import ExitCode
from repair.deciding.decide import Action, Rule
from repair.deciding.policy import Require, Zombies
from repair.keeping.entries import Result
from repair.keeping.planfile import write_plan
from repair.keeping.record import read_journal
from tests.support.cluster import RunningCluster, eventually, summary
from tests.support.damage import SHAPES, Planter
from tests.support.figures import SOAK
from tests.support.repairing import Dump, Repairing, dump, everything, results, rules, tables_of

pytestmark = pytest.mark.cluster


@pytest.fixture
def base_us() -> int:
    """A write time a minute ago."""
    return time.time_ns() // 1000 - 60_000_000


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_damage_is_put_right(cluster: RunningCluster, tmp_path: Path, shape: str) -> None:
    """Check 1, plan, apply, check 0, but for what a rule leaves alone; any other row stays as it was, byte for byte."""
    planter = Planter(cluster, cluster.keyspace("mend"))
    SHAPES[shape](planter)
    tables = tables_of(cluster, "mend")
    untouched = {table: everything(cluster, "mend", table) for table in tables}
    repairing = Repairing(cluster, tmp_path, "mend")
    before = repairing.check()
    assert before.exit_code is (ExitCode.DIVERGENT if planter.content else ExitCode.CONSISTENT), summary(before)
    made = repairing.plan()
    assert {table: everything(cluster, "mend", table) for table in tables} == untouched, "planning changed a replica"
    assert len(made.rows) == len(planter.content)
    tally = repairing.apply(made)
    left = [row for row in made.rows if row.action is Action.NONE]
    assert {row.rule for row in left} <= {Rule.ZOMBIE, Rule.FUTURE}
    assert set(results(tally)) <= {Result.VERIFIED, Result.LEFT}, tally
    after = repairing.check()
    found = {tuple(f.key_hex.items()) for f in read_findings(tmp_path / "findings.jsonl")}
    assert found == {tuple(row.ref.key_hex.items()) for row in left}, summary(after)
    for table in tables:
        was, now = untouched[table], everything(cluster, "mend", table)
        planted = {key for key in was[1].keys() | was[2].keys() | was[3].keys() if not same(was, key)}
        for n in (1, 2, 3):
            assert {k: v for k, v in now[n].items() if k not in planted} == {
                k: v for k, v in was[n].items() if k not in planted
            }, f"{table} on node {n}"
        assert all(same(now, key) for key in planted) or left


def same(held: Dump, key: str) -> bool:
    """Whether the replicas show a row alike."""
    return len({held[n].get(key) for n in (1, 2, 3)}) == 1


def test_deletes_known_to_one_replica_win(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """A cell's, a row's, a range's and a partition's delete, each on one replica alone: nothing comes back."""
    ks = cluster.keyspace("dels")
    cluster.ddl(f"CREATE TABLE {ks}.t (p int, c int, v text, w text, PRIMARY KEY (p, c))")
    for p in range(4):
        for c in range(6):
            cluster.everywhere(f"INSERT INTO dels.t (p, c, v, w) VALUES ({p}, {c}, 'v', 'w') USING TIMESTAMP {base_us}")
    later = f"USING TIMESTAMP {base_us + 1}"
    cluster.on(1, f"DELETE v FROM dels.t {later} WHERE p = 0 AND c = 1")
    cluster.on(2, f"DELETE FROM dels.t {later} WHERE p = 1 AND c = 2")
    cluster.on(3, f"DELETE FROM dels.t {later} WHERE p = 2 AND c >= 2 AND c < 5")
    cluster.on(1, f"DELETE FROM dels.t {later} WHERE p = 3")
    repairing = Repairing(cluster, tmp_path, "dels")
    _, tally = repairing.repaired()
    assert results(tally) == {Result.VERIFIED: 1 + 1 + 3 + 6}, tally
    rows = dump(cluster, "dels.t", "p, c", "v", "w")
    assert rows[1] == rows[2] == rows[3]
    assert len(rows[1]) == 24 - 1 - 3 - 6
    assert "'v': None" in rows[1]["[0, 1]"]
    assert repairing.check().exit_code is ExitCode.CONSISTENT


def test_write_back_where_the_servers_do_not_repair(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """Read_repair NONE: cells, elements and expiries are written back, and a hidden delete wins."""
    ks = cluster.keyspace("wb")
    cluster.ddl(
        f"CREATE TYPE {ks}.place (street text, no int)",
        f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text, m map<text, int>, s set<int>, u place)"
        " WITH read_repair = 'NONE' AND default_time_to_live = 100000",
    )
    for i in range(10):
        cluster.everywhere(
            f"INSERT INTO wb.t (id, v, m, s, u) VALUES ({i}, 'x', {{'a': 1, 'b': 2}}, {{1, 2}}, {{street: 'A', no: 1}})"
            f" USING TIMESTAMP {base_us} AND TTL 0"
        )
    later = f"USING TIMESTAMP {base_us + 1}"
    cluster.on(1, f"UPDATE wb.t {later} AND TTL 0 SET v = 'y' WHERE id = 0")
    cluster.on(2, f"DELETE FROM wb.t {later} WHERE id = 1")
    cluster.on(3, f"DELETE v FROM wb.t {later} WHERE id = 2")
    cluster.on(1, f"DELETE m['a'] FROM wb.t {later} WHERE id = 3")
    cluster.on(2, f"UPDATE wb.t {later} AND TTL 500 SET m['c'] = 3 WHERE id = 4")
    cluster.on(3, f"UPDATE wb.t {later} AND TTL 0 SET s = s + {{9}} WHERE id = 5")
    cluster.on(1, f"UPDATE wb.t {later} AND TTL 0 SET u.street = 'B' WHERE id = 6")
    cluster.on(2, f"INSERT INTO wb.t (id, v) VALUES (100, 'new') {later} AND TTL 900")
    repairing = Repairing(cluster, tmp_path, "wb")
    made, tally = repairing.repaired()
    assert {row.action for row in made.rows} == {Action.WRITE_BACK}
    assert results(tally) == {Result.VERIFIED: 8}, tally
    rows = dump(cluster, "wb.t", "id", "v", "m", "s", "u")
    assert rows[1] == rows[2] == rows[3]
    assert "[1]" not in rows[1]
    assert "'v': None" in rows[1]["[2]"]
    assert f"'w_v': {base_us + 1}" in rows[3]["[100]"]
    assert cluster.on(3, "SELECT ttl(v) FROM wb.t WHERE id = 0").one()["ttl(v)"] is None
    assert repairing.check().exit_code is ExitCode.CONSISTENT


@pytest.fixture(scope="module")
def undead(cluster: RunningCluster) -> str:
    """In a table for each policy: a row on node 1 alone, older than gc_grace; its delete was purged on the others."""
    ks = cluster.keyspace("undead")
    old = time.time_ns() // 1000 - 3600 * 1_000_000
    for policy in Zombies:
        table = f"{ks}.{policy.value}"
        cluster.ddl(f"CREATE TABLE {table} (id int PRIMARY KEY, v text) WITH gc_grace_seconds = 1")
        for i in range(5):
            cluster.everywhere(f"INSERT INTO {table} (id, v) VALUES ({i}, 'v') USING TIMESTAMP {old}")
        for n in (2, 3):
            cluster.on(n, f"DELETE FROM {table} USING TIMESTAMP {old + 1} WHERE id = 3")
    time.sleep(2)
    if cluster.sandbox is None:
        pytest.skip("purges tombstones by nodetool, which needs our own sandbox")
    for n in (2, 3):
        cluster.sandbox.nodetool(n, "flush", ks)
        cluster.sandbox.nodetool(n, "compact", ks)
    return ks


@pytest.mark.parametrize(
    ("zombies", "holders", "rule_acts"),
    [(Zombies.QUARANTINE, {1}, False), (Zombies.PURGE, set(), True), (Zombies.RESTORE, {1, 2, 3}, True)],
)
def test_zombies_are_left_restored_or_purged_as_asked(
    cluster: RunningCluster, tmp_path: Path, undead: str, zombies: Zombies, holders: set[int], rule_acts: bool
) -> None:
    """Quarantined by default; purged or restored where the operator says so."""
    table = f"{undead}.{zombies.value}"
    repairing = Repairing(cluster, tmp_path, table)
    made, tally = repairing.repaired(zombies=zombies)
    assert rules(made) == {Rule.ZOMBIE}
    assert set(results(tally)) == {Result.VERIFIED if rule_acts else Result.LEFT}, tally
    held = {n for n in (1, 2, 3) if cluster.on(n, f"SELECT id FROM {table} WHERE id = 3").one()}
    assert held == holders
    report = repairing.check()
    assert report.exit_code is (ExitCode.CONSISTENT if rule_acts else ExitCode.DIVERGENT), summary(report)


def test_a_static_repair_does_not_raise_the_first_row(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """The static row is merged alone: a quarantined row in the same partition stays where it is."""
    ks = cluster.keyspace("stat")
    cluster.ddl(f"CREATE TABLE {ks}.t (p int, c int, s text static, v text, PRIMARY KEY (p, c))")
    cluster.everywhere(f"INSERT INTO stat.t (p, c, s, v) VALUES (1, 5, 's', 'v') USING TIMESTAMP {base_us}")
    cluster.on(1, f"UPDATE stat.t USING TIMESTAMP {base_us + 1} SET s = 'newer' WHERE p = 1")
    cluster.on(2, "INSERT INTO stat.t (p, c, v) VALUES (1, 1, 'undead') USING TIMESTAMP 1000")
    repairing = Repairing(cluster, tmp_path, "stat")
    made, tally = repairing.repaired()
    assert rules(made) == {Rule.LAST_WRITE, Rule.ZOMBIE}
    assert results(tally) == {Result.VERIFIED: 1, Result.LEFT: 1}, tally
    assert not list(cluster.on(1, "SELECT * FROM stat.t WHERE p = 1 AND c = 1"))
    assert cluster.on(3, "SELECT s FROM stat.t WHERE p = 1").one()["s"] == "newer"


def test_copies_that_differ_in_their_expiry_alone_get_the_latest(
    cluster: RunningCluster, tmp_path: Path, base_us: int
) -> None:
    """A write with a TTL that is tried again by another coordinator, a second later: the servers' digests are alike."""
    ks = cluster.keyspace("expiries")
    cluster.ddl(
        f"CREATE TABLE {ks}.alone (id int PRIMARY KEY, v text, m map<text, int>)",
        f"CREATE TABLE {ks}.wide (p int, c int, d int, s text static, v text, PRIMARY KEY (p, c, d))",
    )
    until = f"USING TIMESTAMP {base_us} AND TTL 90000"
    for n in (1, 2, 3):
        for change in (
            f"UPDATE {ks}.alone {until} SET v = 'v' WHERE id = 1",
            f"UPDATE {ks}.alone {until} SET m['a'] = 1 WHERE id = 2",
            f"INSERT INTO {ks}.alone (id, v) VALUES (3, 'v') {until}",
            f"UPDATE {ks}.wide {until} SET v = 'v' WHERE p = 1 AND c = 1 AND d = 1",
            f"UPDATE {ks}.wide {until} SET s = 's' WHERE p = 2",
        ):
            cluster.on(n, change)
        if n < 3:
            time.sleep(1.1)
    repairing = Repairing(cluster, tmp_path, ks)
    made, tally = repairing.repaired()
    assert rules(made) == {Rule.EXPIRY}
    assert results(tally) == {Result.VERIFIED: 5}, tally.reasons
    assert repairing.check().exit_code is ExitCode.CONSISTENT


def test_a_newer_write_survives_and_is_named(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """What was written between plan and apply stays, and its row is skipped; the others are repaired."""
    ks = cluster.keyspace("newer")
    cluster.ddl(f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text)")
    for i in range(50):
        cluster.everywhere(f"INSERT INTO newer.t (id, v) VALUES ({i}, 'v') USING TIMESTAMP {base_us}")
    for i in range(5):
        cluster.on(1, f"UPDATE newer.t USING TIMESTAMP {base_us + 1} SET v = 'w' WHERE id = {i}")
    untouched = dump(cluster, "newer.t", "id", "v")
    repairing = Repairing(cluster, tmp_path, "newer")
    repairing.check()
    made = repairing.plan()
    cluster.on(2, "UPDATE newer.t SET v = 'from the application' WHERE id = 3")
    tally = repairing.apply(made)
    assert results(tally) == {Result.VERIFIED: 4, Result.SKIPPED: 1}
    assert any("changed since" in reason for _, reason in tally.reasons)
    assert cluster.on(2, "SELECT v FROM newer.t WHERE id = 3").one()["v"] == "from the application"
    assert cluster.on(3, "SELECT v FROM newer.t WHERE id = 3").one()["v"] == "v", "the row was written to"
    now = dump(cluster, "newer.t", "id", "v")
    for n in (1, 2, 3):
        assert {k: now[n][k] for k in now[n] if int(k[1:-1]) >= 5} == {
            k: untouched[n][k] for k in untouched[n] if int(k[1:-1]) >= 5
        }


def test_apply_twice_changes_nothing_the_second_time(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """The second run finds every row agreed, and writes nothing."""
    _spread(cluster, base_us, 20)
    repairing = Repairing(cluster, tmp_path, "kill")
    made, first = repairing.repaired()
    before = dump(cluster, "kill.t", "id", "v")
    second = repairing.apply(made)
    assert results(first) == results(second) == {Result.VERIFIED: 20}
    assert dump(cluster, "kill.t", "id", "v") == before
    assert all(entry.before is None for entry in read_journal(repairing.journal).entries.values())


def _spread(cluster: RunningCluster, base_us: int, rows: int) -> None:
    ks = cluster.keyspace("kill")
    cluster.ddl(f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text)")
    cluster.load(f"INSERT INTO kill.t (id, v) VALUES (?, 'v') USING TIMESTAMP {base_us}", [(i,) for i in range(rows)])
    for i in range(rows):
        cluster.on(i % 3 + 1, f"UPDATE kill.t USING TIMESTAMP {base_us + 1} SET v = 'w' WHERE id = {i}")


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=SOAK) for n in (1, 2, 3, 4))])
def test_a_repair_that_is_killed_again_and_again_is_resumed_to_its_end(
    cluster: RunningCluster, tmp_path: Path, base_us: int, number: int
) -> None:
    """Apply and each resume killed, four times a round: the next ends verified, the journal whole, nothing doubled."""
    rows, rng = 90, random.Random(number)
    _spread(cluster, base_us, rows)
    repairing = Repairing(cluster, tmp_path, "kill")
    repairing.check()
    plan_path, journal = tmp_path / "plan.jsonl", tmp_path / "journal.jsonl"
    write_plan(plan_path, repairing.plan())
    first = ["apply", str(plan_path), "--journal", str(journal)]
    for begun in range(4):
        words = first if begun == 0 else ["resume", str(journal)]
        grown = (journal.read_bytes().count(b"\n") if begun else 0) + rng.randint(1, 30)
        _killed(cluster, [*words, "--rate", "60", "--yes"], journal, grown)
        assert not read_journal(journal).complete
    resumed = cluster.command("repair", "resume", str(journal), "--yes", *cluster.host_options)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    record = read_journal(journal)
    assert record.complete
    assert {entry.result for entry in record.entries.values()} == {Result.VERIFIED}
    assert journal.read_bytes().count(b'{"outcome"') == rows, "a row has two outcomes"
    again = cluster.command("repair", "resume", str(journal), *cluster.host_options)
    assert (again.returncode, "nothing is left to do" in again.stdout) == (0, True), again.stdout + again.stderr
    assert repairing.check().exit_code is ExitCode.CONSISTENT
    held = dump(cluster, "kill.t", "id", "v")
    assert held[1] == held[2] == held[3]
    assert all(f"'w_v': {base_us + 1}" in text for text in held[1].values())


def lines(path: Path) -> int:
    """Return the whole lines of a file."""
    return path.read_bytes().count(b"\n")


def _killed(cluster: RunningCluster, words: list[str], journal: Path, grown: int) -> None:
    command = [sys.executable, "-m", "consistency", "repair", *words, *cluster.host_options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: journal.exists() and lines(journal) >= grown, what="the journal's growth")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_undo_brings_back_what_most_replicas_held(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """The minority's value is taken back by a new write, everywhere; undone twice changes nothing more."""
    _spread(cluster, base_us, 6)
    repairing = Repairing(cluster, tmp_path, "kill")
    repairing.repaired()
    cluster.everywhere("UPDATE kill.t SET v = 'later' WHERE id = 5")
    undone = cluster.command("repair", "undo", str(repairing.journal), "--yes", *cluster.host_options)
    assert undone.returncode == 1, undone.stdout + undone.stderr
    assert "written to since" in " ".join(undone.stdout.split())
    rows = {row["id"]: row["v"] for row in cluster.on(2, "SELECT id, v FROM kill.t")}
    assert rows == {0: "v", 1: "v", 2: "v", 3: "v", 4: "v", 5: "later"}
    assert repairing.check().exit_code is ExitCode.CONSISTENT
    before = dump(cluster, "kill.t", "id", "v")
    again = cluster.command("repair", "undo", str(repairing.journal), "--yes", *cluster.host_options)
    assert again.returncode == 1, "what could not be undone cannot be the second time either"
    assert dump(cluster, "kill.t", "id", "v") == before


def test_an_undo_brings_nothing_back_into_a_truncated_table(
    cluster: RunningCluster, tmp_path: Path, base_us: int
) -> None:
    """Rows that the repair deleted are absent before and after TRUNCATE: the nodes' own records tell of it."""
    _spread(cluster, base_us, 3)
    for i in range(3):
        cluster.on(1, f"DELETE FROM kill.t USING TIMESTAMP {base_us + 10} WHERE id = {i}")
    repairing = Repairing(cluster, tmp_path, "kill")
    repairing.repaired()
    assert list(cluster.everywhere("SELECT id FROM kill.t WHERE id IN (0, 1, 2)")) == []
    cluster.session.execute("TRUNCATE kill.t", timeout=120)
    undone = cluster.command("repair", "undo", str(repairing.journal), "--yes", *cluster.host_options)
    assert undone.returncode == 1, undone.stdout + undone.stderr
    assert "truncated since" in " ".join(undone.stdout.split())
    assert list(cluster.everywhere("SELECT id FROM kill.t")) == []


def test_bad_plans_and_other_rings_write_nothing(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """A plan for another ring or cluster, edited or cut short: one line, an exit code, no journal, no write."""
    _spread(cluster, base_us, 3)
    repairing = Repairing(cluster, tmp_path, "kill")
    repairing.check()
    made = repairing.plan()
    before = dump(cluster, "kill.t", "id", "v")
    texts = {
        "ring": (replace(made, ring="0" * 32).text(), 4),
        "cluster": (replace(made, cluster="another").text(), 4),
        "table": (replace(made, tables={"kill.t": "0" * 32}).text(), 4),
        "edited": (made.text().replace('"reconcile"', '"purge"'), 2),
        "cut": (made.text()[:-30], 2),
        "older": (made.text().replace('{"schema":1', '{"schema":0', 1), 2),
        "open": (made.text(), 2),
    }
    for name, (text, code) in texts.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(text)
        path.chmod(0o644 if name == "open" else 0o600)
        journal = tmp_path / f"{name}.journal"
        ran = cluster.command("repair", "apply", str(path), "--journal", str(journal), "--yes", *cluster.host_options)
        assert ran.returncode == code, (name, ran.stderr)
        assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
        assert not journal.exists()
    unattended = tmp_path / "plan.jsonl"
    write_plan(unattended, made)
    ran = subprocess.run(
        [sys.executable, "-m", "consistency", "repair", "apply", str(unattended), "--journal", str(tmp_path / "j"),
         *cluster.host_options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "--yes" in ran.stderr
    assert dump(cluster, "kill.t", "id", "v") == before


def test_rows_wait_for_a_replica_that_is_down(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """With a quorum up the others are merged and the row waits for the node; with --require all nothing is done."""
    if cluster.sandbox is None:
        pytest.skip("stops a node, which only our own sandbox may")
    _spread(cluster, base_us, 9)
    repairing = Repairing(cluster, tmp_path, "kill")
    repairing.check()
    cluster.sandbox.stop(3)
    try:
        assert rules(repairing.plan(require=Require.ALL)) == {Rule.TOO_FEW}
        made = repairing.plan()
        assert rules(made) == {Rule.LAST_WRITE, Rule.WAITS}
        assert results(repairing.apply(made)) == {Result.WAITING: 9}
        rows = dump(cluster, "kill.t", "id", "v", nodes=(1, 2))
        assert rows[1] == rows[2]
    finally:
        cluster.sandbox.start(3)
    assert repairing.check().findings_by_kind.keys() <= {Kind.STALE}


def test_a_foreground_writer_loses_nothing(cluster: RunningCluster, tmp_path: Path, base_us: int) -> None:
    """Rows under repair are written to all the while: each ends at its writer's last value, or repaired."""
    _spread(cluster, base_us, 150)
    repairing = Repairing(cluster, tmp_path, "kill")
    repairing.check()
    made = repairing.plan()
    log: dict[int, str] = {}
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            row, value = number * 7 % 150, f"fg{number}"
            cluster.session.execute(
                SimpleStatement(
                    f"UPDATE kill.t SET v = '{value}' WHERE id = {row}", consistency_level=ConsistencyLevel.QUORUM
                )
            )
            log[row] = value
            number += 1
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    tally = repairing.apply(made)
    stop.set()
    writer.join()
    assert set(results(tally)) <= {Result.VERIFIED, Result.SKIPPED, Result.DIVERGENT}, tally
    assert log
    held = {row["id"]: row["v"] for row in cluster.everywhere("SELECT id, v FROM kill.t")}
    assert {row: held[row] for row in log} == log
    assert {held[row] for row in set(range(150)) - set(log)} <= {"w"}
