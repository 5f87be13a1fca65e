"""Rules on the replication options of a keyspace against the DCs and nodes that exist."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from consistency.auditing.placement import known_dcs, quorum
from consistency.auditing.remedy import alter_cql, missing_nodes, same_dc_in_other_letters
from consistency.auditing.subject import AUTH, percent
from consistency.results.figures import counted
from consistency.results.report import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consistency.auditing.placement import Group
    from consistency.auditing.subject import Subject
    from consistency.results.report import Violation


def no_replicas(subject: Subject) -> Iterator[Violation]:
    """Report a keyspace whose options place no replica on any node: every read and write of it fails."""
    if any(group.placed for group in subject.placement.groups):
        return
    asked = ", ".join(f"{dc or 'replication_factor'}: {rf}" for dc, rf in subject.replication.factors)
    detail = f"no node holds a replica: {subject.replication.strategy} with {asked or 'no options'}"
    yield subject.violation("no_replicas", detail, subject.alter)


def simple_strategy(subject: Subject) -> Iterator[Violation]:
    """Report SimpleStrategy, with the cost of ignoring racks and DCs on this ring.

    Not system_auth (see system_auth_rf), nor the background keyspaces of a cluster of one node.
    """
    placement = subject.placement
    nodes = sum(map(len, subject.ring.datacenters.values()))
    if not placement.simple or subject.keyspace == AUTH or (subject.background and nodes == 1):
        return
    rf = subject.replication.factor("")
    detail = f"SimpleStrategy with RF {rf} places replicas without regard to racks and data centers"
    mend = subject.alter
    yield subject.violation("simple_strategy", detail + _cost_of_blindness(subject), mend)


def _cost_of_blindness(subject: Subject) -> str:
    dcs = subject.ring.datacenters
    if len(dcs) > 1:
        return f"; it spreads them over {', '.join(dcs)} by token order alone"
    for group in subject.placement.groups:
        share = subject.placement.share_within_a_rack(group, max(2, quorum(group.placed)))
        if len(group.racks) > 1 and share:
            return f"; {percent(share)} of the ring has a quorum of its replicas in a single rack"
    return ""


def rf_below_minimum(subject: Subject) -> Iterator[Violation]:
    """Report each DC that holds replicas, but too few; not for system_auth (see system_auth_rf)."""
    if subject.keyspace == AUTH:
        return
    for group in subject.placement.groups:
        if group.rf < subject.minimum:
            detail = (
                f"RF {group.rf} in {group.label} is below the minimum of {subject.minimum}"
                f" ({counted(len(group.nodes), 'node')} there)"
            )
            yield subject.violation("rf_below_minimum", detail, subject.alter)


def unknown_dc(subject: Subject) -> Iterator[Violation]:
    """Report each DC in the options that no node is in; its replicas still count towards QUORUM."""
    known = known_dcs(subject.ring)
    for dc, rf in subject.replication.factors:
        if subject.placement.simple or rf <= 0 or dc in known:
            continue
        meant = same_dc_in_other_letters(dc, subject.ring)
        detail = (
            f"the options ask for {counted(rf, 'replica')} in {dc!r}, a data center without a node"
            f" (there are: {', '.join(sorted(known))})" + (f"; did you mean {meant!r}?" if meant else "")
        )
        yield subject.violation("unknown_dc", detail, subject.alter)


def rf_exceeds_nodes(subject: Subject) -> Iterator[Violation]:
    """Report each DC with fewer token-owning nodes than replicas; a warning for system_auth.

    Not the background keyspaces: Cassandra creates them at RF 2 and 3 whatever the size of the cluster.
    """
    if subject.background:
        return
    severity = Severity.WARNING if subject.keyspace == AUTH else Severity.ERROR
    for group in subject.placement.groups:
        if group.rf > len(group.nodes):
            there = counted(len(group.nodes), "token-owning node")
            detail = (
                f"RF {group.rf} in {group.label} with {there}: every row has {counted(group.placed, 'replica')} at most"
            )
            yield subject.violation("rf_exceeds_nodes", detail, _fewer_or_more(subject, group), severity)


def _fewer_or_more(subject: Subject, group: Group) -> str:
    if group.dc and subject.of_users:
        grow = f"add {missing_nodes(subject.ring, {group.dc: group.rf})}"
        return grow if subject.mended[group.dc] >= group.rf else f"{grow}, or: {subject.alter}"
    return subject.alter


def dc_without_replicas(subject: Subject) -> Iterator[Violation]:
    """Warn of DCs without a replica of a user keyspace: often intended, and fatal to LOCAL_* there.

    A DC that the options misspell is left to unknown_dc.
    """
    placement = subject.placement
    if placement.simple or not subject.of_users or not any(g.placed for g in placement.groups):
        return
    bare = {dc: len(nodes) for dc, nodes in subject.ring.datacenters.items() if dc not in subject.mended}
    if not bare:
        return
    source = next(g.dc for g in placement.groups if g.placed)
    wanted = dict(subject.mended) | dict.fromkeys(bare, subject.minimum)
    missing = missing_nodes(subject.ring, wanted)
    first = f"first add {missing}, then " if missing else ""
    places = " and ".join(f"{dc} ({counted(nodes, 'node')})" for dc, nodes in sorted(bare.items()))
    rebuild = f"nodetool rebuild -ks {shlex.quote(subject.keyspace)} -- {shlex.quote(source)}"
    yield subject.violation(
        "dc_without_replicas",
        f"{places} holds no replica: LOCAL_ONE and LOCAL_QUORUM fail for clients there",
        f"unless this is intended: {first}{alter_cql(subject.keyspace, wanted)} "
        f"then on every node of {' and '.join(sorted(bare))}: {rebuild}",
        Severity.WARNING,
    )


def transient_replication(subject: Subject) -> Iterator[Violation]:
    """Warn of transient replicas (3/1): they hold no full copy, so there is nothing to compare them with."""
    if subject.replication.transient:
        places = ", ".join(dc or "the cluster" for dc in subject.replication.transient)
        detail = f"transient replicas in {places} hold no full copy and cannot be compared with the others"
        yield subject.violation("transient_replication", detail, subject.alter, Severity.WARNING)


def system_auth_rf(subject: Subject) -> Iterator[Violation]:
    """Report logins that depend on one node: system_auth at RF 1, under SimpleStrategy, or absent from a DC.

    An RF of 2 or more below the minimum is a warning. A DC with one node cannot have more than RF 1.
    """
    nodes = sum(map(len, subject.ring.datacenters.values()))
    placement = subject.placement
    if subject.keyspace != AUTH or nodes < 2 or not any(g.placed for g in placement.groups):
        return
    grave, mild = _auth_faults(subject)
    if not grave and not mild:
        return
    mend = f"{alter_cql(AUTH, subject.mended)} then on every node: nodetool repair --full {AUTH}"
    detail = f"{'; '.join(grave + mild)}: logins fail there while its replicas are down"
    yield subject.violation("system_auth_rf", detail, mend, Severity.ERROR if grave else Severity.WARNING)


def _auth_faults(subject: Subject) -> tuple[list[str], list[str]]:
    grave: list[str] = []
    mild: list[str] = []
    if subject.placement.simple:
        grave.append(f"SimpleStrategy with RF {subject.replication.factor('')} over {_dcs(subject)}")
    for group in subject.placement.groups:
        if not subject.placement.simple and group.rf < min(subject.minimum, len(group.nodes)):
            fault = f"RF {group.rf} in {group.label} ({counted(len(group.nodes), 'node')})"
            (grave if group.rf == 1 else mild).append(fault)
    if not subject.placement.simple:
        grave += [f"no replica in {dc}" for dc in subject.ring.datacenters if dc not in subject.asked]
    return grave, mild


def _dcs(subject: Subject) -> str:
    return ", ".join(f"{dc} ({counted(len(nodes), 'node')})" for dc, nodes in subject.ring.datacenters.items())


RULES = (
    no_replicas,
    unknown_dc,
    rf_exceeds_nodes,
    system_auth_rf,
    rf_below_minimum,
    simple_strategy,
    dc_without_replicas,
    transient_replication,
)
