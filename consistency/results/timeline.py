"""When differing rows were written and which replica is behind in them, counted in bounded memory.

Write times are counted in buckets of one width. The width starts at a second and doubles whenever there are too
many buckets, so 200,000 rows written over years need no more memory than those of one minute.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

MOST_ENTRIES = 40_000
"""The most entries (one per bucket and replica) that are kept; about 10 MB."""
_FIRST_WIDTH_US = 1_000_000

EVERY_ROW = ""
"""The name for counting each row once, however many replicas are behind."""


@dataclass(slots=True)
class Moment:
    """One replica's rows in one bucket: how many it should hold, in how many it is behind, and when."""

    rows: int = 0
    behind: int = 0
    first_us: int = 0
    last_us: int = 0

    def add(self, other: Moment) -> None:
        """Add another bucket's figures; the times are those of the rows in which the replica is behind."""
        self.rows += other.rows
        if other.behind:
            self.first_us = min(self.first_us, other.first_us) if self.behind else other.first_us
            self.last_us = max(self.last_us, other.last_us) if self.behind else other.last_us
            self.behind += other.behind


class Timeline:
    """Counts rows by write time and replica."""

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._most = most
        self._width_us = _FIRST_WIDTH_US
        self._entries: dict[tuple[str, int], Moment] = defaultdict(Moment)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, time_us: int, replicas: Iterable[str], behind: Collection[str]) -> None:
        """Count a row written at `time_us`: these replicas should hold it, and some are behind."""
        bucket = time_us // self._width_us
        self._count(EVERY_ROW, bucket, time_us)
        for name in replicas:
            if name in behind:
                self._count(name, bucket, time_us)
            else:
                self._entries[name, bucket].rows += 1
        while len(self._entries) > self._most and self._double():
            pass

    def _count(self, name: str, bucket: int, time_us: int) -> None:
        entry = self._entries[name, bucket]
        if not entry.behind:
            entry.first_us = entry.last_us = time_us
        elif time_us < entry.first_us:
            entry.first_us = time_us
        elif time_us > entry.last_us:
            entry.last_us = time_us
        entry.rows += 1
        entry.behind += 1

    def moments(self, replica: str) -> list[Moment]:
        """Return one replica's buckets in the order of time."""
        found = [(bucket, moment) for (name, bucket), moment in self._entries.items() if name == replica]
        return [moment for _, moment in sorted(found, key=lambda pair: pair[0])]

    def _double(self) -> bool:
        """Make buckets twice as wide; False if that cannot reduce them, because each replica has only one."""
        wider: dict[tuple[str, int], Moment] = defaultdict(Moment)
        self._width_us *= 2
        for (name, bucket), moment in self._entries.items():
            wider[name, bucket // 2].add(moment)
        self._entries = wider
        return len({bucket for _, bucket in wider}) > 2


def runs(moments: Sequence[Moment], gap_us: int) -> list[Moment]:
    """Join the buckets in which a replica is behind to runs; a run ends when it is not behind for `gap_us`."""
    out: list[Moment] = []
    between = 0
    for moment in moments:
        if not moment.behind:
            between += moment.rows
            continue
        if out and moment.first_us - out[-1].last_us <= gap_us:
            out[-1].rows += between
        else:
            out.append(Moment())
        out[-1].add(moment)
        between = 0
    return out
