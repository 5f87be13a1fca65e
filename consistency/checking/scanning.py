"""The scans of a check: table after table, or the oldest ranges first, while what differs settles beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from consistency.checking.changes import Changing
from consistency.checking.non_owners import NonOwnerScan
from consistency.checking.observer import Observer
from consistency.checking.oldest_first import scan_slice
from consistency.checking.preparing import Prepared
from consistency.checking.range_settling import RangeSettling
from consistency.checking.sampling import scan_sample
from consistency.checking.scan import Scan, TableTask
from consistency.checking.scans import Scans
from consistency.checking.settle import Settling
from consistency.cluster.port import Clock, ReplicaReader
from consistency.cluster.table_reader import TableReader
from consistency.ledger.port import Recorder
from consistency.results.findings import Finding

_MOST_BESIDE = 100_000
"""Rows of other tables that may wait to be counted when a table is begun: they lie in memory."""


async def _drop(found: Finding, read_at: float) -> None:
    """Take nothing: no row of a node that does not own it was asked for."""


@dataclass(frozen=True)
class Judges:
    """Who takes what a scan comes upon: single rows, the ranges of a table, and rows on nodes that do not own them."""

    settler: Settling
    ranges: Callable[[TableReader], RangeSettling]
    take_non_owner: Callable[[Finding, float], Awaitable[None]] = _drop


class Scanning:
    """Runs the scans of one check to their end; what was begun is in `scans` at any moment."""

    def __init__(
        self,
        reader: ReplicaReader,
        clock: Clock,
        prepared: Prepared,
        scans: Scans,
        judges: Judges,
        observer: Observer,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._prepared = prepared
        self._options = prepared.options
        self._scans = scans
        self._judges = judges
        self._settler = judges.settler
        self._observer = observer

    async def run(self, changes: Changing, recorder: Recorder | None) -> None:
        """Scan every table, settling suspects meanwhile; what changed under the scans is taken back."""
        self._observer.scan_started(len(self._prepared.tasks))
        scanning = asyncio.create_task(self._scan_all(recorder))
        settling = asyncio.create_task(self._settler.run())
        try:
            # A settler that failed takes no more suspects: the scan would wait for it for ever.
            await asyncio.wait({scanning, settling}, return_when=asyncio.FIRST_COMPLETED)
            if scanning.done():
                scanning.result()
            while not settling.done():
                self._observer.settling(self._settler.waiting)
                await asyncio.wait({settling}, timeout=0.2)
            settling.result()
            if not self._prepared.piece:
                await self._scans.look_back(changes)
        finally:
            scanning.cancel()
            settling.cancel()
            await asyncio.gather(scanning, settling, return_exceptions=True)

    async def _scan_all(self, recorder: Recorder | None) -> None:
        tasks = self._prepared.tasks
        if self._options.sample is not None:
            sampled = [self._begin(task) for task in tasks]
            await scan_sample(sampled, self._options.sample, self._clock, self._prepared.started)
        elif self._options.run_time_s is None:
            await self._one_after_another(tasks)
        else:
            deadline = self._prepared.started + self._options.run_time_s
            await scan_slice([self._begin(task) for task in tasks], recorder, self._clock, deadline)
        await self._settler.finish()

    async def _one_after_another(self, tasks: Iterable[TableTask]) -> None:
        """Scan the tables in turn; the next is begun while rows of the others are counted, whose windows pass so."""
        running: dict[asyncio.Task[None], Scan] = {}
        try:
            for task in tasks:
                while running and sum(scan.ranges.waiting for scan in running.values()) > _MOST_BESIDE:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    _take_ended(running)
                scan = self._begin(task)
                run, read = asyncio.create_task(self._scan(scan)), asyncio.create_task(scan.was_read.wait())
                running[run] = scan
                try:
                    await asyncio.wait({run, read}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    read.cancel()
                _take_ended(running)
            await asyncio.gather(*running)
        finally:
            for run in running:
                run.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, task: TableTask) -> Scan:
        table = TableReader(self._reader, task.reading, task.route, self._clock)
        options, ranges = self._options, self._judges.ranges(table)
        sampled = options.sample is not None
        scan = Scan(task, table, self._settler, ranges, options.scan, self._observer, sampled, options.part)
        return self._scans.enter(scan)

    async def _scan(self, scan: Scan) -> None:
        await scan.run()
        if self._options.non_owners:
            # The arcs name the owners of one DC alone where a DC was named; elsewhere nobody could be judged.
            nodes = [n for n in self._prepared.ring.nodes if self._options.dc in (None, n.dc)]
            await NonOwnerScan(nodes, self._judges.take_non_owner).run(scan)


def _take_ended(running: dict[asyncio.Task[None], Scan]) -> None:
    """Forget the scans that have ended; raises what ended one of them."""
    for run in [run for run in running if run.done()]:
        del running[run]
        run.result()
