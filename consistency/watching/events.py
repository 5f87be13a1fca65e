"""The events a run may log: a name, what it means, and the only fields it may carry.

No field holds a key, a value or a message that somebody else wrote: names of the schema, of replicas and of
error types, counts, token ranges of leaves, seconds.
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
from consistency.results.report import TableReport
from consistency.results.verdict import Verdict

EVENTS_VERSION = 1
"""Raised when an event or a field is renamed, removed or comes to mean something else."""
COMMON_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "run_id": "the report's and the findings file's own",
        "seq": "1, 2, 3, ... within the run: a number that is missing is an event that was lost",
        "timestamp": "UTC, ISO 8601, microseconds",
        "level": "debug, info, warning or error",
        "event": "a name from this list",
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event: its usual level, what it means, which fields it has."""

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

EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "run.started": Event(logging.INFO, "A run began; nothing is connected yet.", ("command", "version")),
        "run.connected": Event(logging.INFO, "The ring was read; the check begins.", ("nodes",)),
        "scan.started": Event(logging.INFO, "So many tables will be scanned.", ("tables",)),
        "table.planned": Event(
            logging.INFO,
            "A table was cut into leaves; so many digests are asked for.",
            ("keyspace", "table", "leaves", "digests", "estimated_rows"),
        ),
        "leaf.digested": Event(
            logging.DEBUG,
            "One leaf came back from its replicas.",
            ("keyspace", "table", "start", "end", "rows", "digests", "differs"),
        ),
        "leaf.failed": Event(
            logging.WARNING,
            "A replica could not digest a leaf. What it covers is unknown unless a second attempt, at the table's "
            "end, succeeds; the report has the reason in words.",
            ("keyspace", "table", "start", "end", "replica", "error"),
        ),
        "row.found": Event(
            logging.DEBUG,
            "A difference outlived the settle window; the row itself is in the findings file alone.",
            ("keyspace", "table", "kind", "columns", "not_current"),
        ),
        "rows.settling": Event(logging.DEBUG, "So many suspected rows wait to be read again.", ("waiting",)),
        "table.done": Event(
            logging.INFO, "A table's report is final; a warning where it is not consistent.", _TABLE_FIELDS
        ),
        "run.stopping": Event(logging.WARNING, "A signal asked the run to end; it ends with what was read so far."),
        "run.ended": Event(
            logging.INFO,
            "The run came to a report; a warning where it is not consistent.",
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
            "The run ended without a report, or could not hand it over. The reason is in words where no row was read "
            "yet; else the line on stderr says it.",
            ("error", "reason", "exit_code", "seconds"),
        ),
        "watch.started": Event(logging.INFO, "A watch began.", ("version", "address")),
        "watch.round": Event(
            logging.INFO,
            "Every table in scope was visited once more.",
            ("round", "tables", "divergent_rows", "seconds"),
        ),
        "watch.stopped": Event(logging.INFO, "A signal ended the watch.", ("rounds",)),
        "watch.waiting": Event(
            logging.WARNING,
            "Another run holds the cluster's lock; the watch tries again every minute, and says so once.",
            ("reason",),
        ),
        "ledger.recorded": Event(
            logging.INFO,
            "A visit is in the ledger: so many rows that differ are new, still there or came back, and so many that "
            "did differ are gone.",
            ("new", "still_there", "came_back", "gone"),
        ),
        "ledger.damaged": Event(
            logging.ERROR, "The ledger was damaged and moved aside: everything is unchecked, and is visited anew."
        ),
        "ledger.unwritten": Event(
            logging.ERROR, "The ledger could not be written: the visit does not count in it. Make room for it."
        ),
        "repair.ended": Event(
            logging.INFO,
            "What was found was repaired, as far as the policy allows; `remaining` rows were left or differ still.",
            ("rows", "acted_on", "verified", "remaining", "unknown", "interrupted"),
        ),
        "repair.failed": Event(
            logging.ERROR,
            "A repair ended early. What it did is in its journal, which is named by the run: 'consistency repair "
            "resume' ends it, the next visit plans it anew.",
            ("error",),
        ),
        "hook.delivered": Event(logging.INFO, "A hook was told of a divergence.", ("hook", "attempts")),
        "hook.failed": Event(
            logging.ERROR, "A hook could not be told of a divergence, however often it was tried.", ("hook", "error")
        ),
    }
)


def leaf_fields(table: Table | None, result: LeafResult) -> dict[str, object]:
    """Return where a leaf lies."""
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
    """Return what may be said of a finding: neither its key nor its token, which is made of the key."""
    behind = sorted(name for name, view in finding.replicas.items() if view.state is not State.CURRENT)
    return {
        "keyspace": finding.keyspace,
        "table": finding.table,
        "kind": finding.kind.value,
        "columns": list(finding.columns),
        "not_current": behind,
    }


def table_fields(report: TableReport) -> dict[str, object]:
    """Return a table's figures, without its notes: those quote."""
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


def level_of(verdict: Verdict) -> int:
    """Return the level of an event that carries a verdict."""
    return logging.INFO if verdict is Verdict.CONSISTENT else logging.WARNING
