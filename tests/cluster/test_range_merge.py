"""Counted ranges, merged as ranges on real servers; older ones in test_older_servers.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import RunningCluster
from tests.support.merged_ranges import told_and_held

pytestmark = pytest.mark.cluster


def test_ranges_are_merged_around_what_is_left_and_undone(cluster: RunningCluster, tmp_path: Path) -> None:
    """All that differs is merged but a zombie, a future write and its neighbour; undo restores what most held."""
    told_and_held(cluster, tmp_path)
