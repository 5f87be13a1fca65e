"""What only some of the nodes say of the ring or the schema, each with the nodes that say it and what to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from consistency.cluster.views import Claim, Said, View
from consistency.model.cqltext import some_of
from consistency.model.ring import Doubt, Node, Ring

_NAMED = 4


def doubts_of(
    ring: Ring, views: Mapping[str, View], about: Said, stale: Sequence[tuple[View, Claim]]
) -> Iterator[Doubt]:
    """Yield everything that is doubted of a ring; `stale` are rows that no node acts on, with who has them."""
    yield from _doubts_of_schemas(ring, views)
    yield from map(_no_tokens, ring.unplaced)
    yield from _doubts_of_peers(ring, views, about)
    yield from _doubts_of_unknown_nodes(ring, views, about, stale)


def _no_tokens(broadcast: str) -> Doubt:
    detail = f"gossip shows {broadcast} as a node of the ring, and no node's system.peers_v2 tells its tokens and place"
    remedy = f"restart the nodes one by one, which write the row anew from gossip; see nodetool ring for {broadcast}"
    return Doubt("peers_disagree", detail, remedy)


def _doubts_of_schemas(ring: Ring, views: Mapping[str, View]) -> Iterator[Doubt]:
    """Name the nodes that have another schema than most of their release."""
    by_release: dict[tuple[int, int], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for host_id, view in views.items():
        node = ring.by_id[host_id]
        by_release[node.version][view.schema_version].append(node.name)
    for versions in by_release.values():
        most = max(sorted(versions.values()), key=len)
        for who in versions.values():
            if who is not most:
                detail = f"{_some(who)} has another schema than {_some(most)}: its tables may be other ones"
                remedy = (
                    f"nodetool describecluster; where it stays so, on {_some(who)}: nodetool resetlocalschema, or "
                    "restart the node"
                )
                yield Doubt("schema_disagreement", detail, remedy, tuple(who))


def _doubts_of_peers(ring: Ring, views: Mapping[str, View], about: Said) -> Iterator[Doubt]:
    """Name what nodes say wrongly, or do not say, of the nodes that are believed to be there."""
    names = {node.host_id: node.name for node in ring.nodes}
    for node in ring.nodes:
        said = {view.own.host_id: claim for view, claim in about.get(node.host_id, ())}
        wrong: dict[str, list[str]] = defaultdict(list)
        for host_id in views:
            if host_id == node.host_id or (not node.owned and host_id not in said):
                continue
            what = _unlike(node, views[node.host_id].own if node.host_id in views else None, said.get(host_id))
            if what:
                wrong[what].append(names[host_id])
        for what, who in wrong.items():
            yield _peers_disagree(node, what, who)


def _unlike(node: Node, own: Claim | None, claim: Claim | None) -> str:
    """Say in which columns a row of peers_v2 is not as its node, or as that says itself; empty if it is."""
    if claim is None:
        return "lacks it"
    columns: list[tuple[str, object, object]] = [
        ("data_center", claim.dc, node.dc),
        ("rack", claim.rack, node.rack),
    ]
    if node.owned:
        columns += [
            ("tokens", claim.tokens or None, node.tokens),
            ("native_address", claim.address, own.address if own else node.address),
            ("native_port", claim.port, own.port if own else node.port),
        ]
    unlike = [f"{'no' if told is None else 'another'} {name}" for name, told, right in columns if told != right]
    return f"has {', '.join(unlike)}" if unlike else ""


def _peers_disagree(node: Node, what: str, who: Sequence[str]) -> Doubt:
    detail = f"system.peers_v2 of {_some(who)} {what} for {node} (host id {node.host_id})"
    remedy = (
        f"compare nodetool gossipinfo on {_some(who)} with the others; where it stays so, restart the node: it "
        "writes the row anew from gossip"
    )
    return Doubt("peers_disagree", detail, remedy, tuple(who))


def _doubts_of_unknown_nodes(
    ring: Ring,
    views: Mapping[str, View],
    about: Said,
    stale: Sequence[tuple[View, Claim]],
) -> Iterator[Doubt]:
    """Name rows of peers tables of nodes that are not there as far as the others know, and rows without a host id."""
    names = {node.host_id: node.name for node in ring.nodes}
    for host_id, said in about.items():
        if host_id not in names:
            yield _stale_peer(said[0][1], [names[view.own.host_id] for view, _ in said], acted_on=True)
    left_over: dict[Claim, list[str]] = defaultdict(list)
    for view, claim in stale:
        left_over[claim].append(names[view.own.host_id])
    for claim, who in left_over.items():
        yield _stale_peer(claim, who, acted_on=False)
    nameless: dict[str, list[str]] = defaultdict(list)
    for view in views.values():
        for broadcast in view.nameless:
            nameless[broadcast].append(names[view.own.host_id])
    known = {node.broadcast: node for node in ring.nodes}
    for broadcast, telling in nameless.items():
        yield _nameless(broadcast, telling, known.get(broadcast))


def _stale_peer(claim: Claim, who: Sequence[str], *, acted_on: bool) -> Doubt:
    address, _, port = claim.broadcast.rpartition(":")
    delete = f"on {_some(who)}: DELETE FROM system.peers_v2 WHERE peer = '{address}' AND peer_port = {port}"
    what = f"system.peers_v2 of {_some(who)} lists {claim.broadcast} (host id {claim.host_id})"
    if not acted_on:
        return Doubt("stale_peer", f"{what}, a row that no node acts on", delete, tuple(who))
    detail = f"{what}, which does not answer and which the other nodes do not know"
    remedy = (
        f"where that node is gone for good: nodetool removenode {claim.host_id}, or nodetool assassinate {address} "
        f"where that fails; a row that is left then: {delete}, and restart it"
    )
    return Doubt("stale_peer", detail, remedy, tuple(who))


def _nameless(broadcast: str, who: Sequence[str], node: Node | None) -> Doubt:
    detail = f"system.peers_v2 of {_some(who)} has a row of {node or broadcast} without a host id"
    if node is not None:
        return Doubt("peers_disagree", detail, f"restart {_some(who)}, which writes the row anew", tuple(who))
    remedy = (
        f"if no node is being added: DELETE FROM system.peers_v2 WHERE peer = '{broadcast.rpartition(':')[0]}' AND "
        f"peer_port = {broadcast.rpartition(':')[2]} on {_some(who)}"
    )
    return Doubt("stale_peer", detail, remedy, tuple(who))


def _some(names: Sequence[str]) -> str:
    return some_of(sorted(names), _NAMED)
