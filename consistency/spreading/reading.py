"""A worker's duty: to read units of a check, each to its end, with its descent, its settling and its findings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from consistency.checking.leaves import LeafResult
from consistency.checking.observer import Silent
from consistency.checking.preparing import Prepared, prepare
from consistency.checking.run import run_prepared
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.request_counts import RequestCounts
from consistency.cluster.settings import load_settings
from consistency.ledger.part_account import PartAccount
from consistency.ledger.parts import PartRecorder
from consistency.ledger.table_account import read_json, table_json
from consistency.model.part import Part
from consistency.results.findings import Finding
from consistency.results.range_findings import RangeFinding
from consistency.spreading.messages import Order, Unit, UnitRead
from consistency.spreading.planning import CutTable
from consistency.spreading.port import Told, UnitFailed

_TELL_EVERY_S = 0.2


class UnitReader:
    """Reads units of one order, several at once if it is asked to."""

    def __init__(self, reader: ClusterReader, clock: Clock, prepared: Prepared, told: Told) -> None:
        self._reader = reader
        self._clock = clock
        self._prepared = prepared
        self._told = told
        self._tasks = {task.reading.table.full_name: task for task in prepared.tasks}
        self._cut: CutTable | None = None
        self._traces = (0, 0)
        self.stop = asyncio.Event()
        """Ends the units that are under way early."""

    @classmethod
    async def prepared(cls, reader: ClusterReader, clock: Clock, order: Order, told: Told) -> UnitReader:
        """Prepare the check of an order; UnitFailed if ring or schema are not those that the driver has seen."""
        prepared = await prepare(reader, clock, replace(order.options, run_id=order.run_id))
        seen = {task.reading.table.full_name: task.reading.table.fingerprint for task in prepared.tasks}
        if prepared.ring.fingerprint != order.ring:
            raise UnitFailed("a worker sees another ring than the driver; run the check again")
        if unlike := [name for name, known in order.tables.items() if seen.get(name) != known]:
            msg = f"a worker does not see {unlike[0]} as the driver does; run the check again"
            raise UnitFailed(msg)
        return cls(reader, clock, prepared, told)

    async def read(self, unit: Unit) -> UnitRead:
        """Read a unit; what could not be read of it is in its account, not raised."""
        task = self._cut_for(unit).task_of(unit)
        table = task.reading.table
        options = self._prepared.options
        prepared = replace(
            self._prepared,
            options=replace(options, scan=replace(options.scan, max_findings=unit.max_findings)),
            started_us=self._clock.now_us(),
            started=self._clock.monotonic(),
            tasks=(task,),
            refused=(),
            scope=replace(self._prepared.scope, tables=(table,), keyspaces=(), not_checked={}, unreadable={}),
            piece=True,
        )
        kept: list[PartAccount] = []
        taking = _Taking(unit, self._told, self._clock)

        def keep(account: PartAccount) -> str:
            kept.append(account)
            return ""

        recorder = PartRecorder(Part(1, 1), "", {}, keep)
        report = await run_prepared(self._reader, self._clock, prepared, taking, self.stop, recorder)
        taking.tell()
        return UnitRead(
            unit.number,
            table_json(report.tables[0]),
            tuple(read_json(read) for account in kept for read in account.reads),
            tuple(taking.findings),
            tuple(report.replicas),
            report.notes,
            self._new_traces(),
            report.interrupted,
        )

    def _cut_for(self, unit: Unit) -> CutTable:
        known = self._cut
        if known is None or known.task.reading.table.full_name != unit.table or known.rows != unit.rows:
            known = CutTable(self._tasks[unit.table], unit.rows, self._prepared.options.scan.leaf_rows)
            self._cut = known
        return known

    def _new_traces(self) -> tuple[int, int]:
        """Return what proofs by trace have left on the servers since this was last told."""
        sessions, with_keys = self._traces
        now = self._reader.traces
        self._traces = (now.sessions, now.with_keys)
        return now.sessions - sessions, now.with_keys - with_keys


class _Taking(Silent):
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
        self.findings.append(json.dumps(finding.as_json(), separators=(",", ":")))

    def found_range(self, finding: RangeFinding) -> None:
        """Keep the rows of a range."""
        self.findings.append(json.dumps(finding.as_json(), separators=(",", ":")))

    def _tell_in_time(self) -> None:
        if self._clock.monotonic() >= self._next_s:
            self.tell()

    def tell(self) -> None:
        """Tell how far it is."""
        self._next_s = self._clock.monotonic() + _TELL_EVERY_S
        leaves, self._leaves = self._leaves, []
        self._told({"unit": self._unit.number, "leaves": leaves, "settling": self._settling})


@asynccontextmanager
async def opened(order: Order, number: int, told: Told, counts: RequestCounts) -> AsyncGenerator[UnitReader, None]:
    """Connect as an order and this machine's own environment and files say, as worker `number`; yield the reader."""
    from consistency.cluster.session import open_cluster  # noqa: PLC0415 - loads the driver

    settings = load_settings(order.given)
    async with open_cluster(settings, order.limits(number), locality=order.locality) as (reader, clock):
        reader.access.connection.counts = counts
        yield await UnitReader.prepared(reader, clock, order, told)
