"""How long a node waits for the ring, and whom it must see."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sandbox.launch import ring_delay, unseen
from sandbox.layout import plan_cluster
from sandbox.logs import LogWatch
from sandbox.options import SandboxOptions
from sandbox.state import NodeRecord

if TYPE_CHECKING:
    from pathlib import Path

PLACES = plan_cluster(SandboxOptions())
FIRST = NodeRecord(PLACES[0], jmx_port=10_000)


@pytest.mark.parametrize(
    ("record", "delay"),
    [
        (FIRST, ["-Dcassandra.ring_delay_ms=1000"]),
        (replace(FIRST, joins=True, streams=True), []),
        (replace(FIRST, joins=True), ["-Dcassandra.ring_delay_ms=10000"]),
        (replace(FIRST, joins=True, streams=True, joined=True), ["-Dcassandra.ring_delay_ms=1000"]),
    ],
)
def test_only_a_node_that_streams_waits_as_long_as_cassandra_does(record: NodeRecord, delay: list[str]) -> None:
    """With a shorter wait it would own ranges that it never asked for."""
    assert ring_delay(record) == delay


def test_nodes_that_ran_before_need_not_see_each_other_anew(tmp_path: Path) -> None:
    """Only the pairs that a started node belongs to are waited for."""
    watches = {place.n: LogWatch(place, tmp_path / f"{place.n}.log") for place in PLACES}
    assert unseen(watches, [3]) == [(1, 3), (2, 3), (3, 1), (3, 2)]
    assert unseen(watches, []) == []
