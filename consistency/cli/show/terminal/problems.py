"""What is wrong, in words: rows that differ, ranges not read, rules of replication broken."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from consistency.cli.show.terminal.console import heading, indented, safe
from consistency.model.cqltext import some_of
from consistency.model.tokens import TokenRange
from consistency.results.figures import counted, moment
from consistency.results.findings import Finding, State
from consistency.results.kinds import Kind
from consistency.results.recency import newest_of
from consistency.results.report import LEFT_OUT, Report, Severity, TableReport, Unread, Violation

MOST_FINDINGS = 3
MOST_REPLICAS = 6
MOST_NAMED = 3
_LONGEST_KEY = 300
_STATE_WORDS = {State.MISSING: "missing on", State.STALE: "behind on"}


def print_findings(console: Console, report: Report, *, keys: bool) -> None:
    """Print how many rows differ by kind, and the first of them with their number in the findings file."""
    total = sum(report.findings_by_kind.values())
    if not total:
        return
    kinds = ", ".join(f"{safe(kind)} {n:,}" for kind, n in report.findings_by_kind.items())
    indented(console, Text.assemble(heading("findings"), "  ", (kinds, "red")), first="", rest="  ")
    shown = choose_findings(report.top)
    for number in shown:
        _print_finding(console, number, report.top[number - 1], keys=keys)
    hints = []
    listed = total - sum(table.counted.rows for table in report.tables)
    if listed > len(shown):
        hints.append(
            f"{listed - len(shown):,} more" + (f" in {safe(report.findings_path)}" if report.findings_path else "")
        )
    if not keys and shown:
        hints.append("keys are hidden here: --show-keys prints them")
    if hints:
        indented(console, "; ".join(hints), first="     ", style="dim")


def choose_findings(top: Sequence[Finding]) -> list[int]:
    """Return the numbers (from 1) of the findings to show: one of each kind before a second of any."""
    seen: dict[Kind, int] = defaultdict(int)
    ranked: list[tuple[int, int]] = []
    for number, finding in enumerate(top, start=1):
        ranked.append((seen[finding.kind], number))
        seen[finding.kind] += 1
    return sorted(number for _, number in sorted(ranked)[:MOST_FINDINGS])


def _print_finding(console: Console, number: int, finding: Finding, *, keys: bool) -> None:
    row = key_text(finding.key) if keys else f"token {finding.token}"
    name = f"{finding.keyspace}.{finding.table}"
    kind = Text(finding.kind.value, style="red")
    what = Text.assemble((f"{number:<3}", "dim"), kind, "  ", safe(name), "  ", row)
    indented(console, what, rest="     ")
    indented(console, states_text(finding), first="     ", style="dim")


def key_text(key: Mapping[str, object]) -> str:
    """Return a key as `column=value, column=value`, safe to show and cut if it is very long; text is quoted."""
    return ", ".join(f"{safe(name)}={_key_value(value)}" for name, value in key.items())


def _key_value(value: object) -> str:
    text = str(value)
    cut = text[:_LONGEST_KEY]
    shown = f'"{safe(cut)}"' if isinstance(value, str) else safe(cut)
    return shown if len(text) <= _LONGEST_KEY else f"{shown}... ({len(text):,} characters)"


def states_text(finding: Finding) -> str:
    """Return which replicas hold what, and since when."""
    if finding.kind is Kind.NON_OWNER:
        parts = [f"held by {_names(list(finding.replicas))}, which does not own its token range"]
    else:
        parts = _sides(finding)
    if finding.columns and finding.kind is not Kind.MISSING:
        parts.append(f"in {_names(finding.columns)}")
    newest = newest_of(finding)
    if newest is not None:
        parts.append(f"newest write {moment(newest)}")
    return "; ".join(parts)


def _sides(finding: Finding) -> list[str]:
    """Name the replicas by state; of two sides only the smaller one is named."""
    by_state: dict[State, list[str]] = defaultdict(list)
    for name, view in finding.replicas.items():
        by_state[view.state].append(name)
    current, unreadable = by_state.pop(State.CURRENT, []), by_state.pop(State.UNREADABLE, [])
    beside = [f"unreadable on {_names(unreadable)}"] if unreadable else []
    if finding.kind is Kind.TIE and current and State.STALE in by_state and newest_of(finding) is None:
        # Nothing tells who is behind.
        return [f"one value on {_names(current)}, another on {_names(by_state[State.STALE])}", *beside]
    parts = [f"{_STATE_WORDS[state]} {_names(by_state[state])}" for state in _STATE_WORDS if by_state.get(state)]
    if len(by_state) == 1 and current and len(current) < sum(map(len, by_state.values())):
        parts = [f"{'only on' if State.MISSING in by_state else 'current only on'} {_names(current)}"]
    elif current and not by_state:
        parts.append(f"alike on {counted(len(current), 'replica')}")
    elif current and not (len(by_state) == 1 and parts):
        parts.append(f"current on {_names(current)}")
    return [*parts, *beside]


def _names(names: Sequence[str]) -> str:
    return some_of([safe(name) for name in names], MOST_NAMED)


def print_unread(console: Console, tables: Sequence[TableReport]) -> None:
    """Print which part of the ring was not read on which replicas, and why."""
    by_replica: dict[str, list[tuple[TableReport, Unread]]] = defaultdict(list)
    for table in tables:
        for unread in (u for u in table.unread if u.reason not in LEFT_OUT):
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
    where = safe(table.full_name) if len(shares) == 1 else counted(len(shares), "table")
    upto = "" if len(shares) == 1 else "up to "
    text = f"{safe(replica)}  {counted(ranges, 'range')}, {upto}{percent(max(shares.values()))} of the ring, in {where}"
    indented(console, Text.assemble(("? ", "yellow"), text), rest="    ")
    first = f"first {_place(unread.ranges[0])}" if unread.ranges else ""
    others = len({u.reason for _, u in entries}) - 1
    more = f" (and {counted(others, 'other reason')}, in the JSON)" if others else ""
    reason = unread.reason.removeprefix(f"{replica}: ")
    indented(console, f"{first}: {safe(reason)}{more}".removeprefix(": "), first="    ", style="dim")


def _place(token_range: TokenRange) -> str:
    """Name a range; a range of a single token is a partition, which is named without its key."""
    return f"the partition at token {token_range.end}" if token_range.width == 1 else str(token_range)


def percent(share: float) -> str:
    """Return a share of the ring, never `0%` for something."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{min(share, 1):.1%}".replace(".0%", "%")


_MARKS = {Severity.ERROR: ("x", "red"), Severity.UNKNOWN: ("?", "yellow"), Severity.WARNING: ("!", "yellow")}


def print_violations(console: Console, violations: Sequence[Violation], *, most: int | None = None) -> None:
    """Print broken rules, errors first: what, where, the facts, and the remedy."""
    if not violations:
        return
    ordered = sorted(violations, key=lambda v: v.severity is not Severity.ERROR)
    number = Counter(v.severity for v in violations)
    errors, unknown, warnings = (number[s] for s in (Severity.ERROR, Severity.UNKNOWN, Severity.WARNING))
    counts = [counted(errors, "violation")] if errors else []
    counts += [f"{unknown} unknown"] if unknown else []
    counts += [counted(warnings, "warning")] if warnings else []
    title = ", ".join(counts)
    console.print(Text.assemble(heading("replication"), "  ", (title, "red" if errors else "yellow")))
    remedied: set[tuple[str, str]] = set()
    for violation in ordered[:most]:
        _print_violation(console, violation, remedied)
    if most is not None and len(ordered) > most:
        indented(console, f"and {len(ordered) - most:,} more: consistency audit shows them all", style="dim")


def _print_violation(console: Console, violation: Violation, remedied: set[tuple[str, str]]) -> None:
    """Print one; the same remedy for a keyspace is printed once."""
    mark, style = _MARKS[violation.severity]
    place = safe(violation.keyspace) if violation.keyspace else "cluster"
    head = Text.assemble((f"{mark} ", style), (place, "bold"), "  ", (safe(violation.kind), style))
    indented(console, head, rest="    ")
    indented(console, safe(violation.detail), first="    ")
    remedy = (violation.keyspace, violation.remedy)
    if violation.remedy and remedy not in remedied:
        indented(console, Text.assemble(("-> ", "dim"), (safe(violation.remedy), "cyan")), first="    ", rest="       ")
    elif violation.remedy:
        indented(console, "-> the same remedy", first="    ", style="dim")
    remedied.add(remedy)
