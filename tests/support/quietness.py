"""What readers leave behind: every replica's rows as before, and no key in what the servers keep of traces."""

from __future__ import annotations

import asyncio
from pathlib import Path

from consistency.cluster.locality import TracesLeft
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.session import open_cluster
from consistency.model.reading import Locality
from consistency.results.findings import read_findings
from consistency.rows.explain import choose_finding, explain
from tests.support.cluster import RunningCluster
from tests.support.repairing import Repairing, everything, tables_of

KEYSPACE = "quiet"
TABLES = {"plain", "wide"}
_ROWS = 12
_DAY_US = 86_400_000_000


def plant(cluster: RunningCluster, base_us: int, secret: str) -> None:
    """Make tables whose reads are always speculated, with rows and statics that node 1 alone holds, long dead or new.

    Every key has the secret in it; a third of the rows are on all nodes.
    """
    cluster.keyspace(KEYSPACE)
    speculated = "speculative_retry = 'ALWAYS' AND gc_grace_seconds = 3600"
    cluster.ddl(
        f"CREATE TABLE {KEYSPACE}.plain (id text PRIMARY KEY, v text) WITH {speculated}",
        f"CREATE TABLE {KEYSPACE}.wide (p text, c text, s text static, v text, PRIMARY KEY (p, c)) WITH {speculated}",
    )
    for i in range(_ROWS):
        using = f"USING TIMESTAMP {base_us - (3 * _DAY_US if i % 2 else 120_000_000)}"
        for cql in (
            f"INSERT INTO {KEYSPACE}.plain (id, v) VALUES ('{secret}-{i}', 'v') {using}",
            f"INSERT INTO {KEYSPACE}.wide (p, c, v) VALUES ('{secret}-p', '{secret}{i:02}', 'v') {using}",
            f"UPDATE {KEYSPACE}.wide {using} SET s = 's' WHERE p = '{secret}-s{i}'",
        ):
            if i % 3:
                cluster.on(1, cql)
            else:
                cluster.everywhere(cql)


def read_everything(cluster: RunningCluster, directory: Path, locality: Locality) -> TracesLeft:
    """Check, explain each kind of row and plan; see that no replica has changed; return what the check says it left."""
    before = {table: everything(cluster, KEYSPACE, table) for table in TABLES}
    assert set(tables_of(cluster, KEYSPACE)) == TABLES
    differing = _ROWS - len(range(0, _ROWS, 3))
    path = directory / "findings.jsonl"
    repairing = Repairing(cluster, directory, KEYSPACE, locality=locality)
    report = repairing.check()
    found = list(read_findings(path))
    assert len(found) == 3 * differing, report.as_json()
    assert report.coverage.complete
    for number in {(f.table, len(f.key_hex)): n for n, f in enumerate(found, start=1)}.values():
        explanation = asyncio.run(_explained(cluster, path, number, locality))
        assert not explanation[0]
        traced = explanation[2].sessions > 0
        assert any("system_traces" in text for text in explanation[1]) is traced
        assert traced or locality is Locality.NODE_LOCAL
        assert explanation[2].with_keys == 0
    made = repairing.plan()
    assert len(made.rows) == len(found)
    # It looks for deletes by traces in both localities.
    assert any("traced quer" in warning and "no key" in warning for warning in made.warnings), made.warnings
    after = {table: everything(cluster, KEYSPACE, table) for table in TABLES}
    assert after == before
    return report.traces


def read_in_small_pages(cluster: RunningCluster, locality: Locality) -> TracesLeft:
    """Check with pages of two rows, so that a partition is a large one; no replica changes."""
    before = {table: everything(cluster, KEYSPACE, table) for table in TABLES}
    report = cluster.check(KEYSPACE, locality=locality, limits=ReadLimits(page_rows=2))
    assert sum(report.findings_by_kind.values()) == 3 * (_ROWS - len(range(0, _ROWS, 3)))
    assert report.coverage.complete
    assert {table: everything(cluster, KEYSPACE, table) for table in TABLES} == before
    return report.traces


def traces_with(cluster: RunningCluster, secret: str) -> int:
    """Count what is kept of traces that has the secret in it, in clear or in hex."""
    kept = [str(row) for row in cluster.everywhere("SELECT parameters, request FROM system_traces.sessions")]
    kept += [row["activity"] or "" for row in cluster.everywhere("SELECT activity FROM system_traces.events")]
    return sum(secret in text or secret.encode().hex() in text for text in kept)


async def _explained(
    cluster: RunningCluster, path: Path, number: int, locality: Locality
) -> tuple[dict[object, str], tuple[str, ...], TracesLeft]:
    async with open_cluster(cluster.settings, locality=locality) as (reader, clock):
        found = await explain(reader, clock, choose_finding(path, number))
        return dict(found.unread), found.warnings, reader.traces
