"""One check from connection to report: prepare, scan while rows settle, report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

from consistency.checking.changes import Changes
from consistency.checking.listeners import Listeners
from consistency.checking.observer import Observer, Silent
from consistency.checking.preparing import Prepared, prepare
from consistency.checking.range_settling import RangeSettler
from consistency.checking.reporting import Ended
from consistency.checking.scanning import Judges, Scanning
from consistency.checking.scans import Scans
from consistency.checking.settle import Settler
from consistency.checking.settlements import Settlements
from consistency.checking.tasks import CheckOptions
from consistency.cluster.port import Clock, ClusterReader
from consistency.ledger.port import Recorder
from consistency.results.findings import FindingsWriter
from consistency.results.report import Report

LAST_LOOK_S = 10.0
"""How long an interrupted run waits for the ring and the schema."""


async def plenty() -> None:
    """Take findings as they come."""


async def run_check(
    reader: ClusterReader,
    clock: Clock,
    options: CheckOptions,
    observer: Observer | None = None,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    room: Callable[[], Awaitable[None]] = plenty,
) -> Report:
    """Check the tables in scope and return the report; setting `stop` ends early with a true partial one.

    UsageError if a name does not exist; nothing else that concerns a single table or replica is raised.
    `recorder` writes down for later runs what was read and found. `room` is awaited after each finding:
    it returns when whoever takes them has room for more.
    """
    prepared = await prepare(reader, clock, options)
    return await run_prepared(reader, clock, prepared, observer, stop, recorder, room)


async def run_prepared(
    reader: ClusterReader,
    clock: Clock,
    prepared: Prepared,
    observer: Observer | None = None,
    stop: asyncio.Event | None = None,
    recorder: Recorder | None = None,
    room: Callable[[], Awaitable[None]] = plenty,
) -> Report:
    """Check what was prepared, as `run_check` does."""
    watching, options = observer or Silent(), prepared.options
    with FindingsWriter(options.findings, prepared.header) as writer:
        if recorder is not None:
            recorder.begin(prepared.facts)
        scans = Scans()
        changes = Changes(reader, clock, prepared.snapshot)
        listeners = Listeners(recorder, watching, () if prepared.piece else prepared.ring.tokens)
        settlements = Settlements(scans, changes, listeners, writer, options.scan.max_skew_s, room)
        settler = Settler(reader, clock, settlements.take, prepared.window_s)
        ranges = partial(RangeSettler, window_s=settler.window_s, sink=settlements.take_range)
        judges = Judges(settler, ranges, settlements.take_non_owner)
        scanning = Scanning(reader, clock, prepared, scans, judges, watching)
        interrupted = await interruptible(scanning.run(changes, recorder), stop)
    if interrupted and recorder is not None and not prepared.piece:
        # What was read before the interrupt counts later only if nothing changed under it.
        await scans.look_back(changes, LAST_LOOK_S)
    ended = Ended(prepared, scans, settlements, settler, interrupted)
    report = ended.report(writer, recorder, reader.traces, clock.monotonic() - prepared.started)
    for table in report.tables:
        watching.table_done(table)
    if recorder is not None:
        ended.record(recorder, report)
    return report


async def interruptible(work: Coroutine[None, None, None], stop: asyncio.Event | None) -> bool:
    """Run `work` until it is done or `stop` is set; return whether it was stopped."""
    task = asyncio.ensure_future(work)
    if stop is None:
        await task
        return False
    waiter = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return False
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return True
    finally:
        waiter.cancel()
        task.cancel()
