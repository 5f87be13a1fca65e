"""What a watch of two clusters knows of every pair of tables, in figures: for metrics, the live page and hooks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consistency.model.sides import Side
from consistency.results.comparison import ComparedTable, Comparison
from consistency.results.pair_findings import PairKind
from consistency.results.verdict import Verdict
from consistency.watching.hooks import MESSAGE_VERSION

NOT_YET = "not compared yet by this watch"


@dataclass(frozen=True, slots=True)
class TargetTable:
    """A table of the source and its counterpart, by the latest comparison; `target` is empty if there is none.

    `whole` says that all of both was read and settled, so that what was not found is not there. `last_equal_s` is when
    the latest comparison began that found them equal (seconds since the epoch), as far as is known.
    """

    keyspace: str
    table: str
    target: str
    verdict: Verdict = Verdict.UNKNOWN
    whole: bool = False
    kinds: Mapping[str, int] = field(default_factory=dict)
    inner: Mapping[Side, int] = field(default_factory=dict)
    unsettled: int = 0
    last_equal_s: float | None = None
    compared_s: float | None = None
    reason: str = NOT_YET

    @property
    def full_name(self) -> str:
        """`keyspace.table` of the source."""
        return f"{self.keyspace}.{self.table}"

    @property
    def differing(self) -> int:
        """How many rows differ between the clusters."""
        return sum(self.kinds.values())

    @classmethod
    def of(cls, compared: ComparedTable, compared_s: float, last_equal_s: float | None) -> TargetTable:
        """Return a table that was just compared."""
        report = compared.report
        return cls(
            report.keyspace,
            report.table,
            compared.target,
            compared.verdict,
            bool(report.coverage.planned) and report.coverage.complete and not report.unsettled_rows,
            dict(compared.kinds),
            {side: sum(kinds.values()) for side, kinds in compared.inner.items()},
            report.unsettled_rows,
            last_equal_s,
            compared_s,
            report.note,
        )


@dataclass(frozen=True, slots=True)
class TargetEnd:
    """Every pair of tables in scope, the clusters by name and id, and how comparisons ended since the watch began."""

    tables: tuple[TargetTable, ...] = ()
    clusters: Mapping[Side, tuple[str, str]] = field(default_factory=dict)
    comparisons: Mapping[Verdict, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The verdict on all of them: unknown, unless every one of them is known."""
        verdicts = {table.verdict for table in self.tables}
        if Verdict.DIVERGENT in verdicts:
            return Verdict.DIVERGENT
        return Verdict.CONSISTENT if verdicts == {Verdict.CONSISTENT} else Verdict.UNKNOWN

    @property
    def findings_by_kind(self) -> dict[str, int]:
        """How many rows differ between the clusters, by the latest comparison of each table."""
        total = sum((Counter(table.kinds) for table in self.tables), Counter[str]())
        return {kind.value: total[kind.value] for kind in PairKind if total[kind.value]}


def target_message(result: Comparison, at_s: float) -> bytes:
    """Return the hooks' message about a comparison that found a difference, as JSON."""
    found = [table for table in result.tables if table.kinds or any(table.inner.get(side) for side in Side)]
    data: dict[str, Any] = {
        "schema": MESSAGE_VERSION,
        "event": "target_diverged",
        "at": int(at_s),
        "run_id": result.run_id,
        **{
            side.value: {"cluster": cluster.cluster, "cluster_id": cluster.cluster_id}
            for side, cluster in result.clusters.items()
        },
        "verdict": result.verdict.value,
        "tables": [
            {
                "keyspace": table.report.keyspace,
                "table": table.report.table,
                "target": table.target,
                "rows_differing": table.differing,
                "kinds": dict(table.kinds),
                "inner": {side.value: sum(table.inner.get(side, {}).values()) for side in Side},
            }
            for table in found
        ],
        "findings": result.findings_path,
    }
    return json.dumps(data, sort_keys=True).encode()
