"""The two sides of a comparison, and a node as one of the nodes of both."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum

from consistency.model.ring import Node


class Side(str, Enum):
    """Which of two clusters: the one that is copied, or the one that it is copied to."""

    SOURCE = "source"
    TARGET = "target"

    def __str__(self) -> str:
        return self.value

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side.TARGET if self is Side.SOURCE else Side.SOURCE


@dataclass(frozen=True, slots=True, eq=False)
class SidedNode(Node):
    """A node of one of two clusters; `node` is the same as its own cluster knows it.

    Two clusters may use the same addresses, and may even be one cluster. So its host id and its name say the side.
    """

    node: Node = field(kw_only=True, repr=False)
    side: Side = field(kw_only=True)

    @classmethod
    def of(cls, side: Side, node: Node) -> SidedNode:
        """Return a node as one of a side."""
        values = {each.name: getattr(node, each.name) for each in fields(Node)}
        return cls(**{**values, "host_id": f"{side}/{node.host_id}"}, node=node, side=side)

    @property
    def name(self) -> str:
        """The side and the node's own name."""
        return f"{self.side} {self.node.name}"


def on_side(node: Node, side: Side) -> bool:
    """Whether a node of a comparison is of this side."""
    return isinstance(node, SidedNode) and node.side is side
