"""What real nodes tell of their data is read, put together and judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cluster import RunningCluster

pytestmark = pytest.mark.cluster


def test_the_nodes_tell_how_their_data_lies(cluster: RunningCluster, tmp_path: Path) -> None:
    """Each node its files; reads that met tombstones; the picture, and the same as JSON."""
    keyspace = cluster.keyspace("spread", 3)
    cluster.ddl(f"CREATE TABLE {keyspace}.t (p int, c int, v text, PRIMARY KEY (p, c))")
    cluster.load(f"INSERT INTO {keyspace}.t (p, c, v) VALUES (?, ?, ?)", [(i % 7, i, "v" * 50) for i in range(700)])
    for c in range(0, 700, 7):
        cluster.everywhere(f"DELETE FROM {keyspace}.t WHERE p = 0 AND c = {c}")
    cluster.everywhere(f"SELECT * FROM {keyspace}.t WHERE p = 0")
    if cluster.sandbox is not None:
        for n in (1, 2, 3):
            cluster.sandbox.nodetool(n, "flush", keyspace)
    path = tmp_path / "audit.json"
    done = cluster.command("audit", keyspace, "--distribution", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "data by node" in done.stdout
    nodes = json.loads(path.read_text())["distribution"]["nodes"]
    assert {node["node"] for node in nodes} == {cluster.name(n) for n in (1, 2, 3)}
    assert {node["unread"] for node in nodes} == {""}
    tables = [table for node in nodes for table in node["tables"]]
    assert {table["table"] for table in tables} == {"t"}
    if cluster.sandbox is not None:
        assert all(table["mebibytes"] == 1 for table in tables)
    assert max(table["tombstones_max"] or 0 for table in tables) >= 100
