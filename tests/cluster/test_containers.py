"""The lane of containers: nodes as docker-compose.yml describes them give the same answers as the sandbox.

`make containers` runs it with images made on this machine, without a registry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from consistency.results.verdict import ExitCode
from tests.support.cluster import RunningCluster, summary
from tests.support.containers import container_cluster, require_engine

pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def containers() -> Iterator[RunningCluster]:
    """Three nodes in containers, started for this module alone."""
    yield from container_cluster()


def test_one_damaged_row_is_found_in_containers(containers: RunningCluster) -> None:
    """Clean, then one row on one replica is older, then it is found there."""
    containers.keyspace("boxed")
    containers.ddl("CREATE TABLE boxed.t (id int PRIMARY KEY, v text)")
    containers.load("INSERT INTO boxed.t (id, v) VALUES (?, ?)", ((i, "v") for i in range(500)))
    report = containers.check("boxed")
    assert report.exit_code is ExitCode.CONSISTENT, summary(report)
    containers.on(3, "DELETE FROM boxed.t WHERE id = 7")
    report = containers.check("boxed")
    assert report.exit_code is ExitCode.DIVERGENT, summary(report)
    assert sum(report.findings_by_kind.values()) == 1


def test_the_lane_is_skipped_with_a_reason_where_no_engine_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    """A missing engine is no failure of the project, and never passes for a run."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-such.sock")
    with pytest.raises(pytest.skip.Exception, match="no Docker engine answers: "):
        require_engine()
