"""Deleted, or never arrived: on a real cluster a forecast is right or unknown, never wrong."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.model.reading import Locality
from consistency.results.forecast import Forecast
from repair.api import run_undo
from repair.applying.pace import ApplyOptions
from repair.deciding.decide import Action
from repair.deciding.forecast import Change
from repair.keeping.journal import Result
from tests.support.cluster import RunningCluster
from tests.support.deletes import Deletes, told_and_done
from tests.support.figures import SOAK
from tests.support.repairing import Repairing

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("locality", [Locality.NODE_LOCAL, pytest.param(Locality.TRACED, marks=SOAK)])
def test_what_is_forecast_happens(cluster: RunningCluster, tmp_path: Path, locality: Locality) -> None:
    """Deletes of every reach, and rows that never arrived: these are known, and what happens is what is counted.

    In memtables in one locality, on disk and compacted with other rows in the other.
    """
    name = f"fate_{locality.value.replace('-', '')}"
    deletes = Deletes(cluster, name, time.time_ns() // 1000 - 60_000_000)
    deletes.plant()
    time.sleep(1.5)  # until what has a time to live of a second has expired
    if locality is Locality.NODE_LOCAL and cluster.sandbox is not None:
        deletes.flush()
    seen = told_and_done(deletes, tmp_path, locality)
    assert seen[Forecast.RESTORE]
    assert seen[Forecast.UNKNOWN]


def test_a_large_partition_that_its_delete_takes_comes_back_with_an_undo(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    """600 rows, deleted with their partition through node 1: stopped, let through, and undone, all of them."""
    ks = cluster.keyspace("fate_large")
    cluster.ddl(f"CREATE TABLE {ks}.t (p int, c int, v text, PRIMARY KEY (p, c))")
    base_us = time.time_ns() // 1000 - 60_000_000
    for at in range(0, 600, 100):
        rows = (
            f"INSERT INTO {ks}.t (p, c, v) VALUES (1, {c}, 'v') USING TIMESTAMP {base_us}" for c in range(at, at + 100)
        )
        cluster.everywhere(f"BEGIN UNLOGGED BATCH {'; '.join(rows)}; APPLY BATCH")
    cluster.on(1, f"DELETE FROM {ks}.t USING TIMESTAMP {base_us + 1} WHERE p = 1")
    repairing = Repairing(cluster, tmp_path, ks)
    report = repairing.check()
    (cause,) = report.likely_causes
    assert cause.sentence.endswith(
        "or were the rows that it lacks, 600 of 1 partition, deleted with these through it alone?"
    )
    made = repairing.plan()
    assert made.forecast == {Forecast.UNKNOWN: 600}
    assert repairing.apply(made, ApplyOptions(None, max_deletes=0)).stopped_at == 0
    tally = repairing.apply(made, ApplyOptions(None, max_deletes=600))
    assert (tally.stopped_at, tally.deleted) == (None, 600)
    undone = asyncio.run(run_undo(cluster.settings, repairing.journal, ApplyOptions(None)))
    assert undone.changes == {Change.RESTORED: 600}
    for n in (1, 2, 3):
        assert cluster.on(n, f"SELECT count(*) AS rows FROM {ks}.t").one()["rows"] == 600


def test_rows_that_a_plan_leaves_and_a_merge_takes_are_counted_and_come_back(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    """Twenty rows, deleted with their partition through node 1, of which three are planned: all go, and come back."""
    ks = cluster.keyspace("fate_beside")
    cluster.ddl(f"CREATE TABLE {ks}.t (p int, c int, v text, PRIMARY KEY (p, c))")
    base_us = time.time_ns() // 1000 - 60_000_000
    for c in range(20):
        cluster.everywhere(f"INSERT INTO {ks}.t (p, c, v) VALUES (1, {c}, 'v') USING TIMESTAMP {base_us}")
    cluster.on(1, f"DELETE FROM {ks}.t USING TIMESTAMP {base_us + 1} WHERE p = 1")
    repairing = Repairing(cluster, tmp_path, ks)
    repairing.check()
    whole = repairing.plan()
    made = replace(
        whole, rows=tuple(replace(row, action=Action.NONE) if n > 2 else row for n, row in enumerate(whole.rows))
    )
    assert repairing.apply(made, ApplyOptions(None, max_deletes=0)).stopped_at == 0
    assert cluster.on(2, f"SELECT count(*) AS rows FROM {ks}.t").one()["rows"] == 20
    tally = repairing.apply(made, ApplyOptions(None, max_deletes=20))
    assert (tally.results[Result.VERIFIED], tally.results[Result.LEFT], tally.deleted) == (3, 17, 20)
    undone = asyncio.run(run_undo(cluster.settings, repairing.journal, ApplyOptions(None)))
    assert undone.changes == {Change.RESTORED: 20}
    for n in (1, 2, 3):
        assert cluster.on(n, f"SELECT count(*) AS rows FROM {ks}.t").one()["rows"] == 20
