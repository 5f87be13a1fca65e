"""Two real clusters, three nodes and one: exactly the damage on either side is found, dual writes raise no alarm."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from consistency import (
    Compare,
    PairRange,
    Read,
    Side,
    Verdict,
    read_compared,
)
from consistency.checking.scan import ScanOptions
from repair import Extra, Result, SyncOptions, sync_plan
from tests.support.cluster import RunningCluster
from tests.support.figures import LONG, Figures
from tests.support.pairs import Both, DualWrites, copied, held, named, synced

pytestmark = pytest.mark.cluster

ROWS = 400
POINTS = 10 if LONG else 3
"""At how many points a sync is killed."""


@pytest.fixture(scope="module")
def both(cluster: RunningCluster, target: RunningCluster) -> Both:
    """Both clusters with rows that are the same, and damage of every kind on either side."""
    pair = Both(cluster, target)
    pair.make("two")
    for at in range(0, ROWS, 50):
        flat = [f"INSERT INTO two.flat (id, v, w) VALUES ({i}, 'v{i}', {i})" for i in range(at, at + 50)]
        wide = [
            f"INSERT INTO two.wide (p, c, v, m, l) VALUES ({i // 20}, {i % 20}, 'v', {{'a': {i}, 'b': 1}}, ['x', 'y'])"
            for i in range(at, at + 50)
        ]
        statics = [f"INSERT INTO two.wide (p, s) VALUES ({i // 20}, 's')" for i in range(at, at + 50)]
        pair.everywhere(f"BEGIN UNLOGGED BATCH USING TIMESTAMP @ {'; '.join([*flat, *wide, *statics])}; APPLY BATCH")
    for i in range(5):
        pair.everywhere(f"UPDATE two.hits SET n = n + {i} WHERE id = {i}")
    damage(pair)
    return pair


def damage(pair: Both) -> None:
    """Make rows differ, each in a way of its own; a few on replicas of the source alone."""
    source, target = Side.SOURCE, Side.TARGET
    for i in (1, 2):
        pair.write(target, f"DELETE FROM two.flat USING TIMESTAMP @ WHERE id = {i}", 5)
        pair.expect("flat", "only_source", id=i)
    pair.write(source, "DELETE FROM two.flat USING TIMESTAMP @ WHERE id = 3", 5)
    pair.expect("flat", "only_target", id=3)
    pair.write(target, "INSERT INTO two.flat (id, v) VALUES (9001, 'more') USING TIMESTAMP @")
    pair.expect("flat", "only_target", id=9001)
    pair.write(source, "UPDATE two.flat USING TIMESTAMP @ SET v = 'other' WHERE id = 4", 5)
    pair.expect("flat", "value", id=4)
    pair.write(target, "DELETE w FROM two.flat USING TIMESTAMP @ WHERE id = 5", 5)
    pair.expect("flat", "value", id=5)
    pair.write(target, "INSERT INTO two.flat (id, v, w) VALUES (6, 'v6', 6) USING TIMESTAMP @", 2_000_000)
    pair.expect("flat", "writetime", id=6)
    for side, ttl in ((source, 90_000), (target, 95_000)):
        pair.write(side, f"INSERT INTO two.flat (id, v, w) VALUES (7, 'v', 7) USING TIMESTAMP @ AND TTL {ttl}", 5)
    pair.write(target, "UPDATE two.wide USING TIMESTAMP @ SET s = 'other' WHERE p = 1", 5)
    pair.expect("wide", "value", p=1)
    pair.write(source, "UPDATE two.wide USING TIMESTAMP @ SET m['b'] = 2 WHERE p = 2 AND c = 1", 5)
    pair.expect("wide", "value", p=2, c=1)
    pair.write(source, "UPDATE two.wide USING TIMESTAMP @ SET m['b'] = 1 WHERE p = 2 AND c = 2", 2_000_000)
    pair.expect("wide", "writetime", p=2, c=2)
    pair.write(target, "UPDATE two.wide USING TIMESTAMP @ SET l = l + ['z'] WHERE p = 2 AND c = 3", 5)
    pair.expect("wide", "value", p=2, c=3)
    pair.write(target, "DELETE FROM two.wide USING TIMESTAMP @ WHERE p = 3 AND c = 4", 5)
    pair.expect("wide", "only_source", p=3, c=4)
    pair.write(target, "UPDATE two.hits SET n = n + 1 WHERE id = 2")
    pair.expect("hits", "value", id=2)
    # One replica of the source is ahead, one lacks a row: the target holds what the source's replicas come to.
    stale = f"USING TIMESTAMP {pair.then_us + 5} SET v = 'newest' WHERE id"
    pair.source.on(2, f"UPDATE two.flat {stale} = 8")
    pair.target.everywhere(f"UPDATE two.flat {stale} = 8")
    pair.source.on(3, f"DELETE FROM two.flat USING TIMESTAMP {pair.then_us + 5} WHERE id = 10")


INNER = {("flat", "stale", '{"id": 8}'), ("flat", "missing", '{"id": 10}')}


def test_exactly_the_damage_is_found_by_its_right_name(both: Both, tmp_path: Path, figures: Figures) -> None:
    """On either side, in every shape of table; what one side disagrees on is told apart."""
    path = tmp_path / "f.jsonl"
    result = both.compare("two", findings=path)
    assert named(path) == (both.expected, INNER)
    assert result.verdict is Verdict.DIVERGENT
    assert result.coverage.complete
    assert {table.report.scheme.rsplit("/")[-1] for table in result.tables} == {"mask_hash"}
    figures.add("two clusters: rows damaged on either side and found by name", str(len(both.expected) + len(INNER)))


def test_workers_find_the_same(both: Both, tmp_path: Path) -> None:
    """Two processes, each connected to both clusters: the command's file is that of one process, line by line."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    both.compare("two", findings=alone)
    to = ["--target-hosts", ",".join(both.target.hosts), "--target-port", str(both.target.port)]
    told = ["--findings", str(shared), "--settle", "0.3", "--quiet", "--workers", "2"]
    done = both.source.command("compare", "two", *to, *told)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named(shared) == (both.expected, INNER)
    lines = [sorted(path.read_text().splitlines()[1:]) for path in (alone, shared)]
    assert lines[0] == lines[1]


def test_what_is_compared_decides_what_is_found(both: Both, tmp_path: Path) -> None:
    """Write times that differ are none of values; expiries are found only where they are asked for."""
    path = tmp_path / "f.jsonl"
    both.compare("two", findings=path, compare=Compare.VALUES)
    assert named(path)[0] == {found for found in both.expected if found[1] != "writetime"}
    both.compare("two", findings=path, compare=Compare.EXPIRIES)
    assert named(path)[0] == both.expected | {("flat", "expiry", '{"id": 7}')}
    both.compare("two", findings=path, tolerate_writetime_s=2.0)
    assert named(path)[0] == {found for found in both.expected if found[1] != "writetime"}


def test_rows_that_are_counted_are_the_same_rows(both: Both, tmp_path: Path) -> None:
    """By range and kind."""
    path = tmp_path / "f.jsonl"
    result = both.compare("two", findings=path, scan=ScanOptions(max_findings=0))
    kinds = [kind for _, kind, _ in both.expected]
    assert result.findings_by_kind == {kind: kinds.count(kind) for kind in sorted(set(kinds), key=order)}
    assert sum(result.inner[Side.SOURCE].values()) == len(INNER)
    assert all(isinstance(found, PairRange) for found in read_compared(path))


def order(kind: str) -> int:
    """Return where a kind stands among them."""
    return ["only_source", "only_target", "value", "writetime", "expiry"].index(kind)


def test_a_quorum_of_each_side_says_the_same_of_a_table(both: Both, tmp_path: Path) -> None:
    """Of one on which the source agrees with itself."""
    path = tmp_path / "f.jsonl"
    result = both.compare("two.wide", findings=path, read=Read.QUORUM)
    assert named(path)[0] == {found for found in both.expected if found[0] == "wide"}
    assert {table.report.locality for table in result.tables} == {"quorum"}


def test_dual_writes_raise_no_alarm_and_hide_nothing(both: Both, tmp_path: Path, figures: Figures) -> None:
    """Rows are written to one cluster, then to the other, all the time; a row that one of them lost is found."""
    both.make("live")
    for i in range(1_000, 1_150):
        both.everywhere(f"INSERT INTO live.flat (id, v, w) VALUES ({i}, 'v', 1) USING TIMESTAMP @")
    both.write(Side.SOURCE, "INSERT INTO live.flat (id, v) VALUES (1, 'lost in the target') USING TIMESTAMP @")
    path = tmp_path / "f.jsonl"
    with DualWrites(both, "live.flat") as writes:
        for _ in range(3):
            result = both.compare("live.flat", findings=path, settle_s=1.0)
            assert named(path) == ({("flat", "only_source", '{"id": 1}')}, set())
            assert result.tables[0].report.unsettled_rows == 0
    figures.add("two clusters: dual writes during three comparisons, none a false finding", f"{writes.written:,}")


def test_a_sync_makes_the_target_equal_and_touches_nothing_else(
    cluster: RunningCluster, target: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """Cells come with their own write times and expiries; what is newer, extra or a list stays, and is named."""
    pair = Both(cluster, target)
    copied(pair, "copied")
    target.ddl("ALTER TABLE copied.flat WITH default_time_to_live = 864000")  # which no cell that is brought gets
    source, there = Side.SOURCE, Side.TARGET
    for i in range(60):
        pair.write(source, f"INSERT INTO copied.flat (id, v, w) VALUES ({9_000 + i}, 'n', 1) USING TIMESTAMP @", i)
    pair.write(source, "INSERT INTO copied.flat (id, v) VALUES (9900, 'ends') USING TIMESTAMP @ AND TTL 90000")
    pair.write(source, "UPDATE copied.flat USING TIMESTAMP @ SET v = 'newer' WHERE id = 1", 5)
    pair.write(
        source, "UPDATE copied.wide USING TIMESTAMP @ SET m['a'] = -1, m['b'] = 2, t = t + {3} WHERE p = 1 AND c = 1", 5
    )
    pair.write(source, "UPDATE copied.wide USING TIMESTAMP @ SET u.y = 'z', s = 'other' WHERE p = 2 AND c = 1", 5)
    pair.write(there, "UPDATE copied.flat USING TIMESTAMP @ SET v = 'of the target' WHERE id = 2", 7)
    pair.write(source, "UPDATE copied.flat USING TIMESTAMP @ SET v = 'older' WHERE id = 2", 5)
    pair.write(there, "INSERT INTO copied.flat (id, v) VALUES (9999, 'extra') USING TIMESTAMP @")
    pair.write(there, "UPDATE copied.wide USING TIMESTAMP @ SET m['z'] = 1 WHERE p = 3 AND c = 1", 5)
    pair.write(source, "INSERT INTO copied.left (id, l, v) VALUES (1, [1, 2], 'v') USING TIMESTAMP @")
    given = held(cluster, "copied")
    tally = synced(pair, "copied", tmp_path)
    assert (tally.results[Result.VERIFIED], tally.results[Result.LEFT]) == (60 + 5, 4), tally
    assert held(cluster, "copied") == given, "nothing is written to the source"
    apart = {table: len(rows ^ given[table]) for table, rows in held(target, "copied").items()}
    assert apart == {"flat": 3, "wide": 2, "left": 1}, "one newer, one extra, one with an extra element, and a list"
    again = synced(pair, "copied", tmp_path, extra=Extra.DELETE, max_deletes=1)
    assert again.stopped_at == 1
    last = synced(pair, "copied", tmp_path, extra=Extra.DELETE)
    assert set(last.results) == {Result.VERIFIED, Result.LEFT}
    apart = {table: len(rows ^ given[table]) for table, rows in held(target, "copied").items()}
    assert apart == {"flat": 2, "wide": 0, "left": 1}
    figures.add("rows synced between two clusters, proven cell by cell", str(60 + 5))


def _lines(path: str) -> int:
    """Count the lines that a file has by now."""
    try:
        return Path(path).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def test_a_sync_that_is_killed_goes_on_where_it_was(
    cluster: RunningCluster, target: RunningCluster, tmp_path: Path
) -> None:
    """With kill -9 at any time, then resume: equal, and undo leaves the target as it was."""
    pair = Both(cluster, target)
    copied(pair, "killed", 50)
    before = held(target, "killed")
    for i in range(600):
        pair.write(Side.SOURCE, f"INSERT INTO killed.flat (id, v, w) VALUES ({9_000 + i}, 'n', 1) USING TIMESTAMP @", i)
    pair.write(Side.SOURCE, "UPDATE killed.wide USING TIMESTAMP @ SET v = 'w' WHERE p = 1 AND c = 1", 5)
    to = [*cluster.host_options, "--target-hosts", ",".join(target.hosts), "--target-port", str(target.port), "--yes"]
    findings, plan, journal = (str(tmp_path / what) for what in ("findings", "plan", "journal"))
    pair.compare("killed", findings=Path(findings))
    reach = {"settings": pair.source.settings, "target_settings": pair.target.settings}
    sync_plan(findings, plan, options=SyncOptions(settle_s=0.3), **reach)
    arguments = ["apply", plan, "--journal", journal]
    lines = _lines(plan)
    for point in range(1, POINTS + 1):  # two lines a row come after those of the plan, in the ten parts of all of them
        command = [sys.executable, "-m", "consistency", "sync", *arguments, "--rate", "200", *to]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=cluster.environ())
        deadline, reached = time.monotonic() + 60, lines + 2 * 601 * point // (POINTS + 1)
        while _lines(journal) < reached and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if Path(journal).exists():
            arguments = ["resume", journal]
    ended = cluster.command("sync", *arguments, *to)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert held(target, "killed") == held(cluster, "killed")
    undone = cluster.command("sync", "undo", journal, *to)
    assert undone.returncode == 0, undone.stdout + undone.stderr
    left = held(target, "killed")
    assert left["flat"] == before["flat"]
    assert len(left["wide"] ^ before["wide"]) == 2, "one row is as it was, with a new write time"


def test_dual_writes_go_on_during_a_sync(
    cluster: RunningCluster, target: RunningCluster, tmp_path: Path, figures: Figures
) -> None:
    """Rows that are written all the time are none of the sync's; one that was lost is brought, and nothing is lost."""
    pair = Both(cluster, target)
    copied(pair, "dual", 50)
    pair.write(Side.SOURCE, "INSERT INTO dual.flat (id, v) VALUES (5000, 'lost in the target') USING TIMESTAMP @")
    with DualWrites(pair, "dual.flat") as writes:
        time.sleep(1.0)
        tally = synced(pair, "dual", tmp_path)
    assert tally.results[Result.VERIFIED] >= 1
    assert not set(tally.results) - {Result.VERIFIED, Result.LEFT, Result.SKIPPED}, tally
    assert held(target, "dual") == held(cluster, "dual")
    figures.add("dual writes during a sync, none lost", f"{writes.written:,}")
