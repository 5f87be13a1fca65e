"""Three Cassandra nodes in containers, as docker-compose.yml describes them, for the same tests as the sandbox.

CONSISTENCY_TEST_CLUSTER=containers chooses them. They are reached by their own addresses, as on any Linux machine that
runs the engine itself. CONSISTENCY_TEST_COMPOSE names a compose file that is laid over the project's, as with
`docker compose -f docker-compose.yml -f FILE`; one for an engine without a registry is in tests/images.
"""

from __future__ import annotations

import gc
import os
import re
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

    with ExitStack() as stack:
        hosts: list[str] = []
        containers: list[tuple[Any, list[str]]] = []
        for node in nodes():
            container = DockerContainer(node["image"]).with_envs(**_settings(node, hosts))
            if "network_mode" in node:
                container.with_kwargs(network_mode=node["network_mode"])
            containers.append((stack.enter_context(container), _nodetool(node)))
            hosts.append(_address(container, node))
            up = len(containers)
            eventually(lambda c=containers[-1], n=up: _sees_up(*c, n), _START_S, f"{up} nodes being up in containers")
        for container, nodetool in containers:
            assert container.exec([*nodetool, "disablehandoff"]).exit_code == 0
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


def nodes() -> list[dict[str, Any]]:
    """Return the services of the compose file that are nodes, with what the file laid over it says of them."""
    services = _services(text_of("docker-compose.yml"))
    over = os.environ.get("CONSISTENCY_TEST_COMPOSE")
    for name, said in _services(text_of(over)).items() if over else ():
        environment = {**services[name].get("environment", {}), **said.get("environment", {})}
        services[name] = {**services[name], **said, "environment": environment}
    return [service for name, service in services.items() if name.startswith("cassandra-")]


class _ComposeLoader(yaml.SafeLoader):
    """Knows `!reset`, with which a compose file takes back what the one below it says."""


_ComposeLoader.add_constructor("!reset", lambda _loader, _node: None)


def _services(text: str) -> dict[str, Any]:
    return dict(yaml.load(text, _ComposeLoader)["services"])


def _settings(node: dict[str, Any], hosts: list[str]) -> dict[str, str]:
    """Return a node's environment: on a network of the engine the first one is its own seed, and the others'."""
    settings = dict(node["environment"])
    if "network_mode" not in node:
        settings.pop("CASSANDRA_SEEDS")
        if hosts:
            settings["CASSANDRA_SEEDS"] = hosts[0]
    return settings


def _nodetool(node: dict[str, Any]) -> list[str]:
    """Return how a node is asked, which has a port of its own for that where it shares its addresses."""
    port = re.search(r"-Dcassandra\.jmx\.local\.port=(\d+)", node["environment"]["JVM_EXTRA_OPTS"])
    return ["nodetool", "-p", port[1]] if port else ["nodetool"]


def _address(container: Any, node: dict[str, Any]) -> str:
    if "network_mode" in node:
        return str(node["environment"]["CASSANDRA_RPC_ADDRESS"])
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    (network,) = wrapped.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def _sees_up(container: Any, nodetool: list[str], count: int) -> bool:
    """Whether a node answers CQL and sees so many nodes up."""
    status = container.exec([*nodetool, "status"])
    lines = status.output.decode(errors="replace").splitlines()
    answers = b"not running" not in (said := container.exec([*nodetool, "statusbinary"]).output) and b"running" in said
    return answers and sum(line.startswith("UN ") for line in lines) == count
