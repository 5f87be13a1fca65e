"""May traffic be switched to the target now? Judges a comparison that was just made, and both rings as they are now.

No: rows differ, a cluster disagrees with itself, a table has no counterpart or other columns, or a node is down or on
the move. Unknown: not all was read, rows kept changing, nodes disagree on a ring, or the comparison took longer than
its result may be old. Otherwise yes, with notes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from consistency.auditing.nodes import ON_THE_MOVE
from consistency.auditing.preflight import Answer, Reason
from consistency.checking.observer import PairObserver
from consistency.comparing.opening import Pair
from consistency.comparing.preparing import CompareOptions
from consistency.comparing.run import run_compare
from consistency.errors import UsageError
from consistency.ledger.lock import under_way
from consistency.model.ring import Ring
from consistency.model.sides import Side
from consistency.results.comparison import ComparedTable, Comparison
from consistency.results.verdict import ExitCode

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Cutover:
    """The answer with its reasons, those that decide it first, and the comparison that it rests on."""

    comparison: Comparison
    reasons: tuple[Reason, ...]

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
        count = len(self.comparison.tables)
        return f"the target holds exactly what the source holds: {rows:,} rows in {count} table{'s' * (count != 1)}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: the answer, and the comparison as `compare --json` has it."""
        return {
            "schema": SCHEMA_VERSION,
            "answer": self.answer.value,
            "exit_code": int(self.exit_code),
            "reason": self.line,
            "reasons": [reason.as_json() for reason in self.reasons],
            "comparison": self.comparison.as_json(),
        }


async def check_cutover(
    pair: Pair,
    options: CompareOptions,
    observer: PairObserver | None = None,
    *,
    max_age_s: float | None = None,
    stop: asyncio.Event | None = None,
) -> Cutover:
    """Compare two clusters whole, then judge; `max_age_s` is how old the first of what was read may be."""
    if options.sample is not None:
        raise UsageError("a sample proves too little for a switch: compare all")
    comparison = await run_compare(pair, options, observer, stop)
    rings = {cluster.side: await cluster.reader.ring_now() for cluster in pair}
    writing = {side: said for side, ring in rings.items() if (said := under_way(ring, kind="repair"))}
    return judge_cutover(comparison, rings, max_age_s, writing)


def judge_cutover(
    comparison: Comparison,
    rings: Mapping[Side, Ring],
    max_age_s: float | None = None,
    writing: Mapping[Side, str] = MappingProxyType({}),
) -> Cutover:
    """Judge a comparison, and the rings as they are after it; `writing` says which side is being repaired or synced."""
    found = [
        *(reason for table in comparison.tables for reason in _table(table)),
        *(reason for side, ring in rings.items() for reason in _nodes(side, ring)),
        *_age(comparison, max_age_s),
        *_writing(writing),
    ]
    order = (Answer.NO, Answer.UNKNOWN, Answer.YES)
    return Cutover(comparison, tuple(sorted(found, key=lambda reason: order.index(reason.answer))))


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
            detail = f"{name}: the {side} disagrees with itself in {rows:,} rows: check and repair that cluster"
            yield Reason("inner", Answer.NO, detail, keyspace)
    if not report.coverage.complete:
        missing = report.coverage.failed + report.coverage.skipped
        yield Reason(
            "not_read",
            Answer.UNKNOWN,
            f"{name}: {missing:,} of {report.coverage.planned:,} digests could not be read",
            keyspace,
        )
    if report.unsettled_rows:
        detail = f"{name}: {report.unsettled_rows:,} rows kept changing or could not be read again"
        yield Reason("unsettled", Answer.UNKNOWN, detail, keyspace)
    for each in table.schema:
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


def _age(comparison: Comparison, max_age_s: float | None) -> Iterator[Reason]:
    if comparison.interrupted:
        yield Reason("interrupted", Answer.UNKNOWN, "the comparison was interrupted")
    if not comparison.coverage.planned:
        yield Reason("nothing", Answer.UNKNOWN, "nothing was compared: no table is in scope")
    if max_age_s is not None and comparison.seconds > max_age_s:
        detail = (
            f"the comparison took {comparison.seconds:.0f} s, and its first ranges may be {max_age_s:g} s old at most:"
            " name fewer tables, or give more time"
        )
        yield Reason("too_old", Answer.UNKNOWN, detail)
