"""What a watch knows of every table now, as the end of one run; a table that was not visited yet is unknown."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from consistency.ledger import LatestReads
from consistency.model.scope import Scope
from consistency.results.report import Report, TableReport, Violation, not_scanned
from consistency.results.verdict import Coverage
from consistency.watching.metrics import CleanPass, RunEnd, WatchFigures
from consistency.watching.visit_board import VisitBoard

_NOT_YET = "not visited yet by this watch"


@dataclass(frozen=True)
class VisitFigures:
    """The figures of one visit of one table, without rows."""

    table: TableReport
    findings_by_kind: Mapping[str, int] = field(default_factory=dict)


class Board(VisitBoard):
    """The latest visit of every table in scope."""

    def __init__(
        self, extra_labels: Mapping[str, str] | None = None, clean_passes: Callable[[], tuple[CleanPass, ...]] = tuple
    ) -> None:
        super().__init__(extra_labels)
        self._clean_passes = clean_passes
        self._visits: dict[str, VisitFigures] = {}
        self._violations: dict[str, tuple[Violation, ...]] = {}
        self._prints: dict[str, str] = {}
        self._scope: Scope | None = None
        self._cluster = self._cluster_id = ""
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())

    @property
    def divergent_rows(self) -> int:
        """The differing rows, by the latest visit of each table."""
        return sum(visit.table.divergent_rows for visit in self._visits.values())

    @property
    def tables(self) -> int:
        """The number of tables in scope."""
        return len(self._scope.tables) if self._scope is not None else 0

    def now(self) -> RunEnd | None:
        """Return `run_end` with the current ages of clean passes; any thread may call this."""
        run_end = self.run_end
        return replace(run_end, clean_passes=self._clean_passes()) if run_end is not None else None

    def in_scope(self, scope: Scope) -> None:
        """Record which tables exist; dropped tables are forgotten.

        So is what was found of a table before it was altered or made anew: it says nothing of the table as it is now.
        """
        self._scope = scope
        prints = {table.full_name: table.fingerprint for table in scope.tables}
        same = {name for name, found in prints.items() if self._prints.get(name) == found}
        anew = self._visits.keys() - same
        self._visits = {name: visit for name, visit in self._visits.items() if name in same}
        self._violations = {name: found for name, found in self._violations.items() if name in scope.keyspaces}
        self._prints = prints
        if anew:
            self._publish_again()

    def visited(
        self, report: Report, seconds: float, exit_code: int | None = None, latest: LatestReads | None = None
    ) -> None:
        """Record the report of a visit; if it read only a part, `latest` sums it up with the visits before."""
        self._cluster, self._cluster_id = report.cluster, report.cluster_id
        for table in report.tables:
            self._visits[table.full_name] = _visit(report, table, latest)
            own = (v for v in report.violations if v.keyspace in ("", table.keyspace))
            self._violations[table.keyspace] = tuple(own)
        self._enter(seconds, report.exit_code if exit_code is None else exit_code)

    def failed(self, full_name: str | None, reason: str, seconds: float, exit_code: int) -> None:
        """Record a failed visit: nothing is known of its table any more."""
        if full_name is not None:
            keyspace, _, table = full_name.partition(".")
            self._visits[full_name] = VisitFigures(not_scanned(keyspace, table, reason, failed=True))
        self._enter(seconds, exit_code)

    def forget(self) -> None:
        """Forget every visit, because the ledger that they rest on is lost."""
        self._visits.clear()

    def _run_end(self, ended_at: float, seconds: float, exit_code: int, figures: WatchFigures) -> RunEnd:
        report, passes = self._report(), self._clean_passes()
        return RunEnd(ended_at, seconds, exit_code, report, passes, extra_labels=self._extra_labels, watch=figures)

    def _report(self) -> Report | None:
        if self._scope is None:
            return None
        seen = self._visits
        tables = [
            seen[t.full_name].table if t.full_name in seen else not_scanned(t.keyspace, t.name, _NOT_YET)
            for t in self._scope.tables
        ]
        for name, reason in self._scope.unreadable.items():
            keyspace, _, table = name.partition(".")
            tables.append(not_scanned(keyspace, table, reason, failed=True))
        kinds: Counter[str] = Counter()
        for visit in self._visits.values():
            kinds.update(visit.findings_by_kind)
        return Report(
            run_id="",
            cluster=self._cluster,
            started_at=self._started_at,
            seconds=0.0,
            tables=tuple(tables),
            violations=_distinct(self._violations.values()),
            findings_by_kind=dict(kinds),
            not_checked=self._scope.not_checked,
            cluster_id=self._cluster_id,
        )


def _visit(report: Report, table: TableReport, latest: LatestReads | None) -> VisitFigures:
    if latest is not None:
        return VisitFigures(_added_up(table, latest), dict(latest.rows_by_kind))
    if report.mended:
        return VisitFigures(replace(table, divergent_rows=0))
    return VisitFigures(table, dict(report.findings_by_kind))


def _added_up(table: TableReport, latest: LatestReads) -> TableReport:
    """Return the report of a sliced table by the latest read of each range, in digests of the last plan."""
    planned = table.coverage.planned
    skipped = min(planned, math.ceil(planned * latest.late))
    failed = min(planned - skipped, math.ceil(planned * latest.unproven))
    coverage = Coverage(planned, planned - skipped - failed, skipped, failed)
    return replace(table, divergent_rows=sum(latest.rows_by_kind.values()), coverage=coverage)


def _distinct(groups: Iterable[tuple[Violation, ...]]) -> tuple[Violation, ...]:
    return tuple(dict.fromkeys(v for group in groups for v in group))
