"""What to type next, as the words of a command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from consistency.model.cqltext import visible
from consistency.results.report import Report, TableReport
from consistency.results.verdict import Verdict

_MOST_NAMES = 4


@dataclass(frozen=True, slots=True)
class Typed:
    """The operator's arguments for suggested commands: how to connect, what else, and what to check."""

    connection: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def quoted(word: str) -> str:
    """Return a word quoted for a shell and safe for a terminal."""
    return visible(shlex.quote(word))


def next_commands(report: Report, typed: Typed) -> list[tuple[str, list[str]]]:
    """Return `(why, words)` for each command that follows from a report."""
    out: list[tuple[str, list[str]]] = []
    differing = report.verdict is Verdict.DIVERGENT
    if report.repair is not None and report.repair.rows:
        kept = report.repair.journal or report.repair.plan
        return [("what was done, and what was left", ["consistency repair show", quoted(kept)])] if kept else []
    if differing and report.findings_path:
        if sum(report.findings_by_kind.values()) > sum(table.counted.rows for table in report.tables):
            out.append(("who holds what", explain_command(report.findings_path, typed)))
        if can_repair():
            out.append(("what would be repaired", plan_command(report.findings_path, typed)))
    elif differing:
        names = _names([t for t in report.tables if t.verdict is Verdict.DIVERGENT], typed)
        out.append(("write them to a file", _check(typed, names, "--findings findings.jsonl")))
    unread = [t for t in report.tables if t.worth_another_try]
    if unread and not differing:
        why = "what was not reached" if report.interrupted else "once every replica can be read"
        findings = [f"--findings {quoted(report.findings_path)}"] if report.findings_path else []
        out.append((why, _check(typed, _names(unread, typed), *findings)))
    return out


def explain_command(findings: str, typed: Typed) -> list[str]:
    """Return the command that explains the first row of a findings file."""
    return _consistency("explain", quoted(findings), "--row 1", typed=typed)


def compare_command(typed: Typed, *more: str) -> list[str]:
    """Return the command that compares the same tables of the same clusters again."""
    words = ["consistency compare", *(quoted(name) for name in typed.names)]
    return [*words, *_pairs(typed.options), *more, *_pairs(typed.connection)]


def can_repair() -> bool:
    """Whether this installation has the repairer; otherwise its commands are not suggested."""
    return find_spec("repair.cli.repair") is not None


def sync_command(findings: str, typed: Typed) -> list[str]:
    """Return the command that plans to bring what a comparison found from one cluster to the other."""
    return ["consistency sync plan", quoted(findings), "-o sync.jsonl", *_pairs(typed.connection)]


def plan_command(findings: str, typed: Typed) -> list[str]:
    """Return the command that plans the repair of a findings file."""
    return _consistency("repair plan", quoted(findings), "-o plan.jsonl", typed=typed)


def _consistency(*words: str, typed: Typed) -> list[str]:
    first, *rest = words
    return [f"consistency {first}", *rest, *_pairs(typed.connection)]


def _check(typed: Typed, names: Sequence[str], *more: str) -> list[str]:
    return ["consistency check", *(quoted(n) for n in names), *_pairs(typed.options), *more, *_pairs(typed.connection)]


def _names(tables: Sequence[TableReport], typed: Typed) -> Sequence[str]:
    names = [t.full_name for t in tables]
    return names if len(names) <= _MOST_NAMES else typed.names


def _pairs(words: Sequence[str]) -> list[str]:
    """Keep an option and its value on one line."""
    out: list[str] = []
    for word in words:
        if out and out[-1].startswith("--") and " " not in out[-1] and not word.startswith("--"):
            out[-1] += f" {quoted(word)}"
        else:
            out.append(quoted(word))
    return out
