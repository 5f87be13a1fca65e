"""A bar chart as SVG: groups of horizontal bars, each with its figure, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

_COLOURS = ("#2f7ed8", "#e07b39", "#4ea75a", "#8b62b5")
_WIDTH, _LABELS, _BAR, _GAP = 860, 300, 16, 14


def bars(path: Path, title: str, unit: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Draw one bar per series in each group; every series has a value for every group."""
    most = max(value for values in series.values() for value in values) or 1.0
    room = _WIDTH - _LABELS - 70
    parts: list[str] = []
    top = 40
    for i, name in enumerate(series):
        parts.append(f'<rect x="{16 + 300 * i}" y="{top}" width="12" height="12" fill="{_COLOURS[i]}"/>')
        parts.append(_text(34 + 300 * i, top + 11, name))
    top += 32
    for g, group in enumerate(groups):
        parts.append(_text(_LABELS - 10, top + len(series) * _BAR / 2 + 5, group, anchor="end"))
        for i, values in enumerate(series.values()):
            wide = room * values[g] / most
            y = top + i * _BAR
            parts.append(f'<rect x="{_LABELS}" y="{y}" width="{wide:.1f}" height="{_BAR - 3}" fill="{_COLOURS[i]}"/>')
            parts.append(_text(_LABELS + wide + 6, y + 11, f"{values[g]:.2f}"))
        top += len(series) * _BAR + _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'font-family="sans-serif" font-size="12" fill="#808080" role="img" aria-label="{escape(title)}">'
    )
    heading = f'<text x="16" y="22" font-size="15">{escape(title)}, {escape(unit)}</text>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, heading, *parts, "</svg>"]) + "\n", encoding="utf-8")


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
