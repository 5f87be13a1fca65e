"""The library's plain functions: plan, apply, resume; and what they and the commands run over a connection.

from repair import plan, apply
made = plan("findings.jsonl", hosts="10.0.0.1")
outcome = apply(made.only(lambda row: row.rule is Rule.LAST_WRITE), "journal.jsonl", hosts="10.0.0.1")
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from consistency.api import connection_settings
from consistency.background import run, run_until
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.request_counts import RequestCounts
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import ConnectionSettings, GivenOptions
from consistency.ledger.lock import one_run
from consistency.model.reading import Locality
from consistency.model.ring import Ring
from consistency.results.findings import read_header
from consistency.spreading.messages import Terms
from consistency.spreading.port import Workers
from repair.applying.actions import Actor
from repair.applying.applier import Applier
from repair.applying.guard import NO_UNDO, Guard
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Pace
from repair.deciding.case import CaseReader
from repair.keeping.journal import Journal
from repair.keeping.planfile import Plan
from repair.keeping.record import Record, read_journal
from repair.planning.planner import PlanOptions, make_plan, require_same_cluster
from repair.planning.spread import Shared
from repair.undoing.undo import Undoer
from repair.writing.writer import CqlWriter, RowWriter

Gather = Callable[[Collection[str], Callable[[RequestCounts], None]], Awaitable[Workers]]
"""Returns workers that are not started yet, given the host ids of the nodes and what is to count our requests."""
OpenJournal = Callable[[], tuple[Journal, Record]]
"""Opens a journal, with what it knows already."""


async def run_plan(
    settings: ConnectionSettings,
    findings: Path,
    options: PlanOptions,
    progress: Callable[[int, int], None] | None = None,
    *,
    locality: Locality | None = None,
    gather: Gather | None = None,
    given: GivenOptions | None = None,
) -> Plan:
    """Connect, read evidence, decide; `locality` forces how replicas are read.

    `gather` returns workers that read and decide the rows; they connect as the options `given` say.
    """
    async with open_cluster(settings, locality=locality) as (reader, clock):
        if gather is None:
            return await make_plan(reader, clock, findings, options, progress)
        workers = await gather((await reader.ring()).host_ids, reader.count_with)
        shared = Shared(reader, clock, workers, Terms(locality=locality, given=given or GivenOptions()))
        return await make_plan(reader, clock, findings, options, progress, shared)


async def run_ring(settings: ConnectionSettings, findings: Path) -> Ring:
    """Connect, and return the ring that a findings file is of; UsageError where there is another by now."""
    async with open_cluster(settings) as (reader, _):
        ring = await reader.ring()
        require_same_cluster(read_header(findings), ring, findings)
        return ring


async def run_apply(
    settings: ConnectionSettings,
    plan: Plan,
    open_journal: OpenJournal,
    options: ApplyOptions | None = None,
    *,
    stop: asyncio.Event | None = None,
    progress: Callable[[Tally], None] | None = None,
    locality: Locality | None = None,
) -> Tally:
    """Connect, guard, then act on every row that has no outcome in the journal yet."""
    async with open_cluster(settings, locality=locality) as (reader, clock):
        until, told = stop or asyncio.Event(), progress or (lambda _: None)
        return await apply_with(reader, clock, plan, open_journal, options or ApplyOptions(), until, told)


async def apply_with(
    reader: CqlReader,
    clock: Clock,
    plan: Plan,
    open_journal: OpenJournal,
    options: ApplyOptions,
    stop: asyncio.Event,
    progress: Callable[[Tally], None],
) -> Tally:
    """Apply over a connection that is open already."""
    writer = CqlWriter(reader.access)
    with one_run(await reader.ring(), kind="repair"):
        await Guard(plan, reader, writer, clock).check()  # refuse before a journal is begun
        journal, known = open_journal()
        try:
            applier = await _applier(plan, reader, writer, clock, journal)
            return await applier.run(known, options, stop, progress)
        finally:
            journal.close()


async def _applier(plan: Plan, reader: ClusterReader, writer: RowWriter, clock: Clock, journal: Journal) -> Applier:
    evidence = await CaseReader.open(reader, clock)
    return Applier(plan, evidence, Actor(reader, writer), Guard(plan, reader, writer, clock), clock, journal)


async def run_undo(
    settings: ConnectionSettings,
    path: Path,
    options: ApplyOptions | None = None,
    *,
    stop: asyncio.Event | None = None,
    progress: Callable[[Tally], None] | None = None,
) -> Tally:
    """Connect, guard, then take back what a journal says was done, row by row."""
    async with open_cluster(settings) as (reader, clock):
        with one_run(await reader.ring(), kind="repair"):
            return await _undo(reader, clock, path, options or ApplyOptions(), stop, progress)


async def _undo(
    reader: CqlReader,
    clock: Clock,
    path: Path,
    options: ApplyOptions,
    stop: asyncio.Event | None,
    progress: Callable[[Tally], None] | None,
) -> Tally:
    writer = CqlWriter(reader.access)
    journal, record = Journal.reopen(path, "undo")
    try:
        guard = Guard(record.plan, reader, writer, clock, NO_UNDO)
        undoer = Undoer(await CaseReader.open(reader, clock), writer, guard, clock)
        pace = Pace(clock, options.rate)
        return await undoer.run(record, journal, pace, stop or asyncio.Event(), progress or (lambda _: None))
    finally:
        journal.close()


def begin(path: Path, plan: Plan) -> OpenJournal:
    """Return what opens a new journal."""
    return lambda: (Journal.create(path, plan), Record(plan))


def go_on(path: Path) -> OpenJournal:
    """Return what opens a journal that was begun before."""
    return lambda: Journal.reopen(path)


def plan(
    findings: str | Path,
    *,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: PlanOptions | None = None,
    locality: Locality | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Plan the repair of a findings file; nothing is written to the cluster.

    Reads every row of the file anew on all its replicas and decides it by the rules of docs/repair.md. How to connect
    is told as to `check`. `progress` is called with the rows decided and all rows. `write_plan` keeps the plan in a
    file for `repair show` and `repair apply`.

    Raises a ConsistencyError: UsageError if the file is none of this cluster or the ring has changed since.
    """
    chosen = options or PlanOptions()
    target = connection_settings(settings, hosts)
    return run(
        lambda: run_plan(target, Path(findings), chosen, progress, locality=locality),
        "await asyncio.to_thread(plan, ...)",
    )


def apply(
    plan: Plan,
    journal: str | Path,
    *,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: ApplyOptions | None = None,
    locality: Locality | None = None,
    progress: Callable[[Tally], None] | None = None,
    cancel: threading.Event | None = None,
) -> Tally:
    """Apply a plan, which may have been filtered with `plan.only(...)`; the journal must be a new file.

    Writes to the cluster. Each row is read again, acted on only if it is as planned, then verified on every
    replica; the journal holds all copies from before, values too, mode 0600. `progress` is called with the Tally so far
    on this thread. Setting `cancel` from another one ends it between rows: the Tally says `interrupted`, and
    `resume` goes on.

    Raises a ConsistencyError: UsageError for a journal that exists, PlanRefused if cluster, ring, schema or
    permissions do not fit the plan, LockedError if another repair is under way. What became of a row is in the
    Tally, not raised.
    """
    target, opened = connection_settings(settings, hosts), begin(Path(journal), plan)
    return run_until(
        cancel,
        lambda stop: run_apply(target, plan, opened, options, stop=stop, progress=progress, locality=locality),
        "await asyncio.to_thread(apply, ...)",
    )


def resume(
    journal: str | Path,
    *,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: ApplyOptions | None = None,
    locality: Locality | None = None,
    progress: Callable[[Tally], None] | None = None,
    cancel: threading.Event | None = None,
) -> Tally:
    """Go on with an apply that was cancelled or killed; rows that have an outcome are not touched.

    The plan is in the journal. Arguments, outcome and errors are those of `apply`.
    """
    opened, plan = go_on(Path(journal)), read_journal(Path(journal)).plan
    target = connection_settings(settings, hosts)
    return run_until(
        cancel,
        lambda stop: run_apply(target, plan, opened, options, stop=stop, progress=progress, locality=locality),
        "await asyncio.to_thread(resume, ...)",
    )


__all__ = ["apply", "begin", "go_on", "plan", "resume", "run_apply", "run_plan", "run_ring", "run_undo"]
