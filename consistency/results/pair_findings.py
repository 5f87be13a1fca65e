"""Findings of a comparison of two clusters, and the file that they are streamed to.

The file is JSON Lines, mode 0600, as that of a check (findings.py), with a header of another type: what acts on one
cluster's findings must not take those of two. A line is a row that differs between the sides, a row on which the
replicas of one side disagree (as a check words it, with its `side`), or a range whose rows were counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from consistency.errors import DAMAGED, UsageError
from consistency.model.sides import Side
from consistency.model.tokens import TokenRange
from consistency.results.findings import (
    COMPARISON,
    SCHEMA_VERSION,
    Finding,
    ReplicaView,
    WriteTime,
    read_first,
)
from consistency.results.json_lines import lines_of
from consistency.results.range_findings import RANGE


class PairKind(str, Enum):
    """What a row of the target is to the row of the source; a row gives one finding, of its gravest kind."""

    ONLY_SOURCE = "only_source"
    ONLY_TARGET = "only_target"
    VALUE = "value"
    WRITETIME = "writetime"
    EXPIRY = "expiry"

    @property
    def sentence(self) -> str:
        """Say what the kind means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    PairKind.ONLY_SOURCE: "the source holds a row that the target lacks",
    PairKind.ONLY_TARGET: "the target holds a row that the source lacks",
    PairKind.VALUE: "a column has another value in the target",
    PairKind.WRITETIME: "the same value was written at another time",
    PairKind.EXPIRY: "the same value expires at another time",
}

GRAVEST_FIRST = tuple(PairKind)


@dataclass(frozen=True, slots=True)
class SideView:
    """What one cluster holds of a row: what its replicas come to when they are merged, and each of them.

    `writetimes` and `expires` (seconds since the epoch) are of the merged row, empty if there is none. `merged` is
    False if the replicas hold nothing of it.
    """

    merged: bool
    writetimes: Mapping[str, WriteTime] = field(default_factory=dict)
    expires: Mapping[str, WriteTime] = field(default_factory=dict)
    replicas: Mapping[str, ReplicaView] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "state": "present" if self.merged else "missing",
            "writetimes": dict(self.writetimes),
            "expires": dict(self.expires),
            "replicas": {name: view.as_json() for name, view in self.replicas.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SideView:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        if data["state"] not in ("present", "missing"):
            raise ValueError(data["state"])
        replicas = {str(name): ReplicaView.from_json(view) for name, view in data["replicas"].items()}
        return cls(data["state"] == "present", dict(data["writetimes"]), dict(data["expires"]), replicas)


@dataclass(frozen=True, slots=True)
class PairFinding:
    """One row that the two clusters do not hold alike.

    `keyspace` and `table` are the source's names, `target` is the table's `(keyspace, table)` in the target. `key` and
    `key_hex` are as in a check's finding, `columns` those that differ, `facts` all kinds that apply, gravest first.
    """

    kind: PairKind
    keyspace: str
    table: str
    target: tuple[str, str]
    token: int
    key: Mapping[str, Any]
    key_hex: Mapping[str, str]
    sides: Mapping[Side, SideView]
    columns: tuple[str, ...] = ()
    facts: tuple[PairKind, ...] = ()

    @property
    def full_name(self) -> str:
        """`keyspace.table` of the source."""
        return f"{self.keyspace}.{self.table}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: one line of the file."""
        return {
            "kind": self.kind.value,
            "keyspace": self.keyspace,
            "table": self.table,
            "target": {"keyspace": self.target[0], "table": self.target[1]},
            "token": self.token,
            "key": dict(self.key),
            "sides": {side.value: view.as_json() for side, view in self.sides.items()},
            "columns": list(self.columns),
            "facts": [fact.value for fact in self.facts],
            "key_hex": dict(self.key_hex),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PairFinding:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(
            kind=PairKind(data["kind"]),
            keyspace=str(data["keyspace"]),
            table=str(data["table"]),
            target=(str(data["target"]["keyspace"]), str(data["target"]["table"])),
            token=int(data["token"]),
            key=dict(data["key"]),
            key_hex={name: bytes.fromhex(text).hex() for name, text in data["key_hex"].items()},
            sides={side: SideView.from_json(data["sides"][side.value]) for side in Side},
            columns=tuple(data["columns"]),
            facts=tuple(PairKind(fact) for fact in data["facts"]),
        )


@dataclass(frozen=True, slots=True)
class InnerFinding:
    """A row on which the replicas of one cluster disagree: what a check of that side finds, under its own names."""

    side: Side
    finding: Finding

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: one line of the file."""
        return {"side": self.side.value, **self.finding.as_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InnerFinding:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(Side(data["side"]), Finding.from_json(data))


@dataclass(frozen=True, slots=True)
class PairRange:
    """The rows of one token range that differ and are counted, not listed.

    `kinds` counts those that differ between the sides by their gravest kind, `inner` those on which a side disagrees
    with itself. A row may be among both.
    """

    keyspace: str
    table: str
    target: tuple[str, str]
    token_range: TokenRange
    kinds: Mapping[PairKind, int]
    inner: Mapping[Side, int]

    @property
    def rows(self) -> int:
        """How many rows differ between the sides."""
        return sum(self.kinds.values())

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: one line of the file, which begins with its type."""
        return {
            "type": RANGE,
            "keyspace": self.keyspace,
            "table": self.table,
            "target": {"keyspace": self.target[0], "table": self.target[1]},
            "start": self.token_range.start,
            "end": self.token_range.end,
            "rows": self.rows,
            "kinds": {kind.value: count for kind, count in self.kinds.items()},
            "inner": {side.value: count for side, count in self.inner.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PairRange:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(
            str(data["keyspace"]),
            str(data["table"]),
            (str(data["target"]["keyspace"]), str(data["target"]["table"])),
            TokenRange(int(data["start"]), int(data["end"])),
            {PairKind(kind): int(count) for kind, count in data["kinds"].items()},
            {Side(side): int(count) for side, count in data["inner"].items()},
        )


Compared = PairFinding | InnerFinding | PairRange
"""What a comparison finds."""


@dataclass(frozen=True, slots=True)
class PairHeader:
    """The first line of the file: which run compared which clusters, and what of their rows.

    `clusters` holds each side's name and the fingerprint of its ring.
    """

    run_id: str
    started_at: str
    tool: str
    compare: str
    tolerate_writetime_s: float
    clusters: Mapping[Side, tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        sides = {side.value: {"cluster": name, "ring": ring} for side, (name, ring) in self.clusters.items()}
        return {
            "schema": SCHEMA_VERSION,
            "type": COMPARISON,
            "run_id": self.run_id,
            **sides,
            "compare": self.compare,
            "tolerate_writetime": self.tolerate_writetime_s,
            "started_at": self.started_at,
            "tool": self.tool,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PairHeader:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        clusters = {side: (str(data[side.value]["cluster"]), str(data[side.value]["ring"])) for side in Side}
        tolerated = float(data["tolerate_writetime"])
        return cls(data["run_id"], data["started_at"], data["tool"], data["compare"], tolerated, clusters)


def is_comparison(path: Path) -> bool:
    """Whether a file says that it is a comparison's; what cannot be read is left to whoever reads it."""
    try:
        with path.open("rb") as lines:
            first = json.loads(lines.readline(10_000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.get("type") == COMPARISON


def read_pair_header(path: Path) -> PairHeader:
    """Return the header of a comparison's file, or raise one line that says why it is none."""
    first = read_first(path, COMPARISON, f"consistency compare --findings {path}")
    try:
        return PairHeader.from_json(first)
    except DAMAGED as error:
        msg = f"{path} line 1 is not the header of a comparison ({type(error).__name__}); run the comparison again"
        raise UsageError(msg) from None


def compared_of(line: str) -> Compared:
    """Read one line of the file, but for the header; KeyError, ValueError or TypeError if it is not valid."""
    return _one(json.loads(line))


def read_compared(path: Path) -> Iterator[Compared]:
    """Yield all that a comparison found, checking the header and every line."""
    read_pair_header(path)
    for number, data in enumerate(lines_of(path), start=1):
        if number == 1:
            continue
        try:
            yield _one(data)
        except DAMAGED as error:
            msg = f"{path} line {number} is not a finding ({type(error).__name__}); run the comparison again"
            raise UsageError(msg) from None


def _one(data: Mapping[str, Any]) -> Compared:
    if data.get("type") == RANGE:
        return PairRange.from_json(data)
    return InnerFinding.from_json(data) if "side" in data else PairFinding.from_json(data)
