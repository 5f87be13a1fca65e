"""The plan: leaves of about equal size that tile the ring, and an estimate that costs little."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.checking.plan import MAX_LEAVES, cut, estimate_rows
from consistency.model.ring import MURMUR3, Arc, Node, Replication, Ring
from consistency.model.schema import Table
from consistency.model.tokens import RING_SIZE, TokenRange, assert_tiles
from tests.simulation.scenario import ROWS, make_nodes
from tests.simulation.vclock import VirtualLoop, run_virtual


class EvenTable:
    """Counts rows that are spread evenly over the ring."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.counted = 0.0
        self.asked: Counter[Node] = Counter()

    async def count(self, node: Node, table: Table, token_range: TokenRange) -> int:
        """Count a range."""
        self.asked[node] += 1
        await asyncio.sleep(0.001)
        found = round(self.rows * token_range.width / RING_SIZE)
        self.counted += found
        return found


def arcs(nodes: tuple[Node, ...], rf: int = 2) -> tuple[Arc, ...]:
    """Place rf replicas."""
    return Ring("c", MURMUR3, nodes).arcs(Replication("NetworkTopologyStrategy", (("dc1", rf),)))


def estimate(table: EvenTable, places: tuple[Arc, ...]) -> int:
    """Run the estimate."""
    return run_virtual(VirtualLoop(), estimate_rows(table, ROWS, places))  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, 1, 40, 700, 123_456, 10**7, 10**10])
def test_the_estimate_is_near_and_reads_a_small_part(rows: int) -> None:
    """Any size: within a tenth of the truth, and never more than some thousand rows of a large table are counted."""
    table = EvenTable(rows)
    found = estimate(table, arcs(make_nodes(("dc1",) * 3)))
    assert abs(found - rows) <= max(1, rows * 0.1)
    assert table.counted <= max(min(2 * rows, 8_000), rows / 4096)


def test_the_estimate_asks_no_node_that_is_down() -> None:
    """A replica that did not answer at the start is not waited for."""
    first, *others = make_nodes(("dc1",) * 3)
    down = Node(first.host_id, first.address, first.port, "dc1", "r1", first.tokens, "5.0.8", up=False)
    table = EvenTable(1000)
    estimate(table, arcs((down, *others)))
    assert down not in table.asked
    assert table.asked


@settings(deadline=None)
@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=12, unique=True),
    st.integers(0, 10**7),
    st.integers(1, 10**5),
)
def test_the_leaves_tile_the_ring_whatever_its_shape(tokens: list[int], rows: int, leaf_rows: int) -> None:
    """No token is left out and none counted twice; each leaf belongs to the replicas of its arc."""
    nodes = tuple(Node(str(i), f"10.0.0.{i}", 9042, "dc1", f"r{i % 3}", tuple(tokens[i::4]), "5.0.8") for i in range(4))
    places = arcs(nodes)
    plan = cut(ROWS, places, rows, leaf_rows=leaf_rows)
    assert_tiles([leaf.token_range for leaf in plan.leaves], [TokenRange.full_ring()])
    assert [leaves[0].replicas for leaves in plan.arcs] == [arc.replicas for arc in places]
    assert plan.digests == sum(len(leaf.replicas) for leaf in plan.leaves)


def test_leaves_hold_about_what_was_asked_and_are_not_too_many() -> None:
    """A million rows at ten thousand a leaf are about a hundred leaves; there is a most, and a least: one a range."""
    places = arcs(make_nodes(("dc1",) * 3))
    assert 90 <= len(cut(ROWS, places, 1_000_000, leaf_rows=10_000).leaves) <= 110
    assert len(cut(ROWS, places, 10**12).leaves) <= MAX_LEAVES * 1.01
    assert len(cut(ROWS, places, 0).leaves) == 3
