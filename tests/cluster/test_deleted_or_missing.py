"""Deleted, or never arrived: on a real cluster a forecast is right or unknown, never wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from consistency.model.reading import Locality
from repair.forecast import Forecast
from tests.support.cluster import RunningCluster
from tests.support.deletes import Deletes, told_and_done

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("locality", list(Locality))
def test_what_is_forecast_happens(cluster: RunningCluster, tmp_path: Path, locality: Locality) -> None:
    """Deletes of every reach, and rows that never arrived: these are known, and what happens is what is counted.

    In memtables in one locality, on disk and compacted with other rows in the other.
    """
    name = f"fate_{locality.value.replace('-', '')}"
    deletes = Deletes(cluster, name, time.time_ns() // 1000 - 60_000_000)
    deletes.plant()
    time.sleep(1.5)  # until what has a time to live of a second has expired
    if locality is Locality.NODE_LOCAL and cluster.sandbox is not None:
        deletes.flush()
    seen = told_and_done(deletes, tmp_path, locality)
    assert seen[Forecast.RESTORE]
    assert seen[Forecast.UNKNOWN]
