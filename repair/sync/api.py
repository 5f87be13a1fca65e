"""The library's functions of a sync; and what they and the commands run over the connections to both clusters.

from repair import sync_apply, sync_plan
plan = sync_plan("differing.jsonl", "sync-plan.jsonl", hosts="10.0.0.1", target_hosts="10.1.0.1")
outcome = sync_apply(plan.path, "sync-journal.jsonl", hosts="10.0.0.1", target_hosts="10.1.0.1")
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from consistency.api import connection_settings, target_connection_settings
from consistency.background import run, run_until
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.port import ClusterReader
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import ConnectionSettings
from consistency.comparing.opening import Pair, naming, open_pair
from consistency.errors import InternalError
from consistency.ledger.lock import one_run
from consistency.model.reading import Locality
from consistency.model.sides import Side
from repair.applying.guard import NO_UNDO, Guard
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Pace
from repair.deciding.case import CaseReader
from repair.sync.cases import PairCaseReader
from repair.sync.guards import Guards
from repair.sync.journal import SyncJournal, SyncRecord, read_sync_journal
from repair.sync.planfile import SyncPlan, read_sync_plan
from repair.sync.planner import SyncOptions, make_sync_plan
from repair.sync.run import Ports, SyncApplyOptions, Syncer
from repair.sync.undo import undo_all
from repair.undoing.undo import Undoer
from repair.writing.writer import CqlWriter

OpenSync = Callable[[], tuple[SyncJournal, SyncRecord]]
"""Opens a journal, with what it knows already."""


@dataclass(frozen=True, slots=True)
class Both:
    """How to reach the two clusters."""

    source: ConnectionSettings
    target: ConnectionSettings

    def of(self, side: Side) -> ConnectionSettings:
        """Return how to reach one of them."""
        return self.source if side is Side.SOURCE else self.target


async def run_sync_plan(
    both: Both,
    findings: Path,
    output: Path,
    options: SyncOptions,
    progress: Callable[[int], None] | None = None,
    *,
    limits: ReadLimits | None = None,
    locality: Locality | None = None,
) -> SyncPlan:
    """Connect to both, read evidence, decide, and write the plan."""
    async with open_pair(both.source, both.target, limits, locality=locality) as pair:
        return await make_sync_plan(pair, findings, output, options, progress)


async def run_sync_apply(
    both: Both,
    plan: SyncPlan,
    opened: OpenSync,
    options: SyncApplyOptions | None = None,
    *,
    stop: asyncio.Event | None = None,
    progress: Callable[[Tally], None] | None = None,
    locality: Locality | None = None,
) -> Tally:
    """Connect to both, guard, then act on every row that has no outcome in the journal yet."""
    async with open_pair(both.source, both.target, locality=locality) as pair:
        until, told = stop or asyncio.Event(), progress or (lambda _: None)
        return await _applied(pair, plan, opened, options or SyncApplyOptions(), until, told)


async def _applied(
    pair: Pair,
    plan: SyncPlan,
    opened: OpenSync,
    options: SyncApplyOptions,
    stop: asyncio.Event,
    progress: Callable[[Tally], None],
) -> Tally:
    direction = plan.policy.direction
    taker = pair.of(direction.taker)
    writers = {cluster.side: _writer(cluster.reader) for cluster in pair}
    guards = Guards(plan, pair, writers)
    with ExitStack() as held:
        with naming(direction.taker):  # a repair of the cluster that is written to would change rows under way
            held.enter_context(one_run(await taker.reader.ring(), kind="repair"))
        await guards.check()  # refuse before a journal is begun
        journal, known = opened()
        try:
            cases = await PairCaseReader.open(pair, direction)
            ports = Ports(cases, writers[direction.taker], guards, taker.clock, journal)
            return await Syncer(known.plan, ports, options).run(known, stop, progress)
        finally:
            journal.close()


def _writer(reader: ClusterReader) -> CqlWriter:
    if not isinstance(reader, CqlReader):
        raise InternalError("only what is read over CQL can be written to")
    return CqlWriter(reader.access)


async def run_sync_undo(
    settings: ConnectionSettings,
    path: Path,
    options: ApplyOptions | None = None,
    *,
    stop: asyncio.Event | None = None,
    progress: Callable[[Tally], None] | None = None,
) -> Tally:
    """Connect to the side that was written to alone, guard, then take back what a journal says was done."""
    side = read_sync_journal(path).plan.policy.direction.taker
    with naming(side):
        async with open_cluster(settings) as (reader, clock):
            with one_run(await reader.ring(), kind="repair"):
                writer = CqlWriter(reader.access)
                journal, record = SyncJournal.go_on(path, "undo")
                try:
                    guard = Guard(record.plan.ground(side), reader, writer, clock, NO_UNDO)
                    await guard.check()
                    undoer = Undoer(await CaseReader.open(reader, clock), writer, guard, clock, only_moves=False)
                    pace = Pace(clock, (options or ApplyOptions()).rate)
                    return await undo_all(
                        undoer, record, journal, pace, stop or asyncio.Event(), progress or (lambda _: None)
                    )
                finally:
                    journal.close()


def sync_plan(
    findings: str | Path,
    output: str | Path,
    *,
    hosts: str | None = None,
    target_hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    target_settings: ConnectionSettings | None = None,
    options: SyncOptions | None = None,
    locality: Locality | None = None,
    progress: Callable[[int], None] | None = None,
) -> SyncPlan:
    """Plan how to bring the differing rows of a comparison from one cluster to the other; nothing is written to either.

    Reads every row of the findings file of `compare` anew on all replicas of both sides and decides it by the rules of
    docs/two-clusters.md. Rows are streamed to `output`, which is all that holds them. How to connect is told as to
    `compare`. `progress` is called with the number of rows decided.

    Raises a ConsistencyError: UsageError if the file is none of these two clusters.
    """
    both, chosen = _both(hosts, target_hosts, settings, target_settings), options or SyncOptions()
    return run(
        lambda: run_sync_plan(both, Path(findings), Path(output), chosen, progress, locality=locality),
        "await asyncio.to_thread(sync_plan, ...)",
    )


def sync_apply(
    plan: str | Path,
    journal: str | Path,
    *,
    hosts: str | None = None,
    target_hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    target_settings: ConnectionSettings | None = None,
    options: SyncApplyOptions | None = None,
    locality: Locality | None = None,
    progress: Callable[[Tally], None] | None = None,
    cancel: threading.Event | None = None,
) -> Tally:
    """Apply the plan of a sync; the journal must be a new file.

    Writes to one of the clusters, by the plan's direction. Each row is read again on both sides and left where either
    has changed, then written with the other side's own write times and expiries, then verified on every replica; the
    journal holds the copies from before, values too, mode 0600. `progress` and `cancel` as for `apply`.

    Raises a ConsistencyError: UsageError for a journal that exists or a plan that cannot be trusted, PlanRefused if
    a cluster, ring or schema does not fit the plan, LockedError if a repair of that cluster is under way. What
    became of a row is in the Tally, not raised.
    """
    made = read_sync_plan(Path(plan))
    both, opened = (
        _both(hosts, target_hosts, settings, target_settings),
        partial(SyncJournal.begin, Path(journal), made),
    )
    return run_until(
        cancel,
        lambda stop: run_sync_apply(both, made, opened, options, stop=stop, progress=progress, locality=locality),
        "await asyncio.to_thread(sync_apply, ...)",
    )


def sync_resume(
    journal: str | Path,
    *,
    hosts: str | None = None,
    target_hosts: str | None = None,
    settings: ConnectionSettings | None = None,
    target_settings: ConnectionSettings | None = None,
    options: SyncApplyOptions | None = None,
    locality: Locality | None = None,
    progress: Callable[[Tally], None] | None = None,
    cancel: threading.Event | None = None,
) -> Tally:
    """Go on with a sync that was cancelled or killed; rows that have an outcome are not touched.

    The plan is in the journal. Arguments, outcome and errors are those of `sync_apply`.
    """
    opened, made = partial(SyncJournal.go_on, Path(journal)), read_sync_journal(Path(journal)).plan
    both = _both(hosts, target_hosts, settings, target_settings)
    return run_until(
        cancel,
        lambda stop: run_sync_apply(both, made, opened, options, stop=stop, progress=progress, locality=locality),
        "await asyncio.to_thread(sync_resume, ...)",
    )


def _both(
    hosts: str | None,
    target_hosts: str | None,
    settings: ConnectionSettings | None,
    target_settings: ConnectionSettings | None,
) -> Both:
    return Both(connection_settings(settings, hosts), target_connection_settings(target_settings, target_hosts))


__all__ = ["run_sync_apply", "run_sync_plan", "run_sync_undo", "sync_apply", "sync_plan", "sync_resume"]
