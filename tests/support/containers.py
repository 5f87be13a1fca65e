"""Three Cassandra nodes in containers, as docker-compose.yml describes them, for the same tests as the sandbox.

CONSISTENCY_TEST_CLUSTER=containers chooses them. They are reached by their own addresses, as on any Linux machine that
runs the engine itself.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from tests.house.source import text_of
from tests.support.cluster import RunningCluster, eventually

_PORT = 9042
_START_S = 300.0


def container_cluster() -> Iterator[RunningCluster]:
    """Start the nodes one after another and remove them in the end; skips where no engine answers."""
    require_engine()
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where there is an engine

    services = yaml.safe_load(text_of("docker-compose.yml"))["services"]
    nodes = [service for name, service in services.items() if name.startswith("cassandra-")]
    with ExitStack() as stack:
        hosts: list[str] = []
        containers: list[Any] = []
        for node in nodes:
            settings = {**node["environment"], **({"CASSANDRA_SEEDS": hosts[0]} if hosts else {})}
            if not hosts:
                settings.pop("CASSANDRA_SEEDS")  # the first one is its own
            container = stack.enter_context(DockerContainer(node["image"]).with_envs(**settings))
            containers.append(container)
            hosts.append(_address(container))
            up = len(containers)
            eventually(lambda c=container, n=up: _sees_up(c, n), _START_S, f"{up} nodes being up in containers")
        for container in containers:
            assert container.exec(["nodetool", "disablehandoff"]).exit_code == 0
        running = RunningCluster(hosts, _PORT)
        stack.callback(running.close)
        yield running


def require_engine() -> None:
    """Skip where no Docker engine answers, with what its client says."""
    docker = pytest.importorskip("docker", reason="the extra 'docker' is not installed")
    # The client leaves the socket open that it could not connect.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        silence = _silence(docker)
        gc.collect()
    if silence:
        pytest.skip(f"no Docker engine answers: {silence}")


def _silence(docker: Any) -> str:
    """Return why an engine does not answer, empty where it does."""
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        return str(error)
    client.close()
    return ""


def _address(container: Any) -> str:
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    (network,) = wrapped.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def _sees_up(container: Any, count: int) -> bool:
    """Whether a node answers CQL and sees so many nodes up."""
    status = container.exec(["nodetool", "status"])
    lines = status.output.decode(errors="replace").splitlines()
    answers = container.exec(["cqlsh", "-e", "DESCRIBE CLUSTER"]).exit_code == 0
    return answers and sum(line.startswith("UN ") for line in lines) == count
