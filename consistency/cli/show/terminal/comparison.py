"""The result of a comparison on one screen: the claim, its basis, what differs on which side, and what to do next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from consistency.cli.show.terminal import strip
from consistency.cli.show.terminal.advice import Typed, can_repair, compare_command, explain_command, sync_command
from consistency.cli.show.terminal.console import VERDICT_STYLES, command, heading, indented, safe
from consistency.cli.show.terminal.problems import MOST_FINDINGS, key_text, print_unread, states_text
from consistency.cli.show.terminal.tables import print_tables
from consistency.model.cqltext import some_of
from consistency.model.reading import each_time
from consistency.model.sides import Side
from consistency.results.comparison import ComparedTable, Comparison, SchemaDifference
from consistency.results.figures import counted, moment, span
from consistency.results.pair_findings import InnerFinding, PairFinding, SideView
from consistency.results.verdict import Verdict

_MOST_STRIPS = 2
_MOST_NAMED = 3
_COMPARED = {"values": "values", "writetimes": "values and write times", "expiries": "values, write times and expiries"}


def print_comparison(console: Console, result: Comparison, typed: Typed, *, keys: bool) -> None:
    """Print the whole summary."""
    _print_verdict(console, result)
    console.print()
    reports = [table.report for table in result.tables]
    print_tables(console, reports)
    blocks = console.is_terminal and console.encoding.lower().startswith("utf")
    for number, (title, cells) in enumerate(strip.chosen_strips(reports, _MOST_STRIPS)):
        meaning = Text() if number else strip.legend(cells, blocks=blocks)
        console.print(Text.assemble(heading("ring"), "  ", safe(title), "  ", meaning), overflow="fold")
        console.print(Text("  ") + strip.draw(cells, blocks=blocks, room=console.width - 2), soft_wrap=True)
    _print_findings(console, result, keys=keys)
    _print_inner(console, result)
    _print_schema(console, result.tables)
    for note in result.notes:
        indented(console, f"note: {safe(note)}", first="", rest="  ", style="yellow")
    print_unread(console, reports)
    for name, reason in list(result.not_checked.items())[:_MOST_NAMED]:
        indented(console, f"left out: {safe(name)}: {safe(reason)}", first="", rest="  ", style="dim")
    _print_blind(console, result)
    _print_next(console, result, typed)


def claim(result: Comparison) -> str:
    """Return the claim of the verdict as a sentence."""
    scanned = [table for table in result.tables if table.report.depth]
    rows = sum(table.report.rows for table in scanned)
    amount = f"{counted(rows, 'row')} in {counted(len(scanned), 'table')}"
    if not result.coverage.planned:
        return "Nothing was compared: no table is in scope."
    if not result.coverage.completed and not result.findings_by_kind:
        return f"Nothing was read: {_gaps(result)}."
    differing = sum(result.findings_by_kind.values())
    itself = [side for side, kinds in result.inner.items() if kinds]
    if result.verdict is Verdict.DIVERGENT:
        if differing:
            text = f"{differing:,} of {amount} {'is' if differing == 1 else 'are'} not the same on both sides"
        else:
            text = f"No difference between the sides was found in {amount}"
        for side in itself:
            text += f"; the {side} disagrees with itself in {sum(result.inner[side].values()):,}"
        text += "." if result.coverage.complete else "; not all was read, so there may be more."
        return text + (" It is a sample: what was not read may differ too." if result.sampling else "")
    if result.verdict is Verdict.SAMPLED:
        of = "" if result.bound is None else f", of about {result.bound.rows:,}"
        return f"No difference was found in a sample of {amount}{of}."
    if result.verdict is Verdict.UNKNOWN:
        return f"No difference was found in {amount}, but {_gaps(result)}."
    return f"The target holds exactly what the source holds: {amount}."


def basis(result: Comparison) -> str:
    """Return what was read, and what proves which replica answered."""
    coverage = result.coverage
    text = f"{coverage.completed:,} of {counted(coverage.planned, 'planned digest')} read: {_COMPARED[result.compare]}"
    schemes = sorted({f"{t.report.scheme}, {t.report.locality}" for t in result.tables if t.report.depth})
    if schemes:
        text += f" ({'; '.join(schemes[:_MOST_NAMED])})"
    if result.tolerated_s:
        text += f", write times up to {result.tolerated_s:g} s apart taken for the same"
    if coverage.failed or coverage.skipped:
        text += f"; {coverage.failed:,} failed, {coverage.skipped:,} skipped"
    if result.findings_by_kind:
        text += "; a second reading of both sides showed each difference again"
    return text + "."


def _print_verdict(console: Console, result: Comparison) -> None:
    word, style = result.verdict.value.upper(), VERDICT_STYLES[result.verdict]
    if result.interrupted:
        word, style = f"INTERRUPTED, {result.verdict.value} so far", "bold yellow"
    indented(console, Text.assemble((word, style), "  ", claim(result)), first="", rest="  ")
    indented(console, basis(result), style="dim")
    if result.read == "quorum":
        indented(console, "Read at LOCAL_QUORUM: where replicas disagreed, read repair may have written.", style="dim")
    if result.traces.sentence:
        indented(console, f"{result.traces.sentence}.", style="dim")
    if result.bound is not None:
        indented(console, result.bound.sentence)
    sides = " to ".join(
        f"{safe(cluster.cluster)} ({counted(len(cluster.replicas), 'node')} read)"
        for cluster in (result.clusters[side] for side in Side)
    )
    facts = (f"{sides}", f"run {result.run_id[:8]}", span(result.seconds), f"exit code {int(result.exit_code)}")
    indented(console, ", ".join(facts), style="dim")


def _gaps(result: Comparison) -> str:
    coverage = result.coverage
    reports = [table.report for table in result.tables]
    skipped = sum(not report.depth for report in reports)
    failed = sum(report.coverage.failed for report in reports if report.depth)
    alone = sum(report.alone for report in reports)
    unsettled = sum(report.unsettled_rows for report in reports)
    parts = []
    if failed:
        parts.append(f"{failed:,} of {counted(coverage.planned - skipped, 'digest')} could not be read")
    if alone:
        parts.append(f"{counted(alone, 'range')} {'has' if alone == 1 else 'have'} no replica on one side")
    if skipped:
        parts.append(f"{counted(skipped, 'table')} could not be compared")
    if unsettled:
        parts.append(f"{counted(unsettled, 'row')} kept changing or could not be read again")
    return " and ".join(parts) or "the run did not finish"


def _print_findings(console: Console, result: Comparison, *, keys: bool) -> None:
    kinds = result.findings_by_kind
    listed = [found for found in result.top if isinstance(found, PairFinding)]
    total, counted_rows = sum(kinds.values()), sum(table.counted for table in result.tables)
    if kinds:
        told = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())
        indented(console, Text.assemble(heading("findings"), "  ", (told, "red")), first="", rest="  ")
    for found in _chosen(listed):
        row = key_text(found.key) if keys else f"token {found.token}"
        what = Text.assemble((found.kind.value, "red"), "  ", safe(found.full_name), "  ", row)
        indented(console, what, rest="     ")
        indented(console, _sides(found), first="     ", style="dim")
    hints = []
    if total > MOST_FINDINGS and result.findings_path:
        hints.append(f"all in {safe(result.findings_path)}")
    if counted_rows:
        some = counted(counted_rows, "row is", "rows are")
        hints.append(f"{some} counted by range and not listed: --max-findings all lists each")
    if listed and not keys:
        hints.append("keys are hidden here: --show-keys prints them")
    if hints:
        indented(console, "; ".join(hints), first="     ", style="dim")


def _chosen(found: Sequence[PairFinding]) -> list[PairFinding]:
    """Return the findings to show: one of each kind before a second of any."""
    seen: dict[str, int] = defaultdict(int)
    ranked: list[tuple[int, int]] = []
    for number, each in enumerate(found):
        ranked.append((seen[each.kind.value], number))
        seen[each.kind.value] += 1
    return [found[number] for number in sorted(number for _, number in sorted(ranked)[:MOST_FINDINGS])]


def _sides(found: PairFinding) -> str:
    """Say what each side has of a row, and since when."""
    parts = []
    for side, view in found.sides.items():
        newest = newest_write(view)
        when = "" if newest is None else f", newest write {moment(newest)}"
        among = _among(view)
        parts.append(f"{side}: {'held' if view.merged else 'missing'}{among}{when}")
    if found.columns:
        parts.append(f"in {named(found.columns)}")
    return "; ".join(parts)


def _among(view: SideView) -> str:
    states = {replica.state for replica in view.replicas.values()}
    return " (its replicas disagree)" if len(states) > 1 else ""


def newest_write(view: SideView) -> int | None:
    """Return the newest write time of what a side holds of a row, in microseconds; None if it has none."""
    held = (tuple(times) if isinstance(times, list) else times for times in view.writetimes.values())
    return max((time for times in held for time in each_time(times)), default=None)


def _print_inner(console: Console, result: Comparison) -> None:
    """Print on which rows the replicas of one side disagree: for a check of that cluster to explain."""
    for side, kinds in result.inner.items():
        if not kinds:
            continue
        told = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())
        title = Text.assemble(heading(f"{side} by itself"), "  ", (told, "red"))
        indented(console, title, first="", rest="  ")
        mine = [each.finding for each in result.top if isinstance(each, InnerFinding) and each.side is side]
        for finding in mine[:1]:
            name = safe(f"{finding.keyspace}.{finding.table}")
            indented(console, f"{name}, token {finding.token}: {states_text(finding)}", style="dim")


def _print_schema(console: Console, tables: Sequence[ComparedTable]) -> None:
    """Print what is declared otherwise: of most tables the same, so it is told once for all of them."""
    told = declared_otherwise(tables)
    if told:
        console.print(heading("declared otherwise"))
    for found, names in told.items():
        text = f"{safe(found.what)}: {safe(found.source)} in the source, {safe(found.target)} in the target"
        indented(console, f"- {text}, of {named(names)}", rest="    ", style="dim")


def declared_otherwise(tables: Sequence[ComparedTable]) -> dict[SchemaDifference, list[str]]:
    """Return what is declared otherwise, each with the tables of which it is."""
    told: dict[SchemaDifference, list[str]] = defaultdict(list)
    for table in tables:
        for found in table.schema:
            told[found].append(table.report.full_name)
    return told


def named(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return some_of([safe(name) for name in names], _MOST_NAMED)


def _print_blind(console: Console, result: Comparison) -> None:
    blind = dict.fromkeys(sentence for table in result.tables for sentence in table.report.blind)
    if blind:
        console.print(heading("not visible to this comparison"))
    for sentence in blind:
        indented(console, f"- {safe(sentence)}", rest="    ", style="dim")


def _print_next(console: Console, result: Comparison, typed: Typed) -> None:
    commands = next_commands(result, typed)
    if commands:
        console.print(heading("next"))
    for why, words in commands:
        command(console, words, why)


def next_commands(result: Comparison, typed: Typed) -> list[tuple[str, list[str]]]:
    """Return `(why, words)` for each command that follows from a comparison."""
    commands: list[tuple[str, list[str]]] = []
    if result.verdict is Verdict.DIVERGENT and not result.findings_path:
        commands.append(("write them to a file", compare_command(typed, "--findings differing.jsonl")))
    listed = sum(result.findings_by_kind.values()) > sum(table.counted for table in result.tables)
    if result.findings_path and listed:
        commands.append(("who holds what", explain_command(result.findings_path, typed)))
    if result.findings_path and sum(result.findings_by_kind.values()) and can_repair():
        commands.append(("plan to bring them over", sync_command(result.findings_path, typed)))
    if result.verdict is Verdict.UNKNOWN and any(table.report.worth_another_try for table in result.tables):
        commands.append(("once all can be read", compare_command(typed)))
    return commands
