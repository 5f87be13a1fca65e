"""What a live page shows, as the watch goes on: written by the watch's thread, read by the one that serves."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from consistency.checking.observer import Observer, PairObserver, Several
from consistency.cli.show.live.reports import KeptReports
from consistency.cli.show.live.ring_map import Codes, RingMap
from consistency.cli.show.live.trend import Line, Trend
from consistency.cli.show.page.collect import Collector
from consistency.cli.show.page.render import render_page
from consistency.cli.show.terminal.advice import Typed
from consistency.cli.show.terminal.counts import Counts
from consistency.model.ring import Node, Ring
from consistency.model.schema import Table
from consistency.results.cause import Cause
from consistency.results.report import Report, Unread
from consistency.results.verdict import Verdict
from consistency.watching.audience import Known
from consistency.watching.metrics import RunEnd
from consistency.watching.target_end import TargetTable
from consistency.watching.visit_ledger import KnownTable

MOST_RUNS = 50
MOST_ROWS_OF_A_REPORT = 1_000


@dataclass(frozen=True, slots=True)
class Run:
    """One visit that ended; `verdict` is None without a report, `reason` then says why if that may be shown."""

    run_id: str
    table: str
    ended_s: float
    seconds: float
    exit_code: int
    verdict: Verdict | None = None
    rows: int = 0
    divergent_rows: int = 0
    reason: str = ""
    has_report: bool = False


@dataclass(frozen=True, slots=True)
class _Latest:
    """What the latest visit of a table found, besides its cells."""

    at_s: float
    behind: Mapping[str, int] = field(default_factory=dict)
    causes: tuple[Cause, ...] = ()
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True)
class View:
    """Everything at one moment. `counts` belong to a visit that is under way; they go on changing."""

    now_s: float
    began_s: float
    run_end: RunEnd | None
    nodes: tuple[Node, ...]
    tables: tuple[Table, ...]
    tracks: Mapping[str, Codes]
    strips: Mapping[str, str]
    ages_s: Mapping[str, float | None]
    latest: Mapping[str, _Latest]
    kinds: tuple[tuple[Line, ...], int]
    replicas: tuple[tuple[Line, ...], int]
    trend_began_s: float | None
    runs: tuple[Run, ...]
    behind: Mapping[str, int]


@dataclass(frozen=True)
class Now:
    """What the watch does at this moment."""

    table: str
    counts: Counts | None
    next_in_s: float | None
    waits_for_lock: bool


class LiveState:
    """The Audience of a watch, of one cluster or of two. `changes` grows with every visit that ends."""

    def __init__(
        self,
        run_end: Callable[[], RunEnd | None],
        reports: KeptReports,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run_end = run_end
        self.reports = reports
        self._clock = clock
        self._lock = Lock()
        self._began_s = clock()
        self._ring: Ring | None = None
        self._tables: dict[str, Table] = {}
        self._map = RingMap(self._began_s)
        self._latest: dict[str, _Latest] = {}
        self._kinds, self._replicas = Trend(), Trend()
        self._runs: deque[Run] = deque(maxlen=MOST_RUNS)
        self._known: KnownTable | None = None
        self._counts: Counts | None = None
        self._collected = Collector(0)
        self._now = ("", 0.0)
        self._waits = False
        self.changes = 0

    def in_scope(self, tables: Sequence[Table], known: Known) -> None:
        """Take note of the tables that are watched; ask a ledger about those that are new."""
        new = [table for table in tables if table.full_name not in self._tables]
        before = [(table, known(table.full_name)) for table in new]
        with self._lock:
            self._tables = {table.full_name: table for table in tables}
            self._map.keep(self._tables.keys())
            self._latest = {name: latest for name, latest in self._latest.items() if name in self._tables}
            for table, found in before:
                if found is not None and found.spans:
                    self._map.known(table.full_name, found.spans, table.gc_grace_seconds)

    def visiting(self, run_id: str, table: Table, ring: Ring) -> Observer:  # noqa: ARG002 - the Audience's
        """Begin to count a visit."""
        counts, collected = Counts(), Collector(MOST_ROWS_OF_A_REPORT if self.reports else 0)
        with self._lock:
            self._ring, self._counts, self._collected, self._known = ring, counts, collected, None
            self._now, self._waits = (table.full_name, 0.0), False
        return Several(counts, collected)

    def recorded(self, table: Table, known: Known) -> None:
        """Keep what the ledger knows of the table, until its report is there."""
        self._known = known(table.full_name)

    def visited(self, report: Report, exit_code: int) -> None:
        """Take the report of a visit, and keep it as a page if there is a folder for that."""
        kept = bool(self.reports) and self.reports.keep(
            report.run_id, render_page(report, self._collected, Typed(), keys=False)
        )
        (table,) = report.tables
        name, now_s = table.full_name, self._clock()
        known, behind = self._known, dict(self._collected.behind)
        if known is not None and table.put_off:
            behind = dict(known.behind)
        with self._lock:
            gc_grace_s = self._tables[name].gc_grace_seconds if name in self._tables else 0
            spans = known.spans if known is not None else ()
            self._map.visited(table, now_s, gc_grace_s, spans, mended=report.mended)
            self._latest[name] = _Latest(now_s, {} if report.mended else behind, report.likely_causes, table.unread)
            rows = (report.verdict, table.rows, 0 if report.mended else table.divergent_rows)
            self._end(Run(report.run_id, name, now_s, report.seconds, exit_code, *rows, has_report=kept))

    def comparing(self, run_id: str, full_name: str) -> PairObserver:  # noqa: ARG002 - the TargetAudience's
        """Begin to count a comparison of two clusters."""
        counts = Counts()
        with self._lock:
            self._counts, self._now, self._waits = counts, (full_name, 0.0), False
        return counts

    def compared(self, run_id: str, table: TargetTable, rows: int, exit_code: int) -> None:
        """Take the figures of a comparison."""
        with self._lock:
            seconds = self._counts.seconds if self._counts is not None else 0.0
            found = (table.verdict, rows, table.differing)
            self._end(Run(run_id, table.full_name, self._clock(), seconds, exit_code, *found))

    def failed(self, run_id: str, full_name: str, reason: str, exit_code: int) -> None:
        """Take note of a visit without a report."""
        now_s = self._clock()
        with self._lock:
            self._map.failed(full_name)
            self._latest.pop(full_name, None)
            seconds = self._counts.seconds if self._counts is not None else 0.0
            self._end(Run(run_id, full_name, now_s, seconds, exit_code, reason=reason))

    def waiting(self) -> None:
        """Take note that another run holds the lock."""
        self._waits = True

    def resting(self, seconds: float) -> None:
        """Take note of when the next visit begins."""
        self._now = ("", self._clock() + seconds)

    def _end(self, run: Run) -> None:
        self._counts, self._collected = None, Collector(0)
        self._now = ("", 0.0)
        self._runs.appendleft(run)
        run_end = self._run_end()
        known = (run_end.report or run_end.target) if run_end is not None else None
        kinds = known.findings_by_kind if known is not None else {}
        self._kinds.add(run.ended_s, kinds)
        self._replicas.add(run.ended_s, self._behind())
        self.changes += 1

    def _behind(self) -> Counter[str]:
        behind: Counter[str] = Counter()
        for latest in self._latest.values():
            behind.update(latest.behind)
        return behind

    def now(self) -> Now:
        """Return what is under way; cheap enough to ask every second."""
        with self._lock:
            table, next_s = self._now
            counts = self._counts if table else None
        left_s = max(0.0, next_s - self._clock()) if next_s else None
        return Now(table, counts, left_s, self._waits)

    def view(self) -> View:
        """Return everything else."""
        now_s, run_end = self._clock(), self._run_end()
        with self._lock:
            nodes = self._ring.nodes if self._ring is not None else ()
            names = self._tables.keys()
            return View(
                now_s,
                self._began_s,
                run_end,
                nodes,
                tuple(self._tables.values()),
                self._map.tracks([node.name for node in nodes], names, now_s),
                {name: self._map.strip(name, now_s) for name in names},
                {name: self._map.clean_age_s(name, now_s) for name in names},
                dict(self._latest),
                self._kinds.lines(),
                self._replicas.lines(),
                self._kinds.began_s,
                tuple(self._runs),
                self._behind(),
            )
