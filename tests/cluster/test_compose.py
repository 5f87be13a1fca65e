"""docker-compose.yml as it is run: three nodes, a watch beside them, a check by hand.

`make containers` lays tests/images/compose.host.yml over it, whose images need no registry. Without such a file they
skip themselves: they would pull images and open ports.
"""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from tests.house.source import ROOT
from tests.support.cluster import RunningCluster, eventually
from tests.support.containers import nodes, require_engine

pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def compose() -> Iterator[list[str]]:
    """Yield the words of `docker compose` for this project with its nodes and its watch up, and remove them."""
    require_engine()
    over = os.environ.get("CONSISTENCY_TEST_COMPOSE")
    if over is None:
        pytest.skip("no compose file to lay over the project's: make containers")
    words = ["docker", "compose", "--project-name", "consistency-test", "-f", "docker-compose.yml", "-f", over]
    if subprocess.run([*words, "version"], cwd=ROOT, capture_output=True, check=False).returncode != 0:
        pytest.skip("docker compose is not installed, or older than 2.24")
    try:
        _done([*words, "up", "-d", "--build", "--wait", "watch"])
        yield words
    finally:
        subprocess.run([*words, "down", "--volumes"], cwd=ROOT, capture_output=True, check=False)


def test_nodes_watch_and_check_of_the_compose_file(compose: list[str]) -> None:
    """A clean check exits with 0; a row that one replica lacks is found by the check and by the watch."""
    cluster = RunningCluster([node["environment"]["CASSANDRA_RPC_ADDRESS"] for node in nodes()], 9042)
    cluster.keyspace("composed")
    cluster.ddl("CREATE TABLE composed.t (id int PRIMARY KEY, v text)")
    cluster.load("INSERT INTO composed.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(500)))
    check = [*compose, "run", "--rm", "check", "composed"]
    assert "CONSISTENT  All replicas hold the same 500 rows" in _done(check)
    cluster.on(3, "DELETE FROM composed.t WHERE id = 7")
    assert "DIVERGENT  1 of 500 rows" in _done(check, exit_code=1)
    cluster.close()
    listens = f"http://{cluster.hosts[0]}:9477"
    with urllib.request.urlopen(f"{listens}/healthz", timeout=10) as answer:
        assert answer.status == 200
    wanted = 'consistency_divergent_rows{cluster="compose",keyspace="composed",table="t"} 1'
    eventually(lambda: wanted in _metrics(listens), 600, "the watch telling of the row")


@pytest.mark.parametrize("words", [["id", "-u"], ["touch", "/opt/consistency/here"]])
def test_the_image_is_not_roots_and_cannot_be_written(compose: list[str], words: list[str]) -> None:
    """As the compose file runs it: a user of no name, and a root file system to read."""
    run = [*compose, "run", "--rm", "--entrypoint", words[0], "check", *words[1:]]
    said = _done(run, exit_code=int(words[0] == "touch"))
    assert ("65532" in said) or ("Read-only file system" in said)


def _metrics(listens: str) -> str:
    with urllib.request.urlopen(f"{listens}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _done(command: list[str], exit_code: int = 0) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, (
        f"exit code {done.returncode} of {' '.join(command)}:\n{done.stdout}{done.stderr}"
    )
    return done.stdout + done.stderr
