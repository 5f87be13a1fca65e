"""The rule that compares what nodes hold with what they own: it finds a node that joined without its data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consistency.auditing.placement import Placement
from consistency.auditing.subject import percent
from consistency.results.figures import counted
from consistency.results.report import Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consistency.model.ring import Node, Ring
    from consistency.model.schema import Keyspace

FEWEST_ROWS = 100
"""Below this many rows an empty owner may be chance, or the table is new."""


def judge_holdings(ring: Ring, keyspace: Keyspace, held: Mapping[tuple[str, Node], int]) -> tuple[Violation, ...]:
    """Report owners that hold no row of a table (kind `owner_holds_nothing`), by table and node.

    `held` are the rows that a node holds of a table within the ranges it owns. A node or table that is not
    in it was not read and is not judged. It is an error if the node must hold the rows too, because it shares every
    range of the replicas that hold them. Otherwise all rows may lie in ranges of others (one big partition is
    enough), and it is a warning.
    """
    if not keyspace.replication.replicated:
        return ()
    owners = _Owners.of(Placement(ring, keyspace.replication))
    found = [
        violation
        for (table, node), rows in sorted(held.items(), key=lambda item: (item[0][0], item[0][1].name))
        if rows == 0 and owners.shares.get(node)
        for violation in _empty_owner(owners, keyspace, table, node, held)
    ]
    return tuple(sorted(found, key=lambda v: v.severity is not Severity.ERROR))


@dataclass(frozen=True)
class _Owners:
    """Who owns how much, and with whom: `always_with[a]` are the nodes that own every range of `a`."""

    shares: Mapping[Node, float]
    partners: Mapping[Node, frozenset[Node]]
    always_with: Mapping[Node, frozenset[Node]]

    @classmethod
    def of(cls, placement: Placement) -> _Owners:
        partners: dict[Node, frozenset[Node]] = {}
        always: dict[Node, frozenset[Node]] = {}
        for replicas, _ in placement.shares:
            together = frozenset(replicas)
            for node in replicas:
                partners[node] = partners.get(node, frozenset()) | together
                always[node] = always.get(node, together) & together
        return cls(placement.ownership, partners, always)


def _empty_owner(
    owners: _Owners, keyspace: Keyspace, table: str, node: Node, held: Mapping[tuple[str, Node], int]
) -> list[Violation]:
    others = [n for n in owners.partners[node] if n != node]
    rows = sum(held.get((table, n), 0) for n in others)
    certain = sum(held.get((table, n), 0) for n in others if node in owners.always_with[n])
    if rows < FEWEST_ROWS:
        return []
    sharing = counted(len(others), "node that shares its ranges holds", "nodes that share its ranges hold")
    detail = (
        f"{node} owns {percent(owners.shares[node])} of {keyspace.name}.{table} and holds no row of it, the {sharing}"
        f" {rows}: did it join without streaming?"
    )
    severity = Severity.ERROR if certain >= FEWEST_ROWS else Severity.WARNING
    return [
        Violation(
            "owner_holds_nothing",
            keyspace.name,
            detail,
            _refill(keyspace.name, table, node, others),
            severity,
        )
    ]


def _refill(keyspace: str, table: str, node: Node, others: list[Node]) -> str:
    repair = f"on {node}: nodetool repair --full {shlex.quote(keyspace)} {shlex.quote(table)}"
    elsewhere = sorted({n.dc for n in others if n.dc != node.dc})
    if not elsewhere:
        return repair
    rebuild = f"nodetool rebuild -ks {shlex.quote(keyspace)} -- {shlex.quote(elsewhere[0])}"
    return f"{repair}; or, where all of {node.dc} is empty, on each of its nodes: {rebuild}"
