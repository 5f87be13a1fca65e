"""May traffic be switched to the target now? Judges a comparison that was just made, and both rings as they are now.

No: rows differ, a cluster disagrees with itself, a table has no counterpart or other columns, or a node is down or on
the move. Unknown: not all was read, rows kept changing, nodes disagree on a ring, or the comparison took longer than
its result may be old. Otherwise yes, with notes. Tables that a ledger proves to be equal need not be compared again;
their schema is looked at all the same, and the ledger once more at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from consistency.auditing.nodes import ON_THE_MOVE
from consistency.auditing.preflight import Answer, Reason
from consistency.checking.observer import PairObserver
from consistency.comparing.opening import Pair
from consistency.comparing.preparing import CompareOptions, plan_comparison
from consistency.comparing.reader import PairClock
from consistency.comparing.recording import Looked, Recorded, Records
from consistency.comparing.run import run_planned
from consistency.errors import UsageError
from consistency.ledger.lock import under_way
from consistency.model.ring import Ring
from consistency.model.sides import Side
from consistency.results.comparison import ComparedTable, Comparison, SchemaDifference
from consistency.results.figures import counted
from consistency.results.verdict import ExitCode

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Cutover:
    """The answer with its reasons, those that decide it first, and the comparison that it rests on."""

    comparison: Comparison
    reasons: tuple[Reason, ...]
    recorded: tuple[Recorded, ...] = ()
    """Tables that are taken for equal because a ledger says so; they are not in the comparison."""

    @property
    def answer(self) -> Answer:
        """No beats unknown beats yes."""
        given = {reason.answer for reason in self.reasons}
        return next((answer for answer in (Answer.NO, Answer.UNKNOWN) if answer in given), Answer.YES)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        if self.comparison.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.of(wrong=self.answer is Answer.NO, unknown=self.answer is Answer.UNKNOWN)

    @property
    def line(self) -> str:
        """The answer's reason in one line."""
        against = [reason for reason in self.reasons if reason.answer is self.answer is not Answer.YES]
        if against:
            return against[0].detail + (f" (and {len(against) - 1} more)" if len(against) > 1 else "")
        rows = sum(table.report.rows for table in self.comparison.tables)
        read, known = len(self.comparison.tables), len(self.recorded)
        told = [f"{counted(rows, 'row')} in {counted(read, 'table')}"] if read or not known else []
        if known:
            oldest_s = max(table.age_s for table in self.recorded)
            told.append(f"{counted(known, 'table')} by the ledger, as of {oldest_s:,.0f} s ago or later")
        return f"the target holds exactly what the source holds: {', and '.join(told)}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: the answer, and the comparison as `compare --json` has it."""
        return {
            "schema": SCHEMA_VERSION,
            "answer": self.answer.value,
            "exit_code": int(self.exit_code),
            "reason": self.line,
            "reasons": [reason.as_json() for reason in self.reasons],
            "recorded": [table.as_json() for table in self.recorded],
            "comparison": self.comparison.as_json(),
        }


async def check_cutover(
    pair: Pair,
    options: CompareOptions,
    observer: PairObserver | None = None,
    *,
    max_age_s: float | None = None,
    stop: asyncio.Event | None = None,
    records: Records | None = None,
) -> Cutover:
    """Compare two clusters whole, then judge; `max_age_s` is how old the first of what was read may be.

    What `records` prove to be equal is not compared again.
    """
    if options.sample is not None:
        raise UsageError("a sample proves too little for a switch: compare all")
    clock = PairClock(pair)
    planned = await plan_comparison(pair, clock, options)
    known = {} if records is None else records.equal(Looked.planned(planned), options, clock.server_time())
    tasks = tuple(task for task in planned.tasks if task.reading.table.full_name not in known)
    comparison = await run_planned(pair, replace(planned, tasks=tasks), observer, stop)
    rings = {cluster.side: await cluster.reader.ring_now() for cluster in pair}
    writing = {side: said for side, ring in rings.items() if (said := under_way(ring, kind="repair"))}
    still: Mapping[str, Recorded] = {}
    if records is not None and known:
        schemas = {cluster.side: await cluster.reader.schema() for cluster in pair}
        still = records.equal(Looked.again(planned, rings, schemas), options, clock.server_time())
    recorded = [
        replace(still.get(name, before), stands=name in still, schema=planned.schema[name])
        for name, before in known.items()
    ]
    return judge_cutover(comparison, rings, max_age_s, writing, recorded)


def judge_cutover(
    comparison: Comparison,
    rings: Mapping[Side, Ring],
    max_age_s: float | None = None,
    writing: Mapping[Side, str] = MappingProxyType({}),
    recorded: Sequence[Recorded] = (),
) -> Cutover:
    """Judge a comparison, and the rings as they are after it; `writing` says which side is being repaired or synced."""
    found = [
        *(reason for table in comparison.tables for reason in _table(table)),
        *(reason for table in recorded for reason in _recorded(table)),
        *(reason for side, ring in rings.items() for reason in _nodes(side, ring)),
        *_age(comparison, max_age_s, known=bool(recorded)),
        *_writing(writing),
    ]
    order = (Answer.NO, Answer.UNKNOWN, Answer.YES)
    return Cutover(comparison, tuple(sorted(found, key=lambda reason: order.index(reason.answer))), tuple(recorded))


def _writing(writing: Mapping[Side, str]) -> Iterator[Reason]:
    for side, said in writing.items():
        yield Reason("sync", Answer.NO, f"{side}: {said} (a sync counts as a repair)")
    if not writing:
        said = "no sync or repair is under way on this machine; of other machines that is not known"
        yield Reason("sync", Answer.YES, said)


def _table(table: ComparedTable) -> Iterator[Reason]:
    report = table.report
    name, keyspace = report.full_name, report.keyspace
    blocked = any(found.blocks for found in table.schema)
    if not report.depth:
        answer = Answer.NO if blocked or not table.target else Answer.UNKNOWN
        yield Reason("schema" if answer is Answer.NO else "not_compared", answer, f"{name}: {report.note}", keyspace)
        return
    if table.kinds:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in table.kinds.items())
        yield Reason("rows_differ", Answer.NO, f"{name}: rows differ ({kinds})", keyspace)
    for side, of_side in table.inner.items():
        if rows := sum(of_side.values()):
            detail = (
                f"{name}: the {side} disagrees with itself in {counted(rows, 'row')}: check and repair that cluster"
            )
            yield Reason("inner", Answer.NO, detail, keyspace)
    if not report.coverage.complete:
        missing = report.coverage.failed + report.coverage.skipped
        yield Reason(
            "not_read",
            Answer.UNKNOWN,
            f"{name}: {missing:,} of {counted(report.coverage.planned, 'digest')} could not be read",
            keyspace,
        )
    if report.unsettled_rows:
        detail = f"{name}: {counted(report.unsettled_rows, 'row')} kept changing or could not be read again"
        yield Reason("unsettled", Answer.UNKNOWN, detail, keyspace)
    yield from _declared(name, keyspace, table.schema)


def _recorded(table: Recorded) -> Iterator[Reason]:
    name, keyspace = table.full_name, table.keyspace
    if table.stands:
        detail = f"{name}: the ledger says that it was equal {table.age_s:,.0f} s ago; it was not compared again"
        yield Reason("recorded", Answer.YES, detail, keyspace)
    else:
        detail = f"{name}: the ledger said that it was equal, and no longer proves it: ask again"
        yield Reason("not_recorded", Answer.UNKNOWN, detail, keyspace)
    yield from _declared(name, keyspace, table.schema)


def _declared(name: str, keyspace: str, schema: Sequence[SchemaDifference]) -> Iterator[Reason]:
    for each in schema:
        detail = f"{name}: {each.what} is {each.source} in the source, {each.target} in the target"
        yield Reason("declared_otherwise", Answer.YES, detail, keyspace)


def _nodes(side: Side, ring: Ring) -> Iterator[Reason]:
    for node in ring.nodes:
        doing = next((what for what, states in ON_THE_MOVE.items() if node.state.upper() in states), "")
        if doing:
            yield Reason("node_moving", Answer.NO, f"{side} {node} {doing}")
        elif not node.up:
            why = f": {node.silence}" if node.silence else ""
            yield Reason("node_down", Answer.NO, f"{side} {node} does not answer{why}")
    for doubt in ring.doubts:
        yield Reason(doubt.kind, Answer.UNKNOWN, f"{side}: {doubt.detail}")


def _age(comparison: Comparison, max_age_s: float | None, *, known: bool) -> Iterator[Reason]:
    if comparison.interrupted:
        yield Reason("interrupted", Answer.UNKNOWN, "the comparison was interrupted")
    if not (comparison.coverage.planned or known):
        yield Reason("nothing", Answer.UNKNOWN, "nothing was compared: no table is in scope")
    if max_age_s is not None and comparison.seconds > max_age_s:
        detail = (
            f"the comparison took {comparison.seconds:.0f} s, and its first ranges may be {max_age_s:g} s old at most:"
            " name fewer tables, or give more time"
        )
        yield Reason("too_old", Answer.UNKNOWN, detail)
