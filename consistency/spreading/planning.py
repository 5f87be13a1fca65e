"""A table's leaves in units of work: the leaves are those of a check by one process, so its trees are the same."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from consistency.checking.plan import Leaf, TablePlan, cut
from consistency.checking.scan import TableTask
from consistency.model.ring import Arc
from consistency.model.tokens import merged
from consistency.spreading.messages import Unit

MOST_LEAVES = 32
"""Of a unit: a worker that is lost loses no more than these."""
_FEWEST_LEAVES = 4
"""Of a unit of a table that has too few leaves to keep all workers busy: the next table does."""
_LEAVES_IF_ALL_ARE_LISTED = 2
"""So many may be full of rows that differ: what came of a unit is held in memory."""
_UNITS_EACH = 3
"""What is left for each worker makes so many units: the last ones are small, so no worker is left alone with much."""


def prints(tasks: Iterable[TableTask]) -> dict[str, str]:
    """Return a fingerprint of each table and of where it lies: whoever has the same one cuts it into the same leaves.

    Nodes that disagree on the ring for a moment, or are down, change what is read although the ring is the same.
    """
    places: dict[int, str] = {}
    found = {}
    for task in tasks:
        if id(task.arcs) not in places:  # tables of a keyspace share them
            places[id(task.arcs)] = _place(task)
        found[task.reading.table.full_name] = f"{task.reading.table.fingerprint} {places[id(task.arcs)]}"
    return found


def _place(task: TableTask) -> str:
    place = hashlib.sha256()
    for arc in task.arcs:
        place.update(" ".join(node.host_id for node in arc.replicas).encode())
        for owned in arc.ranges:
            place.update(f"\n{owned.start} {owned.end}".encode())
    return place.hexdigest()[:16]


@dataclass(frozen=True)
class CutTable:
    """A table, cut for an estimate of its rows."""

    task: TableTask
    rows: int
    leaf_rows: int

    @cached_property
    def plan(self) -> TablePlan:
        """All of its leaves."""
        return cut(self.task.reading.table, self.task.arcs, self.rows, leaf_rows=self.leaf_rows)

    @cached_property
    def _starts(self) -> list[int]:
        """How many leaves lie before each replica set's."""
        return list(itertools.accumulate((len(arc) for arc in self.plan.arcs), initial=0))

    def units(self, workers: int, first_number: int, max_findings: int | None) -> Iterator[Unit]:
        """Yield its units, the largest first: every leaf is in one of them. A table without a leaf is one unit."""
        leaves = len(self.plan.leaves)
        most = MOST_LEAVES if max_findings is not None else _LEAVES_IF_ALL_ARE_LISTED
        fewest = 1 if leaves >= _UNITS_EACH * workers else _FEWEST_LEAVES
        first = 0
        for number in itertools.count(first_number):
            size = min(most, max(fewest, (leaves - first) // (_UNITS_EACH * workers)))
            last = min(first + size, leaves)
            yield Unit(number, self.task.reading.table.full_name, self.rows, first, last, max_findings)
            first = last
            if first == leaves:
                break

    def leaves_of(self, unit: Unit) -> tuple[tuple[Leaf, ...], ...]:
        """Return a unit's leaves by replica set."""
        out: list[tuple[Leaf, ...]] = []
        number = max(0, bisect.bisect_right(self._starts, unit.first) - 1)
        while number < len(self.plan.arcs) and self._starts[number] < unit.last:
            at = self._starts[number]
            out.append(self.plan.arcs[number][max(0, unit.first - at) : unit.last - at])
            number += 1
        return tuple(arc for arc in out if arc)

    def arcs_of(self, unit: Unit) -> tuple[Arc, ...]:
        """Return where a unit's leaves lie."""
        return tuple(Arc(arc[0].replicas, merged(leaf.token_range for leaf in arc)) for arc in self.leaves_of(unit))

    def leaf_arcs_of(self, unit: Unit) -> tuple[Arc, ...]:
        """Return the same, leaf by leaf."""
        return tuple(Arc(arc[0].replicas, tuple(leaf.token_range for leaf in arc)) for arc in self.leaves_of(unit))

    def task_of(self, unit: Unit) -> TableTask:
        """Return the task of a unit; what is not compared belongs to the first one."""
        planned = replace(self.plan, arcs=self.leaves_of(unit))
        asides = self.task.asides if unit.first == 0 else ()
        return replace(self.task, arcs=self.arcs_of(unit), asides=asides, planned=planned)
