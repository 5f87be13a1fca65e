"""The page of a comparison of two clusters: what differs on which side, where on the ring, and what was not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from consistency import __version__
from consistency.cli.show.page.render import MOST_TABLES, asset, environment, policy, troubled_first, unread_of
from consistency.cli.show.page.ring import SIZE, Track, draw_some
from consistency.cli.show.page.token_line import PairCollector
from consistency.cli.show.terminal.advice import Typed
from consistency.cli.show.terminal.comparison import (
    basis,
    claim,
    declared_otherwise,
    named,
    newest_write,
    next_commands,
)
from consistency.model.sides import Side
from consistency.results.comparison import ComparedCluster, ComparedTable, Comparison
from consistency.results.pair_findings import GRAVEST_FIRST, PairFinding
from consistency.results.strip import overlaid

BETWEEN = "source and target"
_QUORUM = "Read at LOCAL_QUORUM: where replicas disagreed, read repair may have written."


@dataclass(frozen=True, slots=True)
class _SideShown:
    """What the page tells of one cluster: its nodes by data centre and by release, such as `3 in dc1`, `5.0.9 on 3`."""

    side: str
    cluster: str
    nodes: int
    dcs: str
    releases: str

    @classmethod
    def of(cls, side: Side, cluster: ComparedCluster) -> _SideShown:
        dcs, releases = Counter(cluster.replicas.values()), Counter(cluster.releases.values())
        placed = ", ".join(f"{count:,} in {dc}" for dc, count in sorted(dcs.items()))
        running = ", ".join(f"{release or 'unknown'} on {count:,}" for release, count in sorted(releases.items()))
        return cls(side.value, cluster.cluster, len(cluster.replicas), placed, running)


@dataclass(frozen=True, slots=True)
class _First:
    """One of the first rows that differ, without its key; the write times are the newest of each side."""

    kind: str
    table: str
    token: int
    columns: str
    written: tuple[int | None, ...]


def render_comparison(result: Comparison, found: PairCollector, typed: Typed) -> str:
    """Return the page of a comparison, which holds no key and no value at all."""
    css = asset("page.css")
    verdict = f"interrupted, {result.verdict.value} so far" if result.interrupted else result.verdict.value
    shown = sorted(result.tables, key=lambda table: troubled_first(table.report))
    behind = {**found.behind, BETWEEN: sum(result.findings_by_kind.values())}
    reports = [table.report for table in result.tables]
    return (
        environment("consistency.cli.show.page")
        .get_template("comparison.html")
        .render(
            result=result,
            found=found,
            verdict=verdict,
            claim=claim(result),
            basis=basis(result),
            quorum=_QUORUM if result.read == "quorum" else "",
            bound=result.bound.sentence if result.bound is not None else "",
            sides=[_SideShown.of(side, result.clusters[side]) for side in Side],
            tables=shown[:MOST_TABLES],
            more_tables=len(shown[MOST_TABLES:]),
            differing=[table for table in shown if table.kinds or any(table.inner.values())][:MOST_TABLES],
            kinds=[kind.value for kind in GRAVEST_FIRST],
            sentences=[(kind.value, kind.sentence) for kind in GRAVEST_FIRST if kind.value in result.findings_by_kind],
            inner=_inner,
            tracks=_tracks(result, behind),
            ring_size=SIZE,
            most_behind=max(1, *behind.values()),
            first=list(_first(result)),
            declared=[(difference, named(tables)) for difference, tables in declared_otherwise(result.tables).items()],
            gaps=unread_of(reports),
            blind=list(dict.fromkeys(sentence for report in reports for sentence in report.blind)),
            commands=[(why, " ".join(words)) for why, words in next_commands(result, typed)],
            css=Markup(css),  # noqa: S704 - our own file
            policy=policy(css),
            version=__version__,
        )
    )


def _inner(table: ComparedTable, side: Side | str) -> int:
    """Return on how many rows of a table a side disagrees with itself."""
    return sum(table.inner.get(Side(side), {}).values())


def _tracks(result: Comparison, behind: Mapping[str, int]) -> tuple[Track, ...]:
    """Return one track of what differs between the sides, then one of each node, which tells of its side alone."""
    reports = [table.report for table in result.tables]
    places = {
        f"{side} {name}": f"{side} by itself: {dc}" if dc else f"{side} by itself"
        for side, cluster in result.clusters.items()
        for name, dc in cluster.replicas.items()
    }
    for name in (name for report in reports for name in report.tracks):
        places.setdefault(name, f"{name.split(' ')[0]} by itself")
    nodes = [(name, dc, overlaid(report.tracks.get(name, "") for report in reports)) for name, dc in places.items()]
    return draw_some([(BETWEEN, "both sides", overlaid(r.strip for r in reports)), *nodes], behind)


def _first(result: Comparison) -> Iterator[_First]:
    for found in result.top:
        if isinstance(found, PairFinding):
            written = tuple(newest_write(found.sides[side]) for side in Side)
            columns = named(found.columns)
            yield _First(found.kind.value, found.full_name, found.token, columns, written)
