"""The plan of a sync: what will be done, row by row, in a file that apply executes as it stands or refuses.

A sealed file (`repair/keeping/files.py`): a header, a line a row, and a summary. It holds keys and no values.
None of its rows is kept in memory, however many there are: they are streamed out and in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from consistency.errors import DAMAGED, UsageError
from consistency.model.sides import Side
from consistency.rows.names import RowRef
from repair.keeping.files import SYNC_PLAN, SealedWriter, json_of, unsealed
from repair.sync.cases import PairRef
from repair.sync.decide import Action, Rule
from repair.sync.policy import SyncPolicy

_MOST_SENTENCES = 200
"""Of so many different reasons the summary counts the rows; others are counted together."""


@dataclass(frozen=True, slots=True)
class SyncRow:
    """One row of the plan: its rule, what will be done, and what each side held: a digest, and of how many replicas."""

    ref: PairRef
    rule: Rule
    action: Action
    sentence: str
    seen: Mapping[Side, str]
    read: Mapping[Side, int]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        source, target = self.ref.source, self.ref.target
        return {
            **source.as_json(),
            **({} if source.full_name == target.full_name else {"target": [target.keyspace, target.table]}),
            "rule": self.rule.value,
            "action": self.action.value,
            "sentence": self.sentence,
            "seen": [self.seen[side] for side in Side],
            "read": [self.read[side] for side in Side],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SyncRow:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        ref = RowRef.from_json(data)
        keyspace, table = data.get("target", (ref.keyspace, ref.table))
        return cls(
            PairRef.of(ref, (str(keyspace), str(table))),
            Rule(data["rule"]),
            Action(data["action"]),
            str(data["sentence"]),
            dict(zip(Side, map(str, data["seen"]), strict=True)),
            dict(zip(Side, map(int, data["read"]), strict=True)),
        )


@dataclass(frozen=True, slots=True)
class SideGround:
    """What a plan rests on of one side: its name, ring and nodes, and the definitions of its tables."""

    cluster: str
    ring: str
    host_ids: frozenset[str]
    tables: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, without tables."""
        return {"cluster": self.cluster, "ring": self.ring, "hosts": sorted(self.host_ids)}


@dataclass(frozen=True, slots=True)
class SyncHeader:
    """What is known of a plan before its first row."""

    run_id: str
    findings_run_id: str
    created_at: str
    tool: str
    policy: SyncPolicy
    salt: str
    sides: Mapping[Side, SideGround]

    def as_json(self) -> dict[str, Any]:
        """Return the first line of the file."""
        return {
            **SYNC_PLAN.mark,
            "run_id": self.run_id,
            "findings_run_id": self.findings_run_id,
            "created_at": self.created_at,
            "tool": self.tool,
            "policy": self.policy.as_json(),
            "salt": self.salt,
            **{side.value: ground.as_json() for side, ground in self.sides.items()},
        }


@dataclass
class Summary:
    """What a plan comes to, counted row by row while it is made."""

    rows: int = 0
    counts: Counter[tuple[str, Rule, Action]] = field(default_factory=Counter)
    reasons: Counter[tuple[Rule, str]] = field(default_factory=Counter)
    tables: dict[Side, dict[str, str]] = field(default_factory=lambda: {side: {} for side in Side})
    unread: Counter[str] = field(default_factory=Counter)
    """Rows of ranges that could not be read, by the reason."""
    warnings: list[str] = field(default_factory=list)

    def add(self, row: SyncRow) -> None:
        """Count one row."""
        self.rows += 1
        self.counts[row.ref.source.full_name, row.rule, row.action] += 1
        if row.action is Action.NONE and row.rule is not Rule.SAME:
            known = (row.rule, row.sentence) in self.reasons or len(self.reasons) < _MOST_SENTENCES
            self.reasons[row.rule, row.sentence if known else "for other reasons: see sync show --show-keys"] += 1

    def as_json(self) -> dict[str, Any]:
        """Return the last line but one."""
        return {
            "rows": self.rows,
            "counts": [[table, rule.value, action.value, n] for (table, rule, action), n in self.counts.items()],
            "reasons": [[rule.value, text, n] for (rule, text), n in self.reasons.items()],
            "tables": {side.value: dict(tables) for side, tables in self.tables.items()},
            "unread": dict(self.unread),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(
            int(data["rows"]),
            Counter({(str(t), Rule(rule), Action(action)): int(n) for t, rule, action, n in data["counts"]}),
            Counter({(Rule(rule), str(text)): int(n) for rule, text, n in data["reasons"]}),
            {side: {str(k): str(v) for k, v in data["tables"][side.value].items()} for side in Side},
            Counter({str(text): int(n) for text, n in data["unread"].items()}),
            list(map(str, data["warnings"])),
        )

    def with_action(self, *actions: Action) -> int:
        """Count the rows with one of these actions."""
        return sum(n for (_, _, action), n in self.counts.items() if action in actions)

    @property
    def to_do(self) -> int:
        """How many rows something will be done with."""
        return self.with_action(Action.WRITE, Action.DELETE, Action.BOTH)

    @property
    def deletes(self) -> int:
        """How many rows something will be deleted of, or that will be deleted."""
        return self.with_action(Action.DELETE, Action.BOTH)

    def with_rule(self, *rules: Rule) -> int:
        """Count the rows with one of these rules that are left alone."""
        return sum(n for (_, rule, action), n in self.counts.items() if rule in rules and action is Action.NONE)


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What a sync will do: what is known of it as a whole, and where its rows are read from.

    `place` and `length` say in bytes where the rows begin in the file, and where they end.
    """

    header: SyncHeader
    summary: Summary
    path: Path
    place: int
    length: int

    @property
    def policy(self) -> SyncPolicy:
        """The operator's choices."""
        return self.header.policy

    def ground(self, side: Side) -> SideGround:
        """Return what the plan rests on of a side."""
        of_side = self.header.sides[side]
        return SideGround(of_side.cluster, of_side.ring, of_side.host_ids, self.summary.tables[side])

    def rows(self) -> Iterator[SyncRow]:
        """Read the rows one after the other."""
        with self.path.open("rb") as file:
            file.seek(self.place)
            left = self.length - self.place
            for number, line in enumerate(file, start=1):
                left -= len(line)
                if left < 0:
                    return
                try:
                    yield SyncRow.from_json(json.loads(line))
                except DAMAGED as error:
                    msg = f"{self.path}: row {number} of the plan is damaged ({type(error).__name__}); plan again"
                    raise UsageError(msg) from None


class PlanWriter:
    """Writes a plan as it is made, whole or not at all, and counts what it comes to."""

    def __init__(self, path: Path, header: SyncHeader) -> None:
        """Begin; UsageError if no file can be made there, or something else lies there."""
        self._path = path
        self._header = header
        self._file = SealedWriter(path, SYNC_PLAN)
        self._file.add(header.as_json())
        self._place = self._file.length
        self.summary = Summary()

    def __enter__(self) -> PlanWriter:  # noqa: PYI034 - Self is 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.__exit__(kind, error, at)

    def add(self, row: SyncRow) -> None:
        """Write one row."""
        self._file.add(row.as_json())
        self.summary.add(row)

    def end(self) -> SyncPlan:
        """Write what the rows came to, and put the file in its place."""
        rows_end = self._file.length
        self._file.add(self.summary.as_json())
        self._file.end()
        return SyncPlan(self._header, self.summary, self._path, self._place, rows_end)


def read_sync_plan(path: Path) -> SyncPlan:
    """Read a plan but for its rows, or say in one line why it cannot be trusted; every byte of it is checked."""
    with SYNC_PLAN.opened(path) as file:
        return parse_plan(file, path, 0, path.stat().st_size)


def parse_plan(file: BinaryIO, path: Path, at: int, length: int) -> SyncPlan:
    """Read the plan that takes `length` bytes of a file from `at` on."""
    whole = unsealed(file, SYNC_PLAN, str(path), at, length)
    try:
        header, summary = _header(whole.header), Summary.from_json(json_of(whole.last))
    except DAMAGED as error:
        msg = f"{path} is not a plan this version can read ({type(error).__name__}); plan again"
        raise UsageError(msg) from None
    return SyncPlan(header, summary, path, whole.place, whole.last_at)


def _header(data: Mapping[str, Any]) -> SyncHeader:
    told = {each: str(data[each]) for each in ("run_id", "findings_run_id", "created_at", "tool", "salt")}
    sides = {side: _ground(data[side.value]) for side in Side}
    return SyncHeader(**told, policy=SyncPolicy.from_json(data["policy"]), sides=sides)


def _ground(data: Mapping[str, Any]) -> SideGround:
    return SideGround(str(data["cluster"]), str(data["ring"]), frozenset(map(str, data["hosts"])))
