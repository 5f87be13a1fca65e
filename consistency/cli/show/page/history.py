"""When the differing rows were written, as bars: an outage is a hill, a wrong clock is a single bar far away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from consistency.cli.show.page.collect import Numbered
from consistency.results.figures import moment
from consistency.results.recency import newest_of

BARS = 60
FEWEST_ROWS = 20
_DRAWN = 0.9
"""The part of the rows that is drawn, over the shortest time that holds it, so that one wrong clock cannot squeeze
the others."""
_STRETCHED = 2
"""All rows are drawn if they take at most this many times as long as that part, or at most a minute."""
_PEAK = 0.5
"""If one bar and its neighbours hold more than this part, they are drawn again in detail."""
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class History:
    """Rows by write time: bars of equal width between two moments, and how many rows are not drawn."""

    title: str
    bars: tuple[int, ...]
    first: str
    last: str
    outside: int
    undated: int

    @property
    def highest(self) -> int:
        """The rows of the highest bar."""
        return max(self.bars)


def histories(rows: Sequence[Numbered]) -> tuple[History, ...]:
    """Return the bars of these rows and, if one towers over all, its detail; nothing for few rows."""
    times = sorted(time for row in rows if (time := newest_of(row.finding)) is not None)
    if len(times) < FEWEST_ROWS:
        return ()
    count = math.ceil(_DRAWN * len(times))
    start = min(range(len(times) - count + 1), key=lambda i: times[i + count - 1] - times[i])
    undated = len(rows) - len(times)
    inside = times[start : start + count]
    if times[-1] - times[0] <= max(_STRETCHED * (inside[-1] - inside[0]), BARS * _SECOND_US):
        inside = times
    out = [_bars("When the differing rows were written", inside, len(times) - len(inside), undated)]
    closer = inside
    while len(peak := _around_the_highest(closer)) > _PEAK * len(closer) and closer[-1] - closer[0] > BARS * _SECOND_US:
        closer = peak
    if closer is not inside:
        out.append(_bars("Around the highest bar, in detail", closer, 0, 0))
    return tuple(out)


def _width(times: Sequence[int]) -> int:
    return max(1, -(-(times[-1] - times[0] + 1) // BARS))


def _around_the_highest(times: Sequence[int]) -> list[int]:
    """Return the times in the highest bar and its neighbours, because a hill may lie on the edge of two."""
    width = _width(times)
    bars: list[list[int]] = [[] for _ in range(BARS)]
    for time in times:
        bars[(time - times[0]) // width].append(time)
    top = max(range(BARS), key=lambda i: len(bars[i]))
    return [time for bar in bars[max(0, top - 1) : top + 2] for time in bar]


def _bars(title: str, times: Sequence[int], outside: int, undated: int) -> History:
    width = _width(times)
    bars = [0] * BARS
    for time in times:
        bars[(time - times[0]) // width] += 1
    return History(title, tuple(bars), moment(times[0]), moment(times[-1]), outside, undated)
