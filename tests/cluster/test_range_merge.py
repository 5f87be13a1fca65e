"""Counted ranges, merged as ranges on real servers; older ones in test_older_servers.py."""

from __future__ import annotations

import asyncio
import shlex
import time
from pathlib import Path

import pytest

from consistency.model.tokens import TokenRange
from consistency.results.findings import read_ranges
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from repair.api import run_ring
from repair.cli.show import nodetool_commands
from tests.support.cluster import RunningCluster
from tests.support.merged_ranges import told_and_held

pytestmark = pytest.mark.cluster


def test_ranges_are_merged_around_what_is_left_and_undone(cluster: RunningCluster, tmp_path: Path) -> None:
    """All that differs is merged but a zombie, a future write and its neighbour; undo restores what most held."""
    told_and_held(cluster, tmp_path)


def test_nodetool_takes_what_is_printed_for_it(cluster: RunningCluster, tmp_path: Path) -> None:
    """Of a table that differs all over, of which a check follows; and of a range that reaches over a token."""
    if cluster.sandbox is None:
        pytest.skip("nodetool needs the sandbox")
    ks, findings = cluster.keyspace("printed"), tmp_path / "findings.jsonl"
    cluster.ddl(f"CREATE TABLE {ks}.t (id int PRIMARY KEY, v text)")
    base_us = time.time_ns() // 1000 - 60_000_000
    for i in range(50):
        cluster.on(1 + i % 3, f"INSERT INTO {ks}.t (id, v) VALUES ({i}, 'v') USING TIMESTAMP {base_us}")
    found = cluster.command("check", ks, "--findings", str(findings), "--max-findings", "0", *cluster.host_options)
    assert found.returncode == 1, found.stderr
    said = cluster.command("repair", "plan", str(findings), "--print-nodetool", *cluster.host_options)
    assert said.returncode == 0, said.stderr
    tokens = [token for token, _ in asyncio.run(run_ring(cluster.settings, findings)).owners]
    across = TokenRange(tokens[3] - 10, tokens[3] + 10)
    views = {name: RangeView() for name in (cluster.name(n) for n in (1, 2, 3))}
    cut = nodetool_commands([RangeFinding(ks, "t", across, {Kind.MISSING: 1}, views)], tokens)
    assert len(cut) == 2
    assert [each.rows for each in read_ranges(findings)] == [50]
    for line in cut:
        _nodetool(cluster, 2, line)
    (whole,) = said.stdout.splitlines()
    for n in (1, 2, 3):
        _nodetool(cluster, n, whole)
    assert cluster.command("check", ks, *cluster.host_options).returncode == 0


def _nodetool(cluster: RunningCluster, n: int, line: str) -> None:
    """Run a line as it is printed, without the note behind it."""
    assert cluster.sandbox is not None
    program, *words = shlex.split(line, comments=True)
    assert program == "nodetool"
    done = cluster.sandbox.nodetool(n, *words)
    assert done.returncode == 0, done.stdout + done.stderr
