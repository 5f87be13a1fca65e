"""The rows that differ over time, in bounded memory: with every second point dropped, old times become coarser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MOST_POINTS = 240
WIDTH, HEIGHT = 240, 36
MOST_LINES = 8


@dataclass(frozen=True, slots=True)
class _Point:
    at_s: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One name over time: the points of a line and of the area under it in a box of `WIDTH` x `HEIGHT`."""

    name: str
    now: int
    highest: int
    points: str
    area: str


class Trend:
    """Counts by name at the times at which they were taken."""

    def __init__(self) -> None:
        self._points: list[_Point] = []

    def add(self, at_s: float, counts: Mapping[str, int]) -> None:
        """Take the counts of now."""
        self._points.append(_Point(at_s, {name: count for name, count in counts.items() if count}))
        if len(self._points) > MOST_POINTS:
            newest = self._points[-1]
            self._points = [*self._points[:-1:2], newest]

    @property
    def began_s(self) -> float | None:
        """When the first point was taken."""
        return self._points[0].at_s if self._points else None

    def lines(self, most: int = MOST_LINES) -> tuple[tuple[Line, ...], int]:
        """Return the names with the most rows, now and then at any time, and how many more there are."""
        highest: dict[str, int] = {}
        for point in self._points:
            for name, count in point.counts.items():
                highest[name] = max(highest.get(name, 0), count)
        latest = self._points[-1].counts if self._points else {}
        names = sorted(highest, key=lambda name: (-latest.get(name, 0), -highest[name], name))
        return tuple(self._line(name, highest[name]) for name in names[:most]), max(0, len(names) - most)

    def _line(self, name: str, highest: int) -> Line:
        first, last = self._points[0].at_s, self._points[-1].at_s
        width_s = max(last - first, 1e-9)
        steps: list[str] = []
        height = HEIGHT
        for point in self._points:
            x = WIDTH * (point.at_s - first) / width_s if len(self._points) > 1 else 0.0
            before, height = height, round(HEIGHT - (HEIGHT - 2) * point.counts.get(name, 0) / highest, 1)  # type: ignore[assignment]
            steps += [f"{x:.1f},{before}"] if steps and before != height else []
            steps.append(f"{x:.1f},{height}")
        steps.append(f"{WIDTH},{height}")
        area = " ".join((f"0,{HEIGHT}", *steps, f"{WIDTH},{HEIGHT}"))
        return Line(name, self._points[-1].counts.get(name, 0), highest, " ".join(steps), area)
