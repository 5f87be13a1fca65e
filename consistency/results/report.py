"""The result of a finished check: one frozen value, printed by the terminal and written as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from consistency.cluster.locality import TracesLeft
from consistency.model.part import Part
from consistency.model.tokens import TokenRange
from consistency.results.cause import Cause
from consistency.results.distribution import Share, rows_by_node
from consistency.results.findings import Finding
from consistency.results.range_findings import Counted
from consistency.results.sample import Bound, SampledTable, Sampling, bound
from consistency.results.tree_report import TreeReport
from consistency.results.verdict import Coverage, ExitCode, Verdict, exit_code, judge

SCHEMA_VERSION = 1
TOP_FINDINGS = 20
"""So many findings are in a report itself, the first ones; a file has all of them."""
PUT_OFF = "left for the next run: the time of this run was over"
"""The reason for ranges that were left out although nothing is wrong with them."""
NOT_IN_SAMPLE = "not in the sample"
LEFT_OUT = frozenset({PUT_OFF, NOT_IN_SAMPLE})
"""The reasons for what was left out on purpose."""


class Severity(str, Enum):
    """Whether a violation changes the exit code."""

    ERROR = "error"
    WARNING = "warning"
    UNKNOWN = "unknown"
    """It is not known whether the rule is broken; the audit is then incomplete."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of replication that the cluster breaks; `keyspace` is empty for a rule about the whole cluster."""

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
    """Token ranges of one table that were not read on one replica, and why."""

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

    `ranges` were planned and `ranges_read` were reached. `strip` has a letter for each 1/64 of the ring: `=`
    agreed, `x` divergent, `?` not read, ` ` not planned. `blind` has a sentence for everything that this depth
    cannot see on this table. `note` says why a table was not checked at all, or which of
    its leaves were hashed otherwise than `route` says. `tracks` holds the strip of each
    replica's own ranges, with `x` where it is behind.
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
    ranges: int = 0
    ranges_read: int = 0
    tracks: Mapping[str, str] = field(default_factory=dict)
    alone: int = 0
    """Ranges with one replica in scope, so there was nothing to compare."""
    trees: tuple[TreeReport, ...] = ()
    """One of each replica set."""
    counted: Counted = field(default_factory=Counted)
    """The rows that differ of which there are too many to list: they are counted by range."""
    scheme: str = ""
    """What was hashed, where and in which form, unless `note` tells of leaves that the client hashed instead."""
    sample: SampledTable | None = None
    """How much a sample has read; None if the whole table was to be read."""
    part: Part | None = None
    """Which part of the table was to be read; None for all of it."""
    held: Mapping[str, int] = field(default_factory=dict)
    """By host id: how many rows each replica holds; empty unless all of the plan was read."""

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"

    @property
    def put_off(self) -> bool:
        """Whether everything was read, except ranges that were left for the next run on purpose."""
        left = self.coverage.skipped > 0 and self.ranges_read < self.ranges and self.sample is None
        return bool(self.depth) and left and not self.coverage.failed

    @property
    def worth_another_try(self) -> bool:
        """Whether another check of the table may read what this run did not."""
        refused = not self.depth and not self.coverage.failed
        nothing_more = refused or (self.alone > 0 and not self.coverage.failed)
        sampled = self.sample is not None and not self.coverage.failed
        return not (self.coverage.complete or self.put_off or sampled or nothing_more)

    @property
    def verdict(self) -> Verdict:
        """The verdict on this table alone."""
        left_out = None if self.sample is None else self.sample.left_out
        verdict = judge(self.coverage, findings=self.divergent_rows, unsettled=self.unsettled_rows, left_out=left_out)
        return verdict if self.part is None else verdict.of_a_part

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "keyspace": self.keyspace,
            "table": self.table,
            "verdict": self.verdict.value,
            "depth": self.depth,
            "route": self.route,
            "locality": self.locality,
            "scheme": self.scheme,
            "rows": self.rows,
            "divergent_rows": self.divergent_rows,
            "unsettled_rows": self.unsettled_rows,
            "seconds": round(self.seconds, 3),
            "coverage": coverage_json(self.coverage),
            "ranges": self.ranges,
            "ranges_read": self.ranges_read,
            "ranges_alone": self.alone,
            "unread": [u.as_json() for u in self.unread],
            "strip": self.strip,
            "cannot_see": list(self.blind),
            "note": self.note,
            "trees": [tree.as_json() for tree in self.trees],
            "counted": self.counted.as_json(),
        }


@dataclass(frozen=True)
class RepairSummary:
    """The result of repairing what a check found; its counts add up to the rows.

    `results` counts rows by outcome, `left` counts rows that are not verified by reason. `remaining` still differ or
    were left alone, `unknown` wait for replicas. `checked_again` is the verdict of a second check of every partition
    that was written to.
    """

    plan: str | None = None
    journal: str | None = None
    rows: int = 0
    acted_on: int = 0
    results: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    remaining: int = 0
    unknown: int = 0
    checked_again: Verdict | None = None
    unchecked: bool = False
    interrupted: bool = False
    changes: Mapping[str, int] = field(default_factory=dict)
    """What became of the rows acted on: restored, updated, cells deleted, deleted, unchanged."""
    stopped: bool = False
    """Whether it stopped because as many rows had vanished as it was allowed."""

    @property
    def left_nothing(self) -> bool:
        """Whether every found row is proven to be the same on all replicas now."""
        undone = self.remaining or self.unknown or self.unchecked or self.interrupted or self.stopped
        return not undone and self.checked_again in {None, Verdict.CONSISTENT}

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "plan": self.plan,
            "journal": self.journal,
            "rows": self.rows,
            "acted_on": self.acted_on,
            "results": dict(self.results),
            "left": dict(self.left),
            "remaining": self.remaining,
            "unknown": self.unknown,
            "checked_again": self.checked_again.value if self.checked_again else None,
            "changes": dict(self.changes),
            "stopped": self.stopped,
        }


@dataclass(frozen=True, slots=True)
class MergedParts:
    """Of how many parts a run is, and which of them are missing in its report, by number."""

    of: int
    missing: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"of": self.of, "missing": list(self.missing)}


@dataclass(frozen=True)
class Report:
    """The whole result of one check.

    `not_checked` maps `keyspace.table` to the reason why it was left out on purpose (a view); such tables are not
    part of the coverage. `top` holds the first findings, for the summary; the file holds all. `places` maps each
    replica to its data centre. `run_time_s` is the time after which no further range was started, None without a
    limit. `cluster_id` tells clusters of one name apart.
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
    findings_error: str = ""
    """Why the requested findings file could not be written."""
    interrupted: bool = False
    run_time_s: float | None = None
    likely_causes: tuple[Cause, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    repair: RepairSummary | None = None
    notes: tuple[str, ...] = ()
    """Facts about the run that matter beside its verdict: clocks that differ, a settle window that is too short."""
    traces: TracesLeft = field(default_factory=TracesLeft)
    """The traces that proofs left on the servers."""
    cluster_id: str = ""
    sampling: Sampling | None = None
    """How a sample was asked for; None if everything was to be read."""
    part: Part | None = None
    """Which part of a run this is; None of a whole one."""
    run_name: str = ""
    """What the parts of the run call it."""
    parts: MergedParts | None = None
    """Of which parts the report was put together; None of one run."""

    @property
    def coverage(self) -> Coverage:
        """The coverage of all tables."""
        return sum((t.coverage for t in self.tables), Coverage())

    @property
    def verdict(self) -> Verdict:
        """The verdict on everything that was planned; after a repair, on the findings that are left."""
        findings, unsettled = sum(self.findings_by_kind.values()), sum(t.unsettled_rows for t in self.tables)
        if self.repair is not None and self.repair.rows:
            again = self.repair.checked_again
            findings = self.repair.remaining + (again is Verdict.DIVERGENT)
            unsettled += self.repair.unknown + (again is Verdict.UNKNOWN) + self.repair.unchecked
        verdict = judge(self.coverage, findings=findings, unsettled=unsettled, left_out=self._left_out)
        verdict = verdict if self.part is None else verdict.of_a_part
        # An interrupted run did not read the ring and the schema again.
        return Verdict.UNKNOWN if self.interrupted and verdict.agreed else verdict

    @property
    def rows_by_node(self) -> list[Share]:
        """How many rows each node holds of the tables that were read whole, beside what its token ranges say."""
        return rows_by_node(self.tables)

    @property
    def _left_out(self) -> int | None:
        if self.sampling is None:
            return None
        return sum(table.sample.left_out for table in self.tables if table.sample is not None)

    @property
    def bound(self) -> Bound | None:
        """What a sample proves that found no difference and read all that it asked for; None of anything else."""
        return proven_by(self.verdict, self.tables)

    @property
    def mended(self) -> bool:
        """Whether rows differed, and a repair left none that differs."""
        return self.repair is not None and self.repair.rows > 0 and self.repair.left_nothing

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command; warnings among the violations do not change it."""
        errors = sum(v.severity is Severity.ERROR for v in self.violations)
        interrupted = self.interrupted or (self.repair is not None and self.repair.interrupted)
        return exit_code(self.verdict, violations=errors, interrupted=interrupted, lost=bool(self.findings_error))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form (schema 1, docs/reference)."""
        return {
            "schema": SCHEMA_VERSION,
            "run_id": self.run_id,
            "cluster": self.cluster,
            "cluster_id": self.cluster_id,
            "started_at": self.started_at,
            "seconds": round(self.seconds, 3),
            "verdict": self.verdict.value,
            "exit_code": int(self.exit_code),
            "interrupted": self.interrupted,
            "run_time": self.run_time_s,
            "sample": self.sampling and self.sampling.as_json(self.bound),
            "part": self._part_json(),
            "parts": self.parts and {**self.parts.as_json(), "run": self.run_name or None},
            "coverage": coverage_json(self.coverage),
            "tables": [t.as_json() for t in self.tables],
            "violations": [v.as_json() for v in self.violations],
            "findings_by_kind": dict(self.findings_by_kind),
            "likely_causes": [cause.as_json() for cause in self.likely_causes],
            "not_checked": dict(self.not_checked),
            "notes": list(self.notes),
            "replicas": list(self.replicas),
            "findings": self.findings_path,
            "findings_error": self.findings_error,
            "repair": self.repair.as_json() if self.repair else None,
            "traces": self.traces.as_json(),
            "rows_by_node": [share.as_json() for share in self.rows_by_node],
        }

    def _part_json(self) -> dict[str, Any] | None:
        if self.part is None:
            return None
        return {"number": self.part.number, "of": self.part.of, "run": self.run_name or None}


def proven_by(verdict: Verdict, tables: Iterable[TableReport]) -> Bound | None:
    """Return what a run with this verdict proves of what it left out; None of a run that is no sample."""
    if verdict is not Verdict.SAMPLED:
        return None
    read = [(table, table.sample) for table in tables if table.sample is not None]
    ranges, rows = sum(table.ranges for table, _ in read), sum(table.rows for table, _ in read)
    return bound([sample for _, sample in read], ranges=ranges, rows_read=rows)


def not_scanned(keyspace: str, table: str, note: str, *, failed: bool = False) -> TableReport:
    """Return the report of a table that was not scanned at all; it counts against the coverage."""
    coverage = Coverage(planned=1, failed=1) if failed else Coverage(planned=1, skipped=1)
    return TableReport(
        keyspace=keyspace,
        table=table,
        depth="",
        route="",
        locality="",
        rows=0,
        divergent_rows=0,
        unsettled_rows=0,
        seconds=0.0,
        coverage=coverage,
        note=note,
    )


def coverage_json(coverage: Coverage) -> dict[str, int]:
    """Return the four figures of a coverage."""
    return {
        "planned": coverage.planned,
        "completed": coverage.completed,
        "skipped": coverage.skipped,
        "failed": coverage.failed,
    }
