"""The plan: what will be done, row by row, in a file that apply executes as it stands or refuses.

JSON Lines: a header, a line a row, a line a range that is merged as a whole, and a last line with the SHA-256 of all
before it. Mode 0600, because it holds keys (as the server's bytes). It holds no values: what was seen is kept as keyed
digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from consistency.errors import DAMAGED, UsageError
from consistency.private import closing, create_private, is_open_to_others
from consistency.results.forecast import Forecast
from consistency.results.range_findings import RangeFinding
from consistency.rows.names import RowRef
from repair.decide import Action, Rule
from repair.policy import Policy

SCHEMA_VERSION = 1


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
    """What the action would do to the row; None where nothing is done, and in plans of earlier versions."""
    lacking: tuple[str, ...] = ()
    """The replicas that lack the row."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "keyspace": self.ref.keyspace,
            "table": self.ref.table,
            "token": self.ref.token,
            "key": dict(self.ref.key),
            "key_hex": dict(self.ref.key_hex),
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
        """Read the JSON form; KeyError, ValueError or TypeError where it is not one."""
        key = {str(name): bytes.fromhex(text).hex() for name, text in data["key_hex"].items()}
        return cls(
            RowRef(str(data["keyspace"]), str(data["table"]), int(data["token"]), key, dict(data.get("key", {}))),
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

    def only(self, keep: Callable[[PlannedRow], bool]) -> Plan:
        """Return the plan with the rows for which `keep` is true, and without ranges: nobody can choose their rows."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)), ranges=())

    @property
    def rows_in_ranges(self) -> int:
        """How many rows of ranges the check counted."""
        return sum(found.rows for found in self.ranges)

    @property
    def by_rule(self) -> Mapping[tuple[Rule, Action], int]:
        """Count the rows by rule and action."""
        return Counter((row.rule, row.action) for row in self.rows)

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
        return tuple(row for row in self.rows if row.action is not Action.NONE and not row.refused)

    @property
    def refused(self) -> tuple[PlannedRow, ...]:
        """The rows that something would be done with if no rule of a server forbade it for now."""
        return tuple(row for row in self.rows if row.refused)

    def header(self) -> dict[str, Any]:
        """Return the first line of the file."""
        return {
            "schema": SCHEMA_VERSION,
            "type": "repair-plan",
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
            "warnings": list(self.warnings),
        }

    def text(self) -> str:
        """Return the whole file."""
        lines = (self.header(), *(row.as_json() for row in self.rows), *(found.as_json() for found in self.ranges))
        body = "".join(map(_line, lines))
        return body + _line({"sha256": hashlib.sha256(body.encode()).hexdigest()})


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")) + "\n"


def write_plan(path: Path, plan: Plan) -> None:
    """Write the plan, whole or not at all, readable by its owner alone."""
    _require_replaceable(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with suppress(FileNotFoundError):
            partial.unlink()
        handle = create_private(partial)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(plan.text())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        msg = f"--output {path}: {error.strerror}; name a file in a directory that can be written"
        raise UsageError(msg) from None


def _require_replaceable(path: Path) -> None:
    """Refuse to put a plan in the place of anything but a plan: a journal's pre-images are not to be had again."""
    if path.exists() and not path.is_file():
        msg = f"--output {path} is not a regular file; name another"
        raise UsageError(msg)
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except OSError:
        return
    if first and b'"repair-plan"' not in first:
        msg = f"--output {path} exists and is not a plan: it is not replaced; name another file"
        raise UsageError(msg)


def require_private(path: Path, what: str) -> None:
    """Say in one line why a file cannot be trusted, where it cannot: only its owner may read and write it."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            msg = f"{path} is not a regular file"
            raise UsageError(msg)
        with path.open("rb"):
            pass
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UsageError(msg) from None
    if found.st_uid not in (os.geteuid(), 0):
        msg = f"{path} belongs to another user, who may have changed it: {what}"
        raise UsageError(msg)
    if is_open_to_others(found.st_mode):
        mode = found.st_mode & 0o777
        msg = f"{path} may be read or written by others (mode {mode:04o}), so it cannot be trusted: {what}"
        raise UsageError(msg)


def read_plan(path: Path) -> Plan:
    """Read a plan, or say in one line why it cannot be trusted."""
    require_private(path, f"plan again, or run: {closing(path)}, if you know that it is whole")
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UsageError(msg) from None
    return parse_plan(raw, str(path))


def parse_plan(raw: bytes, name: str) -> Plan:
    """Read a plan's bytes; the checksum is over every byte before the last line."""
    body, _, last = raw.removesuffix(b"\n").rpartition(b"\n")
    header = _json(raw.split(b"\n", 1)[0])
    if header.get("type") != "repair-plan":
        msg = f"{name} is not a repair plan: line 1 is not its header"
        raise UsageError(msg)
    if header.get("schema") != SCHEMA_VERSION:
        msg = f"{name} has schema {header.get('schema')!r}; this version reads {SCHEMA_VERSION}: plan again"
        raise UsageError(msg)
    found = _json(last).get("sha256")
    if found is None or not raw.endswith(b"\n"):
        msg = f"{name} is cut short: its last line is not the checksum; plan again"
        raise UsageError(msg)
    if found != hashlib.sha256(body + b"\n").hexdigest():
        msg = f"{name} was changed after it was written: its checksum does not fit; plan again"
        raise UsageError(msg)
    try:
        return _plan(header, [json.loads(line) for line in body.split(b"\n")[1:]])
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
    )


def _json(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
