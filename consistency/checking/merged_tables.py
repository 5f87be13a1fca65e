"""One table's report out of those of the parts of a run, and of the pieces of the ring that no part has read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from consistency.model.ring import Arc
from consistency.model.tokens import TokenRange, merged
from consistency.results.range_findings import Counted, RangeView
from consistency.results.report import TableReport, Unread
from consistency.results.strip import STRIP_CELLS, fill, overlaid
from consistency.results.tree_report import TreeReport, joined
from consistency.results.verdict import Coverage

_DEPTHS = ("versions", "values", "writetimes", "content")
"""The least first."""


@dataclass(frozen=True)
class Lacking:
    """Ranges that a part was to read, and why they count as unread."""

    arcs: tuple[Arc, ...]
    why: str

    @property
    def digests(self) -> int:
        """How many digests are lacking at least: one a range and replica."""
        return sum(len(arc.ranges) * len(arc.replicas) for arc in self.arcs)


def merged_table(tables: Sequence[TableReport], lacking: Sequence[Lacking] = ()) -> TableReport:
    """Add up what parts say of one table, at least one of them; what is lacking counts as failed.

    A table that no part scanned is none of several: it is reported once.
    """
    scanned = [table for table in tables if table.depth]
    if not scanned:
        gravest = max(tables, key=lambda table: table.coverage.failed)
        return replace(gravest, part=None)
    missing = sum(each.digests for each in lacking)
    coverage = sum((table.coverage for table in tables), Coverage(planned=missing, failed=missing))
    return TableReport(
        keyspace=scanned[0].keyspace,
        table=scanned[0].table,
        depth=min((table.depth for table in scanned), key=_DEPTHS.index),
        route=_joined_words(table.route for table in scanned),
        locality=_joined_words(word for table in scanned for word in table.locality.split("+")),
        rows=sum(table.rows for table in scanned),
        divergent_rows=sum(table.divergent_rows for table in scanned),
        unsettled_rows=sum(table.unsettled_rows for table in scanned),
        seconds=max(table.seconds for table in scanned),
        coverage=coverage,
        unread=_unread(tables, lacking),
        strip=overlaid([*(table.strip for table in scanned), *map(_strip, lacking)]),
        blind=tuple(dict.fromkeys(sentence for table in scanned for sentence in table.blind)),
        note="; ".join(dict.fromkeys(table.note for table in tables if table.note)),
        ranges=sum(table.ranges for table in scanned) + sum(len(arc.ranges) for each in lacking for arc in each.arcs),
        ranges_read=sum(table.ranges_read for table in scanned),
        tracks=_tracks(scanned, lacking),
        alone=sum(table.alone for table in scanned),
        trees=joined([*(tree for table in scanned for tree in table.trees), *_unread_trees(lacking)]),
        counted=_counted(scanned),
        scheme=_joined_words(word for table in scanned for word in table.scheme.split("+")),
        held=_held(scanned) if coverage.complete else {},
    )


def _joined_words(words: Iterable[str]) -> str:
    return "+".join(sorted({word for word in words if word}))


def _unread(tables: Sequence[TableReport], lacking: Sequence[Lacking]) -> tuple[Unread, ...]:
    found: dict[tuple[str, str], list[TokenRange]] = defaultdict(list)
    for each in (unread for table in tables for unread in table.unread):
        found[each.replica, each.reason] += each.ranges
    for missing in lacking:
        for arc in missing.arcs:
            for node in arc.replicas:
                found[node.name, missing.why] += arc.ranges
    return tuple(Unread(name, merged(ranges), reason) for (name, reason), ranges in sorted(found.items()))


def _strip(lacking: Lacking) -> str:
    return _drawn(token_range for arc in lacking.arcs for token_range in arc.ranges)


def _drawn(ranges: Iterable[TokenRange]) -> str:
    cells = [" "] * STRIP_CELLS
    for token_range in ranges:
        fill(cells, token_range, "?")
    return "".join(cells)


def _tracks(tables: Sequence[TableReport], lacking: Sequence[Lacking]) -> dict[str, str]:
    strips: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        for name, strip in table.tracks.items():
            strips[name].append(strip)
    owned: dict[str, list[TokenRange]] = defaultdict(list)
    for missing in lacking:
        for arc in missing.arcs:
            for node in arc.replicas:
                owned[node.name] += arc.ranges
    for name, ranges in owned.items():
        strips[name].append(_drawn(ranges))
    return {name: overlaid(some) for name, some in strips.items()}


def _unread_trees(lacking: Sequence[Lacking]) -> list[TreeReport]:
    """Return trees of leaves that were not read: no tree with such a leaf has a root."""
    return [
        TreeReport(arc.replicas, "", tuple((owned, (None,) * len(arc.replicas)) for owned in arc.ranges), 0)
        for each in lacking
        for arc in each.arcs
    ]


def _counted(tables: Sequence[TableReport]) -> Counted:
    missing, stale, hosts = Counter[str](), Counter[str](), dict[str, str]()
    for name, view in ((name, view) for table in tables for name, view in table.counted.replicas.items()):
        missing[name] += view.missing
        stale[name] += view.stale
        hosts[name] = view.host_id
    lacks = {name: RangeView(missing[name], stale[name], host) for name, host in sorted(hosts.items())}
    counted = [table.counted for table in tables]
    return Counted(sum(each.rows for each in counted), sum(each.ranges for each in counted), lacks)


def _held(tables: Sequence[TableReport]) -> dict[str, int]:
    held: Counter[str] = Counter()
    for table in tables:
        held.update(table.held)
    return dict(held)
