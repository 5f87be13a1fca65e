"""One line and an exit code for Nagios, Icinga and compatible monitors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from consistency.errors import ConsistencyError, InternalError
from consistency.model.cqltext import some_of, visible
from consistency.results.figures import counted
from consistency.results.report import Report, Severity
from consistency.results.verdict import Verdict

_MOST_TABLES = 3


class PluginState(IntEnum):
    """The meaning of a plugin's exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class PluginResult:
    """The line to print and the exit code."""

    state: PluginState
    line: str


def judge_for_plugin(report: Report) -> PluginResult:
    """Return the state of a report: divergence comes before unknown, unknown before warnings."""
    errors = sum(v.severity is Severity.ERROR for v in report.violations)
    warnings = len(report.violations) - errors
    divergent = sum(report.findings_by_kind.values())
    coverage = report.coverage
    texts = []
    if report.mended:
        texts.append(f"{counted(divergent, 'row')} differed and were repaired")
        divergent = 0
    elif divergent:
        where = _names(t.full_name for t in report.tables if t.divergent_rows)
        texts.append(f"replicas differ in {counted(divergent, 'row')} of {where}")
    if errors:
        texts.append(f"{counted(errors, 'violation')} of replication, run: consistency audit")
    if not report.verdict.agreed and not (coverage.complete and coverage.planned):
        texts.append(f"{coverage.completed:,} of {counted(coverage.planned, 'digest')} read")
    unsettled = sum(t.unsettled_rows for t in report.tables)
    if unsettled:
        texts.append(f"{counted(unsettled, 'row')} kept changing")
    if report.interrupted:
        texts.append("interrupted")
    if warnings:
        texts.append(f"{counted(warnings, 'warning')} about replication")
    state = _state(report, errors, warnings)
    if state is PluginState.OK:
        rows = counted(sum(t.rows for t in report.tables), "row")
        some = "sample of " if report.sampling else ""
        where = f" in part {report.part} of the run" if report.part else ""
        texts += [f"all replicas hold the same {some}{rows} in {counted(len(report.tables), 'table')}{where}"]
    figures = [
        f"divergent_rows={divergent};;0;0",
        f"violations={errors};;0;0",
        f"warnings={warnings};0;;0",
        f"digests_failed={coverage.failed};;;0;{coverage.planned}",
        f"digests_skipped={coverage.skipped};;;0;{coverage.planned}",
        f"duration={report.seconds:.1f}s;;;0",
    ]
    return PluginResult(state, _line(state, "; ".join(texts)) + " | " + " ".join(figures))


def could_not_run(error: BaseException) -> PluginResult:
    """Return UNKNOWN with the reason; for a foreign error only its type, because its text may quote anything."""
    ours = isinstance(error, ConsistencyError) and not isinstance(error, InternalError)
    reason = str(error) if ours else f"{type(error).__name__}; run with CONSISTENCY_DEBUG=1 for the traceback"
    return refused(reason)


def refused(reason: str) -> PluginResult:
    """Return UNKNOWN with a reason in words."""
    return PluginResult(PluginState.UNKNOWN, _line(PluginState.UNKNOWN, f"could not run: {reason}"))


def _state(report: Report, errors: int, warnings: int) -> PluginState:
    if report.verdict is Verdict.DIVERGENT or errors:
        return PluginState.CRITICAL
    if report.verdict is Verdict.UNKNOWN:
        return PluginState.UNKNOWN
    return PluginState.WARNING if warnings else PluginState.OK


def _names(names: Iterable[str]) -> str:
    return some_of(sorted(names), _MOST_TABLES)


def _line(state: PluginState, text: str) -> str:
    """Return `CONSISTENCY STATE - text` without bars, which start the figures, and without line breaks."""
    plain = " ".join(visible(part) for part in text.split()).replace("|", "/")
    return f"CONSISTENCY {state.name} - {plain}"
