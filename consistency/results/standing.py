"""How one replica's cell stands to the others', as far as a finding's write times tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from consistency.results.findings import Finding, ReplicaView, State, WriteTime


class Standing(str, Enum):
    """Of a column that differs: newest, older (or absent), or written at the same time; of any other: nothing."""

    NEWEST = "a"
    OLDER = "b"
    SAME_TIME = "t"
    PLAIN = ""

    @property
    def word(self) -> str:
        """What people read."""
        return {"a": "newest", "b": "older", "t": "same time, differs", "": ""}[self.value]


def standings(finding: Finding, view: ReplicaView) -> Iterator[tuple[str, WriteTime, Standing]]:
    """Yield each column that a replica's copy has or lacks, those that differ first; none where there is no copy."""
    if view.state in (State.MISSING, State.UNREADABLE):
        return
    held = [v for v in finding.replicas.values() if v.state in (State.CURRENT, State.STALE)]
    for column in dict.fromkeys((*finding.columns, *view.writetimes)):
        mine = view.writetimes.get(column)
        yield column, mine, _standing(finding, column, mine, [v.writetimes.get(column) for v in held])


def _standing(finding: Finding, column: str, mine: WriteTime, all_times: Sequence[WriteTime]) -> Standing:
    """Compare a cell; equal write times tell something only where no replica lacks the row."""
    if column not in finding.columns:
        return Standing.PLAIN
    if any(times != mine for times in all_times):
        best = max(all_times, key=lambda times: (newest_time(times) or 0, str(times)))
        return Standing.NEWEST if mine == best else Standing.OLDER
    missing = any(view.state is State.MISSING for view in finding.replicas.values())
    return Standing.PLAIN if missing or len(all_times) < 2 else Standing.SAME_TIME


def newest_time(times: WriteTime) -> int | None:
    """Return the newest of a cell's write times."""
    if isinstance(times, list):
        return max((t for t in times if t is not None), default=None)
    return times
