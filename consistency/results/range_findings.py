"""Range findings: where more rows differ than are listed, they are counted, by range, kind and replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consistency.model.tokens import TokenRange
from consistency.results.kinds import Kind

RANGE = "range"
"""The type of such a line in a findings file."""


@dataclass(frozen=True, slots=True)
class RangeView:
    """What one replica of a range lacks: rows that others hold, and newer versions of rows."""

    missing: int = 0
    stale: int = 0
    host_id: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"missing": self.missing, "stale": self.stale, "host_id": self.host_id}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RangeView:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(int(data["missing"]), int(data["stale"]), str(data["host_id"]))


@dataclass(frozen=True)
class Counted:
    """The rows of one table that are counted, not listed: in how many ranges, and what each replica lacks."""

    rows: int = 0
    ranges: int = 0
    replicas: Mapping[str, RangeView] = field(default_factory=dict)

    def plus(self, found: RangeFinding) -> Counted:
        """Return the same with another range."""
        lacks = dict(self.replicas)
        for name, view in found.replicas.items():
            held = lacks.get(name, RangeView(host_id=view.host_id))
            lacks[name] = RangeView(held.missing + view.missing, held.stale + view.stale, view.host_id)
        return Counted(self.rows + found.rows, self.ranges + 1, dict(sorted(lacks.items())))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        lacks = {name: {"missing": view.missing, "stale": view.stale} for name, view in self.replicas.items()}
        return {"rows": self.rows, "ranges": self.ranges, "replicas": lacks}


@dataclass(frozen=True, slots=True)
class RangeFinding:
    """The rows of one token range that differ: how many by their gravest kind, and by replica how many it lacks."""

    keyspace: str
    table: str
    token_range: TokenRange
    kinds: Mapping[Kind, int]
    replicas: Mapping[str, RangeView]

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"

    @property
    def rows(self) -> int:
        """How many rows differ."""
        return sum(self.kinds.values())

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: one line of the findings file, which begins with its type."""
        return {
            "type": RANGE,
            "keyspace": self.keyspace,
            "table": self.table,
            "start": self.token_range.start,
            "end": self.token_range.end,
            "rows": self.rows,
            "kinds": {kind.value: count for kind, count in self.kinds.items()},
            "replicas": {name: view.as_json() for name, view in self.replicas.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RangeFinding:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(
            str(data["keyspace"]),
            str(data["table"]),
            TokenRange(int(data["start"]), int(data["end"])),
            {Kind(kind): int(count) for kind, count in data["kinds"].items()},
            {str(name): RangeView.from_json(view) for name, view in data["replicas"].items()},
        )
