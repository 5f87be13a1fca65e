"""The state of a watch as figures and words, in the order in which the live page shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from consistency.cli.show.live.ring_map import Codes, has_trouble, merged, text_of
from consistency.cli.show.live.state import Now, View
from consistency.cli.show.page.ring import MOST_TRACKS, Track, draw
from consistency.ledger.history import WARN_AT, Standing
from consistency.results.cause import Cause
from consistency.results.figures import counted, span
from consistency.results.report import NOT_IN_SAMPLE, PUT_OFF, Report, TableReport
from consistency.results.verdict import Verdict
from consistency.watching.target_end import TargetEnd, TargetTable

MOST_TABLES = 1_000
MOST_LANES = 12
MOST_CAUSES = 6
MOST_GAPS = 20
_ORDER = list(Standing)


def coarse(seconds: float) -> str:
    """Return a time span, so coarse that a page need not be sent anew every second."""
    if seconds < 60:
        return "under 1 min"
    if seconds < 3_600:
        return f"{int(seconds // 60)} min"
    return span(seconds) if seconds < 86_400 else f"{int(seconds // 86_400)} d"


def ago(seconds: float) -> str:
    """Return how long ago something was."""
    return "just now" if seconds < 60 else f"{coarse(seconds)} ago"


@dataclass(frozen=True, slots=True)
class TableLine:
    """One table: how old its oldest clean pass is against gc_grace_seconds, and what its latest visit said.

    `part` is the age as a part of gc_grace_seconds, None if that is not known.
    """

    name: str
    standing: Standing
    part: float | None
    age: str
    verdict: Verdict
    visited: bool
    rows: int
    divergent_rows: int
    unsettled_rows: int
    strip: str
    seen: str
    note: str


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be read on one replica, for one reason."""

    replica: str
    reason: str
    ranges: int
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """What one replica digests of the table that is being read."""

    name: str
    percent: float
    rate: int
    failed: int


def kinds(view: View) -> Mapping[str, int]:
    """Return how many rows differ, by kind."""
    known = (view.run_end.report or view.run_end.target) if view.run_end is not None else None
    return known.findings_by_kind if known is not None else {}


def cluster(view: View) -> str:
    """Return the name of what is watched; of two clusters both."""
    if view.run_end is None:
        return ""
    if view.run_end.target is not None:
        return " → ".join(name for name, _ in view.run_end.target.clusters.values())
    return view.run_end.report.cluster if view.run_end.report is not None else ""


def headline(report: Report | None, view: View) -> tuple[Verdict, str, str]:
    """Return the verdict on everything that is watched, in a word, a sentence, and the basis of both."""
    target = view.run_end.target if view.run_end is not None else None
    if target is not None and target.tables:
        return _of_target(target, view)
    if report is None:
        latest = view.runs[0].reason if view.runs else ""
        return Verdict.UNKNOWN, "Nothing was read yet.", latest
    known = [table for table in report.tables if table.verdict is not Verdict.UNKNOWN]
    differing = [table for table in report.tables if table.divergent_rows]
    rows = sum(table.divergent_rows for table in differing)
    some = f"{counted(len(report.tables), 'table')} watched, {len(view.latest):,} visited since this watch began"
    if report.verdict is Verdict.DIVERGENT:
        where = f"in {counted(len(differing), 'table')}"
        return report.verdict, f"{counted(rows, f'row {where} differs', f'rows {where} differ')}.", f"{some}."
    if report.verdict is Verdict.UNKNOWN:
        unknown = len(report.tables) - len(known)
        return report.verdict, f"No difference is known; {counted(unknown, 'table')} not proven yet.", f"{some}."
    return report.verdict, "All replicas agreed when each table was last visited.", f"{some}."


def _of_target(target: TargetEnd, view: View) -> tuple[Verdict, str, str]:
    """Say the same of two clusters."""
    names = " with ".join(name for name, _ in target.clusters.values())
    some = f"{counted(len(target.tables), 'table')} of {names} compared again and again"
    if view.runs and view.runs[0].verdict is None and view.runs[0].reason:
        some += f"; the latest comparison could not be made: {view.runs[0].reason}"
    verdict = target.verdict
    if verdict is Verdict.CONSISTENT:
        return verdict, "The target held what the source held when each table was last compared.", f"{some}."
    if verdict is Verdict.UNKNOWN:
        unknown = sum(table.verdict is Verdict.UNKNOWN for table in target.tables)
        return verdict, f"No difference is known; {counted(unknown, 'table')} not proven equal yet.", f"{some}."
    rows = sum(target.findings_by_kind.values())
    inner = sum(sum(table.inner.values()) for table in target.tables)
    torn = f"; in {counted(inner, 'row')} a cluster disagrees with itself" if inner else ""
    return verdict, f"{counted(rows, 'row differs', 'rows differ')} between the clusters{torn}.", f"{some}."


@dataclass(frozen=True, slots=True)
class TargetLine:
    """One pair of tables."""

    name: str
    target: str
    verdict: Verdict
    last_equal: str
    differing: str
    inner: int
    unsettled: int
    seen: str
    note: str


def target_lines(view: View) -> list[TargetLine]:
    """Return the pairs of tables of two clusters, what is not known to be equal first."""
    target = view.run_end.target if view.run_end is not None else None
    lines = [_target_line(table, view.now_s) for table in (target.tables if target is not None else ())]
    order = (Verdict.DIVERGENT, Verdict.UNKNOWN, Verdict.CONSISTENT)
    return sorted(lines, key=lambda line: (order.index(line.verdict), line.name))


def _target_line(table: TargetTable, now_s: float) -> TargetLine:
    kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in table.kinds.items())
    return TargetLine(
        table.full_name,
        "" if table.target == table.full_name else table.target,
        table.verdict,
        ago(now_s - table.last_equal_s) if table.last_equal_s is not None else "never, as far as is known",
        kinds or ("none" if table.whole else "unknown"),
        sum(table.inner.values()),
        table.unsettled,
        ago(now_s - table.compared_s) if table.compared_s is not None else "",
        table.reason,
    )


def table_lines(report: Report | None, view: View) -> list[TableLine]:
    """Return the tables, the oldest clean pass against gc_grace_seconds first."""
    clean = {f"{c.keyspace}.{c.table}": c for c in view.run_end.clean_passes} if view.run_end is not None else {}
    gc_graces = {table.full_name: table.gc_grace_seconds for table in view.tables}
    lines = []
    for table in report.tables if report is not None else ():
        name = table.full_name
        kept = clean.get(name)
        age_s = kept.oldest_age_s if kept is not None else view.ages_s.get(name, math.inf)
        gc_grace_s = kept.gc_grace_s if kept is not None else gc_graces.get(name, 0)
        lines.append(_line(table, view, age_s, gc_grace_s))
    lines.sort(key=lambda line: (_ORDER.index(line.standing), -(line.part or 0), line.name))
    return lines


def _line(table: TableReport, view: View, age_s: float | None, gc_grace_s: int) -> TableLine:
    latest = view.latest.get(table.full_name)
    never = age_s is None or math.isinf(age_s)
    part = None if age_s is None or never or not gc_grace_s else age_s / gc_grace_s
    standing = Standing.UNCHECKED if never else Standing.IN_TIME
    if part is not None and part >= WARN_AT:
        standing = Standing.OVERDUE if part >= 1 else Standing.DUE
    return TableLine(
        name=table.full_name,
        standing=standing,
        part=part,
        age="never clean" if age_s is None or never else f"{coarse(age_s)} of {coarse(gc_grace_s)}",
        verdict=table.verdict,
        visited=latest is not None,
        rows=table.rows,
        divergent_rows=table.divergent_rows,
        unsettled_rows=table.unsettled_rows,
        strip=view.strips.get(table.full_name, ""),
        seen=ago(view.now_s - latest.at_s) if latest is not None else "not yet",
        note=table.note if table.coverage.failed or latest is not None else "",
    )


def ring(view: View) -> tuple[Track, ...]:
    """Return the tracks of the ring; of many nodes those with trouble, and the others together by data centre."""
    nodes = sorted((node.dc, node.name, view.tracks[node.name]) for node in view.nodes if view.tracks[node.name].any())
    if len(nodes) <= MOST_TRACKS:
        return draw([(name, dc, text_of(codes)) for dc, name, codes in nodes], view.behind)
    silent = {node.name for node in view.nodes if not node.up}
    troubled = [item for item in nodes if item[1] in silent or has_trouble(item[2])]
    troubled.sort(key=lambda item: (item[1] not in silent, -view.behind.get(item[1], 0), -int(item[2].max())))
    chosen = {name for _, name, _ in troubled[: max(1, MOST_TRACKS - len({dc for dc, _, _ in nodes}))]}
    out: list[tuple[str, str, str]] = []
    for dc, group in groupby(nodes, key=lambda item: item[0]):
        rest: list[Codes] = []
        for _, name, codes in group:
            if name in chosen:
                out.append((name, dc, text_of(codes)))
            else:
                rest.append(codes)
        if rest:
            out.append((counted(len(rest), "other node"), dc, text_of(merged(rest))))
    return draw(out, view.behind)


def silent_nodes(view: View) -> Mapping[str, str]:
    """Return the nodes that do not answer, and whether others count on them, in words."""
    others = {None: "does not answer", True: "does not answer us; other nodes count on it", False: "is down"}
    return {node.name: others[node.alive] for node in view.nodes if not node.up}


def causes(view: View) -> list[tuple[Cause, tuple[str, ...]]]:
    """Return the likely causes of all tables, those of most rows first, each with its tables."""
    found: dict[Cause, list[str]] = {}
    for name, latest in view.latest.items():
        for cause in latest.causes:
            found.setdefault(cause, []).append(name)
    ordered = sorted(found.items(), key=lambda item: -item[0].rows * len(item[1]))
    return [(cause, tuple(names)) for cause, names in ordered[:MOST_CAUSES]]


def gaps(view: View) -> tuple[list[Gap], int]:
    """Return what could not be read when it was last tried, by replica and reason, and how many more there are."""
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for name, latest in view.latest.items():
        for unread in latest.unread:
            if unread.reason not in (NOT_IN_SAMPLE, PUT_OFF):
                key = (unread.replica, unread.reason.removeprefix(f"{unread.replica}: "))
                ranges, names = found.get(key, (0, []))
                found[key] = (ranges + len(unread.ranges), [*names, name])
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    lines = [Gap(replica, reason, n, tuple(dict.fromkeys(names))) for (replica, reason), (n, names) in ordered]
    return lines[:MOST_GAPS], max(0, len(lines) - MOST_GAPS)


def lanes(now: Now) -> tuple[list[Lane], int]:
    """Return what each replica does for the table under way, the slowest first, and how many more there are."""
    if now.counts is None:
        return [], 0
    counts = now.counts
    all_lanes = list(counts.lanes.items())  # a copy, because the watch's thread goes on changing them
    found = [Lane(name, 100 * lane.part, round(counts.rate(lane)), lane.failed) for name, lane in all_lanes]
    found.sort(key=lambda lane: (-lane.failed, lane.percent, lane.name))
    return found[:MOST_LANES], max(0, len(found) - MOST_LANES)
