"""What a command tells machines while it runs and when it ends: the metrics file and the event log."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from consistency import __version__
from consistency.checking.observer import Observer, Silent
from consistency.cli.group import exit_code_of
from consistency.cli.options import CommandT, with_options
from consistency.cli.outputs import STDOUT, require_output, write_public
from consistency.cluster.setting_values import ENV_PREFIX
from consistency.errors import ConsistencyError, SettingsError, UsageError
from consistency.results.report import Report
from consistency.results.verdict import ExitCode
from consistency.watching.event_log import LEVELS, EventLog, LogFormat, LogSink
from consistency.watching.metrics import CleanPass, RunEnd, parse_labels, render

_LOG_OPTIONS = (
    click.option(
        "--log-format",
        type=click.Choice([f.value for f in LogFormat]),
        help="Log events: a JSON object a line, or text for people. Default: CONSISTENCY_LOG, else no log.",
    ),
    click.option("--log-file", metavar="FILE", help="Append the log to this file (JSON) instead of writing to stderr."),
    click.option(
        "--log-level",
        type=click.Choice(list(LEVELS)),
        default="info",
        show_default=True,
        help="Leave out events below this level.",
    ),
)
_METRICS_OPTION = click.option(
    "--metrics",
    metavar="FILE",
    help="Write metrics for node_exporter's textfile collector, even if the run fails; name it *.prom.",
)
metrics_label_option = click.option(
    "--metrics-label",
    multiple=True,
    metavar="NAME=VALUE",
    help="Put this label on every metric, such as cluster=prod; may be repeated. Files in one directory need "
    "different labels.",
)


def telemetry_options(command: CommandT) -> CommandT:
    """Add the options for metrics and logs, for a command that runs once."""
    return with_options(command, (_METRICS_OPTION, metrics_label_option, *_LOG_OPTIONS))


def log_options(command: CommandT) -> CommandT:
    """Add only the options for logs."""
    return with_options(command, _LOG_OPTIONS)


def open_log(given: dict[str, Any], run_id: str, default: LogFormat | None = None) -> tuple[EventLog | None, bool]:
    """Take the log options out of a command's arguments; return the log, and whether it goes to stderr."""
    path, level = given.pop("log_file"), given.pop("log_level")
    named = given.pop("log_format") or _format_of(os.environ)
    if named is None and path is None:
        named = default
    if named is None and path is None:
        return None, False
    stream: IO[str] = sys.stderr
    if path is not None and path != STDOUT:
        stream = _append_to(path)
    chosen = LogFormat(named or LogFormat.JSON)
    on_stderr = stream is sys.stderr
    sink = LogSink(stream, chosen, level, colors=on_stderr and stream.isatty())
    return EventLog(sink, run_id), on_stderr


def _format_of(environ: Mapping[str, str]) -> str | None:
    named = environ.get(ENV_PREFIX + "LOG")
    known = [f.value for f in LogFormat]
    if named and named not in known:
        msg = f"{ENV_PREFIX}LOG={named!r} is no log format; set it to {' or '.join(known)}"
        raise SettingsError(msg)
    return named or None


def _append_to(path: str) -> IO[str]:
    require_output("--log-file", path, special=True)
    try:
        return Path(path).open("a", encoding="utf-8")
    except OSError as error:
        msg = f"--log-file {path}: {error.strerror}; name a file that can be written"
        raise UsageError(msg) from None


class Telemetry:
    """The metrics file and the log of one invocation; `run_id` is the report's too.

    `clean_passes` is called at the end of every run, failed ones too: the ages grow while nothing runs.
    """

    def __init__(self, command: str, given: dict[str, Any]) -> None:
        self.run_id = str(uuid.uuid4())
        self.report: Report | None = None
        self.clean_passes: Callable[[], tuple[CleanPass, ...]] = tuple
        self._exit_code: int | None = None
        self._started = time.monotonic()
        self._ended = False
        self._path = given.pop("metrics")
        self._labels = parse_labels(given.pop("metrics_label"))
        if self._path == STDOUT:
            raise UsageError("--metrics -: metrics need a file; name one, such as consistency.prom")
        require_output("--metrics", self._path)
        self._log, self.log_on_stderr = open_log(given, self.run_id)
        if self._log is not None:
            self._log.emit("run.started", command=command, version=__version__)

    @property
    def observer(self) -> Observer:
        """The observer that logs the check."""
        return self._log or Silent()

    def connected(self, nodes: int) -> None:
        """Note that the ring was read."""
        if self._log is not None:
            self._log.emit("run.connected", nodes=nodes)

    def stopping(self) -> None:
        """Note that a signal ends the run."""
        if self._log is not None:
            self._log.emit("run.stopping")

    def reported(self, report: Report, exit_code: int | None = None) -> None:
        """Note the final report, and the exit code if it is not the report's own."""
        self.report = report
        self._exit_code = exit_code
        if self._log is not None:
            self._log.ended(report)

    def aborted(self) -> None:
        """Report a run that ends at once."""
        self._end(ExitCode.INTERRUPTED, KeyboardInterrupt())

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write to the log and the metrics file how the work ended."""
        try:
            yield
        except BaseException as error:
            self._end(exit_code_of(error), error)
            raise
        own = ExitCode.COULD_NOT_RUN if self.report is None else self.report.exit_code
        self._end(own if self._exit_code is None else self._exit_code)

    def _end(self, code: int, error: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        seconds = time.monotonic() - self._started
        if self._log is not None:
            if error is not None:
                self._log.failed(error, int(code), seconds)
            if not self.log_on_stderr:
                self._log.sink.close()
            if self._log.sink.lost:
                click.echo(f"warning: events of the log are lost: {self._log.sink.lost}", err=True)
        if self._path is None:
            return
        run_end = RunEnd(time.time(), seconds, int(code), self.report, self.clean_passes(), self._labels)
        try:
            write_public("--metrics", self._path, render(run_end))
        except ConsistencyError as unwritten:
            # The findings, or the first error, decide the exit code.
            if error is None and not code:
                raise
            click.echo(f"warning: {unwritten}", err=True)
