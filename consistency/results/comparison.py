"""The result of a comparison of two clusters: one frozen value, printed by the terminal and written as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consistency.cluster.locality import TracesLeft
from consistency.model.sides import Side
from consistency.results.pair_findings import GRAVEST_FIRST, InnerFinding, PairFinding
from consistency.results.report import TableReport, coverage_json, proven_by
from consistency.results.sample import Bound, Sampling
from consistency.results.verdict import Coverage, ExitCode, Verdict, exit_code, judge

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class SchemaDifference:
    """What is declared otherwise on the two sides; `blocks` where the rows cannot be compared then."""

    what: str
    source: str
    target: str
    blocks: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"what": self.what, "source": self.source, "target": self.target, "blocks": self.blocks}


@dataclass(frozen=True)
class ComparedTable:
    """What was learned about one table of the source and its counterpart.

    `report` tells how it was read, on all replicas of both sides; its names are the source's, and its `divergent_rows`
    are those of `kinds` and `inner` together. `kinds` counts the rows that differ between the sides, `inner` those on
    which the replicas of a side disagree, by a check's kinds; a row may be in both. `counted` of the rows are counted
    by range and not listed.
    """

    report: TableReport
    target: str
    compare: str
    kinds: Mapping[str, int] = field(default_factory=dict)
    inner: Mapping[Side, Mapping[str, int]] = field(default_factory=dict)
    counted: int = 0
    schema: tuple[SchemaDifference, ...] = ()

    @property
    def differing(self) -> int:
        """How many rows differ between the sides."""
        return sum(self.kinds.values())

    @property
    def verdict(self) -> Verdict:
        """The verdict on this table alone."""
        return self.report.verdict

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: that of a check's table, and what two clusters have beside it."""
        told = self.report.as_json()
        del told["counted"]
        return {
            **told,
            "target": self.target,
            "compare": self.compare,
            "kinds": dict(self.kinds),
            "inner": {side.value: dict(self.inner.get(side, {})) for side in Side},
            "counted_rows": self.counted,
            "schema": [each.as_json() for each in self.schema],
        }


@dataclass(frozen=True, slots=True)
class ComparedCluster:
    """One side: its cluster's name and id, and its nodes that were read, each with its data centre and its release."""

    cluster: str
    cluster_id: str
    replicas: Mapping[str, str]
    releases: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "cluster": self.cluster,
            "cluster_id": self.cluster_id,
            "replicas": dict(self.replicas),
            "releases": dict(self.releases),
        }


@dataclass(frozen=True)
class Comparison:
    """The whole result of one comparison.

    `read` says whether each replica was read by itself (`replicas`) or each side at LOCAL_QUORUM (`quorum`).
    `top` holds the first findings. `not_checked` maps a table to the reason why it was left out on purpose. `notes` are
    facts about the run that matter beside its verdict.
    """

    run_id: str
    started_at: str
    seconds: float
    compare: str
    tolerated_s: float
    read: str
    clusters: Mapping[Side, ComparedCluster]
    tables: tuple[ComparedTable, ...]
    top: tuple[PairFinding | InnerFinding, ...] = ()
    not_checked: Mapping[str, str] = field(default_factory=dict)
    findings_path: str | None = None
    findings_error: str = ""
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    traces: TracesLeft = field(default_factory=TracesLeft)
    sampling: Sampling | None = None

    @property
    def findings_by_kind(self) -> dict[str, int]:
        """How many rows differ between the sides, by kind, the gravest first."""
        total = sum((Counter(table.kinds) for table in self.tables), Counter[str]())
        return {kind.value: total[kind.value] for kind in GRAVEST_FIRST if total[kind.value]}

    @property
    def inner(self) -> dict[Side, dict[str, int]]:
        """On how many rows the replicas of each side disagree, by a check's kinds."""
        found: dict[Side, dict[str, int]] = {}
        for side in Side:
            total = sum((Counter(table.inner.get(side, {})) for table in self.tables), Counter[str]())
            found[side] = dict(sorted(total.items()))
        return found

    @property
    def coverage(self) -> Coverage:
        """The coverage of all tables, on both sides."""
        return sum((table.report.coverage for table in self.tables), Coverage())

    @property
    def verdict(self) -> Verdict:
        """The verdict on everything that was planned."""
        findings = sum(self.findings_by_kind.values()) + sum(sum(kinds.values()) for kinds in self.inner.values())
        unsettled = sum(table.report.unsettled_rows for table in self.tables)
        left_out = None
        if self.sampling is not None:
            left_out = sum(t.report.sample.left_out for t in self.tables if t.report.sample is not None)
        verdict = judge(self.coverage, findings=findings, unsettled=unsettled, left_out=left_out)
        # An interrupted run did not read the rings and the schemas again.
        agreed = verdict in (Verdict.CONSISTENT, Verdict.SAMPLED)
        return Verdict.UNKNOWN if self.interrupted and agreed else verdict

    @property
    def bound(self) -> Bound | None:
        """What a sample proves that found no difference and read all that it asked for; None of anything else."""
        return proven_by(self.verdict, (table.report for table in self.tables))

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        lost = bool(self.findings_error)
        return exit_code(self.verdict, violations=0, interrupted=self.interrupted, lost=lost)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form (docs/reference/comparison.schema.json)."""
        return {
            "schema": SCHEMA_VERSION,
            "run_id": self.run_id,
            **{side.value: self.clusters[side].as_json() for side in Side},
            "started_at": self.started_at,
            "seconds": round(self.seconds, 3),
            "verdict": self.verdict.value,
            "exit_code": int(self.exit_code),
            "interrupted": self.interrupted,
            "compare": self.compare,
            "tolerate_writetime": self.tolerated_s,
            "read": self.read,
            "sample": self.sampling and self.sampling.as_json(self.bound),
            "coverage": coverage_json(self.coverage),
            "tables": [table.as_json() for table in self.tables],
            "findings_by_kind": self.findings_by_kind,
            "inner": {side.value: kinds for side, kinds in self.inner.items()},
            "not_checked": dict(self.not_checked),
            "notes": list(self.notes),
            "findings": self.findings_path,
            "findings_error": self.findings_error,
            "traces": self.traces.as_json(),
        }
