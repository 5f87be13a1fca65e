"""Where nodes sit: addresses, racks, and tokens that divide the ring evenly."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.layout import RING_SIZE, RING_START, interleaved_tokens, plan_cluster, plan_joining
from sandbox.options import SandboxOptions


@given(nodes=st.integers(1, 12), num_tokens=st.integers(1, 64), dc=st.integers(0, 5))
def test_tokens_are_distinct_even_and_dealt_in_turn(nodes: int, num_tokens: int, dc: int) -> None:
    """Every node has its number of tokens, and walking the ring meets the nodes in turn."""
    dealt = interleaved_tokens(nodes, num_tokens, dc * 1_000_003)
    assert [len(tokens) for tokens in dealt] == [num_tokens] * nodes
    owner = {token: node for node, tokens in enumerate(dealt) for token in tokens}
    ring = sorted(owner)
    assert len(ring) == nodes * num_tokens
    assert all(RING_START < token < RING_START + RING_SIZE for token in ring)
    assert [owner[token] for token in ring] == [i % nodes for i in range(len(ring))]
    gaps = {after - before for before, after in itertools.pairwise(ring)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_no_two_nodes_of_a_cluster_share_a_token() -> None:
    """Data centres of equal size would hold equal tokens if nothing kept them apart."""
    places = plan_cluster(SandboxOptions(dcs={"dc1": 3, "dc2": 3, "dc3": 3}))
    tokens = Counter(token for place in places for token in place.tokens)
    assert max(tokens.values()) == 1


def test_layout_is_the_same_every_time() -> None:
    """Tests that plant damage by token can rely on the ring."""
    options = SandboxOptions(nodes=3, num_tokens=2)
    assert plan_cluster(options) == plan_cluster(options)
    assert [place.tokens for place in plan_cluster(options)] == interleaved_tokens(3, 2)


def test_addresses_count_up_across_data_centres() -> None:
    """Nodes get consecutive addresses and one port."""
    places = plan_cluster(SandboxOptions(dcs={"dc1": 2, "dc2": 2}, address_base="127.0.9.254"))
    assert [place.address for place in places] == ["127.0.9.254", "127.0.9.255", "127.0.10.0", "127.0.10.1"]
    assert {place.port for place in places} == {9042}
    assert [place.dc for place in places] == ["dc1", "dc1", "dc2", "dc2"]


def test_one_address_counts_ports_up_instead() -> None:
    """On one address both ports of every node differ."""
    places = plan_cluster(SandboxOptions(one_address=True, port=19042, storage_port=17000))
    assert {place.address for place in places} == {"127.0.0.1"}
    assert [place.endpoint for place in places] == ["127.0.0.1:17000", "127.0.0.1:17001", "127.0.0.1:17002"]
    assert [place.port for place in places] == [19042, 19043, 19044]


def test_racks_are_filled_in_turn_within_each_data_centre() -> None:
    """The second data centre starts again at the first rack."""
    places = plan_cluster(SandboxOptions(dcs={"dc1": 3, "dc2": 2}, racks=2))
    assert [place.rack for place in places] == ["rack1", "rack2", "rack1", "rack1", "rack2"]


@pytest.mark.parametrize("dc", ["dc1", "dc2", "dc3"])
def test_a_joining_node_takes_from_the_widest_gaps(dc: str) -> None:
    """Its tokens are free, and all of them lie in its own data centre's widest ranges."""
    options = SandboxOptions(dcs={"dc1": 2, "dc2": 1}, num_tokens=8)
    places = plan_cluster(options)
    joining = plan_joining(options, 4, dc, places)
    assert len(set(joining.tokens)) == 8
    assert not set(joining.tokens) & {token for place in places for token in place.tokens}
    assert joining.address == "127.0.0.4"
    neighbours = sorted(token for place in (*places, joining) if place.dc == dc for token in place.tokens)
    gaps = [after - before for before, after in itertools.pairwise(neighbours)]
    assert max(gaps) <= 2 * min(gaps) + 2
