"""Rules on the nodes themselves: which are down, do not answer us, join, leave, move, or run another version."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from consistency.auditing.placement import may_serve
from consistency.auditing.subject import named
from consistency.cluster.silence import way_out, why
from consistency.model.servertime import astray, skew_sentence
from consistency.results.report import Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consistency.model.ring import Node, Ring
    from consistency.model.servertime import ClockReading

# Gossip's words (VersionedValue) and those of nodetool netstats (StorageService.Mode).
_JOINING = frozenset({"BOOT", "BOOT_REPLACE", "BOOTSTRAPPING", "JOINING"})
_LEAVING = frozenset({"LEAVING", "REMOVING"})
_MOVING = frozenset({"MOVING"})
_GONE = frozenset({"LEFT", "REMOVED"})
ON_THE_MOVE = {"is joining": _JOINING, "is leaving": _LEAVING, "is moving to another token": _MOVING}
"""What a node does while its ranges change hands, by its gossip state."""


def judge_nodes(ring: Ring) -> Iterator[Violation]:
    """Report the state of each node; nodes that have left are skipped."""
    present = sorted((n for n in ring.nodes if n.state.upper() not in _GONE), key=lambda n: n.name)
    for node in present:
        yield from _down(node)
        yield from _unreachable(node)
        yield from _on_the_move(node)
    yield from _mixed_versions(present)
    yield from judge_agreement(ring)


def judge_agreement(ring: Ring) -> Iterator[Violation]:
    """Report what only some nodes say; an error if they disagree on the schema, or on who owns what."""
    for doubt in ring.doubts:
        grave = doubt.kind == "schema_disagreement" or ring.disputed
        yield Violation(doubt.kind, "", doubt.detail, doubt.remedy, Severity.ERROR if grave else Severity.WARNING)


def _down(node: Node) -> Iterator[Violation]:
    """Report a node that the others cannot count on: an error if it owns tokens."""
    if may_serve(node) or _not_expected(node):
        return
    silent = "" if node.up else f"{why(node)}, and "
    said = "the other nodes take it for down" if node.alive is False else f"gossip says {node.state}"
    mend = (
        f"start Cassandra on {node}; after more than max_hint_window (3 hours) then there: nodetool repair"
        " --full; if it is lost for good, start a new node with"
        f" -Dcassandra.replace_address_first_boot={node.address}"
    )
    severity = Severity.ERROR if node.owned else Severity.WARNING
    yield Violation("node_down", "", f"{_place(node)} is down: {silent}{said}", mend, severity)


def _unreachable(node: Node) -> Iterator[Violation]:
    """Report a node that does not answer us but may be up: the others may count on it.

    It is a warning if they do. If that is not known, the severity is unknown: neither a fault nor good order.
    """
    if node.up or not may_serve(node) or _not_expected(node):
        return
    if node.alive:
        said, severity = "the other nodes take it for alive", Severity.WARNING
        mend = way_out(node)
    else:
        said, severity = "whether it is down is not known", Severity.UNKNOWN
        mend = f"on another node: nodetool status; where it says UN: {way_out(node)}"
    severity = severity if node.owned else Severity.WARNING
    yield Violation("node_unreachable", "", f"{_place(node)} {why(node)}; {said}", mend, severity)


def _not_expected(node: Node) -> bool:
    """Return whether nobody counts on a node: it joins, or it is down because it is being removed."""
    return node.state.upper() in _JOINING or node.state.upper() == "REMOVING"


def _on_the_move(node: Node) -> Iterator[Violation]:
    """Warn of a node whose ranges change hands: repairs and changes of an RF must wait for it."""
    state = node.state.upper()
    silent = "" if node.up else f" and {why(node)}"
    for kind, doing, mend in (
        ("node_joining", "is joining", "if it hangs, there: nodetool bootstrap resume"),
        ("node_leaving", "is leaving", "if it hangs, on another node: nodetool removenode status"),
        ("node_moving", "is moving to another token", "if it hangs, restart it and repeat nodetool move"),
    ):
        if state in ON_THE_MOVE[doing]:
            detail = f"{_place(node)} {doing} (gossip says {node.state}){silent}"
            wait = f"wait for it (nodetool netstats); {mend}"
            yield Violation(kind, "", detail, wait, Severity.WARNING)


def judge_clocks(readings: Sequence[ClockReading]) -> Iterator[Violation]:
    """Warn of servers whose clocks differ: write times decide which version wins, and TTLs and gc_grace end by them."""
    detail = skew_sentence(readings)
    if detail:
        who = ", ".join(sorted(a.node.address for a in astray(readings)))
        mend = f"set the clocks by NTP (chrony) on every node; on {who}: chronyc tracking, then chronyc makestep"
        yield Violation("clock_skew", "", detail, mend, Severity.WARNING)


def _mixed_versions(nodes: list[Node]) -> Iterator[Violation]:
    """Warn of an upgrade under way: nodes of different releases neither stream nor repair with each other."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        found[_series(node.release)].append(node)
    if len(found) > 1:
        who = "; ".join(f"{series}: {named(members)}" for series, members in sorted(found.items()))
        mend = "finish the upgrade, then on every node: nodetool upgradesstables"
        yield Violation("mixed_versions", "", f"the nodes run different releases ({who})", mend, Severity.WARNING)


def _series(release: str) -> str:
    """Return `5.0` of `5.0.8` or `5.0-beta1`, or say that the release is not known."""
    return ".".join(release.split("-", maxsplit=1)[0].split(".")[:2]) or "unknown"


def _place(node: Node) -> str:
    return f"{node} ({node.dc}, rack {node.rack})"
