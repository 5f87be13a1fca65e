"""Readers never make servers write, and where traces prove what they read they leave no key behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from consistency.model.reading import ONE_REPLICA, Locality
from tests.support import quietness
from tests.support.cluster import RunningCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def secret(cluster: RunningCluster) -> Iterator[str]:
    """Rows that node 1 alone holds, in tables whose reads are always speculated; what their keys have in them."""
    word = f"secret{uuid.uuid4().hex}"
    quietness.plant(cluster, time.time_ns() // 1000, word)
    yield word
    cluster.ddl(f"DROP KEYSPACE {quietness.KEYSPACE}")


@pytest.mark.parametrize("locality", ONE_REPLICA)
def test_check_explain_and_plan_change_no_replica(
    cluster: RunningCluster, secret: str, tmp_path: Path, locality: Locality
) -> None:
    """Every replica's rows and write times are as before, no trace holds a key, and what is left is said."""
    left = quietness.read_everything(cluster, tmp_path, locality)
    assert (left.sessions > 0) is (locality is Locality.TRACED)
    assert left.with_keys == 0
    assert quietness.traces_with(cluster, secret) == 0


def test_large_partitions_change_nothing_either_and_their_keys_are_told_of(
    cluster: RunningCluster, secret: str
) -> None:
    """A partition of more pages than are read for a row: by range and clustering key, and the report counts it."""
    left = quietness.read_in_small_pages(cluster, Locality.TRACED)
    assert left.with_keys > 0
    assert quietness.traces_with(cluster, secret) > 0
