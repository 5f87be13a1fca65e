"""One comparison from two open clusters to its result: prepare, scan both while rows settle, report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from consistency.checking.changes import Changes
from consistency.checking.observer import PairObserver, SilentPair
from consistency.checking.preparing import Prepared
from consistency.checking.run import interruptible, plenty
from consistency.checking.scanning import Judges, Scanning
from consistency.checking.scans import Scans
from consistency.checking.tasks import CheckOptions
from consistency.comparing.changes import PairChanges
from consistency.comparing.counting import RangeCounter
from consistency.comparing.opening import Cluster, Pair
from consistency.comparing.preparing import CompareOptions, Planned, owners_in, plan_comparison
from consistency.comparing.reader import PairClock, PairReader
from consistency.comparing.reporting import Ended
from consistency.comparing.settlements import PairListeners, PairSettlements, Tell
from consistency.comparing.settling import PairSettler, Rules
from consistency.comparing.terms import Compare, Terms
from consistency.model.schema import Table
from consistency.model.scope import Scope
from consistency.model.sides import Side
from consistency.results.comparison import Comparison
from consistency.results.findings import FindingsWriter

_NEVER_AHEAD_S = 1e9
"""Write times in the future are for a check to find: rows that are the same on both sides are not looked at."""


def nobody(_: object) -> None:
    """Tell nobody."""


async def run_compare(
    pair: Pair,
    options: CompareOptions,
    observer: PairObserver | None = None,
    stop: asyncio.Event | None = None,
    room: Callable[[], Awaitable[None]] = plenty,
    take: Tell = nobody,
) -> Comparison:
    """Compare the tables in scope and return the result; setting `stop` ends early with a true partial one.

    UsageError if a name does not exist on a side. `take` is given every finding, `room` is awaited after each.
    """
    planned = await plan_comparison(pair, PairClock(pair), options)
    return await run_planned(pair, planned, observer, stop, room, take)


async def run_planned(
    pair: Pair,
    planned: Planned,
    observer: PairObserver | None = None,
    stop: asyncio.Event | None = None,
    room: Callable[[], Awaitable[None]] = plenty,
    take: Tell = nobody,
) -> Comparison:
    """Compare what was planned, as `run_compare` does."""
    watching, clock, options = observer or SilentPair(), PairClock(pair), planned.options
    reader, scans = PairReader(pair, planned.targets), Scans()
    with FindingsWriter(options.findings, planned.header) as writer:
        changes = changes_since(pair, planned)
        listeners = PairListeners(writer, watching, room, take)
        settlements = PairSettlements(scans, changes, listeners, planned.targets)
        rules = _rules(planned)
        settler = PairSettler(reader, clock, settlements.take, planned.window_s, rules)
        ranges = partial(RangeCounter, window_s=planned.window_s, rules=rules, sink=settlements.take_range)
        scanning = Scanning(reader, clock, _prepared(planned), scans, Judges(settler, ranges), watching)
        interrupted = await interruptible(scanning.run(changes, None), stop)
    ended = Ended(planned, scans, settlements, settler, interrupted)
    result = ended.report(writer, reader.traces, clock.monotonic() - planned.started)
    for table in result.tables:
        watching.table_done(table.report)
    return result


def changes_since(pair: Pair, planned: Planned) -> PairChanges:
    """Return what tells whether rings and schemas are what they were when a comparison was planned."""
    return PairChanges(_changes(pair.source, planned), _changes(pair.target, planned), planned.targets)


def _changes(cluster: Cluster, planned: Planned) -> Changes:
    return Changes(cluster.reader, cluster.clock, planned.sides[cluster.side])


def _rules(planned: Planned) -> Rules:
    """Return by what rows are judged: of counters, whose times no two clusters share, by their values alone."""
    owned, of_counters, of_others = owners_in(planned.tasks), Terms(Compare.VALUES), planned.options.terms

    def terms(table: Table) -> Terms:
        return of_counters if table.is_counter else of_others

    return Rules(terms, lambda table, token: owned[table.full_name].of(token))


def _prepared(planned: Planned) -> Prepared:
    """Return what the scans of a check know before they read a row."""
    options, source = planned.options, planned.sides[Side.SOURCE]
    scan = replace(options.scan, max_skew_s=_NEVER_AHEAD_S)
    return Prepared(
        options=CheckOptions(options.names, sample=options.sample, scan=scan),
        run_id=planned.run_id,
        started_us=planned.started_us,
        started=planned.started,
        ring=source.ring,
        schema=source.schema,
        scope=Scope((), ()),
        tasks=planned.tasks,
        refused=(),
        shares={},
        window_s=planned.window_s,
        notes=planned.notes,
        piece=planned.piece,
    )
