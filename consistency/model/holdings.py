"""What one node tells of its own data: sizes of tables and partitions, tombstones met by reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from consistency.model.ring import Node


@dataclass(frozen=True, slots=True)
class HeldTable:
    """What one node tells of one table; None is what it does not tell.

    `mebibytes` are those of its data files, `largest_mebibytes` those of its largest partition as of the last
    compaction. `partitions` and `mean_bytes` are estimates for the ranges of which the node is the first replica, made
    anew every five minutes. `tombstones_p99` and `tombstones_max` are per read, since the node started.
    """

    keyspace: str
    table: str
    mebibytes: int | None = None
    largest_mebibytes: int | None = None
    partitions: int | None = None
    mean_bytes: int | None = None
    tombstones_p99: int | None = None
    tombstones_max: int | None = None

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class NodeData:
    """What a node tells of its tables; `unread` says why nothing is known of it."""

    node: Node
    tables: tuple[HeldTable, ...] = ()
    unread: str = ""

    @property
    def mebibytes(self) -> int:
        """What all of them take."""
        return sum(table.mebibytes or 0 for table in self.tables)
