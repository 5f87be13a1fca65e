"""A worker's duty: to read units of leaves, each to its end, with its descent, its settling and its findings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from consistency.checking.leaves import LeafResult
from consistency.checking.observer import SilentPair
from consistency.checking.scan import TableTask
from consistency.cluster.locality import TracesLeft
from consistency.cluster.port import Clock
from consistency.results.findings import Finding, Line
from consistency.results.range_findings import RangeFinding
from consistency.spreading.messages import Unit, UnitRead
from consistency.spreading.planning import CutTable
from consistency.spreading.port import Told

_TELL_EVERY_S = 0.2


class Source(Protocol):
    """What units are read of, be it one cluster or two: prepared as the driver has prepared it."""

    @property
    def clock(self) -> Clock:
        """The servers' time."""

    @property
    def tasks(self) -> Sequence[TableTask]:
        """The tables."""

    @property
    def leaf_rows(self) -> int:
        """The most rows that a leaf should have."""

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers so far."""

    async def read(self, unit: Unit, task: TableTask, telling: Telling, stop: asyncio.Event) -> UnitRead:
        """Read the leaves of a unit; what could not be read of it is in its account, not raised."""


class UnitReader:
    """Reads units of one order, several at once if it is asked to."""

    def __init__(self, source: Source, told: Told) -> None:
        self._source = source
        self._told = told
        self._tasks = {task.reading.table.full_name: task for task in source.tasks}
        self._cut: CutTable | None = None
        self._traces = TracesLeft()
        self.stop = asyncio.Event()
        """Ends the units that are under way early."""

    async def read(self, unit: str) -> str:
        """Read a unit; what could not be read of it is in its account, not raised."""
        asked = Unit.from_text(unit)
        telling = Telling(asked, self._told, self._source.clock)
        came = await self._source.read(asked, self._cut_for(asked).task_of(asked), telling, self.stop)
        telling.tell()
        return replace(came, traces=self._new_traces()).as_text()

    def _cut_for(self, unit: Unit) -> CutTable:
        known = self._cut
        if known is None or known.task.reading.table.full_name != unit.table or known.rows != unit.rows:
            known = CutTable(self._tasks[unit.table], unit.rows, self._source.leaf_rows)
            self._cut = known
        return known

    def _new_traces(self) -> TracesLeft:
        """Return what proofs by trace have left on the servers since this was last told."""
        before, self._traces = self._traces, self._source.traces
        return self._traces - before


class Telling(SilentPair):
    """Keeps the findings of a unit as lines, and tells how far it is."""

    def __init__(self, unit: Unit, told: Told, clock: Clock) -> None:
        self._unit = unit
        self._told = told
        self._clock = clock
        self._leaves: list[list[object]] = []
        self._settling = 0
        self._next_s = 0.0
        self.findings: list[str] = []

    def leaf_digested(self, result: LeafResult) -> None:
        """Note a leaf: the rows that each replica holds of it, None of one that failed."""
        held = [result.digests[n].rows if n in result.digests else None for n in result.leaf.replicas]
        self._leaves.append([result.leaf.token_range.start, result.leaf.token_range.end, *held])
        self._tell_in_time()

    def settling(self, waiting: int) -> None:
        """Note how many rows wait."""
        self._settling = waiting
        self._tell_in_time()

    def found(self, finding: Finding) -> None:
        """Keep a row."""
        self.keep(finding)

    def found_range(self, finding: RangeFinding) -> None:
        """Keep the rows of a range."""
        self.keep(finding)

    def keep(self, found: Line) -> None:
        """Keep what was found as a line."""
        self.findings.append(json.dumps(found.as_json(), separators=(",", ":")))

    def _tell_in_time(self) -> None:
        if self._clock.monotonic() >= self._next_s:
            self.tell()

    def tell(self) -> None:
        """Tell how far it is."""
        self._next_s = self._clock.monotonic() + _TELL_EVERY_S
        leaves, self._leaves = self._leaves, []
        self._told({"unit": self._unit.number, "leaves": leaves, "settling": self._settling})
