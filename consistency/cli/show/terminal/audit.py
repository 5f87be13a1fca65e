"""The result of an audit on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from consistency.api import AuditReport
from consistency.cli.show.terminal.console import indented, safe
from consistency.cli.show.terminal.distribution import print_distribution
from consistency.cli.show.terminal.problems import print_violations
from consistency.results.figures import counted
from consistency.results.verdict import ExitCode

_STYLES = {"violated": "bold red", "unknown": "bold yellow", "in order": "bold green"}


def audit_claim(report: AuditReport) -> tuple[str, str]:
    """Return what an audit comes to: a word, and a sentence."""
    scope = f"{counted(len(report.keyspaces), 'keyspace')} on {counted(report.nodes, 'node')} of {safe(report.cluster)}"
    if report.errors:
        broken = "is broken" if report.errors == 1 else "are broken"
        return "violated", f"{counted(report.errors, 'rule')} of replication {broken}, in {scope}."
    if report.unknown:
        claim = f"No rule of replication is known to be broken in {scope}, but {report.unknown} could not be judged."
        return "unknown", claim
    if report.exit_code is ExitCode.INCOMPLETE:
        return "unknown", "No keyspace was judged: none in scope is replicated."
    return "in order", f"No rule of replication is broken in {scope}."


def audit_basis(report: AuditReport) -> str:
    """Return what stands below the claim."""
    warnings = len(report.violations) - report.errors - report.unknown
    return f"{counted(warnings, 'warning')}, exit code {int(report.exit_code)}"


def print_audit(console: Console, report: AuditReport) -> None:
    """Print the verdict in a sentence, then every violation with its facts and remedy."""
    word, claim = audit_claim(report)
    indented(console, Text.assemble((word.upper(), _STYLES[word]), "  ", claim), first="", rest="  ")
    indented(console, audit_basis(report), style="dim")
    print_violations(console, report.violations)
    if report.distribution is not None:
        print_distribution(console, report.distribution)
