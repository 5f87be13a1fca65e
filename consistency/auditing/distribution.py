"""Whether the data lies evenly on the nodes, in partitions that they can bear: rules over what the nodes tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from consistency.auditing.placement import ownership
from consistency.model.holdings import HeldTable, NodeData
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace
from consistency.results.distribution import HOT_RATIO, Distribution
from consistency.results.report import Severity, Violation

KINDS = ("distribution_unread", "uneven_data", "large_partition", "many_tombstones")
"""Every kind that these rules have, gravest first."""

_WORTH_A_WORD_MB = 100
"""More than so many MiB must be in the wrong place: small tables are never even."""
LARGE_PARTITION_MB = 100
"""The servers' compaction_large_partition_warning_threshold."""
MANY_TOMBSTONES = 1_000
"""The servers' tombstone_warn_threshold."""
_MOST = 10


def distribute(ring: Ring, keyspaces: Mapping[str, Keyspace], nodes: Sequence[NodeData]) -> Distribution:
    """Return the data with what each node should hold by its ranges: its part of what its data centre holds."""
    held: dict[tuple[str, str], int] = defaultdict(int)
    for data in nodes:
        for table in data.tables:
            held[table.keyspace, data.node.dc] += table.mebibytes or 0
    read = {data.node for data in nodes if not data.unread}
    fair = dict.fromkeys(read, 0.0)
    for name in {keyspace for keyspace, _ in held}:
        if not keyspaces[name].replication.replicated:
            continue
        owned = {node: part for node, part in ownership(ring, keyspaces[name].replication).items() if node in read}
        of_dc: dict[str, float] = defaultdict(float)
        for node, part in owned.items():
            of_dc[node.dc] += part
        for node, part in owned.items():
            fair[node] += held[name, node.dc] * part / of_dc[node.dc] if of_dc[node.dc] else 0.0
    return Distribution(tuple(nodes), fair)


def judge_distribution(found: Distribution) -> Iterator[Violation]:
    """Yield what is wrong with a distribution of data, the gravest first."""
    for data in found.nodes:
        if data.unread:
            detail = f"{data.node}: what it holds is not known: {data.unread}"
            mend = "once it is up, or with GRANT SELECT ON KEYSPACE system_views TO our role, audit again"
            yield Violation("distribution_unread", "", detail, mend, Severity.UNKNOWN)
    for data in found.nodes:
        fair = found.fair.get(data.node, 0.0)
        if data.mebibytes > HOT_RATIO * fair and data.mebibytes - fair > _WORTH_A_WORD_MB:
            detail = f"{data.node} holds {data.mebibytes:,} MiB, by its token ranges it should hold {fair:,.0f}"
            mend = (
                f"on {data.node.address}: nodetool cleanup removes what it does not own, nodetool listsnapshots and"
                " compactionstats show what waits; else few large partitions lie there: bucket their key"
            )
            yield Violation("uneven_data", "", detail, mend, Severity.WARNING)
    yield from _large_partitions(found.nodes)
    yield from _many_tombstones(found.nodes)


def _large_partitions(nodes: Collection[NodeData]) -> Iterator[Violation]:
    for table, node in _worst(nodes, lambda table: table.largest_mebibytes, LARGE_PARTITION_MB):
        detail = f"{table.full_name} has a partition of {table.largest_mebibytes:,} MiB ({node})"
        mend = (
            "bucket its partition key: add a column to it that splits such a partition, a day or a hash modulo N, and"
            f" copy the rows; nodetool toppartitions {table.keyspace} {table.table} 10000 names the largest"
        )
        yield Violation("large_partition", table.keyspace, detail, mend, Severity.WARNING)


def _many_tombstones(nodes: Collection[NodeData]) -> Iterator[Violation]:
    for table, node in _worst(nodes, lambda table: table.tombstones_p99, MANY_TOMBSTONES):
        detail = (
            f"one read of {table.full_name} in a hundred meets {table.tombstones_p99:,} tombstones and more, at most"
            f" {table.tombstones_max or 0:,} ({node})"
        )
        mend = (
            "read newer rows first, delete whole partitions or let rows expire (TimeWindowCompactionStrategy); repair"
            " within gc_grace_seconds, so that it may be lowered"
        )
        yield Violation("many_tombstones", table.keyspace, detail, mend, Severity.WARNING)


def _worst(
    nodes: Collection[NodeData], figure: Callable[[HeldTable], int | None], limit: int
) -> Iterator[tuple[HeldTable, Node]]:
    """Yield each table with the node on which it is worst, if that is as bad as the limit; the worst first."""
    worst: dict[str, tuple[HeldTable, Node]] = {}
    for data in nodes:
        for table in data.tables:
            known = worst.get(table.full_name)
            if (figure(table) or 0) >= limit and (known is None or (figure(known[0]) or 0) < (figure(table) or 0)):
                worst[table.full_name] = (table, data.node)
    yield from sorted(worst.values(), key=lambda pair: (-(figure(pair[0]) or 0), pair[0].full_name))[:_MOST]
