"""What all nodes say is believed, what only some say is named; ranges that one of them sees elsewhere are disputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from consistency.cluster.agreement import agree
from consistency.cluster.silence import unheard_of
from consistency.cluster.views import Claim, View
from consistency.errors import TopologyError
from consistency.model.ownership import changed_ranges, disputed_ranges
from consistency.model.ring import MURMUR3, Replication, Ring
from consistency.model.tokens import TokenRange

RF3 = Replication("NetworkTopologyStrategy", (("dc1", 3),))
RF2 = Replication("NetworkTopologyStrategy", (("dc1", 2),))


def claim(n: int, *tokens: int, dc: str = "dc1", rack: str | None = "r1") -> Claim:
    """Return what is right of node n, which owns the token n * 1000 where no others are given."""
    return Claim(f"id-{n}", f"10.0.0.{n}:7000", dc, rack, tokens or (n * 1000,), f"10.0.0.{n}", 9042, "5.0.8")


def views(
    nodes: Sequence[int] = (1, 2, 3), *, gossip: bool = True, also: Sequence[Claim] = (), version: str = "v"
) -> dict[str, View]:
    """Return the views of nodes that know one another; `also` are nodes that all know and that do not answer."""
    known = [claim(n) for n in nodes] + list(also)
    states = {c.broadcast: "NORMAL" for c in known} if gossip else None
    return {
        f"id-{n}": View(
            claim(n), "test", MURMUR3, version, tuple(c for c in known if c.host_id != f"id-{n}"), (), states
        )
        for n in nodes
    }


def changed(
    found: Mapping[str, View], n: int, *peers: Claim, gossip: Mapping[str, str] | None = None
) -> dict[str, View]:
    """Return the views where node n has these rows in its peers table instead."""
    one = found[f"id-{n}"]
    return {**found, f"id-{n}": replace(one, peers=peers, gossip=gossip if gossip is not None else one.gossip)}


def kinds(ring: Ring) -> list[str]:
    """Return the kinds of what is doubted."""
    return [doubt.kind for doubt in ring.doubts]


def test_nodes_that_say_the_same_are_a_ring_without_doubts() -> None:
    """Also where gossip is not shown, and where a node that does not answer is known to all."""
    for gossip in (True, False):
        ring = agree(views(gossip=gossip, also=[claim(4)]), {"id-4": unheard_of("connection refused")})
        assert [(n.name, n.up, str(n.silence)) for n in ring.nodes][3] == ("10.0.0.4:9042", False, "connection refused")
        assert (len(ring.nodes), ring.doubts, ring.views) == (4, (), ())


def test_a_row_with_holes_is_filled_from_what_others_say() -> None:
    """A null says nothing: port, address, rack, tokens of a peer come from the node itself or from most others."""
    hole = replace(claim(2), port=None, address="0.0.0.0", rack=None, tokens=())
    ring = agree(changed(views(), 1, hole, claim(3)))
    assert ring.by_id["id-2"].tokens == (2000,)
    assert ring.by_id["id-2"].name == "10.0.0.2:9042"
    assert ring.by_id["id-2"].rack == "r1"
    assert kinds(ring) == ["peers_disagree"]
    assert "10.0.0.1:9042 has no rack, no tokens" in ring.doubts[0].detail
    assert not ring.views


def test_a_dead_node_that_one_node_alone_lists_is_stale_and_changes_nothing() -> None:
    """Its gossip does not know it, so it sends no write there: the whole ring is compared."""
    ghost = claim(9, 2500)
    ring = agree(changed(views(), 1, claim(2), claim(3), ghost))
    assert [n.host_id for n in ring.nodes] == ["id-1", "id-2", "id-3"]
    assert (kinds(ring), ring.views) == (["stale_peer"], ())
    assert "10.0.0.1:9042 lists 10.0.0.9:7000" in ring.doubts[0].detail
    assert "DELETE FROM system.peers_v2 WHERE peer = '10.0.0.9' AND peer_port = 7000" in ring.doubts[0].remedy


@pytest.mark.parametrize("tokens", [(2500,), (2000,)])
def test_a_dead_node_that_one_node_acts_on_disputes_its_ranges(tokens: tuple[int, ...]) -> None:
    """Before 5.0 gossip is not shown: that node may send writes there, so what it would own is not judged."""
    ring = agree(changed(views(gossip=False), 1, claim(2), claim(3), claim(9, *tokens)))
    assert [n.host_id for n in ring.nodes] == ["id-1", "id-2", "id-3"]
    assert kinds(ring) == ["stale_peer"]
    (view,) = ring.views
    disputed = changed_ranges(ring, view, RF2)
    assert any(2000 in r or tokens[0] in r for r in disputed)
    assert not any(500 in r for r in disputed) or tokens == (2000,)


def test_a_node_that_one_node_does_not_know_disputes_its_ranges_where_gossip_is_not_shown() -> None:
    """Where gossip shows it as a member, only a row is missing."""
    ring = agree(changed(views(gossip=False), 1, claim(2)))
    assert kinds(ring) == ["peers_disagree"]
    assert changed_ranges(ring, ring.views[0], RF3) == (TokenRange.full_ring(),)
    ring = agree(changed(views(), 1, claim(2)))
    assert (kinds(ring), ring.views) == (["peers_disagree"], ())
    joining = {**(views()["id-1"].gossip or {}), "10.0.0.3:7000": "BOOT"}
    assert agree(changed(views(), 1, claim(2), gossip=joining)).views


def test_a_rack_or_token_that_one_node_sees_otherwise_disputes_what_it_changes() -> None:
    """A node is believed about itself; the other's ring is kept beside."""
    ring = agree(changed(views(), 2, claim(1, 1500), claim(3)))
    assert ring.by_id["id-1"].tokens == (1000,)
    (view,) = ring.views
    assert view.by_id["id-1"].tokens == (1500,)
    assert changed_ranges(ring, view, RF2)


def test_a_peer_without_a_host_id_is_named() -> None:
    """Of a node that is there it is a row to be written anew, of none a row to be deleted."""
    found = views()
    found["id-1"] = replace(found["id-1"], peers=(claim(2),), nameless=("10.0.0.3:7000", "10.0.0.8:7000"))
    ring = agree(found)
    assert sorted(kinds(ring)) == ["peers_disagree", "peers_disagree", "stale_peer"]
    assert not ring.views


def test_two_nodes_at_one_place_are_refused_by_name() -> None:
    """What is said of a node by its name would be said of both."""
    same = [replace(claim(n), address="10.0.0.1") for n in (2, 3)]
    with pytest.raises(TopologyError, match=r"id-1 and id-2 both tell 10\.0\.0\.1:9042 .*connection\.addresses"):
        agree({"id-1": replace(views()["id-1"], peers=tuple(same))})
    found = changed(views(), 1, *same)
    assert [n.name for n in agree(found).nodes] == [f"10.0.0.{n}:9042" for n in (1, 2, 3)]


def test_a_node_whose_tokens_nobody_tells_makes_every_range_disputed() -> None:
    """It does not answer, and the others' tables lost its row, its tokens or its data centre: gossip shows an owner."""
    known = {"id-1": (claim(2), claim(3)), "id-2": (claim(1), claim(3))}
    holes = {
        "no row": None,
        "no tokens": replace(claim(3), tokens=()),
        "no data centre": replace(claim(3), dc=None),
    }
    two = {host_id: view for host_id, view in views().items() if host_id != "id-3"}
    assert not agree(two).disputed
    for hole in holes.values():
        odd = {
            host_id: replace(view, peers=(*known[host_id][:1], *([hole] if hole else ())))
            for host_id, view in two.items()
        }
        ring = agree(odd)
        assert ring.unplaced == ("10.0.0.3:7000",)
        assert disputed_ranges(ring, RF2) == (TokenRange.full_ring(),)
        assert "peers_disagree" in kinds(ring)
        assert set(ring.datacenters) == {"dc1"}


def test_rows_left_over_from_another_address_are_named_and_change_nothing() -> None:
    """A second row of a node's host id, in whatever order, and a node's row of itself."""
    old = replace(claim(2, 77), broadcast="10.0.0.9:7000", address="10.0.0.9")
    itself = replace(claim(1), broadcast="10.0.0.8:7000")
    for gossip in (True, False):
        for peers in ((old, claim(2), claim(3), itself), (itself, claim(3), claim(2), old)):
            ring = agree(changed(views(gossip=gossip), 1, *peers))
            assert kinds(ring) == ["stale_peer", "stale_peer"], gossip
            assert not ring.disputed
            assert ring.by_id["id-2"].tokens == (2000,)


def test_nodes_of_one_address_are_called_by_where_they_are_reached() -> None:
    """That is what the map of addresses is for."""
    found = {host_id: replace(view, own=replace(view.own, address="10.0.0.50")) for host_id, view in views().items()}
    found = {
        host_id: replace(view, peers=tuple(replace(c, address="10.0.0.50") for c in view.peers))
        for host_id, view in found.items()
    }
    with pytest.raises(TopologyError, match="both tell"):
        agree(found)
    ring = agree(found, reached={f"id-{n}": ("tunnel", 9000 + n) for n in (1, 2, 3)})
    assert [node.name for node in ring.nodes] == ["tunnel:9001", "tunnel:9002", "tunnel:9003"]
    assert not ring.doubts


def test_nodes_of_one_release_with_several_schemas_are_named() -> None:
    """Releases name one schema in different ways: that is no disagreement."""
    found = views()
    found["id-2"] = replace(found["id-2"], schema_version="w")
    ring = agree(found)
    assert kinds(ring) == ["schema_disagreement"]
    assert "10.0.0.2:9042" in ring.doubts[0].detail
    found["id-2"] = replace(found["id-2"], own=replace(claim(2), release="4.1.10"))
    assert not agree(found).doubts


def test_the_order_of_answers_does_not_matter() -> None:
    """Of what is said equally often one is chosen, always the same."""
    one = changed(views((1, 2), gossip=False), 1, claim(2), claim(7, 7000))
    both = changed(one, 2, claim(1), claim(7, 7500))
    again = dict(reversed(both.items()))
    assert agree(both).fingerprint == agree(again).fingerprint
