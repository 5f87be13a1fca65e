"""What is wrong, in words: rows that differ, ranges not read, rules of replication broken."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from consistency.findings import Finding, Kind, State
from consistency.report import Report, Severity, TableReport, Unread, Violation
from consistency.terminal.console import heading, indented, safe
from consistency.terminal.figures import counted, moment

MOST_FINDINGS = 4
MOST_REPLICAS = 6
MOST_NAMED = 3
_STATE_WORDS = {
    State.MISSING: "missing on",
    State.STALE: "behind on",
    State.CURRENT: "current on",
    State.UNREADABLE: "unreadable on",
}


def print_findings(console: Console, report: Report, *, keys: bool) -> None:
    """Print how many rows differ by kind, and the first of them."""
    total = sum(report.findings_by_kind.values())
    if not total:
        return
    kinds = " · ".join(f"{_kind_text(kind)} {n:,}" for kind, n in report.findings_by_kind.items())
    console.print(Text.assemble(heading("findings"), "  ", (kinds, "red")))
    for finding in report.top[:MOST_FINDINGS]:
        _print_finding(console, finding, keys=keys)
    hidden = total - min(MOST_FINDINGS, len(report.top))
    if hidden:
        where = f" in {safe(report.findings_path)}" if report.findings_path else ""
        indented(console, f"and {hidden:,} more{where}", style="dim")
    if not keys:
        indented(console, "keys are hidden here; --show-keys prints them", style="dim")


def _kind_text(kind: str) -> str:
    return safe(kind.replace("_", " "))


def _print_finding(console: Console, finding: Finding, *, keys: bool) -> None:
    row = key_text(finding.key) if keys else f"token {finding.token}"
    name = f"{finding.keyspace}.{finding.table}"
    what = Text.assemble((_kind_text(finding.kind.value), "red"), "  ", safe(name), "  ", row)
    indented(console, what, rest="    ")
    indented(console, states_text(finding), first="    ", style="dim")


def key_text(key: Mapping[str, object]) -> str:
    """Return a key as `column=value, column=value`, safe to show."""
    return ", ".join(
        f"{safe(name)}={safe(json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value)}"
        for name, value in key.items()
    )


def states_text(finding: Finding) -> str:
    """Say which replicas hold what, and since when."""
    by_state: dict[State, list[str]] = defaultdict(list)
    for name, view in finding.replicas.items():
        by_state[view.state].append(name)
    if finding.kind is Kind.NON_OWNER:
        parts = [f"held by {_names(list(finding.replicas))}, which does not own its token range"]
    else:
        order = (State.MISSING, State.STALE, State.CURRENT, State.UNREADABLE)
        parts = [f"{_STATE_WORDS[state]} {_names(by_state[state])}" for state in order if by_state[state]]
    if finding.columns and finding.kind is not Kind.MISSING:
        parts.append(f"in {_columns(finding.columns)}")
    newest = newest_us(finding)
    if newest is not None:
        parts.append(f"newest write {moment(newest)}")
    return "; ".join(parts)


def newest_us(finding: Finding) -> int | None:
    """Return the newest write time in a finding."""
    times: list[int] = []
    for view in finding.replicas.values():
        for held in view.writetimes.values():
            each = held if isinstance(held, list) else [held]
            times.extend(t for t in each if t is not None)
    return max(times, default=None)


def _columns(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(safe(n) for n in names[:MOST_NAMED]) + more


def _names(replicas: Sequence[str]) -> str:
    more = f" and {len(replicas) - MOST_NAMED} more" if len(replicas) > MOST_NAMED else ""
    return ", ".join(safe(n) for n in replicas[:MOST_NAMED]) + more


def print_unread(console: Console, tables: Sequence[TableReport]) -> None:
    """Print which replicas could not be read over which part of the ring, and why."""
    by_replica: dict[str, list[tuple[TableReport, Unread]]] = defaultdict(list)
    for table in tables:
        for unread in table.unread:
            by_replica[unread.replica].append((table, unread))
    if not by_replica:
        return
    console.print(heading("not read"))
    for replica in sorted(by_replica)[:MOST_REPLICAS]:
        _print_replica(console, replica, by_replica[replica])
    if len(by_replica) > MOST_REPLICAS:
        indented(console, f"and {counted(len(by_replica) - MOST_REPLICAS, 'more replica')}", style="dim")


def _print_replica(console: Console, replica: str, entries: Sequence[tuple[TableReport, Unread]]) -> None:
    shares: dict[str, float] = defaultdict(float)
    for table, unread in entries:
        shares[table.full_name] += sum(r.share for r in unread.ranges)
    ranges = sum(len(unread.ranges) for _, unread in entries)
    table, unread = entries[0]
    where = safe(table.full_name) if len(shares) == 1 else f"{len(shares):,} tables"
    upto = "" if len(shares) == 1 else "up to "
    text = f"{safe(replica)}  {counted(ranges, 'range')}, {upto}{percent(max(shares.values()))} of the ring, in {where}"
    indented(console, Text.assemble(("? ", "yellow"), text), rest="    ")
    first = f"first {unread.ranges[0]}" if unread.ranges else ""
    others = len({u.reason for _, u in entries}) - 1
    more = f" (and {counted(others, 'other reason')}, in the JSON)" if others else ""
    reason = unread.reason.removeprefix(f"{replica}: ")
    indented(console, f"{first}: {safe(reason)}{more}".removeprefix(": "), first="    ", style="dim")


def percent(share: float) -> str:
    """Return a share of the ring, never `0%` for something."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{min(share, 1):.1%}".replace(".0%", "%")


def print_violations(console: Console, violations: Sequence[Violation], *, most: int | None = None) -> None:
    """Print broken rules, the errors first: what, where, the facts, and what puts it right."""
    if not violations:
        return
    ordered = sorted(violations, key=lambda v: v.severity is not Severity.ERROR)
    errors = sum(v.severity is Severity.ERROR for v in violations)
    title = f"{counted(errors, 'violation')}, {counted(len(violations) - errors, 'warning')}"
    console.print(Text.assemble(heading("replication"), "  ", (title, "red" if errors else "yellow")))
    remedied: set[tuple[str, str]] = set()
    for violation in ordered[:most]:
        _print_violation(console, violation, remedied)
    if most is not None and len(ordered) > most:
        indented(console, f"and {len(ordered) - most:,} more: consistency audit shows them all", style="dim")


def _print_violation(console: Console, violation: Violation, remedied: set[tuple[str, str]]) -> None:
    """Print one; a remedy that was printed for the same keyspace is not printed again."""
    grave = violation.severity is Severity.ERROR
    style = "red" if grave else "yellow"
    place = safe(violation.keyspace) if violation.keyspace else "cluster"
    head = Text.assemble(("x " if grave else "! ", style), (place, "bold"), "  ", (safe(violation.kind), style))
    indented(console, head, rest="    ")
    indented(console, safe(violation.detail), first="    ")
    remedy = (violation.keyspace, violation.remedy)
    if violation.remedy and remedy not in remedied:
        indented(console, Text.assemble(("-> ", "dim"), (safe(violation.remedy), "cyan")), first="    ", rest="       ")
    elif violation.remedy:
        indented(console, "-> the same remedy", first="    ", style="dim")
    remedied.add(remedy)
