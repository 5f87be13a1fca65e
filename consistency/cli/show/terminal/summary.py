"""The report of a check on one screen: the claim, its basis, the problems, and what to do next."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from consistency.cli.show.terminal import strip
from consistency.cli.show.terminal.advice import Typed, next_commands
from consistency.cli.show.terminal.console import VERDICT_STYLES, command, heading, indented, safe
from consistency.cli.show.terminal.problems import print_findings, print_unread, print_violations
from consistency.cli.show.terminal.tables import print_tables
from consistency.model.cqltext import some_of
from consistency.results.figures import counted, span
from consistency.results.kinds import Kind
from consistency.results.report import RepairSummary, Report, Severity
from consistency.results.sample import Bound
from consistency.results.verdict import Verdict

_ALIKE = {Kind.FUTURE_WRITE_TIME.value, Kind.NON_OWNER.value}
"""Kinds that are wrong although all replicas may agree."""
_MOST_STRIPS = 2
_MOST_VIOLATIONS = 3
_MOST_CAUSES = 2


def print_report(console: Console, report: Report, typed: Typed, *, keys: bool) -> None:
    """Print the whole summary."""
    _print_verdict(console, report)
    console.print()
    print_tables(console, report.tables)
    if report.repair is not None and report.repair.rows:
        _print_repair(console, report.repair)
    else:
        _print_strips(console, report)
        print_findings(console, report, keys=keys)
        _print_counted(console, report)
    _print_causes(console, report)
    _print_notes(console, report)
    print_unread(console, report.tables)
    print_violations(console, report.violations, most=_MOST_VIOLATIONS)
    _print_left_out(console, report)
    _print_blind(console, report)
    _print_next(console, report, typed)


def _print_verdict(console: Console, report: Report) -> None:
    word = report.verdict.value.upper()
    style = VERDICT_STYLES[report.verdict]
    if report.interrupted:
        word, style = f"INTERRUPTED, {report.verdict.value} so far", "bold yellow"
    indented(console, Text.assemble((word, style), "  ", claim(report)), first="", rest="  ")
    indented(console, basis(report), style="dim")
    if report.traces.sentence:
        indented(console, f"{report.traces.sentence}.", style="dim")
    if report.bound is not None:
        indented(console, report.bound.sentence)
    if slice_text(report):
        indented(console, slice_text(report), style="dim")
    facts = (
        safe(report.cluster),
        f"run {report.run_id[:8]}",
        span(report.seconds),
        f"exit code {int(report.exit_code)}",
    )
    indented(console, ", ".join(facts), style="dim")


def _print_counted(console: Console, report: Report) -> None:
    """Print what each replica lacks of the rows that are counted by range."""
    for table in report.tables:
        if not (counts := table.counted).rows:
            continue
        ranges = counted(counts.ranges, "token range")
        more = counted(counts.rows, "more row differs", "more rows differ")
        title = Text.assemble(heading(f"{safe(table.full_name)}"), f"  {more}, in {ranges}")
        console.print(title)
        for name, view in counts.replicas.items():
            parts = [f"lacks {view.missing:,}"] if view.missing else []
            parts += [f"holds older versions of {view.stale:,}"] if view.stale else []
            if parts:
                indented(console, f"{safe(name)} {' and '.join(parts)}", first="    ", rest="      ")
        indented(console, "counted and not listed: --max-findings all lists each")


def reach(report: Report) -> str:
    """Return what a sample proves of all rows, and how far it or a run with a time limit came; empty of any other."""
    proven = report.bound
    return " ".join(filter(None, ("" if proven is None else proven.sentence, slice_text(report))))


def slice_text(report: Report) -> str:
    """Return how far a run with a time limit or of a sample came; empty of any other."""
    if report.sampling is not None:
        read, planned = sum(t.ranges_read for t in report.tables), sum(t.ranges for t in report.tables)
        again = f"--seed {report.sampling.seed} draws the same ones"
        return f"{read:,} of {counted(planned, 'range')} read ({report.sampling.asked}), drawn at random; {again}."
    if report.run_time_s is None:
        return ""
    read, planned = sum(t.ranges_read for t in report.tables), sum(t.ranges for t in report.tables)
    onward = "." if read == planned else "; the next run with this ledger continues from there."
    return f"{read:,} of {counted(planned, 'range')} this time, oldest first{onward}"


def claim(report: Report) -> str:
    """Return the claim of the verdict as a sentence."""
    scanned = [t for t in report.tables if t.depth]
    rows = sum(t.rows for t in scanned)
    amount = f"{counted(rows, 'row')} in {counted(len(scanned), 'table')}"
    if not report.coverage.planned:
        return "Nothing was compared: no table in scope has replicas to compare."
    if not report.coverage.completed and not report.findings_by_kind:
        return f"Nothing was read: {_gaps(report)}."
    if report.repair is not None and report.repair.rows:
        return _repaired(report, report.repair, amount)
    if report.verdict is Verdict.DIVERGENT:
        found = sum(report.findings_by_kind.values())
        unlike = not set(report.findings_by_kind) & _ALIKE
        wrong = "the same on all replicas" if unlike else "as they should be"
        text = f"{found:,} of {amount} {'is' if found == 1 else 'are'} not {wrong}"
        text += "." if report.coverage.complete else "; not all was read, so there may be more."
        text += " It is a sample: what was not read may differ too." if report.sampling else ""
        text += f" It is part {report.part} of a run: other parts may differ too." if report.part else ""
    elif report.verdict is Verdict.SAMPLED:
        text = f"No difference was found in a sample of {amount}{_of_all(report.bound)}."
    elif report.verdict is Verdict.PART:
        text = f"Consistent in its part {report.part}: all replicas hold the same {amount}."
        text += " The whole run: consistency ledger merge."
    elif report.verdict is Verdict.UNKNOWN:
        text = f"No difference was found in {amount}, but {_gaps(report)}."
    else:
        text = f"All replicas hold the same {amount}."
    errors = sum(v.severity is Severity.ERROR for v in report.violations)
    if errors and report.verdict is not Verdict.DIVERGENT:
        text += f" {counted(errors, 'rule')} of replication {'is' if errors == 1 else 'are'} broken."
    return text


def _of_all(proven: Bound | None) -> str:
    return "" if proven is None else f", of about {proven.rows:,}"


def _repaired(report: Report, repair: RepairSummary, amount: str) -> str:
    """Return what was found, and how much of it is proven to agree now."""
    good = repair.rows - repair.remaining - repair.unknown
    parts = [f"{good:,} now agree on every replica" + (", proven by reading them" if good else "")]
    if repair.remaining:
        parts.append(f"{counted(repair.remaining, 'is', 'are')} left")
    if repair.unknown:
        parts.append(f"{counted(repair.unknown, 'waits', 'wait')} for replicas that cannot be read")
    text = f"{repair.rows:,} of {amount} differed: {'; '.join(parts)}."
    if repair.checked_again is Verdict.DIVERGENT and not repair.remaining:
        text += " A second check of the partitions written to found differences."
    elif repair.unchecked or repair.checked_again is Verdict.UNKNOWN:
        text += " The partitions written to could not all be checked again."
    return text if report.coverage.complete else f"{text} Not all was read, so there may be more."


def _print_repair(console: Console, repair: RepairSummary) -> None:
    """Print the result of the repair; its files hold the rows that were found before it."""
    title = Text.assemble(heading("repair"), f"  {counted(repair.acted_on, 'row')} written to")
    console.print(title)
    if repair.changes:
        parts = [f"{count:,} {name}" for name, count in sorted(repair.changes.items(), key=lambda item: -item[1])]
        indented(console, f"of them {', '.join(parts)}")
    if repair.left:
        indented(console, "left, each still a finding:")
    for reason, count in repair.left.items():
        indented(console, f"{count:,} {safe(reason)}", first="    ", rest="      ")


def _gaps(report: Report) -> str:
    coverage = report.coverage
    unsettled = sum(t.unsettled_rows for t in report.tables)
    skipped = sum(not t.depth for t in report.tables)
    put_off = sum(t.ranges - t.ranges_read for t in report.tables if t.put_off)
    failed = sum(t.coverage.failed for t in report.tables if t.depth)
    alone = sum(t.alone for t in report.tables)
    parts = []
    if put_off:
        parts.append(f"{counted(put_off, 'range')} {'is' if put_off == 1 else 'are'} left for the next run")
    if failed:
        parts.append(f"{failed:,} of {counted(coverage.planned - skipped, 'digest')} could not be read")
    if alone:
        verb = "has" if alone == 1 else "have"
        parts.append(f"{counted(alone, 'range')} {verb} only one replica here, so there is nothing to compare")
    if skipped:
        parts.append(f"{counted(skipped, 'table')} could not be checked")
    if unsettled:
        parts.append(f"{counted(unsettled, 'row')} kept changing or could not be read again")
    if any(t.sample is not None and not t.sample.share for t in report.tables) and not failed:
        parts.append("the time was over before every set of replicas had its share: give --within more")
    return " and ".join(parts) or "the run did not finish"


def basis(report: Report) -> str:
    """Return what was read, and what proves which replica answered."""
    coverage = report.coverage
    text = f"{coverage.completed:,} of {counted(coverage.planned, 'planned digest')} read"
    ways = Counter(f"{t.depth}, {t.locality}" for t in report.tables if t.depth)
    if ways and coverage.completed:
        way, _ = ways.most_common(1)[0]
        others = "" if len(ways) == 1 else " and others"
        # If some failed, not every node of the ring answered; the unread ranges name those nodes.
        source = f" from {counted(len(report.replicas), 'node')}" if coverage.complete else ""
        text += f"{source} ({way}{others}), each proven that node's own"
    if coverage.failed or coverage.skipped:
        text += f"; {coverage.failed:,} failed, {coverage.skipped:,} skipped"
    if report.findings_by_kind:
        text += "; a second reading showed each difference again"
    return text + "."


def _unicode(console: Console) -> bool:
    return console.is_terminal and console.encoding.lower().startswith("utf")


def _print_strips(console: Console, report: Report) -> None:
    blocks = _unicode(console)
    for number, (title, cells) in enumerate(strip.chosen_strips(report.tables, _MOST_STRIPS)):
        meaning = Text() if number else strip.legend(cells, blocks=blocks)
        console.print(Text.assemble(heading("ring"), "  ", safe(title), "  ", meaning), overflow="fold")
        console.print(Text("  ") + strip.draw(cells, blocks=blocks, room=console.width - 2), soft_wrap=True)


def _print_causes(console: Console, report: Report) -> None:
    causes = report.likely_causes
    if causes:
        console.print(heading("likely cause" if len(causes) == 1 else "likely causes"))
    for cause in causes[:_MOST_CAUSES]:
        indented(console, f"- {cause.sentence}", rest="    ")
    if len(causes) > _MOST_CAUSES:
        indented(console, f"and {len(causes) - _MOST_CAUSES:,} more, in the report as JSON (--json)", style="dim")


def _print_notes(console: Console, report: Report) -> None:
    for note in report.notes:
        indented(console, f"note: {safe(note)}", first="", rest="  ", style="yellow")


def _print_left_out(console: Console, report: Report) -> None:
    reasons: dict[str, list[str]] = {}
    for name, reason in report.not_checked.items():
        view = reason.startswith("materialized view")
        reasons.setdefault("materialized views (--views)" if view else reason, []).append(name)
    for reason, names in reasons.items():
        shown = some_of([safe(name) for name in names], 3)
        indented(console, f"left out: {shown}: {safe(reason)}", first="", rest="  ", style="dim")


def _print_blind(console: Console, report: Report) -> None:
    blind = dict.fromkeys(sentence for table in report.tables for sentence in table.blind)
    if blind:
        console.print(heading("not visible to this check"))
    for sentence in blind:
        indented(console, f"- {safe(sentence)}", rest="    ", style="dim")


def _print_next(console: Console, report: Report, typed: Typed) -> None:
    commands = next_commands(report, typed)
    if commands:
        console.print(heading("next"))
    for why, words in commands:
        command(console, words, why)
