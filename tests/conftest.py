"""Fixtures of the real cluster: started once from pip packages, or one that is already up.

CONSISTENCY_TEST_HOSTS=127.0.0.1,... uses a running NODE_LOCAL cluster instead of starting one;
CONSISTENCY_TEST_SANDBOX=DIR says that it is the sandbox in DIR, so that tests may stop its nodes;
CONSISTENCY_TEST_CASSANDRA=4.1 starts another version; CONSISTENCY_TEST_CLUSTER=containers starts Cassandra's
official image by a Docker engine instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import RunningCluster, from_hosts, sandbox_cluster
from tests.support.containers import container_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three nodes that allow NODE_LOCAL, one DC, RF 3 possible."""
    hosts = os.environ.get("CONSISTENCY_TEST_HOSTS")
    if hosts:
        yield from from_hosts(hosts, os.environ.get("CONSISTENCY_TEST_SANDBOX"))
    elif os.environ.get("CONSISTENCY_TEST_CLUSTER") == "containers":
        yield from container_cluster()
    else:
        yield from sandbox_cluster(tmp_path_factory.mktemp("cluster"), "127.0.31.1")


@pytest.fixture(scope="module")
def fresh_traced_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three nodes that refuse NODE_LOCAL and were started just now, their dynamic snitch cold."""
    directory: Path = tmp_path_factory.mktemp("traced")
    yield from sandbox_cluster(directory, "127.0.32.1", node_local=False)
