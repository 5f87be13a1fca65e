"""When a watch visits which table: the least recently read one, with visits and slices spread over the period."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from consistency.model.schema import Table

SHORTEST_PAUSE_S = 1.0
AFTER_FAILURE_S = 60.0

Choose = Callable[[Sequence[Table], Mapping[str, float]], Table]
"""Chooses the next table to check, from the tables in scope and when each was last visited (seconds of the loop)."""


def least_recently_visited(tables: Sequence[Table], visited: Mapping[str, float]) -> Table:
    """Return the least recently visited table; unvisited tables come first, in the order of names."""
    return min(tables, key=lambda table: (visited.get(table.full_name, float("-inf")), table.full_name))


class Pacing:
    """The rounds of a watch: each table in scope is read once per round, a large one in several visits.

    Times are seconds of the loop. `choose` is given at every visit what earlier runs read, from the ledger.
    """

    def __init__(self, period_s: float, choose: Choose = least_recently_visited) -> None:
        self.rounds = 0
        self.began = 0.0
        """When the current round started, or the last one if none is running."""
        self._period_s = period_s
        self._pick = choose
        self._scope: tuple[Table, ...] = ()
        self._visited: dict[str, float] = {}
        self._done: set[str] = set()
        self._left: dict[str, int] = {}
        """How many visits a table still needs in this round."""
        self._slices: dict[str, int] = {}
        """How many visits a table needs in a round."""
        self._going = False

    def begin(self, now: float) -> None:
        """Start a visit, and a round if none is running."""
        if not self._going:
            self._going, self.began = True, now

    def choose(self, scope: tuple[Table, ...], read: Mapping[str, float]) -> Table | None:
        """Return the next table, or None if there is none; `read` says when earlier runs read each table.

        For a large table its least recently read range counts.
        """
        self._scope = scope
        names = {table.full_name for table in scope}
        for known in (self._visited, self._left, self._slices):
            for name in known.keys() - names:
                del known[name]
        self._done &= names
        times = {name: max(self._visited.get(name, -math.inf), read.get(name, -math.inf)) for name in names}
        return self._pick(scope, {name: at for name, at in times.items() if at > -math.inf}) if scope else None

    def guess(self) -> Table | None:
        """Return the table that was next, although the tables could not be read."""
        return self._pick(self._scope, self._visited) if self._scope else None

    def visited(self, full_name: str, now: float) -> bool:
        """Record that a table was visited, whatever the result; return whether that ended the round.

        A failed visit counts too, because otherwise a table that always fails would block the others.
        """
        self._visited[full_name] = now
        self._left.pop(full_name, None)
        return self._end(full_name)

    def sliced(self, full_name: str, *, slices: int, left: int) -> bool:
        """Record that a part of a table was read, with its visits per round and those left in this round."""
        self._visited.pop(full_name, None)  # from now on the ledger knows its least recently read range
        self._slices[full_name] = slices
        if left:
            self._left[full_name] = left
            return False
        self._left.pop(full_name, None)
        return self._end(full_name)

    def forget(self) -> None:
        """Forget all visits: nothing is known of them any more."""
        self._visited.clear()
        self._left.clear()

    def _end(self, full_name: str) -> bool:
        self._done.add(full_name)
        if not {table.full_name for table in self._scope} <= self._done:
            return False
        self.rounds += 1
        self._done.clear()
        self._left.clear()
        self._going = False
        return True

    def pause(self, began: float, now: float, *, known: bool) -> float:
        """Return how long to rest after a visit, so that the visits left are spread evenly over the rest of the period.

        After a failure it is at most a minute.
        """
        waiting = [t.full_name for t in self._scope if t.full_name not in self._done] if self._going else []
        left = sum(self._left.get(name, self._slices.get(name, 1)) for name in waiting)
        even = began + max(0.0, self.began + self._period_s - began) / (left + 1) - now
        return max(SHORTEST_PAUSE_S, even if known else min(even, AFTER_FAILURE_S))
