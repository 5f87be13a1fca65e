"""The repair on one page: plan, apply, resume; undo is in undo.py. Also the library's plain functions.

from repair import plan, apply
made = plan("findings.jsonl", hosts="10.0.0.1")
outcome = apply(made.only(lambda row: row.rule is Rule.LAST_WRITE), "journal.jsonl", hosts="10.0.0.1")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from consistency.lock import one_run
from consistency.reader import Clock, ClusterReader
from consistency.reading import Locality
from consistency.replicas import CqlReader
from consistency.session import open_cluster
from consistency.settings import ConnectionSettings, GivenOptions, load_settings
from repair.actions import Actor
from repair.applying import Applier, ApplyOptions
from repair.evidence import EvidenceReader
from repair.guard import Guard
from repair.journal import Entry, Journal
from repair.outcomes import Tally
from repair.pace import Pace
from repair.planfile import Plan
from repair.planner import PlanOptions, make_plan
from repair.undo import Undoer
from repair.writer import CqlWriter, RowWriter

OpenJournal = Callable[[], tuple[Journal, dict[int, Entry]]]
"""Opens a journal, with what it knows already."""


async def run_plan(
    settings: ConnectionSettings,
    findings: Path,
    options: PlanOptions,
    progress: Callable[[int, int], None] | None = None,
    *,
    locality: Locality | None = None,
) -> Plan:
    """Connect, read evidence, decide; `locality` forces how replicas are read."""
    async with open_cluster(settings, locality=locality) as (reader, clock):
        return await make_plan(reader, clock, findings, options, progress)


async def run_apply(
    settings: ConnectionSettings,
    plan: Plan,
    open_journal: OpenJournal,
    options: ApplyOptions,
    *,
    stop: asyncio.Event | None = None,
    progress: Callable[[Tally], None] | None = None,
    locality: Locality | None = None,
) -> Tally:
    """Connect, guard, then act on every row that has no outcome in the journal yet."""
    async with open_cluster(settings, locality=locality) as (reader, clock):
        return await apply_with(
            reader, clock, plan, open_journal, options, stop or asyncio.Event(), progress or (lambda _: None)
        )


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
        journal, entries = open_journal()
        try:
            applier = await _applier(plan, reader, writer, clock, journal)
            return await applier.run(entries, options, stop, progress)
        finally:
            journal.close()


async def _applier(plan: Plan, reader: ClusterReader, writer: RowWriter, clock: Clock, journal: Journal) -> Applier:
    evidence = await EvidenceReader.open(reader, clock)
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
    journal, record = Journal.reopen(path)
    try:
        guard = Guard(record.plan, reader, writer, clock)
        undoer = Undoer(await EvidenceReader.open(reader, clock), writer, guard, clock)
        pace = Pace(clock, options.rate)
        return await undoer.run(record, journal, pace, stop or asyncio.Event(), progress or (lambda _: None))
    finally:
        journal.close()


def begin(path: Path, plan: Plan) -> OpenJournal:
    """Return what opens a new journal."""
    return lambda: (Journal.create(path, plan), {})


def go_on(path: Path) -> OpenJournal:
    """Return what opens a journal that was begun before."""

    def reopen() -> tuple[Journal, dict[int, Entry]]:
        journal, record = Journal.reopen(path)
        return journal, dict(record.entries)

    return reopen


def plan(
    findings: str | Path,
    *,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: PlanOptions | None = None,
    locality: Locality | None = None,
) -> Plan:
    """Plan the repair of a findings file; nothing is written to the cluster."""
    chosen = options or PlanOptions()
    return asyncio.run(run_plan(_settings(settings, hosts), Path(findings), chosen, locality=locality))


def apply(
    plan: Plan,
    journal: str | Path,
    *,
    hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    options: ApplyOptions | None = None,
    locality: Locality | None = None,
) -> Tally:
    """Apply a plan, which may have been filtered with `plan.only(...)`; the journal must be a new file."""
    opened = begin(Path(journal), plan)
    chosen = options or ApplyOptions()
    return asyncio.run(run_apply(_settings(settings, hosts), plan, opened, chosen, locality=locality))


def _settings(settings: ConnectionSettings | None, hosts: str | None) -> ConnectionSettings:
    return settings or load_settings(GivenOptions(hosts=hosts))


__all__ = ["apply", "begin", "go_on", "plan", "run_apply", "run_plan", "run_undo"]
