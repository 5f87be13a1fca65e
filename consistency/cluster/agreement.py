"""The ring as all reachable nodes describe it, and what only some of them say.

Each node that answers is believed about itself: its tokens, its place, its address. Of a node that does not answer
the others speak. Every node's own description is kept beside: where one of them would place replicas elsewhere, it
sends writes elsewhere too, and the ranges concerned cannot be judged (`Ring.views`). A row of system.peers_v2 that
the node itself takes no notice of, as its gossip shows (5.0), changes nothing but is reported.
Pure: `snapshot.py` reads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from consistency.cluster.doubts import doubts_of
from consistency.cluster.silence import unheard_of
from consistency.cluster.views import Claim, Said, View
from consistency.errors import TopologyError
from consistency.model.ring import Node, Ring, Silence

_OWNING = frozenset({"NORMAL", "LEAVING", "MOVING", "SHUTDOWN", "REMOVING"})
"""Gossip states (VersionedValue) of a node that owns tokens."""
_NOT_ASKED = unheard_of("it was not asked")
_T = TypeVar("_T")


def agree(
    views: Mapping[str, View],
    silences: Mapping[str, Silence] | None = None,
    reached: Mapping[str, tuple[str, int]] | None = None,
) -> Ring:
    """Put the nodes' descriptions together; `silences` says why the nodes that have no view do not answer.

    `reached` says where nodes are reached: nodes that tell one address are called by that. TopologyError if it does
    not tell them apart, or if no node owns a token.
    """
    about, stale = _sorted_out(views)
    members = {host_id: _member(host_id, view.own, views, silences or {}) for host_id, view in views.items()}
    for host_id, said in about.items():
        if host_id not in members and _is_member(said, len(views)):
            members[host_id] = _member(host_id, _settled([c for _, c in said]), views, silences or {})
    _give_up_tokens(members, views)
    unplaced = _unplaced(members.values(), views)
    members = {host_id: node for host_id, node in members.items() if node.dc or not node.tokens}
    _tell_apart(members, reached or {})
    first = next(iter(views.values()))
    ring = Ring(first.cluster, first.partitioner, tuple(sorted(members.values(), key=lambda node: node.name)))
    others = {alternative.fingerprint: alternative for alternative in _alternatives(ring, views, about)}
    ring = replace(ring, views=tuple(others.values()), unplaced=unplaced)
    return replace(ring, doubts=tuple(dict.fromkeys(doubts_of(ring, views, about, stale))))


def _sorted_out(views: Mapping[str, View]) -> tuple[Said, list[tuple[View, Claim]]]:
    """Return what the nodes say of one another, and rows that are left over from another time.

    Those are rows that gossip does not know, a node's row of itself, and all but one of several of a host id: the one
    at the address that the node itself tells, if it answers.
    """
    about: dict[str, list[tuple[View, Claim]]] = defaultdict(list)
    stale: list[tuple[View, Claim]] = []
    for view in views.values():
        rows: dict[str, list[Claim]] = defaultdict(list)
        for claim in view.peers:
            if claim.host_id == view.own.host_id or not view.knows(claim):
                stale.append((view, claim))
            else:
                rows[claim.host_id].append(claim)
        for host_id, claims in rows.items():
            own = views[host_id].own.broadcast if host_id in views else ""
            claims.sort(key=lambda claim: (claim.broadcast != own, claim.broadcast))
            about[host_id].append((view, claims[0]))
            stale += [(view, claim) for claim in claims[1:]]
    return about, stale


def _unplaced(members: Iterable[Node], views: Mapping[str, View]) -> tuple[str, ...]:
    """Return the nodes that own tokens, by some node's gossip, and of which nobody tells tokens and data centre."""
    placed = {node.broadcast for node in members if node.tokens and node.dc}
    shown = {b for view in views.values() for b, state in (view.gossip or {}).items() if state.upper() in _OWNING}
    nowhere = {node.broadcast for node in members if node.tokens and not node.dc}
    return tuple(sorted((shown - placed) | nowhere))


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


def _member(host_id: str, claim: Claim, views: Mapping[str, View], silences: Mapping[str, Silence]) -> Node:
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
        silence=None if host_id in views else silences.get(host_id, _NOT_ASKED),
    )


def _state(host_id: str, broadcast: str, views: Mapping[str, View]) -> str:
    """Return what gossip says of a node: its own, else what most nodes say, NORMAL if none shows it."""
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


def _tell_apart(members: dict[str, Node], reached: Mapping[str, tuple[str, int]]) -> None:
    """Call nodes that tell one address by where they are reached; refuse those that this does not tell apart.

    What is said of a node by its name would be said of both.
    """
    named: dict[str, list[str]] = defaultdict(list)
    for host_id, node in members.items():
        named[node.name].append(host_id)
    for shared in (ids for ids in named.values() if len(ids) > 1):
        for host_id in shared:
            address, port = reached.get(host_id, (members[host_id].address, members[host_id].port))
            members[host_id] = replace(members[host_id], address=address, port=port)
    seen: dict[str, Node] = {}
    for node in members.values():
        if node.name in seen:
            one, other = sorted((node.host_id, seen[node.name].host_id))
            msg = (
                f"nodes {one} and {other} both tell {node.name} as their native address (broadcast_rpc_address): "
                "give each its own, or say by host id where each is reached: [connection.addresses] of the "
                "configuration file"
            )
            raise TopologyError(msg)
        seen[node.name] = node


def _alternatives(ring: Ring, views: Mapping[str, View], about: Said) -> Iterator[Ring]:
    """Yield the ring as each node sees it that sees another one."""
    believed = {node.host_id: node for node in ring.nodes}
    unknown_nodes = {host_id: said for host_id, said in about.items() if host_id not in believed}
    told: dict[str, dict[str, Claim]] = defaultdict(dict)
    for host_id, said in about.items():
        for view, claim in said:
            told[view.own.host_id][host_id] = claim
    for view in views.values():
        seen = _seen_by(
            view, told[view.own.host_id], believed, [s for s, said in unknown_nodes.items() if _says(view, said)]
        )
        if seen is not None:
            yield Ring(ring.cluster, ring.partitioner, seen)


def _says(view: View, said: Sequence[tuple[View, Claim]]) -> bool:
    return any(who is view for who, _ in said)


def _seen_by(
    view: View, told: Mapping[str, Claim], believed: Mapping[str, Node], unknown_nodes: Sequence[str]
) -> tuple[Node, ...] | None:
    """Return the nodes as one node places them, None if that is as believed.

    A node that its peers table lacks and its gossip knows is known to it: only a restart would make it forget.
    """
    out: list[Node] = []
    differs = bool(unknown_nodes)
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
    out += [_member(host_id, told[host_id], {}, {}) for host_id in unknown_nodes]
    return _without_clashes(out, unknown_nodes)


def _as_claimed(node: Node, claim: Claim) -> Node:
    """Return the node as a claim places it; the same object where that is no other place. A null says nothing."""
    dc, rack = claim.dc or node.dc, claim.rack or node.rack
    tokens = claim.tokens or node.tokens
    if (dc, rack, tokens) == (node.dc, node.rack, node.tokens):
        return node
    return replace(node, dc=dc, rack=rack, tokens=tokens)


def _without_clashes(nodes: Sequence[Node], unknown_nodes: Sequence[str]) -> tuple[Node, ...]:
    """Give a token that two nodes are said to own to the one that others do not know: the rings differ there."""
    taken: set[int] = set()
    out: list[Node] = []
    for node in sorted(nodes, key=lambda n: (n.host_id not in unknown_nodes, n.host_id)):
        out.append(replace(node, tokens=tuple(t for t in node.tokens if t not in taken)))
        taken.update(node.owned)
    return tuple(out)
