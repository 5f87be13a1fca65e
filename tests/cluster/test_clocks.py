"""Writers whose clocks are about a minute ahead, and the servers' own clocks and timeouts, on a real cluster."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from consistency.cluster.session import open_cluster
from consistency.results.kinds import Kind
from consistency.results.verdict import Verdict
from tests.support.cluster import RunningCluster, summary

pytestmark = pytest.mark.cluster


def test_rows_that_stop_being_in_the_future_end_no_check(cluster: RunningCluster, tmp_path: Path) -> None:
    """A client a little over a minute ahead keeps writing: a row is a future write or nothing, whenever it is read."""
    name = f"{cluster.keyspace('ahead', 3)}.t"
    cluster.ddl(f"CREATE TABLE {name} (id int PRIMARY KEY, v text)")
    insert = f"INSERT INTO {name} (id, v) VALUES (?, ?) USING TIMESTAMP ?"
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            now_us = time.time_ns() // 1000
            # Those a hair beyond the limit leave the future while they are looked at.
            cluster.load(insert, [(i, "x", now_us + 60_000_000 + i * 2_000) for i in range(500)])

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        for number in range(2):
            report, found = cluster.findings(tmp_path / f"{number}.jsonl", name)
            assert {finding.kind for finding in found} <= {Kind.FUTURE_WRITE_TIME}, summary(report)
            assert report.verdict in (Verdict.DIVERGENT if found else Verdict.CONSISTENT, Verdict.UNKNOWN)
    finally:
        stop.set()
        writer.join()


def test_the_servers_tell_their_clocks_and_their_write_timeout(cluster: RunningCluster) -> None:
    """On whichever version the cluster runs; on one machine all clocks are one."""

    async def told() -> tuple[int, int, int, float | None]:
        async with open_cluster(cluster.settings) as (reader, clock):
            here_us, now = time.time_ns() // 1000, clock.server_time()
            assert now.earliest_us - 1_000_000 < here_us < now.latest_us + 1_000_000
            return len(clock.readings), now.earliest_us, now.latest_us, await reader.write_timeout_s()

    count, earliest_us, latest_us, timeout_s = asyncio.run(told())
    assert count == len(cluster.points)
    assert earliest_us <= latest_us
    assert timeout_s is not None
    assert timeout_s >= 1.0
