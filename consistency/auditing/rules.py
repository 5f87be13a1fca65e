"""The audit: whether the cluster keeps enough replicas, in the right places, on live nodes.

Pure: it takes a ring and the keyspaces' replication, nothing else. What it can report:

    kind                   severity   meaning
    no_replicas            error      the options place no replica on any node
    no_quorum              error      live replicas cannot make a quorum for a part of the ring
    unknown_dc             error      the options name a DC without a node
    rf_exceeds_nodes       error      more replicas than token-owning nodes (system_auth: warning)
    system_auth_rf         error      logins depend on one node (RF 2 below the minimum: warning)
    rf_below_minimum       error      fewer replicas in a DC than the minimum
    simple_strategy        error      the placement ignores racks and DCs
    node_down              error      a node that owns tokens does not serve (owns none: warning)
    node_unreachable       warning    a node does not answer us, the others count on it (not known: unknown)
    owner_holds_nothing    error      a node owns rows and holds none (warning if it may be chance)
    under_replicated       warning    a part of the ring lacks live replicas (error without a quorum)
    dc_without_replicas    warning    a DC holds no replica of a user keyspace
    rack_skew              warning    racks too few or too uneven for NetworkTopologyStrategy
    uneven_ownership       warning    a node holds far more or less than the mean of its DC
    transient_replication  warning    replicas that hold no full copy
    unknown_strategy       warning    a strategy whose placement is not known here
    schema_disagreement    error      nodes have several schemas
    peers_disagree         error      a node describes another one differently (ranges the same: warning)
    stale_peer             error      a node lists one that the others do not know (ranges the same: warning)
    clock_skew             warning    the servers' clocks differ
    node_joining, node_leaving, node_moving, mixed_versions
                           warning    the cluster is changing

Over what the nodes say they hold, if that is asked for (`distribution.py`):

    uneven_data            warning    a node holds far more than its token ranges say
    large_partition        warning    a partition is as large as Cassandra itself warns of
    many_tombstones        warning    a hundredth of the reads meet as many tombstones as Cassandra itself warns of
    distribution_unread    unknown    a node does not tell
Everything about system_distributed and system_traces is a warning at most. system_auth has its own kind
instead of rf_below_minimum and simple_strategy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consistency.auditing import distribution, options, ranges
from consistency.auditing.holdings import judge_holdings
from consistency.auditing.nodes import judge_clocks, judge_nodes
from consistency.auditing.placement import Placement, ownership, quorum
from consistency.auditing.subject import Subject
from consistency.errors import UsageError
from consistency.results.report import Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from consistency.model.ring import Replication, Ring
    from consistency.model.schema import Keyspace
    from consistency.model.servertime import ClockReading

__all__ = ["KINDS", "judge_holdings", "judge_replication", "ownership", "quorum"]

KINDS = (
    "no_replicas",
    "no_quorum",
    "unknown_dc",
    "rf_exceeds_nodes",
    "system_auth_rf",
    "rf_below_minimum",
    "simple_strategy",
    "node_down",
    "schema_disagreement",
    "peers_disagree",
    "stale_peer",
    "node_unreachable",
    "owner_holds_nothing",
    "under_replicated",
    "dc_without_replicas",
    "rack_skew",
    "uneven_ownership",
    "transient_replication",
    "unknown_strategy",
    "clock_skew",
    "node_joining",
    "node_leaving",
    "node_moving",
    "mixed_versions",
    *distribution.KINDS,
)
"""Every kind of violation there is, gravest first."""

_NOT_REPLICATED = frozenset({"LocalStrategy", "MetaStrategy", ""})
"""A node's own keyspaces, the transactional metadata log of later releases, and virtual keyspaces."""

_GRAVEST = (Severity.ERROR, Severity.UNKNOWN, Severity.WARNING)
_RULES = options.RULES + ranges.RULES


def judge_replication(
    ring: Ring,
    keyspaces: Mapping[str, Keyspace],
    *,
    scope: Collection[str],
    rf_minimum: int = 3,
    with_nodes: bool = True,
    clocks: Sequence[ClockReading] = (),
) -> tuple[Violation, ...]:
    """Return what is wrong with the replication of the keyspaces in `scope`, gravest first.

    `rf_minimum` is the fewest replicas that a DC with replicas should hold; `with_nodes` adds violations of the
    nodes themselves, with an empty keyspace; `clocks` are the readings of their clocks. Keyspaces that are local to
    a node or virtual are skipped.
    Raises UsageError for a name in `scope` that is not among the keyspaces.
    """
    found = [*judge_nodes(ring), *judge_clocks(clocks)] if with_nodes else []
    placements: dict[Replication, Placement] = {}
    for name in sorted(set(scope)):
        if name not in keyspaces:
            msg = f"keyspace {name} does not exist; see: DESCRIBE KEYSPACES"
            raise UsageError(msg)
        replication = keyspaces[name].replication
        if replication.replicated:
            placement = placements.setdefault(replication, Placement(ring, replication))
            found += _judge(Subject(name, placement, rf_minimum))
        elif replication.strategy not in _NOT_REPLICATED:
            found.append(_unknown_strategy(name, replication))
    return tuple(sorted(found, key=gravest_first))


def _judge(subject: Subject) -> Iterator[Violation]:
    for rule in _RULES:
        yield from rule(subject)


def _unknown_strategy(keyspace: str, replication: Replication) -> Violation:
    detail = f"{replication.strategy} places replicas in a way that is not known here, so nothing was judged"
    mend = "compare nodetool describering with what you expect, or use NetworkTopologyStrategy"
    return Violation("unknown_strategy", keyspace, detail, mend, Severity.WARNING)


def gravest_first(violation: Violation) -> tuple[int, int, str, str]:
    """Return the sort key of violations: errors, unknowns, warnings; then by kind."""
    return _GRAVEST.index(violation.severity), KINDS.index(violation.kind), violation.keyspace, violation.detail
