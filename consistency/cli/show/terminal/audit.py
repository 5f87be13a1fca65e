"""The result of an audit on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from consistency.api import AuditReport
from consistency.cli.show.terminal.console import indented, safe
from consistency.cli.show.terminal.distribution import print_distribution
from consistency.cli.show.terminal.figures import counted
from consistency.cli.show.terminal.problems import print_violations
from consistency.results.verdict import ExitCode


def print_audit(console: Console, report: AuditReport) -> None:
    """Print the verdict in a sentence, then every violation with its facts and remedy."""
    scope = f"{counted(len(report.keyspaces), 'keyspace')} on {counted(report.nodes, 'node')} of {safe(report.cluster)}"
    warnings = len(report.violations) - report.errors - report.unknown
    if report.errors:
        word, style = "VIOLATED", "bold red"
        broken = "is broken" if report.errors == 1 else "are broken"
        claim = f"{counted(report.errors, 'rule')} of replication {broken}, in {scope}."
    elif report.unknown:
        word, style = "UNKNOWN", "bold yellow"
        claim = f"No rule of replication is known to be broken in {scope}, but {report.unknown} could not be judged."
    elif report.exit_code is ExitCode.INCOMPLETE:
        word, style, claim = "UNKNOWN", "bold yellow", "No keyspace was judged: none in scope is replicated."
    else:
        word, style = "IN ORDER", "bold green"
        claim = f"No rule of replication is broken in {scope}."
    indented(console, Text.assemble((word, style), "  ", claim), first="", rest="  ")
    indented(console, f"{counted(warnings, 'warning')}, exit code {int(report.exit_code)}", style="dim")
    print_violations(console, report.violations)
    if report.distribution is not None:
        print_distribution(console, report.distribution)
