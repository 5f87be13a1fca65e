"""A report in every form that is asked for: the options, the files, and the exit code if one could not be written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from consistency.cli.outputs import STDOUT, NotWritten, require_json, require_page, write_json, write_private
from consistency.cli.plugin import leave
from consistency.cli.show.page.collect import Collector
from consistency.cli.show.terminal.advice import Typed
from consistency.cli.show.terminal.console import CalmConsole, make_console, name_file
from consistency.cli.show.terminal.plugin import could_not_run, judge_for_plugin
from consistency.cli.show.terminal.summary import print_report
from consistency.cli.telemetry import Telemetry
from consistency.errors import ConsistencyError, UsageError
from consistency.model.cqltext import visible
from consistency.results.report import Report
from consistency.results.verdict import ExitCode

json_option = click.option(
    "--json", "json_path", metavar="FILE", help="Write the report as JSON; '-' is stdout, the text then goes to stderr."
)
html_option = click.option(
    "--html",
    "html_path",
    metavar="FILE",
    help="Write the report as one self-contained HTML page, mode 0600; it holds keys only with --show-keys.",
)
show_keys_option = click.option(
    "--show-keys/--hide-keys",
    default=None,
    help="Print keys of differing rows. Default: on a terminal only, because others read logs, mails and pages.",
)
nagios_option = click.option(
    "--nagios",
    is_flag=True,
    help="Print one line with figures and exit with 0 OK, 1 WARNING, 2 CRITICAL (divergence or violation) or "
    "3 UNKNOWN (incomplete, or could not run), as Nagios and Icinga expect.",
)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a report goes, and what of it is shown."""

    typed: Typed
    json_path: str | None
    html_path: str | None
    quiet: bool
    show_keys: bool | None
    nagios: bool

    @classmethod
    def of(cls, given: Mapping[str, Any], typed: Typed) -> Outputs:
        """Take them from a command's arguments; UsageError for what cannot be written."""
        json_path, html_path = given["json_path"], given["html_path"]
        require_json("--json", json_path)
        if given["nagios"] and json_path == STDOUT:
            raise UsageError("--nagios and --json - both write to stdout; give --json a file")
        require_page("--html", html_path)
        quiet = given["quiet"] or given["nagios"]
        return cls(typed, json_path, html_path, quiet, given["show_keys"], given["nagios"])

    @property
    def console(self) -> CalmConsole:
        """Where text goes: stderr if JSON has stdout."""
        return make_console(sys.stderr if self.json_path == STDOUT else sys.stdout)


def show_report(report: Report, outputs: Outputs, page: Collector | None, findings: str | None = None) -> list[str]:
    """Write and print the report in every requested form; name what could not be written, and return it."""
    lost = [f"--findings {findings}: {report.findings_error}"] if report.findings_error else []
    try:
        write_json("--json", outputs.json_path, report.as_json())
    except NotWritten as error:
        lost.append(error.file)
    if page is not None:
        from consistency.cli.show.page.render import render_page  # noqa: PLC0415 - loads the templates' engine

        text = render_page(report, page, outputs.typed, keys=outputs.show_keys is True)
        try:
            write_private("--html", outputs.html_path, text)
        except NotWritten as error:
            lost.append(error.file)
    if lost:
        click.echo(f"error: {visible('; '.join(lost))}: not written; make room and check again", err=True)
    if outputs.nagios:
        return lost
    return lost + _printed(report, outputs, written=not lost)


def _printed(report: Report, outputs: Outputs, *, written: bool) -> list[str]:
    repaired = report.repair is not None and report.repair.acted_on
    if outputs.quiet and report.exit_code is ExitCode.CONSISTENT and not repaired:
        return []
    console = outputs.console
    keys = console.is_terminal if outputs.show_keys is None else outputs.show_keys
    try:
        print_report(console, report, outputs.typed, keys=keys)
        if outputs.html_path and written:
            name_file(console, "the page for a browser:", outputs.html_path)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        click.echo(f"error: standard output: {error.strerror}: {report.verdict.value}, not shown whole", err=True)
        return ["the report on standard output"]
    return []


def left_with(report: Report, lost: list[str], outputs: Outputs, to: Telemetry, *, recorded: bool) -> int:
    """Return the exit code: a run that is not in the ledger, or whose files are missing, must not pass for complete."""
    unkept = bool(lost) or not recorded
    keeps_code = report.exit_code in (ExitCode.DIVERGENT, ExitCode.INTERRUPTED)
    weak = report.exit_code is ExitCode.CONSISTENT or (bool(lost) and not keeps_code)
    code = ExitCode.COULD_NOT_RUN if unkept and weak else report.exit_code
    to.reported(report, code)
    if not outputs.nagios:
        return int(code)
    unkept_run = ConsistencyError("its files or its ledger could not be written; make room and check again")
    return leave(could_not_run(unkept_run) if code is ExitCode.COULD_NOT_RUN else judge_for_plugin(report))
