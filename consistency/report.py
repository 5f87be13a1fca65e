"""What a finished check hands back: one frozen value, printed by the terminal and written as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from consistency.findings import Finding
from consistency.tokens import TokenRange
from consistency.verdict import Coverage, ExitCode, Verdict, exit_code, judge

SCHEMA_VERSION = 1


class Severity(str, Enum):
    """Whether a violation changes the exit code."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of replication that the cluster breaks; `keyspace` is empty where it is the cluster's."""

    kind: str
    keyspace: str
    detail: str
    remedy: str
    severity: Severity = Severity.ERROR

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "kind": self.kind,
            "keyspace": self.keyspace,
            "detail": self.detail,
            "remedy": self.remedy,
            "severity": self.severity.value,
        }


@dataclass(frozen=True, slots=True)
class Unread:
    """Token ranges of one table that one replica could not be read over, and why."""

    replica: str
    ranges: tuple[TokenRange, ...]
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "replica": self.replica,
            "ranges": [[r.start, r.end] for r in self.ranges],
            "reason": self.reason,
        }


@dataclass(frozen=True)
class TableReport:
    """What was learned about one table.

    `strip` has a letter for each 1/64 of the ring: `=` agreed, `x` divergent, `?` not read, ` ` not planned.
    `blind` says, a sentence each, what this depth cannot see on this table. `note` says why a table was
    not checked at all.
    """

    keyspace: str
    table: str
    depth: str
    route: str
    locality: str
    rows: int
    divergent_rows: int
    unsettled_rows: int
    seconds: float
    coverage: Coverage
    unread: tuple[Unread, ...] = ()
    strip: str = ""
    blind: tuple[str, ...] = ()
    note: str = ""

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"

    @property
    def verdict(self) -> Verdict:
        """The verdict on this table alone."""
        return judge(self.coverage, findings=self.divergent_rows, unsettled=self.unsettled_rows)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "keyspace": self.keyspace,
            "table": self.table,
            "verdict": self.verdict.value,
            "depth": self.depth,
            "route": self.route,
            "locality": self.locality,
            "rows": self.rows,
            "divergent_rows": self.divergent_rows,
            "unsettled_rows": self.unsettled_rows,
            "seconds": round(self.seconds, 3),
            "coverage": coverage_json(self.coverage),
            "unread": [u.as_json() for u in self.unread],
            "strip": self.strip,
            "cannot_see": list(self.blind),
            "note": self.note,
        }


@dataclass(frozen=True)
class RepairSummary:
    """What came of repairing what a check found; the rows add up.

    `results` counts rows by outcome. `remaining` are known to differ still or were left alone, `unknown` wait for
    replicas. `checked_again` is the verdict of a second check of every partition that was written to.
    """

    plan: str | None = None
    journal: str | None = None
    rows: int = 0
    acted_on: int = 0
    results: Mapping[str, int] = field(default_factory=dict)
    remaining: int = 0
    unknown: int = 0
    checked_again: Verdict | None = None
    unchecked: bool = False
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "plan": self.plan,
            "journal": self.journal,
            "rows": self.rows,
            "acted_on": self.acted_on,
            "results": dict(self.results),
            "remaining": self.remaining,
            "unknown": self.unknown,
            "checked_again": self.checked_again.value if self.checked_again else None,
        }


@dataclass(frozen=True)
class Report:
    """The whole result of one check.

    `not_checked` maps `keyspace.table` to the reason it was left out on purpose (a view); those are not
    part of the coverage. `top` holds the first findings, for the summary; the file holds them all.
    """

    run_id: str
    cluster: str
    started_at: str
    seconds: float
    tables: tuple[TableReport, ...]
    violations: tuple[Violation, ...]
    findings_by_kind: Mapping[str, int]
    top: tuple[Finding, ...] = ()
    not_checked: Mapping[str, str] = field(default_factory=dict)
    replicas: Sequence[str] = ()
    findings_path: str | None = None
    interrupted: bool = False
    repair: RepairSummary | None = None

    @property
    def coverage(self) -> Coverage:
        """The coverage of all tables."""
        return sum((t.coverage for t in self.tables), Coverage())

    @property
    def verdict(self) -> Verdict:
        """The verdict on everything that was planned; after a repair, on what is left of what was found."""
        findings, unsettled = sum(self.findings_by_kind.values()), sum(t.unsettled_rows for t in self.tables)
        if self.repair is not None and self.repair.rows:
            again = self.repair.checked_again
            findings = self.repair.remaining + (again is Verdict.DIVERGENT)
            unsettled += self.repair.unknown + (again is Verdict.UNKNOWN) + self.repair.unchecked
        verdict = judge(self.coverage, findings=findings, unsettled=unsettled)
        # What was interrupted did not look again at the ring and the schema it rests on.
        return Verdict.UNKNOWN if self.interrupted and verdict is Verdict.CONSISTENT else verdict

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns; warnings among the violations do not change it."""
        errors = sum(v.severity is Severity.ERROR for v in self.violations)
        interrupted = self.interrupted or (self.repair is not None and self.repair.interrupted)
        return exit_code(self.verdict, violations=errors, interrupted=interrupted)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form (schema 1, docs/reference)."""
        return {
            "schema": SCHEMA_VERSION,
            "run_id": self.run_id,
            "cluster": self.cluster,
            "started_at": self.started_at,
            "seconds": round(self.seconds, 3),
            "verdict": self.verdict.value,
            "exit_code": int(self.exit_code),
            "interrupted": self.interrupted,
            "coverage": coverage_json(self.coverage),
            "tables": [t.as_json() for t in self.tables],
            "violations": [v.as_json() for v in self.violations],
            "findings_by_kind": dict(self.findings_by_kind),
            "not_checked": dict(self.not_checked),
            "replicas": list(self.replicas),
            "findings": self.findings_path,
            "repair": self.repair.as_json() if self.repair else None,
        }


def coverage_json(coverage: Coverage) -> dict[str, int]:
    """Return the four figures of a coverage."""
    return {
        "planned": coverage.planned,
        "completed": coverage.completed,
        "skipped": coverage.skipped,
        "failed": coverage.failed,
    }
