"""Rules on who holds which part of the ring: possible quorums, live replicas, racks and balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consistency.auditing.placement import Live, quorum
from consistency.auditing.subject import named, percent
from consistency.cluster.silence import why
from consistency.results.figures import counted
from consistency.results.report import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from consistency.auditing.placement import Group
    from consistency.auditing.subject import Subject
    from consistency.model.ring import Node
    from consistency.results.report import Violation

HOT_RATIO = 1.5
"""A node that holds this many times the mean is hot: it is full while the cluster looks a third empty."""
IDLE_RATIO = 0.5


def no_quorum(subject: Subject) -> Iterator[Violation]:
    """Report the ranges without a quorum of live replicas, for LOCAL_QUORUM of each DC and for QUORUM.

    A quorum is counted from the configured RF (ConsistencyLevel.quorumFor), so too few nodes or a DC that
    does not exist can make it impossible with every node up. Background keyspaces are not judged, because
    they never ask for a quorum; neither are keyspaces without any replica (no_replicas).
    """
    groups = subject.placement.groups
    if subject.background or not any(group.placed for group in groups):
        return
    for group in groups:
        level = "QUORUM" if _alone(subject, group) else f"LOCAL_QUORUM in {group.dc}"
        yield from _out_of_reach(subject, level, group.rf, subject.placement.impaired[group.dc])
    if not all(_alone(subject, group) for group in groups):
        everywhere = (Live.of(nodes, share) for nodes, share in subject.placement.shares)
        yield from _out_of_reach(subject, "QUORUM over all data centers", _rf_of_all(subject), everywhere)


def _rf_of_all(subject: Subject) -> int:
    return sum(rf for _, rf in subject.replication.factors if rf > 0)


def _alone(subject: Subject, group: Group) -> bool:
    """Return whether QUORUM and LOCAL_QUORUM are the same for this group."""
    return not group.dc or _rf_of_all(subject) == group.rf


def _out_of_reach(subject: Subject, level: str, rf: int, ranges: Iterable[Live]) -> Iterator[Violation]:
    lacking, doubtful, too_few = 0.0, 0.0, False
    down: set[Node] = set()
    silent: set[Node] = set()
    needed = quorum(rf)
    for live in ranges:
        if live.most < needed:
            lacking += live.share
            too_few |= len(live.replicas) < needed
            down.update(live.down)
        elif live.sure < needed:
            doubtful += live.share
            silent.update(live.not_known)
    asked = f"{level} ({needed} of {counted(rf, 'replica')})"
    if lacking:
        causes = ["its replicas have too few nodes"] * too_few + [f"down: {named(down)}"] * bool(down)
        detail = f"{asked} fails for {percent(lacking)} of the ring"
        mend = subject.alter if too_few else _start(down)
        yield subject.violation("no_quorum", f"{detail}; {'; '.join(causes)}", mend)
    if doubtful:
        detail = f"whether {asked} works is not known for {percent(doubtful)} of the ring"
        yield subject.violation("no_quorum", f"{detail}; {_silent(silent)}", _ask(silent), Severity.UNKNOWN)


def under_replicated(subject: Subject) -> Iterator[Violation]:
    """Report the ranges with too few live replicas; a warning while every quorum is possible.

    Replicas that no node can hold are reported by rf_exceeds_nodes and not counted here. A node that does not answer
    us but that the others count on is live: they read and write there.
    """
    for group in subject.placement.groups:
        lacking, doubtful, fewest = 0.0, 0.0, group.placed
        down: set[Node] = set()
        silent: set[Node] = set()
        for live in subject.placement.impaired[group.dc]:
            if live.down:
                lacking, fewest = lacking + live.share, min(fewest, live.most)
                down.update(live.down)
            elif live.not_known:
                doubtful += live.share
                silent.update(live.not_known)
        if lacking:
            detail = (
                f"{percent(lacking)} of the ring has fewer than {counted(group.placed, 'live replica')} in"
                f" {group.label}, {fewest} at the least; down: {named(down)}"
            )
            severity = Severity.WARNING if fewest >= quorum(group.rf) else Severity.ERROR
            yield subject.violation("under_replicated", detail, _start(down), severity)
        if doubtful:
            wanted = f"{counted(group.placed, 'live replica')} in {group.label}"
            detail = f"whether {percent(doubtful)} of the ring has {wanted} is not known; {_silent(silent)}"
            yield subject.violation("under_replicated", detail, _ask(silent), Severity.WARNING)


def _start(down: Iterable[Node]) -> str:
    nodes = sorted(down, key=lambda node: node.name)
    return f"start Cassandra on {named(nodes)}, then there: nodetool repair --full"


def _silent(nodes: Collection[Node]) -> str:
    """Name nodes that do not answer us; for a single one say why."""
    one = next(iter(nodes))
    return f"{one} {why(one)}" if len(nodes) == 1 else f"{named(nodes)} do not answer us"


def _ask(silent: Collection[Node]) -> str:
    return f"see on a node that answers whether {named(silent)} is up: nodetool status"


def rack_skew(subject: Subject) -> Iterator[Violation]:
    """Warn of racks that NetworkTopologyStrategy cannot use evenly; one entry per DC and reason.

    The strategy puts the replicas of a range in different racks as long as there are racks, whatever their size.
    A single rack is no skew. With several, two things go wrong. Both are judged by the real placement, and
    not for background keyspaces:

    * fewer racks than RF: one rack holds so many replicas of a range that its loss is the loss of the quorum
      (judged from RF 3; at RF 2 every single node does that);
    * racks of unequal size: a small rack takes as much as a large one, so its nodes are hot. Reported from RF 2
      if a node of the heaviest rack holds on average HOT_RATIO times what a node of the lightest does.

    Replicas cannot share a rack here while enough racks exist. Under SimpleStrategy they do, and simple_strategy
    says how often.
    """
    if subject.placement.simple or subject.background:
        return
    for group in subject.placement.groups:
        if len(group.racks) > 1:
            yield from _quorum_in_a_rack(subject, group)
            yield from _hot_racks(subject, group)


def _quorum_in_a_rack(subject: Subject, group: Group) -> Iterator[Violation]:
    rf, racks = group.placed, len(group.racks)
    if rf < 3 or racks >= rf:
        return
    share = subject.placement.share_within_a_rack(group, rf - quorum(rf) + 1)
    if share:
        detail = (
            f"RF {rf} in {group.dc} lies in {racks} racks ({_sizes(group)}): for {percent(share)} of the ring"
            " the loss of one rack takes the quorum with it"
        )
        mend = f"add nodes to {group.dc} in {counted(rf - racks, 'further rack')} (cassandra-rackdc.properties)"
        yield subject.violation("rack_skew", detail, mend, Severity.WARNING)


def _hot_racks(subject: Subject, group: Group) -> Iterator[Violation]:
    loads = _hot_rack_loads(subject, group)
    if loads:
        hot, cool = max(loads, key=lambda r: loads[r]), min(loads, key=lambda r: loads[r])
        detail = (
            f"the racks of {group.dc} are uneven ({_sizes(group)}): a node of rack {hot[1]} holds"
            f" {percent(loads[hot])} of the rows, one of rack {cool[1]} {percent(loads[cool])}"
        )
        lacking = max(map(len, group.racks.values())) - len(group.racks[hot])
        grow = f"add {counted(lacking, 'node')} to rack {hot[1]} of {group.dc}"
        mend = f"{grow}, then on the others: nodetool cleanup"
        yield subject.violation("rack_skew", detail, mend, Severity.WARNING)


def _hot_rack_loads(subject: Subject, group: Group) -> Mapping[tuple[str, str], float]:
    """Return the mean ownership per node by rack if racks of unequal size make nodes hot, else nothing."""
    even = len(set(map(len, group.racks.values()))) < 2
    if subject.placement.simple or group.placed < 2 or even:
        return {}
    owned = subject.placement.ownership
    loads = {rack: sum(owned[n] for n in nodes) / len(nodes) for rack, nodes in group.racks.items()}
    return loads if max(loads.values()) >= HOT_RATIO * min(loads.values()) else {}


def _sizes(group: Group) -> str:
    return ", ".join(f"{rack}: {counted(len(nodes), 'node')}" for (_, rack), nodes in group.racks.items())


def uneven_ownership(subject: Subject) -> Iterator[Violation]:
    """Warn of nodes that hold more than HOT_RATIO or less than IDLE_RATIO of their DC's mean.

    Not if rack_skew names the cause: even out the racks first; what remains is due to the tokens.
    """
    owned = subject.placement.ownership
    for group in subject.placement.groups:
        if subject.background or not group.nodes or _hot_rack_loads(subject, group):
            continue
        mean = group.placed / len(group.nodes)
        ranked = sorted(group.nodes, key=lambda n: (owned[n], n.name))
        most, least = ranked[-1], ranked[0]
        if owned[most] > HOT_RATIO * mean or owned[least] < IDLE_RATIO * mean:
            detail = (
                f"a node of {group.label} holds {percent(mean)} of the rows on average, but {most}"
                f" {percent(owned[most])} and {least} {percent(owned[least])}"
            )
            yield subject.violation("uneven_ownership", detail, _rebalance(least, group), Severity.WARNING)


def _rebalance(node: Node, group: Group) -> str:
    if len(node.owned) == 1:
        return f"give {node} a token in the middle of the widest range of nodetool ring: nodetool move TOKEN"
    return (
        f"on {node}: nodetool decommission, then let it join again with num_tokens: {len(node.owned)} and"
        f" allocate_tokens_for_local_replication_factor: {group.placed} in cassandra.yaml"
    )


RULES = (no_quorum, under_replicated, rack_skew, uneven_ownership)
