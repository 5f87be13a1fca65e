"""A row in a range that the nodes dispute is left alone: no majority of its owners can be told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from consistency.cluster.by_token import token_of
from consistency.cluster.clock import SystemClock
from consistency.model.ownership import DISPUTED
from consistency.rows.names import RowRef
from repair.deciding.case import CaseReader
from repair.deciding.decide import Action, Rule, decide
from repair.deciding.policy import Policy
from tests.unit.fake_cluster import FakeCluster, Version, port

KEY = (5).to_bytes(4, "big")


def test_a_row_of_a_disputed_range_is_not_read_and_not_decided() -> None:
    """All its owners count as unread, with the reason; beyond the range rows are read as ever."""
    cluster = FakeCluster(factor="2").fill(10)
    cluster.rows["10.0.0.1:9042"][5] = Version("another")
    reader = port(cluster)
    ref = RowRef("shop", "orders", token_of((KEY,)), {"id": KEY.hex()})
    for disputed in (False, True):
        ring = cluster._ring
        if disputed:
            others = tuple(replace(node, host_id=f"other {node.host_id}") for node in ring.nodes)
            ring = replace(ring, views=(replace(ring, nodes=others),))
        evidence = CaseReader(reader, SystemClock(), ring, asyncio.run(reader.schema()))
        found = asyncio.run(evidence.read(ref))
        assert (found.states == {}) is disputed
        if disputed:
            assert set(found.unread.values()) == {DISPUTED}
            decision = decide(found, Policy())
            assert (decision.action, decision.rule) == (Action.NONE, Rule.TOO_FEW)
