"""The ring places replicas where Cassandra's own strategies do, for any cluster, and quickly."""

from __future__ import annotations

import random
import time
import tracemalloc
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consistency.errors import TopologyError
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange, merged

DCS = ("dc1", "dc2", "dc3")
TOKENS = st.one_of(
    st.integers(MIN_TOKEN, MAX_TOKEN),
    st.sampled_from([MIN_TOKEN, MIN_TOKEN + 1, 0, MAX_TOKEN - 1, MAX_TOKEN]),
)


def make_node(number: int, tokens: tuple[int, ...], dc: str = "dc1", rack: str = "r1", state: str = "NORMAL") -> Node:
    """Return one node, named by its number."""
    return Node(
        f"host-{number:04}",
        f"10.0.{number // 250}.{number % 250 + 1}",
        9042,
        dc,
        rack,
        tokens,
        "5.0.8",
        state,
    )


def make_ring(*nodes: Node) -> Ring:
    """Return a Murmur3 ring."""
    return Ring("test", MURMUR3, nodes)


def network(**factors: int) -> Replication:
    """Return NetworkTopologyStrategy with replicas per DC."""
    return Replication("NetworkTopologyStrategy", tuple(sorted(factors.items())))


def simple(rf: int) -> Replication:
    """Return SimpleStrategy."""
    return Replication("SimpleStrategy", (("", rf),))


@st.composite
def rings(draw: st.DrawFn) -> Ring:
    """Any cluster of up to 9 nodes: DCs, racks and vnodes in any mixture, tokens at both ends of the ring."""
    vnodes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=9))
    tokens = iter(draw(st.lists(TOKENS, min_size=sum(vnodes), max_size=sum(vnodes), unique=True)))
    numbers = count()
    return make_ring(
        *(
            make_node(
                next(numbers),
                tuple(next(tokens) for _ in range(size)),
                draw(st.sampled_from(DCS)),
                draw(st.sampled_from(["r1", "r2", "r3", "r4"])),
            )
            for size in vnodes
        )
    )


REPLICATIONS = st.one_of(
    st.integers(0, 11).map(simple),
    st.dictionaries(st.sampled_from([*DCS, "nowhere"]), st.integers(0, 6)).map(lambda f: network(**f)),
)


def clockwise(ring: Ring, token: int) -> list[Node]:
    """Every token's owner, from the first token that is not smaller, once around."""
    ordered = sorted((t, n.host_id, n) for n in ring.nodes for t in n.tokens)
    after = [node for t, _, node in ordered if t >= token]
    return after + [node for t, _, node in ordered if t < token]


def cassandra_replicas(ring: Ring, replication: Replication, token: int) -> set[Node]:
    """Transcribe SimpleStrategy and NetworkTopologyStrategy.calculateNaturalReplicas, a walk for each DC."""
    walk = clockwise(ring, token)
    if replication.strategy == "SimpleStrategy":
        return set(list(dict.fromkeys(walk))[: replication.factor("")])
    replicas: set[Node] = set()
    for dc, rf in replication.factors:
        members = [node for node in walk if node.dc == dc]
        rf_left = min(rf, len(set(members)))
        acceptable_rack_repeats = rf - len({node.rack for node in members})
        seen_racks: set[str] = set()
        for node in members:
            if rf_left == 0:
                break
            if node in replicas:
                continue
            if node.rack in seen_racks:
                if acceptable_rack_repeats <= 0:
                    continue
                acceptable_rack_repeats -= 1
            seen_racks.add(node.rack)
            replicas.add(node)
            rf_left -= 1
    return replicas


LONE_AT_MIN = make_ring(make_node(1, (MIN_TOKEN,)))
BOTH_ENDS = make_ring(make_node(1, (MIN_TOKEN,)), make_node(2, (MAX_TOKEN,)))


@given(rings(), REPLICATIONS)
@example(LONE_AT_MIN, network(dc1=1))
@example(BOTH_ENDS, network(dc1=1))
@example(BOTH_ENDS, simple(1))
def test_arcs_tile_the_ring_for_any_cluster(ring: Ring, replication: Replication) -> None:
    """Every token is in exactly one arc, and a replica set in one arc only."""
    arcs = ring.arcs(replication)
    assert merged([r for arc in arcs for r in arc.ranges]) == (TokenRange.full_ring(),)
    assert len({arc.replicas for arc in arcs}) == len(arcs)
    assert sum(arc.share for arc in arcs) == pytest.approx(1)


@given(rings(), REPLICATIONS, TOKENS)
def test_replicas_are_those_of_cassandra(ring: Ring, replication: Replication, token: int) -> None:
    """For any cluster and token, the nodes are those that the transcribed strategies choose."""
    expected = cassandra_replicas(ring, replication, token)
    replicas = ring.replicas_of(token, replication)
    assert set(replicas) == expected
    assert len(replicas) == len(expected)
    if token > MIN_TOKEN:
        (arc,) = [arc for arc in ring.arcs(replication) if any(token in r for r in arc.ranges)]
        assert arc.replicas == replicas


@given(rings(), st.dictionaries(st.sampled_from(DCS), st.integers(1, 6), min_size=1))
def test_a_dc_has_as_many_replicas_and_racks_as_it_can(ring: Ring, factors: dict[str, int]) -> None:
    """Each range has min(RF, nodes) replicas in a DC, in min(RF, racks) racks."""
    for arc in ring.arcs(network(**factors)):
        for dc, rf in factors.items():
            nodes = ring.datacenters.get(dc, ())
            replicas = [node for node in arc.replicas if node.dc == dc]
            assert len(replicas) == min(rf, len(nodes))
            assert len({n.rack for n in replicas}) == min(rf, len({n.rack for n in nodes}))


def test_replicas_come_from_different_racks_first() -> None:
    """RF 3 over racks a, a, b, c: the second node of rack a is passed over after the first."""
    ring = make_ring(
        make_node(1, (0,), rack="a"),
        make_node(2, (10,), rack="a"),
        make_node(3, (20,), rack="b"),
        make_node(4, (30,), rack="c"),
    )
    one, two, three, four = ring.nodes
    assert ring.replicas_of(-5, network(dc1=3)) == (one, three, four)
    assert ring.replicas_of(0, network(dc1=3)) == (one, three, four)
    assert ring.replicas_of(1, network(dc1=3)) == (two, three, four)
    assert ring.replicas_of(31, network(dc1=3)) == (one, three, four)
    assert ring.replicas_of(-5, simple(3)) == (one, two, three)


def test_a_rack_repeats_only_as_often_as_racks_are_missing() -> None:
    """RF 3 over two racks: one repeat is accepted, then the walk goes on to the other rack."""
    ring = make_ring(
        make_node(1, (0,), rack="a"),
        make_node(2, (10,), rack="a"),
        make_node(3, (20,), rack="a"),
        make_node(4, (30,), rack="b"),
    )
    one, two, three, four = ring.nodes
    assert ring.replicas_of(0, network(dc1=3)) == (one, two, four)
    assert ring.replicas_of(15, network(dc1=3)) == (one, three, four)
    assert ring.replicas_of(25, network(dc1=3)) == (one, two, four)


def test_datacenters_are_filled_independently() -> None:
    """RF 3, 2 and 1 in three interleaved DCs: each takes its own next nodes clockwise."""
    places = ["dc1", "dc1", "dc1", "dc3", "dc3", "dc2", "dc2", "dc1", "dc3", "dc2"]
    ring = make_ring(*(make_node(i, (i * 10,), dc) for i, dc in enumerate(places)))
    replicas = ring.replicas_of(0, network(dc1=3, dc2=2, dc3=1))
    assert [ring.nodes.index(node) for node in replicas] == [0, 1, 2, 5, 6, 3]
    replicas = ring.replicas_of(45, network(dc1=3, dc2=2, dc3=1))
    assert [ring.nodes.index(node) for node in replicas] == [0, 1, 7, 5, 6, 8]


def test_vnodes_of_one_node_count_once() -> None:
    """A node met again on the walk is no further replica."""
    ring = make_ring(make_node(1, (0, 10, 20)), make_node(2, (5,)), make_node(3, (25,)))
    one, two, three = ring.nodes
    assert ring.replicas_of(7, simple(2)) == (one, three)
    assert ring.replicas_of(7, network(dc1=2)) == (one, three)
    assert ring.replicas_of(1, network(dc1=2)) == (one, two)


def test_a_single_node_owns_everything() -> None:
    """One token, wherever it is, makes one arc: the full ring."""
    for token in (MIN_TOKEN, 0, MAX_TOKEN):
        ring = make_ring(make_node(1, (token,)))
        (arc,) = ring.arcs(network(dc1=3))
        assert arc.replicas == ring.nodes
        assert arc.ranges == (TokenRange.full_ring(),)


def test_tokens_at_both_ends_leave_no_range_between_them() -> None:
    """The node at the smallest token owns nothing of its own: no partition lies between MAX and MIN."""
    first, last = BOTH_ENDS.nodes
    (arc,) = BOTH_ENDS.arcs(simple(1))
    assert arc.replicas == (last,)
    assert BOTH_ENDS.replicas_of(MIN_TOKEN, simple(1)) == (first,)


@pytest.mark.parametrize("state", ["BOOT", "BOOT_REPLACE", "JOINING", "LEFT"])
def test_a_node_that_joins_or_has_left_owns_nothing(state: str) -> None:
    """Tokens that gossip announces early or late place no replica, and may be another node's."""
    replaced = make_node(1, (0,))
    guest = make_node(3, (0, 50), dc="dc9", state=state)
    ring = make_ring(replaced, make_node(2, (100,)), guest)
    assert all(guest not in arc.replicas for arc in ring.arcs(simple(3)))
    assert list(ring.datacenters) == ["dc1"]
    assert ring.fingerprint == make_ring(replaced, ring.nodes[1], make_node(3, (), dc="dc9")).fingerprint


def test_leaving_and_moving_nodes_still_own_their_ranges() -> None:
    """Until they are done, reads and writes go to them."""
    ring = make_ring(make_node(1, (0,), state="LEAVING"), make_node(2, (100,), state="MOVING"))
    assert ring.replicas_of(50, simple(2)) == ring.nodes


def test_what_makes_no_sense_is_refused() -> None:
    """Another partitioner, a token claimed twice, no token at all, a strategy without replicas."""
    node = make_node(1, (0,))
    with pytest.raises(TopologyError, match="RandomPartitioner"):
        Ring("test", "org.apache.cassandra.dht.RandomPartitioner", (node,))
    with pytest.raises(TopologyError, match="both claim token 0"):
        make_ring(node, make_node(2, (0,)))
    with pytest.raises(TopologyError, match="no node"):
        make_ring(make_node(1, ()))
    with pytest.raises(TopologyError, match="LocalStrategy"):
        make_ring(node).arcs(Replication("LocalStrategy", ()))


def test_replication_is_read_from_the_schema_table() -> None:
    """The class is shortened, factors are numbers, transient replicas are named."""
    read = Replication.parse(
        {"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", "dc2": "3/1", "dc1": "2"}
    )
    assert read == Replication("NetworkTopologyStrategy", (("dc1", 2), ("dc2", 3)), ("dc2",))
    assert (read.factor("dc2"), read.factor("dc9")) == (3, 0)
    assert Replication.parse({"class": "SimpleStrategy", "replication_factor": "2"}) == simple(2)
    with pytest.raises(TopologyError, match="'dc1' has the value 'three'"):
        Replication.parse({"class": "NetworkTopologyStrategy", "dc1": "three"})


@pytest.mark.no_cover  # tracing would be timed too
@pytest.mark.parametrize("racks", ["even", "one rack of one node"])
def test_a_ring_of_a_thousand_nodes_is_planned_in_seconds(racks: str) -> None:
    """1,000 nodes x 16 tokens in 3 DCs at RF 3 each: under 5 s and 300 MB, whatever the racks."""
    rng = random.Random(7)
    nodes = [
        make_node(
            i,
            tuple(rng.randrange(MIN_TOKEN, MAX_TOKEN) for _ in range(16)),
            DCS[i % 3],
            f"r{i // 3 % 3}" if racks == "even" else f"r{min(i // 3, 2)}",
        )
        for i in range(1000)
    ]
    ring = make_ring(*nodes)
    tracemalloc.start()
    began = time.process_time()
    arcs = ring.arcs(network(dc1=3, dc2=3, dc3=3))
    seconds = time.process_time() - began
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(arc.ranges) for arc in arcs) > 10_000
    assert all(len(arc.replicas) == 9 for arc in arcs)
    assert seconds < 5
    assert peak_bytes < 300 * 2**20


def test_a_node_is_named_by_address_and_port() -> None:
    """An IPv6 address is bracketed."""
    node = Node("host", "::1", 9042, "dc1", "r1", (0,), "5.0-beta1")
    assert (node.name, make_node(1, (5,)).name) == ("[::1]:9042", "10.0.0.2:9042")
    assert node.version == (5, 0)
