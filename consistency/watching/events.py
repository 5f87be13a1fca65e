"""The events that a run may log: their names, meanings and only fields.

No field holds a key, a value or text from a server. Fields hold names of the schema, of replicas and of error
types, counts, token ranges of leaves, and seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import TablePlan
from consistency.model.schema import Table
from consistency.results.findings import Finding, State
from consistency.results.range_findings import RangeFinding
from consistency.results.report import TableReport
from consistency.results.verdict import Verdict
from consistency.watching.target_end import TargetTable

EVENTS_VERSION = 1
"""Increased when an event or a field is renamed, removed, or changes its meaning."""
COMMON_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "run_id": "the report's and the findings file's own",
        "seq": "1, 2, 3, ... within the run: a missing number is a lost event",
        "timestamp": "UTC, ISO 8601, microseconds",
        "level": "debug, info, warning or error",
        "event": "a name from this list",
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event: its usual level, its meaning, its fields."""

    level: int
    meaning: str
    fields: tuple[str, ...] = ()


_TABLE_FIELDS = (
    "keyspace",
    "table",
    "verdict",
    "depth",
    "route",
    "locality",
    "rows",
    "divergent_rows",
    "unsettled_rows",
    "planned",
    "completed",
    "skipped",
    "failed",
    "seconds",
)

_TARGET_FIELDS = (
    "keyspace",
    "table",
    "target",
    "verdict",
    "kinds",
    "differing",
    "inner",
    "unsettled_rows",
    "last_equal",
    "interrupted",
    "seconds",
)

EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "run.started": Event(logging.INFO, "A run started; it is not connected yet.", ("command", "version")),
        "run.connected": Event(logging.INFO, "The ring was read; the check starts.", ("nodes",)),
        "scan.started": Event(logging.INFO, "The number of tables to scan is known.", ("tables",)),
        "table.planned": Event(
            logging.INFO,
            "A table was cut into leaves; the number of planned digests is known.",
            ("keyspace", "table", "leaves", "digests", "estimated_rows"),
        ),
        "leaf.digested": Event(
            logging.DEBUG,
            "The replicas of one leaf answered.",
            ("keyspace", "table", "start", "end", "rows", "digests", "differs"),
        ),
        "leaf.failed": Event(
            logging.WARNING,
            "A replica could not digest a leaf. The leaf is unknown unless a second attempt at the end of the table "
            "succeeds; the report has the reason in words.",
            ("keyspace", "table", "start", "end", "replica", "error"),
        ),
        "row.found": Event(
            logging.DEBUG,
            "A difference lasted longer than the settle window; only the findings file names the row.",
            ("keyspace", "table", "kind", "columns", "not_current"),
        ),
        "range.found": Event(
            logging.DEBUG,
            "More rows of a table differ than are listed: those of one range, counted.",
            ("keyspace", "table", "start", "end", "rows", "kinds", "not_current"),
        ),
        "rows.settling": Event(
            logging.DEBUG, "The number of suspects that wait to be read again changed.", ("waiting",)
        ),
        "table.done": Event(
            logging.INFO, "A table's report is final; a warning if the table is not consistent.", _TABLE_FIELDS
        ),
        "run.stopping": Event(logging.WARNING, "A signal ends the run; its report has what was read so far."),
        "run.ended": Event(
            logging.INFO,
            "The run has a report; a warning if it is not consistent.",
            (
                "verdict",
                "exit_code",
                "interrupted",
                "tables",
                "divergent_rows",
                "violations",
                "planned",
                "completed",
                "skipped",
                "failed",
                "seconds",
            ),
        ),
        "run.failed": Event(
            logging.ERROR,
            "The run ended without a report, or could not write it. The event has the reason in words if no row was "
            "read yet; otherwise the line on stderr has it.",
            ("error", "reason", "exit_code", "seconds"),
        ),
        "watch.started": Event(
            logging.INFO,
            "A watch started; `page` says for whom its live page is.",
            ("version", "address", "page"),
        ),
        "watch.round": Event(
            logging.INFO,
            "A round is complete: every table in scope was visited.",
            ("round", "tables", "divergent_rows", "seconds"),
        ),
        "watch.stopped": Event(logging.INFO, "A signal ended the watch.", ("rounds",)),
        "watch.waiting": Event(
            logging.WARNING,
            "Another run holds the cluster's lock; the watch tries again every minute and logs this once.",
            ("reason",),
        ),
        "target.compared": Event(
            logging.INFO,
            "A table was compared with its counterpart in the target; a warning if they are not equal. `differing` "
            "rows differ between the clusters, on `inner` rows the replicas of one of them disagree.",
            _TARGET_FIELDS,
        ),
        "ledger.recorded": Event(
            logging.INFO,
            "A visit is in the ledger, with the numbers of differing rows that are new, still there or came back, and "
            "of rows that no longer differ.",
            ("new", "still_there", "came_back", "gone"),
        ),
        "ledger.damaged": Event(
            logging.ERROR,
            "The ledger was damaged and moved aside: everything is unchecked, and is visited again.",
        ),
        "ledger.unwritten": Event(
            logging.ERROR, "The ledger could not be written, so the visit is not in it. Make room on its disk."
        ),
        "repair.ended": Event(
            logging.INFO,
            "Findings were repaired as far as the policy allows; `remaining` rows were left alone or still differ.",
            ("rows", "acted_on", "verified", "remaining", "unknown", "interrupted"),
        ),
        "repair.failed": Event(
            logging.ERROR,
            "A repair ended early. What it did is in its journal, named after the run: 'consistency repair resume' "
            "finishes it, or the next visit plans it again.",
            ("error",),
        ),
        "hook.delivered": Event(logging.INFO, "A hook was notified of a divergence.", ("hook", "attempts")),
        "hook.failed": Event(
            logging.ERROR, "A hook could not be notified of a divergence in any attempt.", ("hook", "error")
        ),
    }
)


def leaf_fields(table: Table | None, result: LeafResult) -> dict[str, object]:
    """Return the place of a leaf."""
    return {
        "keyspace": table.keyspace if table else "",
        "table": table.name if table else "",
        "start": result.leaf.token_range.start,
        "end": result.leaf.token_range.end,
    }


def plan_fields(table: Table, plan: TablePlan) -> dict[str, object]:
    """Return a plan's figures."""
    return {
        "keyspace": table.keyspace,
        "table": table.name,
        "leaves": len(plan.leaves),
        "digests": plan.digests,
        "estimated_rows": plan.estimated_rows,
    }


def finding_fields(finding: Finding) -> dict[str, object]:
    """Return the loggable facts of a finding: neither its key nor its token, which is derived from the key."""
    behind = sorted(name for name, view in finding.replicas.items() if view.state is not State.CURRENT)
    return {
        "keyspace": finding.keyspace,
        "table": finding.table,
        "kind": finding.kind.value,
        "columns": list(finding.columns),
        "not_current": behind,
    }


def range_fields(finding: RangeFinding) -> dict[str, object]:
    """Return the loggable facts of rows that are counted by range."""
    lacking = sorted(name for name, view in finding.replicas.items() if view.missing or view.stale)
    return {
        "keyspace": finding.keyspace,
        "table": finding.table,
        "start": finding.token_range.start,
        "end": finding.token_range.end,
        "rows": finding.rows,
        "kinds": {kind.value: count for kind, count in finding.kinds.items()},
        "not_current": lacking,
    }


def table_fields(report: TableReport) -> dict[str, object]:
    """Return a table's figures, without its notes, because those quote servers."""
    coverage = report.coverage
    values = (
        report.keyspace,
        report.table,
        report.verdict.value,
        report.depth,
        report.route,
        report.locality,
        report.rows,
        report.divergent_rows,
        report.unsettled_rows,
        coverage.planned,
        coverage.completed,
        coverage.skipped,
        coverage.failed,
        round(report.seconds, 3),
    )
    return dict(zip(_TABLE_FIELDS, values, strict=True))


def target_fields(table: TargetTable, seconds: float, *, interrupted: bool) -> dict[str, object]:
    """Return the figures of a comparison; `last_equal` is in whole seconds since the epoch, None if it never was."""
    values = (
        table.keyspace,
        table.table,
        table.target,
        table.verdict.value,
        dict(table.kinds),
        table.differing,
        {side.value: rows for side, rows in table.inner.items()},
        table.unsettled,
        None if table.last_equal_s is None else int(table.last_equal_s),
        interrupted,
        round(seconds, 3),
    )
    return dict(zip(_TARGET_FIELDS, values, strict=True))


def level_of(verdict: Verdict) -> int:
    """Return the level of an event with a verdict."""
    return logging.INFO if verdict.agreed else logging.WARNING
