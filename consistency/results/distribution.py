"""How the data lies on the nodes, beside what their token ranges say: as nodes tell, or as a check has read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consistency.model.holdings import HeldTable, NodeData
from consistency.model.ring import Node

if TYPE_CHECKING:
    from consistency.results.report import TableReport

HOT_RATIO = 1.5
"""A node that holds so many times what its ranges say is hot."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one node holds, or all of a rack, beside what its token ranges say; `unread` says why neither is known."""

    name: str
    dc: str
    rack: str
    held: int
    fair: float
    unread: str = ""

    @property
    def hot(self) -> bool:
        """Whether it holds much more than its ranges say."""
        return self.held > HOT_RATIO * self.fair

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, of rows."""
        return {"node": self.name, "dc": self.dc, "rack": self.rack, "rows": self.held, "by_ranges": round(self.fair)}


@dataclass(frozen=True, slots=True)
class PartitionSizes:
    """What the nodes tell together of one table's partitions; 0 is what none tells."""

    name: str
    largest_mebibytes: int
    mean_bytes: float
    partitions: int
    tombstones_p99: int
    tombstones_max: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """The data of all nodes, and which part of it each should hold by the token ranges it owns, in MiB."""

    nodes: tuple[NodeData, ...]
    fair: Mapping[Node, float]

    @property
    def shares(self) -> list[Share]:
        """The nodes: those of which nothing is known, then by data centre, whoever holds most first."""
        found = [
            Share(
                data.node.name, data.node.dc, data.node.rack, data.mebibytes, self.fair.get(data.node, 0.0), data.unread
            )
            for data in self.nodes
        ]
        return sorted(found, key=lambda share: (not share.unread, share.dc, -share.held, share.name))

    @property
    def tables(self) -> list[PartitionSizes]:
        """The tables that have data, those with the largest partitions first."""
        by_name: dict[str, list[HeldTable]] = defaultdict(list)
        for data in self.nodes:
            for table in data.tables:
                by_name[table.full_name].append(table)
        found = [_sizes(name, told) for name, told in by_name.items() if _most(t.mebibytes for t in told)]
        return sorted(found, key=lambda sizes: (-sizes.largest_mebibytes, sizes.name))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "nodes": [
                {
                    "node": data.node.name,
                    "dc": data.node.dc,
                    "rack": data.node.rack,
                    "mebibytes": data.mebibytes,
                    "by_ranges": round(self.fair[data.node], 1) if data.node in self.fair else None,
                    "unread": data.unread,
                    "tables": [table.as_json() for table in data.tables],
                }
                for data in self.nodes
            ]
        }


def _sizes(name: str, told: Sequence[HeldTable]) -> PartitionSizes:
    partitions = sum(t.partitions or 0 for t in told)
    size = sum((t.partitions or 0) * (t.mean_bytes or 0) for t in told)
    return PartitionSizes(
        name,
        _most(t.largest_mebibytes for t in told),
        size / partitions if partitions else 0.0,
        partitions,
        _most(t.tombstones_p99 for t in told),
        _most(t.tombstones_max for t in told),
    )


def _most(figures: Iterable[int | None]) -> int:
    return max((figure or 0 for figure in figures), default=0)


def by_rack(shares: Iterable[Share]) -> list[Share]:
    """Return the same rack by rack; a rack with a node of which nothing is known is not known."""
    racks: dict[tuple[str, str], list[Share]] = defaultdict(list)
    for share in shares:
        racks[share.dc, share.rack].append(share)
    return [
        Share(
            rack,
            dc,
            rack,
            sum(each.held for each in nodes),
            sum(each.fair for each in nodes),
            next((f"{each.name}: {each.unread}" for each in nodes if each.unread), ""),
        )
        for (dc, rack), nodes in sorted(racks.items())
    ]


def rows_by_node(tables: Iterable[TableReport]) -> list[Share]:
    """Return how many rows each node holds of the tables that were read whole, beside what its token ranges say.

    Nothing is read for it: a check has counted the rows of every replica. A node should hold so much of what its data
    centre holds as its part of the ranges there; a table's rows lie elsewhere if few partitions hold many of them.
    """
    nodes: dict[str, Node] = {}
    held: dict[str, int] = defaultdict(int)
    fair: dict[str, float] = defaultdict(float)
    for table in tables:
        if not table.held:
            continue
        owned: dict[str, float] = defaultdict(float)
        for tree in table.trees:
            width = sum(leaf.share for leaf, _ in tree.hashes)
            for node in tree.replicas:
                nodes[node.host_id] = node
                owned[node.host_id] += width
        rows, ranges = defaultdict[str, int](int), defaultdict[str, float](float)
        for host, width in owned.items():
            rows[nodes[host].dc] += table.held.get(host, 0)
            ranges[nodes[host].dc] += width
        for host, width in owned.items():
            dc = nodes[host].dc
            held[host] += table.held.get(host, 0)
            fair[host] += rows[dc] * width / ranges[dc] if ranges[dc] else 0.0
    found = [Share(node.name, node.dc, node.rack, held[host], fair[host]) for host, node in nodes.items()]
    return sorted(found, key=lambda share: (share.dc, -share.held, share.name))
