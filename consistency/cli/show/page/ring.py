"""The ring as a picture: one track per node, its ranges coloured by state, nodes of one data centre together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from consistency.cli.show.terminal import strip
from consistency.model.cqltext import visible
from consistency.results.figures import counted
from consistency.results.report import Report
from consistency.results.strip import overlaid

SIZE = 400
_CENTRE = SIZE / 2
_OUTER = 188.0
_INNER = 74.0
_WIDEST = 26.0
_DC_GAP = 9.0
_OPENING = math.radians(14)
"""The gap at the top for the tracks' numbers."""
MOST_TRACKS = 14

WORDS = {
    "=": "agreed",
    "x": "divergent",
    "?": "unread",
    " ": "elsewhere",
    "a": "ageing",
    ".": "unvisited",
    "d": "due",
}
"""The states of cells; the last three occur on the live page only."""
_GRAVER = ("elsewhere", "agreed", "ageing", "unvisited", "due", "unread", "divergent")


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a track in one state."""

    state: str
    path: str


@dataclass(frozen=True, slots=True)
class Track:
    """The circle of one node, or of several that are summed up, and the place of its number."""

    number: int
    name: str
    dc: str
    label_y: float
    font: float
    slices: tuple[Slice, ...]
    behind: int
    states: tuple[str, ...]

    @property
    def worst(self) -> str:
        """Its gravest state, as a word."""
        return max(self.states, key=_GRAVER.index)


def tracks(report: Report, behind: Mapping[str, int]) -> tuple[Track, ...]:
    """Return the tracks of a check's nodes from the outside in."""
    merged = {name: overlaid(t.tracks.get(name, "") for t in report.tables) for name in _names(report)}
    return draw_some(((name, report.places.get(name, ""), cells) for name, cells in merged.items()), behind)


def draw_some(found: Iterable[tuple[str, str, str]], behind: Mapping[str, int]) -> tuple[Track, ...]:
    """Return the tracks of `(name, data centre, cells)`; of many, those without problems share one per data centre."""
    drawn = sorted((item for item in found if item[2]), key=lambda item: (item[1], item[0]))
    return draw(_chosen(drawn, behind), behind)


def draw(chosen: Sequence[tuple[str, str, str]], behind: Mapping[str, int]) -> tuple[Track, ...]:
    """Return the tracks of `(name, data centre, cells)`, which are sorted by data centre."""
    if not chosen:
        return ()
    gaps = len({dc for _, dc, _ in chosen}) - 1
    pitch = min(_WIDEST, (_OUTER - _INNER - gaps * _DC_GAP) / len(chosen))
    out: list[Track] = []
    radius = _OUTER
    for number, (name, dc, cells) in enumerate(chosen, start=1):
        if out and out[-1].dc != visible(dc):
            radius -= _DC_GAP
        inner = radius - pitch * 0.82
        out.append(
            Track(
                number=number,
                name=visible(name),
                dc=visible(dc),
                label_y=round(_CENTRE - (radius + inner) / 2, 1),
                font=round(min(12.0, pitch * 0.62), 1),
                slices=tuple(_slices(cells, inner, radius)),
                behind=behind.get(name, 0),
                states=tuple(dict.fromkeys(WORDS.get(cell, "unread") for cell in cells)),
            )
        )
        radius -= pitch
    return tuple(out)


def _names(report: Report) -> Iterable[str]:
    return dict.fromkeys((*report.replicas, *(name for t in report.tables for name in t.tracks)))


def _chosen(drawn: Sequence[tuple[str, str, str]], behind: Mapping[str, int]) -> list[tuple[str, str, str]]:
    if len(drawn) <= MOST_TRACKS:
        return list(drawn)
    dcs = len({dc for _, dc, _ in drawn})
    troubled = [item for item in drawn if strip.has_problem(item[2])]
    troubled.sort(key=lambda item: (-behind.get(item[0], 0), item[0]))
    kept = troubled[: max(1, MOST_TRACKS - dcs)]
    out = list(kept)
    for dc, group in groupby(drawn, key=lambda item: item[1]):
        rest = [item for item in group if item not in kept]
        if rest:
            out.append((counted(len(rest), "more node"), dc, overlaid(cells for _, _, cells in rest)))
    return sorted(out, key=lambda item: item[1])


def _slices(cells: str, inner: float, outer: float) -> Iterable[Slice]:
    """Yield arcs of equal neighbours, the gravest last, so that their edges are on top."""
    step = (2 * math.pi - _OPENING) / len(cells)
    start = 0
    found: list[Slice] = []
    for mark, run in groupby(cells):
        length = len(list(run))
        begin = _OPENING / 2 + start * step
        path = _sector(begin, begin + length * step, inner, outer)
        found.append(Slice(WORDS.get(mark, "unread"), path))
        start += length
    return sorted(found, key=lambda piece: _GRAVER.index(piece.state))


def _sector(begin: float, end: float, inner: float, outer: float) -> str:
    large = int(end - begin > math.pi)
    a, b = _point(begin, outer), _point(end, outer)
    c, d = _point(end, inner), _point(begin, inner)
    return f"M{a}A{outer:.1f} {outer:.1f} 0 {large} 1 {b}L{c}A{inner:.1f} {inner:.1f} 0 {large} 0 {d}Z"


def _point(angle: float, radius: float) -> str:
    """Return a point clockwise from the top."""
    return f"{_CENTRE + radius * math.sin(angle):.2f} {_CENTRE - radius * math.cos(angle):.2f}"
