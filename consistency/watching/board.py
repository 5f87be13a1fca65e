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
from consistency.results.verdict import Coverage, ExitCode
from consistency.watching.metrics import CleanPass, RunEnd, WatchFigures

_NOT_YET = "not visited yet by this watch"


@dataclass(frozen=True)
class Visit:
    """The figures of one visit of one table, without rows."""

    table: TableReport
    findings_by_kind: Mapping[str, int] = field(default_factory=dict)


class Board:
    """The latest visit of every table in scope. `run_end` is always replaced as a whole, so any thread may read it."""

    def __init__(
        self, extra_labels: Mapping[str, str] | None = None, clean_passes: Callable[[], tuple[CleanPass, ...]] = tuple
    ) -> None:
        self._extra_labels = dict(extra_labels or {})
        self._clean_passes = clean_passes
        self._visits: dict[str, Visit] = {}
        self._violations: dict[str, tuple[Violation, ...]] = {}
        self._prints: dict[str, str] = {}
        self._scope: Scope | None = None
        self._cluster = self._cluster_id = ""
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        self._rounds = 0
        self._hook_failures = 0
        self._last = (0.0, 0.0, int(ExitCode.INCOMPLETE))
        self.run_end: RunEnd | None = None

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
        if anew and self.run_end is not None:
            self._publish()  # not only when the next visit has ended, which may take hours

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
            self._visits[full_name] = Visit(not_scanned(keyspace, table, reason, failed=True))
        self._enter(seconds, exit_code)

    def waited(self, seconds: float, exit_code: int) -> None:
        """Record that another run held the lock; what is known of the tables stays."""
        self._enter(seconds, exit_code)

    def forget(self) -> None:
        """Forget every visit, because the ledger that they rest on is lost."""
        self._visits.clear()

    def round_done(self, rounds: int) -> None:
        """Record the number of complete rounds."""
        self._rounds = rounds
        self._publish()

    def hook_failed(self) -> None:
        """Count a hook that could not be notified."""
        self._hook_failures += 1
        self._publish()

    def _enter(self, seconds: float, exit_code: int) -> None:
        self._last = (time.time(), seconds, int(exit_code))
        self._publish()

    def _publish(self) -> None:
        ended_at, seconds, code = self._last
        self.run_end = RunEnd(
            ended_at,
            seconds,
            code,
            self._report(),
            self._clean_passes(),
            extra_labels=self._extra_labels,
            watch=WatchFigures(self._rounds, self._hook_failures),
        )

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


def _visit(report: Report, table: TableReport, latest: LatestReads | None) -> Visit:
    if latest is not None:
        return Visit(_added_up(table, latest), dict(latest.rows_by_kind))
    if report.mended:
        return Visit(replace(table, divergent_rows=0))
    return Visit(table, dict(report.findings_by_kind))


def _added_up(table: TableReport, latest: LatestReads) -> TableReport:
    """Return the report of a sliced table by the latest read of each range, in digests of the last plan."""
    planned = table.coverage.planned
    skipped = min(planned, math.ceil(planned * latest.late))
    failed = min(planned - skipped, math.ceil(planned * latest.unproven))
    coverage = Coverage(planned, planned - skipped - failed, skipped, failed)
    return replace(table, divergent_rows=sum(latest.rows_by_kind.values()), coverage=coverage)


def _distinct(groups: Iterable[tuple[Violation, ...]]) -> tuple[Violation, ...]:
    return tuple(dict.fromkeys(v for group in groups for v in group))
