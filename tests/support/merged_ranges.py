"""The story of counted ranges on real servers: merged around what is to be left, and taken back to what there was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

from consistency.checking.scan import ScanOptions
from consistency.results.findings import read_findings
from consistency.results.kinds import Kind
from consistency.results.verdict import ExitCode
from repair.api import run_undo
from repair.applying.pace import ApplyOptions
from repair.applying.range_work import BESIDE
from repair.deciding.forecast import Change
from repair.deciding.mergeable import RangeMerge
from repair.keeping.entries import Result
from repair.keeping.record import read_journal
from tests.support.cluster import RunningCluster
from tests.support.repairing import Dump, Repairing, everything, results

PARTITIONS, ROWS = 400, 3
STALE, MISSING = range(150), range(150, 250)
DELETED, ZOMBIE, FUTURE = 350, 360, 370
"""Partitions: one that node 1 deleted, one with an old row on node 2 alone, one that a client ahead has written to."""
DAY_US = 86_400_000_000


def damaged(cluster: RunningCluster, base_us: int) -> None:
    """Write rows of a text, a map and a frozen list everywhere, then damage them.

    Servers before 5.0 do not tell when a map's elements were written, so the map is frozen there: one that a minority
    holds would be left as a zombie suspect, as it is row by row.
    """
    ks = cluster.keyspace("ranges")
    whole = cluster.version < (5, 0)
    maps, put = ("frozen<map<text, int>>", "m = {'a': 1, 'b': 2}") if whole else ("map<text, int>", "m['b'] = 2")
    cluster.ddl(f"CREATE TABLE {ks}.t (p int, c int, v text, m {maps}, f frozen<list<int>>, PRIMARY KEY (p, c))")
    insert = f"INSERT INTO {ks}.t (p, c, v, m, f) VALUES (?, ?, 'old', {{'a': 1}}, [1]) USING TIMESTAMP {base_us}"
    rows = [(p, c) for p in range(PARTITIONS) for c in range(ROWS)]
    cluster.load(insert, [row for row in rows if row[0] not in MISSING])
    for n in (1, 2):
        for p in MISSING:
            cluster.on(n, _batch(insert.replace("?, ?", f"{p}, {c}") for c in range(ROWS)))
    update = f"UPDATE {ks}.t USING TIMESTAMP {base_us + 1} SET v = 'new', {put}"
    for at in range(0, len(STALE), 50):
        cluster.on(1, _batch(f"{update} WHERE p = {p} AND c = 1" for p in STALE[at : at + 50]))
    cluster.on(1, f"DELETE FROM {ks}.t USING TIMESTAMP {base_us + 1} WHERE p = {DELETED}")
    cluster.on(2, f"INSERT INTO {ks}.t (p, c, v) VALUES ({ZOMBIE}, 9, 'old') USING TIMESTAMP {base_us - 300 * DAY_US}")
    cluster.on(3, f"UPDATE {ks}.t USING TIMESTAMP {base_us + DAY_US} SET v = 'late' WHERE p = {FUTURE} AND c = 0")
    cluster.on(3, f"UPDATE {ks}.t USING TIMESTAMP {base_us + 1} SET v = 'new' WHERE p = {FUTURE} AND c = 1")


def _batch(statements: Iterable[str]) -> str:
    return f"BEGIN UNLOGGED BATCH {'; '.join(statements)}; APPLY BATCH"


def told_and_held(cluster: RunningCluster, folder: Path) -> None:
    """All that differs is merged but a zombie, a future write and its neighbour; undo restores what most held."""
    base_us = time.time_ns() // 1000 - 600_000_000
    damaged(cluster, base_us)
    before = everything(cluster, "ranges", "t")
    repairing = Repairing(cluster, folder, "ranges")
    cluster.check("ranges", findings=folder / "findings.jsonl", scan=ScanOptions(max_findings=0))
    made = repairing.plan(range_merge=RangeMerge.ONLY)
    assert not made.rows
    assert made.rows_in_ranges == len(STALE) + len(MISSING) * ROWS + ROWS + 3

    tally = repairing.apply(made, ApplyOptions(rate=None))
    assert results(tally) == {Result.VERIFIED: tally.total - 3, Result.LEFT: 3}, tally
    assert tally.total == made.rows_in_ranges
    why = {"zombie-suspect", "future-write-time", BESIDE.partition(":")[0]}
    assert {reason.partition(":")[0] for _, reason in tally.reasons} == why
    assert {change: count for change, count in tally.changes.items() if count} == {
        Change.RESTORED: len(MISSING) * ROWS, Change.UPDATED: len(STALE), Change.DELETED: ROWS,
    }  # fmt: skip
    report = cluster.check("ranges", findings=folder / "after.jsonl")
    assert report.exit_code is ExitCode.DIVERGENT
    assert {(found.kind, found.key["p"]) for found in read_findings(folder / "after.jsonl")} == {
        (Kind.ZOMBIE_SUSPECT, ZOMBIE), (Kind.FUTURE_WRITE_TIME, FUTURE), (Kind.STALE, FUTURE),
    }  # fmt: skip
    _merged(before, everything(cluster, "ranges", "t"))

    journal = repairing.journal
    assert read_journal(journal).complete
    shown = cluster.command("repair", "show", str(journal))
    assert shown.returncode == ExitCode.DIVERGENT, shown.stderr
    assert "3 left-alone" in shown.stdout
    _undone(cluster, journal, before)


def _merged(before: Dump, merged: Dump) -> None:
    """Hold every replica's rows against what the merge should have left there, cell by cell."""
    touched = {f"[{p}, {c}]" for p in (*STALE, *MISSING, DELETED) for c in range(ROWS)}
    for n in (1, 2, 3):
        assert {k: v for k, v in merged[n].items() if k not in touched} == {
            k: v for k, v in before[n].items() if k not in touched
        }
        for p in (*STALE, *MISSING):
            for c in range(ROWS):
                assert merged[n][f"[{p}, {c}]"] == before[1][f"[{p}, {c}]"]
        assert not any(f"[{DELETED}, {c}]" in merged[n] for c in range(ROWS))


def _undone(cluster: RunningCluster, journal: Path, before: Dump) -> None:
    """Undo, and hold each row against what most replicas held; a second undo finds nothing to do."""
    tally = asyncio.run(run_undo(cluster.settings, journal, ApplyOptions(rate=None)))
    assert results(tally) == {Result.UNDONE: len(STALE) + len(MISSING) * ROWS + ROWS}, tally
    after = everything(cluster, "ranges", "t")
    for n in (1, 2, 3):
        assert all(f"[{DELETED}, {c}]" in after[n] for c in range(ROWS))
        assert all("'new'" not in after[n][f"[{p}, 1]"] for p in STALE)
        assert all(f"[{p}, 0]" in after[n] for p in MISSING)
        assert after[n].get(f"[{ZOMBIE}, 9]") == before[n].get(f"[{ZOMBIE}, 9]")
    assert not asyncio.run(run_undo(cluster.settings, journal, ApplyOptions(rate=None))).total
