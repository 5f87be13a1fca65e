"""Check, plan, apply, check again what was touched, and remember what was proven: what `check --repair` does.

Bounded by rows and time. Whatever was found and not shown to be repaired stays a finding. A watch does the same after
each of its visits.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from consistency.checking.run import run_check
from consistency.checking.tasks import CheckOptions
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.session import open_anew
from consistency.errors import ConsistencyError, InternalError, UsageError
from consistency.ledger import open_ledger
from consistency.results.report import RepairSummary, Report
from repair.api import apply_with, begin
from repair.applying.outcomes import Tally, untouched
from repair.applying.pace import ApplyOptions
from repair.deciding.decide import Action
from repair.deciding.mergeable import RangeMerge
from repair.keeping.entries import Entry, Result
from repair.keeping.planfile import Plan, write_plan
from repair.keeping.record import read_journal
from repair.nightly.config import NightlyPolicy
from repair.nightly.tried import leave_what_was_in_vain, tried_in_vain
from repair.planning.planner import PlanOptions, make_plan

_MOST_PARTITIONS = 2_000
"""With more partitions touched in a table the whole table is checked again: that costs less."""

NOT_ENDED = "not finished: the time for repairs was over, or the run was interrupted"

STOPPED = "not started: as many rows had vanished as max_deletes allows; look at the journal, then resume it or undo it"


@dataclass(frozen=True, slots=True)
class NightlyProgress:
    """Who is told of rows planned and rows applied."""

    planned: Callable[[int, int], None] = lambda *_: None
    applied: Callable[[Tally], None] = lambda *_: None


@dataclass(frozen=True, slots=True)
class NightlyFiles:
    """Where one run leaves what it found, planned and did; they share the check's run id."""

    findings: Path
    plan: Path
    journal: Path

    @classmethod
    def of(cls, findings: Path, run_id: str, directory: Path) -> NightlyFiles:
        """Name them."""
        if findings.parent == directory:  # a name of ours, from before the run had an id
            findings = directory / f"{run_id}.findings.jsonl"
        return cls(findings, directory / f"{run_id}.plan.jsonl", directory / f"{run_id}.journal.jsonl")


async def repair_found(
    opening: AbstractAsyncContextManager[tuple[CqlReader, Clock]],
    found: Report,
    checked: CheckOptions,
    nightly: NightlyPolicy,
    stop: asyncio.Event,
    progress: NightlyProgress | None = None,
) -> Report:
    """Repair what a check found, within bounds; return its report with what came of it.

    `opening` opens the cluster, if there is anything to repair.
    """
    if checked.findings is None:
        raise UsageError("a repair needs the findings in a file")
    if not sum(found.findings_by_kind.values()):
        if checked.findings.parent == nightly.directory:
            checked.findings.unlink(missing_ok=True)  # nobody asked for a file of nothing
        return replace(found, repair=RepairSummary())
    progress = progress or NightlyProgress()
    if found.findings_error:
        msg = f"the findings could not be written ({found.findings_error}), so nothing is repaired"
        raise UsageError(msg)
    try:
        nightly.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"[repair] directory {nightly.directory}: {error.strerror}; name one that can be written"
        raise UsageError(msg) from None
    files = NightlyFiles.of(checked.findings, found.run_id, nightly.directory)
    if files.findings != checked.findings:
        checked.findings.replace(files.findings)
    async with opening as (reader, clock):
        until = clock.monotonic() + nightly.max_seconds
        options = PlanOptions(
            nightly.policy,
            nightly.only,
            nightly.max_rows,
            max_traces=nightly.max_traces,
            range_merge=RangeMerge.NEVER,
        )
        plan = await make_plan(reader, clock, files.findings, options, progress.planned)
        if plan.to_do:
            plan = leave_what_was_in_vain(plan, await asyncio.to_thread(tried_in_vain, nightly.directory))
        write_plan(files.plan, plan)
        entries: dict[int, Entry] = {}
        stopped = False
        if plan.to_do and not stop.is_set():
            pace = ApplyOptions(nightly.rate, until=until, max_deletes=nightly.max_deletes)
            tally = await apply_with(reader, clock, plan, begin(files.journal, plan), pace, stop, progress.applied)
            stopped = tally.stopped_at is not None
            entries = dict(read_journal(files.journal).entries)
        after = await _check_touched(reader, clock, plan, entries, checked, stop)
    repaired = summary(files, plan, entries, after, interrupted=stop.is_set(), stopped=stopped)
    return replace(found, repair=repaired, findings_path=str(files.findings))


async def _check_touched(
    reader: CqlReader, clock: Clock, plan: Plan, entries: dict[int, Entry], checked: CheckOptions, stop: asyncio.Event
) -> Report | None:
    """Check the partitions of every row that was acted on, as any check would; None if there are none."""
    touched: dict[str, set[int]] = defaultdict(set)
    for number, entry in entries.items():
        if entry.before is not None:
            ref = plan.rows[number].ref
            touched[ref.full_name].add(ref.token)
    if not touched or stop.is_set():
        return None
    narrow = {name: frozenset(tokens) for name, tokens in touched.items() if len(tokens) <= _MOST_PARTITIONS}
    options = replace(
        checked, names=tuple(touched), findings=None, non_owners=False, run_time_s=None, only_tokens=narrow
    )
    return await run_check(reader, clock, options, stop=stop)


def summary(
    files: NightlyFiles,
    plan: Plan,
    entries: dict[int, Entry],
    after: Report | None,
    *,
    interrupted: bool,
    stopped: bool = False,
) -> RepairSummary:
    """Add up what came of each row; what has no outcome was left, for want of time or for a rule."""
    results: dict[str, int] = defaultdict(int)
    left: dict[str, int] = defaultdict(int)
    for number, row in enumerate(plan.rows):
        entry = entries.get(number, Entry())
        result = entry.result or (Result.REFUSED if row.refused else untouched(row))
        results[result.value] += 1
        if result is not Result.VERIFIED:
            planned = entry.result is None and row.action is not Action.NONE and not row.refused
            not_ended = STOPPED if stopped else NOT_ENDED
            left[not_ended if planned else entry.reason or row.refused or f"{row.rule.value}: {row.sentence}"] += 1
    verified = results.get(Result.VERIFIED.value, 0)
    unknown = results.get(Result.WAITING.value, 0) + results.get(Result.UNKNOWN.value, 0)
    acted = sum(map(_written, entries.values()))
    return RepairSummary(
        plan=str(files.plan),
        journal=str(files.journal) if entries else None,
        rows=len(plan.rows),
        acted_on=acted,
        results=dict(results),
        left=dict(left),
        remaining=len(plan.rows) - verified - unknown,
        unknown=unknown,
        checked_again=after.verdict if after else None,
        unchecked=bool(acted) and after is None,
        interrupted=interrupted,
        changes=Counter(entry.change.value for entry in entries.values() if entry.change is not None),
        stopped=stopped,
    )


def _written(entry: Entry) -> bool:
    """Whether a replica holds another copy than before we began with a row, or may: what is not seen is not ruled out.

    A merge that the servers refuse changes nothing, and what they do not acknowledge may have been done all the same.
    """
    if entry.before is None:
        return False
    if entry.after is None:
        return entry.result is not Result.SKIPPED
    return any(entry.after.get(host, copy) != copy for host, copy in entry.before.items())


def remember(ledger: Path, journal: Path) -> int:
    """Enter every row of a journal that was proven to agree; return how many of them the ledger knew."""
    record = read_journal(journal)
    proven = [n for n, entry in record.entries.items() if entry.result is Result.VERIFIED and entry.undo is None]
    refs = [record.plan.rows[n].ref for n in proven]
    with open_ledger(ledger, create=False) as opened:
        return opened.repaired(record.plan.findings_run_id, [(r.keyspace, r.table, r.key_hex) for r in refs])


def remember_or_warn(
    ledger: Path | None, journal: Path | None, warn: Callable[[str], object], report: Report | None = None
) -> None:
    """Tell the ledger, if there is one, of the rows proven and of how the run that found them ended with them.

    What it cannot take is a warning: the rows are repaired all the same.
    """
    if ledger is None:
        return
    try:
        if journal is not None:
            remember(ledger, journal)
        if report is not None:
            with open_ledger(ledger, create=False) as opened:
                opened.ended(report)
    except ConsistencyError as error:
        warn(str(error))


@dataclass(frozen=True, slots=True)
class VisitRepairer:
    """A watch's Repairer: plans, applies and checks again as `check --repair` does, within the same bounds."""

    policy: NightlyPolicy
    ledger: Path | None = None
    warn: Callable[[str], None] = lambda _: None

    @property
    def directory(self) -> Path:
        """Where findings, plans and journals are kept."""
        return self.policy.directory

    async def repair(self, reader: ClusterReader, found: Report, checked: CheckOptions, stop: asyncio.Event) -> Report:
        """Repair what was found; what was proven until then is noted however this ends."""
        if not isinstance(reader, CqlReader):
            raise InternalError("only a reader of a real cluster has connections that can write")
        if checked.findings is None:
            raise UsageError("a repair needs the findings in a file")
        files = NightlyFiles.of(checked.findings, found.run_id, self.directory)
        ended: Report | None = None
        try:
            ended = await repair_found(open_anew(reader), found, checked, self.policy, stop)
            return ended
        finally:
            journal = files.journal if files.journal.exists() else None
            remember_or_warn(self.ledger, journal, self.warn, ended)
