"""The metrics of a run for Prometheus: few gauges, labelled by keyspace and table at most.

An unknown figure is left out: zero divergent rows are claimed only of a table that was read completely. The
rules in deploy/prometheus and the dashboard in deploy/grafana use these names and no others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from consistency.errors import UsageError
from consistency.model.sides import Side
from consistency.results.kinds import Kind
from consistency.results.pair_findings import PairKind
from consistency.results.report import Report, Severity, TableReport
from consistency.results.verdict import Verdict
from consistency.watching.target_end import TargetEnd

METRICS_VERSION = 1
"""Increased when a metric is renamed, removed, or changes its meaning; not for new metrics."""

_HELP: dict[str, str] = {
    "consistency_last_run_timestamp_seconds": (
        "When the last run ended, whatever its result. Older than two of your intervals: look at the timer."
    ),
    "consistency_last_run_exit_code": (
        "Exit code of the last run: 0 clean, 1 divergent, 2 usage, 3 incomplete, 4 could not run, 5 locked, "
        "130 interrupted. If it is 2 or 4 in two runs: run the command by hand and read its one line."
    ),
    "consistency_last_run_duration_seconds": (
        "How long the last run took. If it is near your interval: check fewer tables per run, or use --full-speed."
    ),
    "consistency_cluster_info": (
        "Always 1, with the name and the id of the cluster that the last run reached. The id tells clusters of one "
        "name apart; with a ledger it stays when nodes are replaced. An unexpected change: another cluster answers."
    ),
    "consistency_verdict": (
        "1 for the verdict of the last run, 0 for the others. divergent: explain and repair; unknown: look at what "
        "could not be read."
    ),
    "consistency_divergent_rows": (
        "Rows whose replicas differ, counted after --repair if it ran; 0 only if the whole table was read. "
        "Above 0: 'consistency explain', then 'consistency repair'."
    ),
    "consistency_unsettled_rows": (
        "Rows that kept changing in every reading. Above 0 in every run: raise --settle or check at a quiet hour."
    ),
    "consistency_findings": (
        "Rows that differ, by kind; 0 only if everything was read. zombie_suspect: look before you run nodetool "
        "repair; future_write_time: find the client whose clock is wrong."
    ),
    "consistency_replication_violations": (
        "Rules of replication that are broken. Above 0: 'consistency audit' names each with the command that fixes it."
    ),
    "consistency_digests_planned": (
        "Digests that the last run planned, one per range and replica: the total of the other digest counts."
    ),
    "consistency_digests": (
        "How the planned digests ended: completed, skipped or failed. If failed is above 0, the report names replica "
        "and reason: bring the replica back and run again."
    ),
    "consistency_oldest_clean_pass_age_seconds": (
        "Age of the oldest of the ranges' last clean passes, +Inf if a range never had one; of tables that the run was "
        "asked for. Near gc_grace_seconds: check and repair this table first, because deleted rows may come back after "
        "it."
    ),
    "consistency_gc_grace_seconds": "How long the table keeps tombstones; every range needs a clean pass within it.",
    "consistency_repair_stopped": (
        "1 if the last repair stopped because as many rows had vanished as max_deletes allows, else 0; absent without "
        "--repair. If it is 1: 'consistency repair show JOURNAL', then 'repair undo' or 'repair resume --max-deletes'."
    ),
    "consistency_target_info": (
        "Always 1, with the name and the id of the cluster that the source is compared with. An unexpected change: "
        "another cluster answers as the target."
    ),
    "consistency_target_last_equal_timestamp_seconds": (
        "When the latest comparison began that found the table equal in both clusters; 0 if none is known. Old: look "
        "at consistency_target_rows_differing, or at what could not be read."
    ),
    "consistency_target_rows_differing": (
        "Rows that differ between the clusters, by kind; 0 only if the whole table was compared. Above 0: 'consistency "
        "explain', then 'consistency sync plan'."
    ),
    "consistency_target_inner_rows": (
        "Rows on which the replicas of one side disagree; 0 only if the whole table was compared. Above 0: check and "
        "repair that cluster by itself."
    ),
    "consistency_target_unsettled_rows": (
        "Rows that kept changing while the clusters were compared. Above 0 in every comparison: raise --settle."
    ),
    "consistency_target_comparisons_total": (
        "Comparisons of a table since the watch began, by verdict; one that could not be made, because a side was "
        "away, is unknown."
    ),
    "consistency_watch_rounds_total": (
        "Rounds over all tables that the watch completed, including failed visits. If it stands still for longer than "
        "--period, the tables take longer: raise --period."
    ),
    "consistency_hook_failures_total": (
        "Divergences of which the watch could not notify a hook. Above 0: try the command or the address by hand."
    ),
}
HELP: Mapping[str, str] = MappingProxyType(_HELP)
"""Every metric of a run, and what to do about it."""

LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "consistency_cluster_info": ("cluster_id", "cluster_name"),
        "consistency_verdict": ("verdict",),
        "consistency_divergent_rows": ("keyspace", "table"),
        "consistency_unsettled_rows": ("keyspace", "table"),
        "consistency_findings": ("kind",),
        "consistency_replication_violations": ("severity",),
        "consistency_digests": ("outcome",),
        "consistency_oldest_clean_pass_age_seconds": ("keyspace", "table"),
        "consistency_gc_grace_seconds": ("keyspace", "table"),
        "consistency_target_info": ("cluster_id", "cluster_name"),
        "consistency_target_last_equal_timestamp_seconds": ("keyspace", "table"),
        "consistency_target_rows_differing": ("keyspace", "kind", "table"),
        "consistency_target_inner_rows": ("keyspace", "side", "table"),
        "consistency_target_unsettled_rows": ("keyspace", "table"),
        "consistency_target_comparisons_total": ("verdict",),
    }
)
"""The labels of metrics that have any."""

Family = GaugeMetricFamily | CounterMetricFamily

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OWN_LABELS = frozenset(label for labels in LABELS.values() for label in labels)


@dataclass(frozen=True, slots=True)
class CleanPass:
    """How long ago a table's least recently clean range was clean, and gc_grace_seconds."""

    keyspace: str
    table: str
    oldest_age_s: float
    """`math.inf` if a range never had a clean pass."""
    gc_grace_s: int


@dataclass(frozen=True, slots=True)
class WatchFigures:
    """The counters of a watch."""

    rounds: int
    hook_failures: int


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: `report` is None if it could not run, `clean_passes` is empty without a ledger.

    For a watch it is the latest visit, and `report` has what is known of every table.
    """

    ended_at_s: float
    seconds: float
    exit_code: int
    report: Report | None = None
    clean_passes: tuple[CleanPass, ...] = ()
    extra_labels: Mapping[str, str] = field(default_factory=dict)
    watch: WatchFigures | None = None
    target: TargetEnd | None = None
    """What is known of two clusters, in a watch that compares them; `report` is None then."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on all that is known."""
        known = self.report or self.target
        return known.verdict if known is not None else Verdict.UNKNOWN


def render(run_end: RunEnd) -> str:
    """Return the text that node_exporter's textfile collector reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunEndCollector(lambda: run_end))
    return generate_latest(registry).decode("utf-8")


class RunEndCollector(Collector):
    """The current state, in the form for prometheus_client."""

    def __init__(self, run_end: Callable[[], RunEnd]) -> None:
        self._run_end = run_end

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that have figures."""
        return families(self._run_end())


def families(run_end: RunEnd) -> Iterator[Family]:
    """Yield every metric of a run that has a figure."""
    sheet = _Sheet(run_end.extra_labels)
    sheet.put("consistency_last_run_timestamp_seconds", run_end.ended_at_s)
    sheet.put("consistency_last_run_exit_code", run_end.exit_code)
    sheet.put("consistency_last_run_duration_seconds", run_end.seconds)
    if run_end.report is not None and run_end.report.cluster_id:
        sheet.put("consistency_cluster_info", 1, run_end.report.cluster_id, run_end.report.cluster)
    for each in Verdict:
        sheet.put("consistency_verdict", each is run_end.verdict, each.value)
    if run_end.target is not None:
        _enter_target(sheet, run_end.target)
    if run_end.report is not None:
        _enter_report(sheet, run_end.report)
    for clean in run_end.clean_passes:
        sheet.put("consistency_oldest_clean_pass_age_seconds", clean.oldest_age_s, clean.keyspace, clean.table)
        sheet.put("consistency_gc_grace_seconds", clean.gc_grace_s, clean.keyspace, clean.table)
    if run_end.watch is not None:
        sheet.put("consistency_watch_rounds_total", run_end.watch.rounds)
        sheet.put("consistency_hook_failures_total", run_end.watch.hook_failures)
    return iter(sheet.families.values())


def parse_labels(words: tuple[str, ...]) -> dict[str, str]:
    """Read the `NAME=VALUE` pairs of every metric, such as `cluster=prod`."""
    labels: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value or not _LABEL.fullmatch(name) or name.startswith("__"):
            msg = f"--metrics-label {word!r} is not NAME=VALUE, such as cluster=prod"
            raise UsageError(msg)
        if name in _OWN_LABELS or name in labels:
            msg = f"--metrics-label {name} is taken; choose another name, such as cluster"
            raise UsageError(msg)
        labels[name] = value
    return labels


class _Sheet:
    """The metrics with their figures, in the order of their first figure."""

    def __init__(self, extra: Mapping[str, str]) -> None:
        self._extra = extra
        self.families: dict[str, Family] = {}

    def put(self, name: str, value: float, *labels: str) -> None:
        """Add one figure."""
        if name not in self.families:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            self.families[name] = kind(name, HELP[name], labels=[*LABELS.get(name, ()), *self._extra])
        self.families[name].add_metric([*labels, *self._extra.values()], float(value))


def _enter_report(sheet: _Sheet, report: Report) -> None:
    for table in report.tables:
        divergent = 0 if report.mended else table.divergent_rows
        if divergent or _read_whole(table, report):
            sheet.put("consistency_divergent_rows", divergent, table.keyspace, table.table)
        if table.unsettled_rows or _read_whole(table, report):
            sheet.put("consistency_unsettled_rows", table.unsettled_rows, table.keyspace, table.table)
    whole = bool(report.tables) and all(_read_whole(table, report) for table in report.tables)
    for kind in Kind:
        count = 0 if report.mended else report.findings_by_kind.get(kind.value, 0)
        if count or whole:
            sheet.put("consistency_findings", count, kind.value)
    for severity in Severity:
        broken = sum(v.severity is severity for v in report.violations)
        sheet.put("consistency_replication_violations", broken, severity.value)
    if report.repair is not None:
        sheet.put("consistency_repair_stopped", report.repair.stopped)
    coverage = report.coverage
    sheet.put("consistency_digests_planned", coverage.planned)
    sheet.put("consistency_digests", coverage.completed, "completed")
    sheet.put("consistency_digests", coverage.skipped, "skipped")
    sheet.put("consistency_digests", coverage.failed, "failed")


def _enter_target(sheet: _Sheet, end: TargetEnd) -> None:
    names = {Side.SOURCE: "consistency_cluster_info", Side.TARGET: "consistency_target_info"}
    for side, (cluster, cluster_id) in end.clusters.items():
        sheet.put(names[side], 1, cluster_id, cluster)
    for table in end.tables:
        keyspace, name = table.keyspace, table.table
        sheet.put("consistency_target_last_equal_timestamp_seconds", table.last_equal_s or 0.0, keyspace, name)
        for kind in PairKind:
            if (rows := table.kinds.get(kind.value, 0)) or table.whole:
                sheet.put("consistency_target_rows_differing", rows, keyspace, kind.value, name)
        for side in Side:
            if (rows := table.inner.get(side, 0)) or table.whole:
                sheet.put("consistency_target_inner_rows", rows, keyspace, side.value, name)
        if table.unsettled or table.whole:
            sheet.put("consistency_target_unsettled_rows", table.unsettled, keyspace, name)
    for verdict, count in end.comparisons.items():
        sheet.put("consistency_target_comparisons_total", count, verdict.value)


def _read_whole(table: TableReport, report: Report) -> bool:
    """Whether a zero may be claimed: everything was read and settled, and the run was not interrupted."""
    return (
        bool(table.coverage.planned) and table.coverage.complete and not table.unsettled_rows and not report.interrupted
    )
