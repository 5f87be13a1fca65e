"""The ring as all reachable nodes describe it, and what only some of them say.

Each node that answers is believed about itself: its tokens, its place, its address. Of a node that does not answer
the others speak. Every node's own description is kept beside: where one of them would place replicas elsewhere, it
sends writes elsewhere too, and the ranges concerned cannot be judged (`Ring.views`). A row of system.peers_v2 that
the node itself takes no notice of, as its gossip shows (5.0), changes nothing but is reported.
Pure: `topology.py` reads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from consistency.errors import TopologyError
from consistency.ring import NOT_IN_THE_RING, Doubt, Node, Ring

_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a node tells that binds to every address
_NAMED = 4
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Claim:
    """What one node says of a node, perhaps of itself; None where it says nothing.

    `broadcast` is the node's `address:port` between nodes, `tokens` are sorted.
    """

    host_id: str
    broadcast: str
    dc: str | None
    rack: str | None
    tokens: tuple[int, ...]
    address: str | None
    port: int | None
    release: str

    @property
    def reachable_at(self) -> tuple[str, int] | None:
        """Return the native address and port, None where they do not name a place."""
        if self.address is None or self.port is None or self.address in _ANYWHERE:
            return None
        return self.address, self.port

    @property
    def placed(self) -> tuple[str | None, str | None, tuple[int, ...]]:
        """What decides which replicas it is: DC, rack, tokens."""
        return self.dc, self.rack, self.tokens


@dataclass(frozen=True)
class View:
    """What one node says of the cluster.

    `nameless` are rows of its peers table without a host id, by broadcast address. `gossip` maps the broadcast address
    of every node that its gossip knows to the state there, None where the server does not show it.
    """

    own: Claim
    cluster: str
    partitioner: str
    schema_version: str
    peers: tuple[Claim, ...]
    nameless: tuple[str, ...] = ()
    gossip: Mapping[str, str] | None = field(default=None)

    def knows(self, claim: Claim) -> bool:
        """Whether a row of its peers table is one that it acts on: gossip lists every node that it does."""
        return self.gossip is None or claim.broadcast in self.gossip

    def places(self, broadcast: str) -> bool:
        """Whether its gossip shows a node as one that owns tokens."""
        state = (self.gossip or {}).get(broadcast)
        return state is not None and state.upper() not in NOT_IN_THE_RING


def agree(views: Mapping[str, View], silences: Mapping[str, str] | None = None) -> Ring:
    """Put the nodes' descriptions together; `silences` says why the nodes that have no view do not answer.

    TopologyError where nodes are told to be reached at one place, or where no node owns a token.
    """
    about: dict[str, list[tuple[View, Claim]]] = defaultdict(list)
    stale: dict[str, list[View]] = defaultdict(list)
    for view in views.values():
        for claim in view.peers:
            if view.knows(claim):
                about[claim.host_id].append((view, claim))
            else:
                stale[claim.host_id].append(view)
    members = {host_id: _member(host_id, view.own, views, silences or {}) for host_id, view in views.items()}
    for host_id, said in about.items():
        if host_id not in members and _is_member(said, len(views)):
            members[host_id] = _member(host_id, _settled([c for _, c in said]), views, silences or {})
    _give_up_tokens(members, views)
    _assert_places_differ(members.values())
    first = next(iter(views.values()))
    ring = Ring(first.cluster, first.partitioner, tuple(sorted(members.values(), key=lambda node: node.name)))
    others = {alternative.fingerprint: alternative for alternative in _alternatives(ring, views, about)}
    doubts = (
        *_doubts_of_schemas(ring, views),
        *_doubts_of_peers(ring, views, about),
        *_doubts_of_strangers(ring, views, about, stale),
    )
    return replace(ring, views=tuple(others.values()), doubts=tuple(dict.fromkeys(doubts)))


def _is_member(said: Sequence[tuple[View, Claim]], asked: int) -> bool:
    """Whether a node that does not answer counts as one of the ring: half of those that do say so."""
    return 2 * len(said) >= asked


def _settled(claims: Sequence[Claim]) -> Claim:
    """Return what most say of a node, column by column; a null says nothing."""
    places = [claim.reachable_at for claim in claims if claim.reachable_at]
    address, port = _most(places) or (None, None)
    return Claim(
        host_id=claims[0].host_id,
        broadcast=_most([c.broadcast for c in claims]) or "",
        dc=_most([c.dc for c in claims if c.dc is not None]),
        rack=_most([c.rack for c in claims if c.rack is not None]),
        tokens=_most([c.tokens for c in claims if c.tokens]) or (),
        address=address,
        port=port,
        release=_most([c.release for c in claims if c.release]) or "0.0",
    )


def _most(said: Sequence[_T]) -> _T | None:
    """Return what is said most often; of several the least, so that the order of answers does not matter."""
    if not said:
        return None
    counts = Counter(said)
    most = max(counts.values())
    return min((value for value, count in counts.items() if count == most), key=repr)


def _member(host_id: str, claim: Claim, views: Mapping[str, View], silences: Mapping[str, str]) -> Node:
    address, port = claim.reachable_at or (claim.broadcast.rpartition(":")[0], claim.port or 0)
    return Node(
        host_id=host_id,
        address=address,
        port=port,
        dc=claim.dc or "",
        rack=claim.rack or "",
        tokens=claim.tokens,
        release=claim.release,
        state=_state(host_id, claim.broadcast, views),
        up=host_id in views,
        broadcast=claim.broadcast,
        silence="" if host_id in views else silences.get(host_id, "it was not asked"),
    )


def _state(host_id: str, broadcast: str, views: Mapping[str, View]) -> str:
    """Return what gossip says of a node: its own, else what most nodes say, NORMAL where none shows it."""
    own = views.get(host_id)
    if own is not None and own.gossip is not None and broadcast in own.gossip:
        return own.gossip[broadcast]
    return _most([v.gossip[broadcast] for v in views.values() if v.gossip and broadcast in v.gossip]) or "NORMAL"


def _give_up_tokens(members: dict[str, Node], views: Mapping[str, View]) -> None:
    """Take from nodes that do not answer the tokens that one which answers says are its own."""
    own = {token for host_id in views for token in members[host_id].owned}
    for host_id, node in members.items():
        if host_id not in views and own.intersection(node.owned):
            members[host_id] = replace(node, tokens=tuple(t for t in node.tokens if t not in own))


def _assert_places_differ(nodes: Iterable[Node]) -> None:
    """Refuse two nodes of one name: what is said of a node by its name would be said of both."""
    seen: dict[str, Node] = {}
    for node in nodes:
        if node.name in seen:
            one, other = sorted((node.host_id, seen[node.name].host_id))
            msg = (
                f"nodes {one} and {other} both tell {node.name} as their native address (broadcast_rpc_address): "
                "give each its own, or say by host id where each is reached: [connection.addresses] of the "
                "configuration file"
            )
            raise TopologyError(msg)
        seen[node.name] = node


def _alternatives(
    ring: Ring, views: Mapping[str, View], about: Mapping[str, Sequence[tuple[View, Claim]]]
) -> Iterator[Ring]:
    """Yield the ring as each node sees it that sees another one."""
    believed = {node.host_id: node for node in ring.nodes}
    strangers = {host_id: said for host_id, said in about.items() if host_id not in believed}
    told: dict[int, dict[str, Claim]] = {
        id(view): {c.host_id: c for c in view.peers if view.knows(c)} for view in views.values()
    }
    for view in views.values():
        seen = _seen_by(view, told[id(view)], believed, [s for s, said in strangers.items() if _says(view, said)])
        if seen is not None:
            yield Ring(ring.cluster, ring.partitioner, seen)


def _says(view: View, said: Sequence[tuple[View, Claim]]) -> bool:
    return any(who is view for who, _ in said)


def _seen_by(
    view: View, told: Mapping[str, Claim], believed: Mapping[str, Node], strangers: Sequence[str]
) -> tuple[Node, ...] | None:
    """Return the nodes as one node places them, None where that is as believed.

    A node that its peers table lacks and its gossip knows is known to it: only a restart would make it forget.
    """
    out: list[Node] = []
    differs = bool(strangers)
    for host_id, node in believed.items():
        claim = view.own if host_id == view.own.host_id else told.get(host_id)
        if claim is None:
            if not node.owned or view.places(node.broadcast):
                out.append(node)
            else:
                differs = True
            continue
        placed = _as_claimed(node, claim)
        differs = differs or placed is not node
        out.append(placed)
    if not differs:
        return None
    out += [_member(host_id, told[host_id], {}, {}) for host_id in strangers]
    return _without_clashes(out, strangers)


def _as_claimed(node: Node, claim: Claim) -> Node:
    """Return the node as a claim places it; the same object where that is no other place. A null says nothing."""
    dc, rack = claim.dc or node.dc, claim.rack or node.rack
    tokens = claim.tokens or node.tokens
    if (dc, rack, tokens) == (node.dc, node.rack, node.tokens):
        return node
    return replace(node, dc=dc, rack=rack, tokens=tokens)


def _without_clashes(nodes: Sequence[Node], strangers: Sequence[str]) -> tuple[Node, ...]:
    """Give a token that two nodes are said to own to the one that others do not know: the rings differ there."""
    taken: set[int] = set()
    out: list[Node] = []
    for node in sorted(nodes, key=lambda n: (n.host_id not in strangers, n.host_id)):
        out.append(replace(node, tokens=tuple(t for t in node.tokens if t not in taken)))
        taken.update(node.owned)
    return tuple(out)


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


def _doubts_of_peers(
    ring: Ring, views: Mapping[str, View], about: Mapping[str, Sequence[tuple[View, Claim]]]
) -> Iterator[Doubt]:
    """Name what nodes say wrongly, or do not say, of the nodes that are believed to be there."""
    names = {node.host_id: node.name for node in ring.nodes}
    for node in ring.nodes:
        said = {view.own.host_id: claim for view, claim in about.get(node.host_id, ())}
        wrong: dict[str, list[str]] = defaultdict(list)
        for host_id in views:
            if host_id == node.host_id or (not node.owned and host_id not in said):
                continue
            what = _unlike(node, said.get(host_id))
            if what:
                wrong[what].append(names[host_id])
        for what, who in wrong.items():
            yield _peers_disagree(node, what, who)


def _unlike(node: Node, claim: Claim | None) -> str:
    """Say in which columns a row of peers_v2 is not as its node; empty where it is."""
    if claim is None:
        return "lacks it"
    columns: list[tuple[str, object, object]] = [
        ("data_center", claim.dc, node.dc),
        ("rack", claim.rack, node.rack),
    ]
    if node.owned:
        columns += [
            ("tokens", claim.tokens or None, node.tokens),
            ("native_address", claim.address, node.address),
            ("native_port", claim.port, node.port),
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


def _doubts_of_strangers(
    ring: Ring,
    views: Mapping[str, View],
    about: Mapping[str, Sequence[tuple[View, Claim]]],
    stale: Mapping[str, Sequence[View]],
) -> Iterator[Doubt]:
    """Name rows of peers tables of nodes that are not there as far as the others know, and rows without a host id."""
    names = {node.host_id: node.name for node in ring.nodes}
    for host_id, said in about.items():
        if host_id not in names:
            yield _stale_peer(said[0][1], [names[view.own.host_id] for view, _ in said])
    for host_id, who in stale.items():
        if host_id not in names:
            claim = next(c for c in who[0].peers if c.host_id == host_id)
            yield _stale_peer(claim, [names[view.own.host_id] for view in who])
    nameless: dict[str, list[str]] = defaultdict(list)
    for view in views.values():
        for broadcast in view.nameless:
            nameless[broadcast].append(names[view.own.host_id])
    known = {node.broadcast: node for node in ring.nodes}
    for broadcast, telling in nameless.items():
        yield _nameless(broadcast, telling, known.get(broadcast))


def _stale_peer(claim: Claim, who: Sequence[str]) -> Doubt:
    detail = (
        f"system.peers_v2 of {_some(who)} lists {claim.broadcast} (host id {claim.host_id}), which does not answer and "
        "which the other nodes do not know"
    )
    remedy = (
        f"if that node is gone for good: nodetool removenode {claim.host_id}, else nodetool assassinate "
        f"{claim.broadcast.rpartition(':')[0]}; a row that stays: DELETE FROM system.peers_v2 WHERE peer = "
        f"'{claim.broadcast.rpartition(':')[0]}' AND peer_port = {claim.broadcast.rpartition(':')[2]} on {_some(who)}, "
        "then restart it"
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
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + more
