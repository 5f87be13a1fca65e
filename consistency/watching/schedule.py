"""When a watch visits what: the table read longest ago, evenly spread over the period, slices of large tables too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from consistency.model.schema import Table

SHORTEST_PAUSE_S = 1.0
AFTER_FAILURE_S = 60.0

Choose = Callable[[Sequence[Table], Mapping[str, float]], Table]
"""Says what to check next: of the tables in scope, knowing when each was last visited (seconds of the loop)."""


def least_recently_visited(tables: Sequence[Table], visited: Mapping[str, float]) -> Table:
    """Return the table whose visit is longest ago; one that never had any comes first, in the order of names."""
    return min(tables, key=lambda table: (visited.get(table.full_name, float("-inf")), table.full_name))


class Pacing:
    """The rounds of a watch: each table in scope is read once a round, a large one in several visits.

    Times are seconds of the loop. What earlier runs read is handed to `choose` at every visit: it is the ledger's.
    """

    def __init__(self, period_s: float, choose: Choose = least_recently_visited) -> None:
        self.rounds = 0
        self.began = 0.0
        """When the round under way began, or the last one where none is."""
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
        """Begin a visit, and a round where none is under way."""
        if not self._going:
            self._going, self.began = True, now

    def choose(self, scope: tuple[Table, ...], read: Mapping[str, float]) -> Table | None:
        """Return the table whose turn it is; `read` says when each was read by runs before; None where there is none.

        Of a large table it is the range read longest ago that counts.
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
        """Return whose turn it was where nobody could be asked what there is."""
        return self._pick(self._scope, self._visited) if self._scope else None

    def visited(self, full_name: str, now: float) -> bool:
        """Note that a table's turn is over, well or not; return whether that ended the round.

        A failed visit counts too, or a table that always fails would keep the others waiting.
        """
        self._visited[full_name] = now
        self._left.pop(full_name, None)
        return self._end(full_name)

    def sliced(self, full_name: str, *, slices: int, left: int) -> bool:
        """Note that a part of a table was read, which needs so many visits in all and so many more in this round."""
        self._visited.pop(full_name, None)  # from now on the ledger knows which of its ranges waits longest
        self._slices[full_name] = slices
        if left:
            self._left[full_name] = left
            return False
        self._left.pop(full_name, None)
        return self._end(full_name)

    def forget(self) -> None:
        """Forget what was visited: nothing is known of it any more."""
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
        """Return how long to rest after a visit, so that those left are spread evenly over what is left of the period.

        After a failure it is a minute at most.
        """
        waiting = [t.full_name for t in self._scope if t.full_name not in self._done] if self._going else []
        left = sum(self._left.get(name, self._slices.get(name, 1)) for name in waiting)
        even = began + max(0.0, self.began + self._period_s - began) / (left + 1) - now
        return max(SHORTEST_PAUSE_S, even if known else min(even, AFTER_FAILURE_S))
