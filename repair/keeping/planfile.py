"""The plan: what will be done, row by row, in a file that apply executes as it stands or refuses.

A sealed file (`files.py`): a header, a line a row, and a line a range that is merged as a whole. It holds keys (as the
server's bytes) and no values: what was seen is kept as keyed digests.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from consistency.errors import DAMAGED, UsageError
from consistency.results.forecast import Forecast
from consistency.results.range_findings import RangeFinding
from consistency.rows.names import RowRef
from repair.deciding.decide import Action, Rule
from repair.deciding.policy import Policy
from repair.keeping.files import REPAIR_PLAN, Seal, SealedWriter, unsealed


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One row of the plan: its rule, what will be done, why not where nothing is, and what each replica held."""

    ref: RowRef
    rule: Rule
    action: Action
    sentence: str
    seen: Mapping[str, str]
    unread: tuple[str, ...] = ()
    dcs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    refused: str = ""
    """Which rule of which server forbids the action for now: apply leaves the row until it is lifted."""
    forecast: Forecast | None = None
    """What the action would do to the row; None if nothing is done, and in plans of earlier versions."""
    lacking: tuple[str, ...] = ()
    """The replicas that lack the row."""

    @property
    def acts(self) -> bool:
        """Whether something will be done with it, as far as the servers let it be done now."""
        return self.action is not Action.NONE and not self.refused

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **self.ref.as_json(),
            "rule": self.rule.value,
            "action": self.action.value,
            "sentence": self.sentence,
            "seen": dict(self.seen),
            "unread": list(self.unread),
            "dcs": {dc: list(pair) for dc, pair in self.dcs.items()},
            **({"refused": self.refused} if self.refused else {}),
            **({"forecast": self.forecast.value} if self.forecast else {}),
            **({"lacking": list(self.lacking)} if self.lacking else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlannedRow:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(
            RowRef.from_json(data),
            Rule(data["rule"]),
            Action(data["action"]),
            str(data["sentence"]),
            {str(node): str(digest) for node, digest in data["seen"].items()},
            tuple(map(str, data["unread"])),
            {str(dc): (int(read), int(total)) for dc, (read, total) in data["dcs"].items()},
            str(data.get("refused", "")),
            Forecast(data["forecast"]) if "forecast" in data else None,
            tuple(map(str, data.get("lacking", ()))),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What repair will do. Immutable; `only` returns a smaller plan."""

    run_id: str
    findings_run_id: str
    created_at: str
    tool: str
    cluster: str
    ring: str
    tables: Mapping[str, str]
    policy: Policy
    salt: str
    rows: tuple[PlannedRow, ...]
    warnings: tuple[str, ...] = ()
    ranges: tuple[RangeFinding, ...] = ()
    """Ranges that are merged as ranges: their rows were counted, and are decided when they are merged."""
    left_out: int = 0
    """Rows of the findings that were neither read nor planned; the warnings say why."""

    def only(self, keep: Callable[[PlannedRow], bool]) -> Plan:
        """Return the plan with the rows for which `keep` is true, and without ranges: nobody can choose their rows."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)), ranges=())

    @property
    def rows_in_ranges(self) -> int:
        """How many rows of ranges the check counted."""
        return sum(found.rows for found in self.ranges)

    @property
    def forecast(self) -> Mapping[Forecast, int]:
        """Count the rows that something will be done with by what that would do to them."""
        return Counter(row.forecast or Forecast.UNKNOWN for row in self.to_do)

    @property
    def host_ids(self) -> frozenset[str]:
        """The nodes whose copies it rests on."""
        of_rows = {host for row in self.rows for host in row.seen}
        return frozenset(of_rows | {view.host_id for found in self.ranges for view in found.replicas.values()})

    @property
    def to_do(self) -> tuple[PlannedRow, ...]:
        """The rows that something will be done with, as far as the servers let it be done now."""
        return tuple(row for row in self.rows if row.acts)

    @property
    def refused(self) -> tuple[PlannedRow, ...]:
        """The rows that something would be done with if no rule of a server forbade it for now."""
        return tuple(row for row in self.rows if row.refused)

    def header(self) -> dict[str, Any]:
        """Return the first line of the file."""
        return {
            **REPAIR_PLAN.mark,
            "run_id": self.run_id,
            "findings_run_id": self.findings_run_id,
            "created_at": self.created_at,
            "tool": self.tool,
            "cluster": self.cluster,
            "ring": self.ring,
            "tables": dict(self.tables),
            "policy": self.policy.as_json(),
            "salt": self.salt,
            "rows": len(self.rows),
            **({"ranges": len(self.ranges)} if self.ranges else {}),
            **({"left_out": self.left_out} if self.left_out else {}),
            "warnings": list(self.warnings),
        }

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of the file, but for the one that seals it."""
        yield self.header()
        yield from (row.as_json() for row in self.rows)
        yield from (found.as_json() for found in self.ranges)

    def text(self) -> str:
        """Return the whole file."""
        seal = Seal()
        return b"".join([*map(seal.line, self.lines()), seal.last()]).decode()


def write_plan(path: Path, plan: Plan) -> None:
    """Write the plan, whole or not at all, readable by its owner alone."""
    with SealedWriter(path, REPAIR_PLAN) as file:
        for line in plan.lines():
            file.add(line)
        file.end()


def read_plan(path: Path) -> Plan:
    """Read a plan, or say in one line why it cannot be trusted."""
    with REPAIR_PLAN.opened(path) as file:
        raw = file.read()
    return parse_plan(raw, str(path))


def parse_plan(raw: bytes, name: str) -> Plan:
    """Read a plan's bytes."""
    header = unsealed(io.BytesIO(raw), REPAIR_PLAN, name, 0, len(raw)).header
    try:
        return _plan(header, [json.loads(line) for line in raw.split(b"\n")[1:-2]])
    except DAMAGED as error:
        msg = f"{name} is not a plan this version can read ({type(error).__name__}); plan again"
        raise UsageError(msg) from None


def _plan(header: Mapping[str, Any], lines: list[Any]) -> Plan:
    rows, ranges = lines[: header["rows"]], lines[header["rows"] :]
    if header["rows"] != len(rows) or header.get("ranges", 0) != len(ranges):
        msg = "row count"
        raise ValueError(msg)
    return Plan(
        run_id=str(header["run_id"]),
        findings_run_id=str(header["findings_run_id"]),
        created_at=str(header["created_at"]),
        tool=str(header["tool"]),
        cluster=str(header["cluster"]),
        ring=str(header["ring"]),
        tables={str(k): str(v) for k, v in header["tables"].items()},
        policy=Policy.from_json(header["policy"]),
        salt=str(header["salt"]),
        rows=tuple(PlannedRow.from_json(row) for row in rows),
        warnings=tuple(map(str, header["warnings"])),
        ranges=tuple(map(RangeFinding.from_json, ranges)),
        left_out=int(header.get("left_out", 0)),
    )
