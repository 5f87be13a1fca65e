"""How recent one replica's cell is compared with the others, by a finding's write times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from consistency.results.findings import Finding, ReplicaView, State, WriteTime


class Recency(str, Enum):
    """For a column that differs: newest, older (or absent), or written at the same time; PLAIN for any other column.

    PLAIN also where no write time is told: of a counter, and before 5.0 of a collection.
    """

    NEWEST = "a"
    OLDER = "b"
    SAME_TIME = "t"
    PLAIN = ""

    @property
    def word(self) -> str:
        """The word for people."""
        return {"a": "newest", "b": "older", "t": "same time, differs", "": ""}[self.value]


def recencies(finding: Finding, view: ReplicaView) -> Iterator[tuple[str, WriteTime, Recency]]:
    """Yield each column that a replica's copy has or lacks, differing ones first; nothing without a copy."""
    if view.state in (State.MISSING, State.UNREADABLE):
        return
    held = [v for v in finding.replicas.values() if v.state in (State.CURRENT, State.STALE)]
    for column in dict.fromkeys((*finding.columns, *view.writetimes)):
        mine = view.writetimes.get(column)
        yield column, mine, _recency(finding, column, mine, [v.writetimes.get(column) for v in held])


def _recency(finding: Finding, column: str, mine: WriteTime, all_times: Sequence[WriteTime]) -> Recency:
    """Compare a cell; equal write times mean something only if no replica lacks the row."""
    if column not in finding.columns:
        return Recency.PLAIN
    if any(times != mine for times in all_times):
        best = max(all_times, key=lambda times: (newest_time(times) or 0, str(times)))
        return Recency.NEWEST if mine == best else Recency.OLDER
    missing = any(view.state is State.MISSING for view in finding.replicas.values())
    return Recency.PLAIN if missing or mine is None or len(all_times) < 2 else Recency.SAME_TIME


def newest_of(finding: Finding) -> int | None:
    """Return the newest write time of the columns that differ (of all if none is named), or None if none is known."""
    times = (
        newest_time(each)
        for view in finding.replicas.values()
        for name, each in view.writetimes.items()
        if not finding.columns or name in finding.columns
    )
    return max((time for time in times if time is not None), default=None)


def newest_time(times: WriteTime) -> int | None:
    """Return the newest of a cell's write times."""
    if isinstance(times, list):
        return max((t for t in times if t is not None), default=None)
    return times
