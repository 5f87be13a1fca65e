"""Logs a run as events, one line each, by listening to it as an Observer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from enum import Enum
from typing import IO, Any

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import TablePlan
from consistency.checking.trees import differing
from consistency.errors import ConnectError, InternalError, LockedError, SettingsError, TopologyError
from consistency.model.schema import Table
from consistency.results.findings import Finding
from consistency.results.range_findings import RangeFinding
from consistency.results.report import Report, TableReport
from consistency.watching.events import (
    EVENTS,
    finding_fields,
    leaf_fields,
    level_of,
    plan_fields,
    range_fields,
    table_fields,
)


def reason_of(error: BaseException) -> str:
    """Return an error's message if it cannot quote a key or a value, else nothing."""
    return str(error) if isinstance(error, _BEFORE_ANY_ROW) else ""


class LogFormat(str, Enum):
    """How a line looks."""

    JSON = "json"
    CONSOLE = "console"


LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_BEFORE_ANY_ROW = (ConnectError, LockedError, SettingsError, TopologyError)
"""Errors whose messages cannot quote a key or a value: about the connection, the settings or the ring."""


class LogSink:
    """Where lines go and how they look; all runs that log to one stream share it.

    `lost` is why the last lost line could not be written; empty if no line was lost.
    """

    def __init__(
        self, stream: IO[str], log_format: LogFormat = LogFormat.JSON, level: str = "info", *, colors: bool = False
    ) -> None:
        import structlog  # noqa: PLC0415 - a tenth of the time a check takes to start, and most runs keep no log

        self.lost = ""
        self.level = LEVELS[level]
        self.renderer: Any = structlog.processors.JSONRenderer()
        if log_format is LogFormat.CONSOLE:
            self.renderer = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=16)
        self._stream = stream

    def info(self, line: str) -> None:
        """Write a finished line at once, so that a follower of the file sees it; structlog's last step."""
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.lost = getattr(error, "strerror", None) or str(error)

    debug = warning = error = info

    def close(self) -> None:
        """Close the stream; lines that it could not write are lost too."""
        try:
            self._stream.close()
        except OSError as error:
            self.lost = error.strerror or str(error)


class EventLog:
    """An Observer that logs its calls; a failing stream loses lines but never ends the run."""

    def __init__(self, sink: LogSink, run_id: str) -> None:
        import structlog  # noqa: PLC0415 - see LogSink

        self.sink = sink
        self._table: Table | None = None
        self._waiting = 0
        self._seq = 0
        self._logger = structlog.wrap_logger(
            sink,
            processors=[self._numbered, structlog.processors.TimeStamper(fmt="iso", utc=True), sink.renderer],
            wrapper_class=structlog.BoundLogger,
        ).bind(run_id=run_id)

    def of_run(self, run_id: str) -> EventLog:
        """Return a log to the same stream for another run, numbered from 1."""
        return EventLog(self.sink, run_id)

    def emit(self, event: str, /, **fields: object) -> None:
        """Write one listed event at its usual level."""
        self.emit_at(EVENTS[event].level if event in EVENTS else logging.ERROR, event, **fields)

    def emit_at(self, level: int, event: str, /, **fields: object) -> None:
        """Write one listed event; InternalError if it, or one of its fields, is not in the list."""
        kind = EVENTS.get(event)
        if kind is None or not set(fields) <= set(kind.fields):
            msg = f"the event {event!r} or one of its fields is not in the list of events"
            raise InternalError(msg)
        if level >= self.sink.level:
            name = logging.getLevelName(level).lower()
            getattr(self._logger, name)(event, level=name, **fields)

    def scan_started(self, tables: int) -> None:
        """Log how many tables there are."""
        self.emit("scan.started", tables=tables)

    def table_planned(self, table: Table, plan: TablePlan) -> None:
        """Log a table's plan."""
        self._table = table
        self.emit("table.planned", **plan_fields(table, plan))

    def leaf_digested(self, result: LeafResult) -> None:
        """Log a leaf, and each replica that could not digest it."""
        where = leaf_fields(self._table, result)
        differs = bool(differing([result]))
        self.emit("leaf.digested", **where, rows=result.rows, digests=len(result.digests), differs=differs)
        for node, error in result.errors.items():
            self.emit("leaf.failed", **where, replica=node.name, error=type(error).__name__)

    def found(self, finding: Finding) -> None:
        """Log that a row differs, without saying which."""
        self.emit("row.found", **finding_fields(finding))

    def found_range(self, finding: RangeFinding) -> None:
        """Log how many rows of a range differ."""
        self.emit("range.found", **range_fields(finding))

    def differing(self, rows: int) -> None:
        """Log nothing: target.compared tells how many rows of a comparison differ."""

    def settling(self, waiting: int) -> None:
        """Log how many rows wait, if the number changed."""
        if waiting != self._waiting:
            self._waiting = waiting
            self.emit("rows.settling", waiting=waiting)

    def table_done(self, report: TableReport) -> None:
        """Log a table's figures."""
        self.emit_at(level_of(report.verdict), "table.done", **table_fields(report))

    def ended(self, report: Report) -> None:
        """Log the figures of a report."""
        coverage = report.coverage
        self.emit_at(
            logging.WARNING if report.exit_code else logging.INFO,
            "run.ended",
            verdict=report.verdict.value,
            exit_code=int(report.exit_code),
            interrupted=report.interrupted,
            tables=len(report.tables),
            divergent_rows=0 if report.mended else sum(report.findings_by_kind.values()),
            violations=len(report.violations),
            planned=coverage.planned,
            completed=coverage.completed,
            skipped=coverage.skipped,
            failed=coverage.failed,
            seconds=round(report.seconds, 3),
        )

    def failed(self, error: BaseException, exit_code: int, seconds: float) -> None:
        """Log that there is no report, with the error's type; its message only if no row was read yet."""
        seconds = round(seconds, 3)
        self.emit(
            "run.failed", error=type(error).__name__, reason=reason_of(error), exit_code=exit_code, seconds=seconds
        )

    def _numbered(self, _: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        self._seq += 1
        return {"seq": self._seq, **fields}
