"""Fixtures of the real cluster: started once from pip packages, or one that is already up.

CONSISTENCY_TEST_HOSTS=127.0.0.1,... uses a running NODE_LOCAL cluster instead of starting one;
CONSISTENCY_TEST_SANDBOX=DIR says that it is the sandbox in DIR, so that tests may stop its nodes;
CONSISTENCY_TEST_CASSANDRA=4.1 starts another version; CONSISTENCY_TEST_CLUSTER=containers starts Cassandra's
official image by a Docker engine instead. CONSISTENCY_TEST_NET=127.7 moves those that are started to other addresses.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cassandra import ReadTimeout, Unauthorized, Unavailable
from hypothesis import HealthCheck, settings

from tests.support.addresses import address
from tests.support.certificates import Authority
from tests.support.cluster import RunningCluster, eventually, from_hosts, sandbox_cluster
from tests.support.containers import container_cluster
from tests.support.figures import FIGURES, Figures
from tests.support.sharing import GUARDED, ByCluster, scope_of, turn_of

# Beside Cassandra nodes a machine may be slow for seconds, which says nothing of the strategies.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def figures() -> Figures:
    """What tests measure, for the summary of the session."""
    return FIGURES


def pytest_configure() -> None:
    """Have Ctrl-C noticed, by the programs that tests start too: a shell's background job begins with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; the floor of the coverage is for tests that need no cluster."""
    items.sort(key=lambda item: turn_of(item.nodeid))
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker("no_cover")


_GUARDED: list[RunningCluster] = []
"""The cluster with logins, while tests that use it are to come in this process."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the cluster with logins after the last test that uses it: idle, its nodes take a tenth of a core."""
    last = nextitem is None or scope_of(nextitem.nodeid) != GUARDED
    if last and scope_of(item.nodeid) == GUARDED:
        for cluster in _GUARDED:
            cluster.close()  # or its driver goes on looking for the nodes, beside the tests that follow
            if cluster.sandbox is not None:
                cluster.sandbox.down(how="kill")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCluster:
    """Keep the tests of one cluster in one of the processes of `-n`."""
    return ByCluster(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the figures of a process of `-n` that has ended."""
    FIGURES.lines += getattr(node, "workeroutput", {}).get("figures", [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over the figures, in a process of `-n`."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = FIGURES.lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    if FIGURES.lines:
        terminalreporter.section("figures")
        for line in FIGURES.lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three nodes that allow NODE_LOCAL, one DC, RF 3 possible."""
    hosts = os.environ.get("CONSISTENCY_TEST_HOSTS")
    if hosts:
        yield from from_hosts(hosts, os.environ.get("CONSISTENCY_TEST_SANDBOX"))
    elif os.environ.get("CONSISTENCY_TEST_CLUSTER") == "containers":
        yield from container_cluster()
    else:
        settings = {"enable_user_defined_functions": "true"}  # the name that every version knows
        version = os.environ.get("CONSISTENCY_TEST_CASSANDRA", "5.0")
        yield from sandbox_cluster(tmp_path_factory.mktemp("cluster"), "shared", cassandra=version, settings=settings)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A second cluster, of one node that may be stopped."""
    yield from sandbox_cluster(tmp_path_factory.mktemp("target"), "target", nodes=1, num_tokens=4, heap="512m")


@pytest.fixture(scope="session")
def stoppable_cluster(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """That cluster where its nodes may be stopped, else another."""
    if cluster.sandbox is not None:
        yield cluster
    else:
        yield from sandbox_cluster(tmp_path_factory.mktemp("stoppable"), "stoppable")


@pytest.fixture(scope="module")
def fresh_traced_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three nodes that refuse NODE_LOCAL and were started just now, their dynamic snitch cold."""
    directory: Path = tmp_path_factory.mktemp("traced")
    yield from sandbox_cluster(directory, "traced", node_local=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of nodes and clients."""
    return Authority.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def guarded_cluster(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RunningCluster]:
    """Three nodes that may be stopped: logins, TLS for who wants it, guardrails, little patience with tombstones."""
    settings = {
        "tombstone_failure_threshold": "3000",
        # Guardrails bind every role but superusers.
        "page_size_fail_threshold": "2000",
        "group_by_enabled": "false",
        **authority.node_settings([address("guarded", n) for n in range(1, 6)], optional=True, client_auth=False),
    }
    directory = tmp_path_factory.mktemp("guarded")
    clusters = sandbox_cluster(directory, "guarded", killed=True, auth=True, settings=settings, heap="512m")
    cluster: RunningCluster = next(clusters)
    try:
        # First of all: until rows are read at ALL, the new replicas of system_auth know of no user, and refuse who
        # connects to them. The driver gives such a node up, so it connects anew.
        cluster.session.execute(
            "ALTER KEYSPACE system_auth WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}", timeout=120
        )
        eventually(lambda: _spread(cluster), 90, "the first user's arrival on every node")
        cluster.close()
        eventually(lambda: _may_create(cluster), 90, "the first user's becoming a superuser on every node")
        _GUARDED.append(cluster)
        yield cluster
    finally:
        _GUARDED.clear()
        clusters.close()  # type: ignore[attr-defined]


def _spread(cluster: RunningCluster) -> bool:
    """Have the servers merge what each replica of system_auth holds, if the first user may read it yet."""
    of_auth = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system_auth'"
    try:
        if not cluster.agreed():
            return False
        for table in list(cluster.session.execute(of_auth)):
            list(cluster.everywhere(f"SELECT * FROM system_auth.{table['table_name']}"))
    except (Unauthorized, ReadTimeout, Unavailable):
        return False
    return True


def _may_create(cluster: RunningCluster) -> bool:
    """Whether every node knows of the first user's rights yet; for a while after the start they may not."""
    replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    try:
        for _ in range(6):  # the driver asks the nodes by turns
            cluster.ddl(f"CREATE KEYSPACE IF NOT EXISTS ready WITH replication = {replication}")
    except Unauthorized:
        return False
    return True
