"""How the data lies on the nodes, beside what their token ranges say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consistency.model.holdings import NodeData
from consistency.model.ring import Node


@dataclass(frozen=True, slots=True)
class Distribution:
    """The data of all nodes, and which part of it each should hold by the token ranges it owns, in MiB."""

    nodes: tuple[NodeData, ...]
    fair: Mapping[Node, float]

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
