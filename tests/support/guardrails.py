"""Guardrails of running sandbox nodes, set and lifted without a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from consistency.cluster.settings import ConnectionSettings
from tests.support.cluster import RunningCluster

_BEAN = ("sjk", "mx", "-b", "org.apache.cassandra.db:type=Guardrails")
NEVER = "20000d"
"""An age that no write has: what was set cannot be taken away again, but nothing is older than this."""

HARMLESS = "ANY"
"""A level that no read has: an empty list is not taken for one, and the levels would stay forbidden."""


@contextmanager
def no_reads_at(cluster: RunningCluster, *levels: str) -> Iterator[None]:
    """Have every node forbid these consistency levels of reads to all but superusers, for a while."""
    _each(cluster, ("-ms", "-f", "ReadConsistencyLevelsDisallowedCSV", "-v", ",".join(levels)))
    try:
        yield
    finally:
        _each(cluster, ("-ms", "-f", "ReadConsistencyLevelsDisallowedCSV", "-v", HARMLESS))


@contextmanager
def no_writes_older_than(cluster: RunningCluster, age: str) -> Iterator[None]:
    """Have every node forbid write times before these to all but superusers, for a while."""
    _each(cluster, ("-mc", "-op", "setMinimumTimestampThreshold", "-a", age, "-a", age))
    try:
        yield
    finally:
        _each(cluster, ("-mc", "-op", "setMinimumTimestampThreshold", "-a", NEVER, "-a", NEVER))


def _each(cluster: RunningCluster, words: Sequence[str]) -> None:
    sandbox = cluster.sandbox
    assert sandbox is not None, "only our own nodes have guardrails that can be set"
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda n: sandbox.nodetool(n, *_BEAN, *words), range(1, len(cluster.hosts) + 1)):
            assert done.returncode == 0, done.stdout + done.stderr
            assert "xception" not in done.stdout + done.stderr, done.stdout + done.stderr


def as_role(cluster: RunningCluster, role: str, password: str) -> RunningCluster:
    """Return the cluster as a role reaches it: guardrails bind every role but superusers."""
    return replace(cluster, reach=ConnectionSettings(cluster.points, username=role, password=password))
