"""docs/benchmarks.md and its plots, rendered from the raw figures."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pairs
from benchmarks.plot import bars
from benchmarks.repairing import BY_ROW, NODETOOL
from benchmarks.rounds import Figures, Sample, Spread, ratio
from benchmarks.suites import Row, Target

PAGE = Path("docs/benchmarks.md")
PLOTS = Path("docs/benchmarks")
_HEADINGS = {
    "planning": "Planning",
    "speed": "A clean table",
    "older": "A clean table before 5.0",
    "growth": "How it grows with rows",
    "columns": "How it grows with columns",
    "vnodes": "How it grows with tokens",
    "divergence": "How it grows with divergence",
    "repair": "Check, repair and verify",
    "foreground": "What the application feels",
    "pairs": "Two clusters",
}
_ABOUT = {
    "planning": "Placing all replicas of a synthetic ring and cutting a table of a billion rows into leaves.",
    "speed": "The floor counts the rows of every replica in the servers, each from its own storage (NODE_LOCAL), in"
    " 24 token ranges, four at once on each node. The servers' processor time depends on nothing else.",
    "older": "Both routes read all values of every replica; by the client route each row comes to the client. Received"
    " is what the client's sockets received from all nodes: under 1,000 kB for a million rows hashed in the servers.",
    "divergence": "Rows are damaged on one replica each, spread evenly. The findings are written to a file: rows are"
    " listed, 10,000 at most by default, and counted by range beyond that.",
    "repair": "Ours checks, plans, applies and verifies every row by reading all replicas again, in one process. Bytes"
    " between nodes are what the nodes sent each other in messages, gossip included; nodetool's streams come on top."
    " Rows that are counted by range are merged as ranges, at full speed.",
    "foreground": "Alternating reads and writes at QUORUM at a fixed rate; latency counts from when a request was due."
    " The competing command is restarted whenever it ends.",
    "pairs": "Three nodes to three nodes, all six on this machine. A comparison reads both clusters, a check one. Of"
    " the rows that only the source holds 10,000 are listed, the others are counted by range; the plan names each.",
}


def write_raw(path: Path, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """Write every figure as JSON; suites that were not run keep what the file says of them."""
    ran = {row.suite for row in rows}
    kept = [row for row in read_raw(path)[0] if row.suite not in ran] if path.exists() else []
    data = {"machine": dict(machine), "rows": [_row_json(row) for row in (*kept, *rows)]}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read_raw(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """Read what `write_raw` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Row(
            suite=row["suite"],
            title=row["title"],
            rows=row["rows"],
            figures={name: [Sample(**sample) for sample in samples] for name, samples in row["figures"].items()},
            targets=tuple(Target(**target) for target in row["targets"]),
            facts=row["facts"],
        )
        for row in data["rows"]
    ]
    return rows, data["machine"]


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "suite": row.suite,
        "title": row.title,
        "rows": row.rows,
        "figures": {name: [sample.as_json() for sample in samples] for name, samples in row.figures.items()},
        "targets": [{"ours": t.ours, "theirs": t.theirs, "at_most": t.at_most} for t in row.targets],
        "facts": dict(row.facts),
    }


def table(row: Row) -> Iterator[str]:
    """Yield one measurement as lines of Markdown: a line per side, then the ratios."""
    facts = sorted({name for samples in row.figures.values() for sample in samples for name in sample.facts})
    head = ["", "wall, s", "least", "most", "client CPU, s", "peak, MB", *(name.replace("_", " ") for name in facts)]
    yield from (f"**{row.title}**", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}")
    for name, samples in row.figures.items():
        wall = Spread.of([s.wall_s for s in samples])
        cells = [name, f"{wall.median:.2f}", f"{wall.low:.2f}", f"{wall.high:.2f}", *_cost(samples)]
        cells += [_fact(samples, fact) for fact in facts]
        yield f"| {' | '.join(cells)} |"
    yield ""
    for target in row.targets:
        spread = ratio(row.figures[target.ours], row.figures[target.theirs])
        met = "reached" if spread.median <= target.at_most else "**missed**"
        yield f"- {target.ours} / {target.theirs}: **{spread}**, to be at most {target.at_most}: {met}"
    for name, value in row.facts.items():
        yield f"- {name.replace('_', ' ')}: {value:,.0f}"
    yield ""


def _cost(samples: Sequence[Sample]) -> list[str]:
    if not any(s.cpu_s for s in samples):
        return ["", ""]
    return [f"{Spread.of([s.cpu_s for s in samples]).median:.2f}", f"{max(s.peak_mb for s in samples):.0f}"]


def _fact(samples: Sequence[Sample], name: str) -> str:
    values = [s.facts[name] for s in samples if name in s.facts]
    if not values:
        return ""
    median = Spread.of(values).median
    return f"{median:,.0f}" if median >= 100 else f"{median:.2f}"


def render(rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """Write the page and its plots."""
    lines = [
        "# Benchmarks",
        "",
        *textwrap.wrap(
            "Made by `make bench`; [the raw figures](benchmarks/figures.json). Three nodes of Cassandra"
            f" {machine['cassandra']} and the clients share one machine: {machine['processors']} processors,"
            f" {machine['memory_gb']} GB, Python {machine['python']}. The sides of a table run in alternation, as a"
            " user runs them, start-up included, after one warm-up run of each that does not count. A ratio is taken"
            " within each round; the page shows its median, least and greatest. Which targets are missed, and why:"
            " [where the time goes](design/0015-where-the-time-goes.md).",
            120,
        ),
        "",
    ]
    for suite, heading in _HEADINGS.items():
        mine = [row for row in rows if row.suite == suite]
        if not mine:
            continue
        lines += [f"## {heading}", "", *textwrap.wrap(_ABOUT.get(suite, ""), 120), ""]
        for row in mine:
            lines += table(row)
        lines += _summary(suite, mine)
    PAGE.write_text(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n", encoding="utf-8")


def _summary(suite: str, rows: Sequence[Row]) -> Iterator[str]:
    if suite == "growth" and len(rows) > 1:
        yield from _growth(rows)
    if suite in {"growth", "columns", "divergence", "repair"} and len(rows) > 1:
        _plot(PLOTS / f"{suite}.svg", _HEADINGS[suite], rows)
        yield from (f"![{_HEADINGS[suite]}](benchmarks/{suite}.svg)", "")
    if suite == "repair":
        yield from _moved(rows)
    if suite == "pairs":
        clean = {row.rows: row.figures for row in rows if row.targets}
        yield from pairs.summary({row.rows: row.figures for row in rows if not row.targets}, clean)
    if suite == "foreground":
        for row in rows:
            yield from _felt(row.figures)


def _growth(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the cost of each further million rows, and the growth of memory and client processor time."""
    *_, before, last = rows
    millions = (last.rows - before.rows) / 1e6
    cost = {}
    for name in last.figures:
        pairs = zip(last.figures[name], before.figures[name], strict=True)
        cost[name] = Spread.of([(a.wall_s - b.wall_s) / millions for a, b in pairs])
        yield f"- each further million rows, {name}: {cost[name]} s"
    ours, theirs = (spread.median for spread in list(cost.values())[:2])
    yield f"- in proportion: **{ours / theirs:.2f}**, to be at most 1.2"
    mine = next(iter(last.figures))
    cpu = [(a.cpu_s - b.cpu_s) / millions for a, b in zip(last.figures[mine], before.figures[mine], strict=True)]
    yield f"- client CPU of each further million rows: {Spread.of(cpu)} s, to be under 0.3"
    peaks = [max(s.peak_mb for s in row.figures[mine]) for row in rows]
    yield f"- peak memory from {rows[0].title} to {last.title}: {peaks[0]:.0f} to {peaks[-1]:.0f} MB, to be under 150"
    yield ""


def _moved(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the ratio of bytes that theirs and ours moved, in messages and streams."""
    for row in rows:
        mine, other = row.figures[BY_ROW], row.figures[NODETOOL]
        names = ("bytes_between_nodes", "streamed_bytes")
        ours, theirs = ([sum(s.facts.get(name, 0) for name in names) for s in side] for side in (mine, other))
        spread = Spread.of([b / a for a, b in zip(ours, theirs, strict=True)])
        yield f"- {row.title}: nodetool moved **{spread}** times the bytes"
    yield ""


def _felt(figures: Figures) -> Iterator[str]:
    alone, *others = figures
    for name in others:
        pairs = zip(figures[name], figures[alone], strict=True)
        spread = Spread.of([a.facts["p99_ms"] / b.facts["p99_ms"] for a, b in pairs])
        yield f"- p99 {name} / {alone}: **{spread}**"
    yield ""


def _plot(path: Path, title: str, rows: Sequence[Row]) -> None:
    series = {
        name: [Spread.of([s.wall_s for s in row.figures[name]]).median for row in rows] for name in rows[0].figures
    }
    bars(path, title, "seconds of wall time", [row.title for row in rows], series)
