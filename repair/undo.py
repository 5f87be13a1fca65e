"""Take a repair back: an explicit new write, with a new write time, of what there was before.

What there was differed between replicas, or there had been nothing to repair. Undo writes, to all of them,
what most of them held (of equally many, the copy without the repaired cells); after a purge it writes the
purged row back. It says what it cannot bring back: the old write times, counters, rows of which a replica
could not be read, and anything that has been written since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from consistency.errors import ReplicaError
from consistency.reader import Clock
from consistency.reading import RowState, each_time
from repair.applying import Tally, copies
from repair.decide import Action
from repair.evidence import Evidence, EvidenceReader
from repair.guard import Guard
from repair.journal import Copies, Entry, Journal, Record, Result
from repair.planfile import PlannedRow
from repair.statements import Write, delete_row, put_row, put_statics
from repair.writer import RowWriter

KEEPS_NEW_TIMES = "with a new write time: the old ones cannot be brought back"


class Undoer:
    """Undoes the verified rows of one journal."""

    def __init__(self, evidence: EvidenceReader, writer: RowWriter, guard: Guard, clock: Clock) -> None:
        self._evidence = evidence
        self._writer = writer
        self._guard = guard
        self._clock = clock

    async def run(self, record: Record, journal: Journal, progress: Callable[[Tally], None]) -> Tally:
        """Undo every row that was acted on and not undone yet."""
        acted = {n: e for n, e in sorted(record.entries.items()) if e.before is not None and e.undo is None}
        tally = Tally(len(acted))
        for number, entry in acted.items():
            await self._guard.check()
            result, reason = await self._row(record.plan.rows[number], entry)
            journal.undone(number, result, reason)
            tally.add(result, reason)
            progress(tally)
        return tally

    async def _row(self, row: PlannedRow, entry: Entry) -> tuple[Result, str]:
        evidence = await self._evidence.read(row.ref)
        refusal = _refusal(entry, evidence)
        if refusal:
            return Result.NOT_UNDONE, refusal
        wanted = state_to_restore(row.action, entry.before or {})
        if evidence.agreed and next(iter(evidence.states.values())) == wanted:
            return Result.UNDONE, "nothing to write: most replicas held the same before"
        writes = restoring(evidence, wanted, self._clock.now_us())
        if isinstance(writes, str):
            return Result.NOT_UNDONE, writes
        try:
            for write in writes:
                await self._writer.through(next(iter(evidence.states)), write, at_all=True)
        except ReplicaError as error:
            return Result.NOT_UNDONE, str(error)
        after = await self._evidence.read(row.ref)
        if after.unread or not after.agreed:
            return Result.NOT_UNDONE, "written, but the replicas do not agree: run the check"
        return Result.UNDONE, KEEPS_NEW_TIMES


def _refusal(entry: Entry, evidence: Evidence) -> str:
    """Say why a row cannot be undone; empty where it can."""
    if evidence.table.is_counter:
        return "a counter cannot be set to an earlier total"
    if any(column.column.masked for column in evidence.columns):
        return "it has masked columns, whose values we may not have read"
    if evidence.unread or len(entry.before or {}) < len(evidence.owners):
        return "not every replica was read then or can be read now"
    if entry.after is None or copies(evidence) != entry.after:
        return "it has been written to since, or its repair was not verified"
    return ""


def state_to_restore(action: Action, before: Copies) -> RowState | None:
    """Return the copy to write: what most replicas held; after a purge, what was purged."""
    if action is Action.PURGE:
        return max((s for s in before.values() if s is not None), key=lambda s: s.newest_us or 0)
    votes = Counter(before.values())
    most = max(votes.values())
    # Of equally many, the older copy: the repair made the newer one win.
    return min((s for s, n in votes.items() if n == most), key=_newest)


def _newest(state: RowState | None) -> int:
    return -(2**63) if state is None else state.newest_us or 0


def restoring(evidence: Evidence, wanted: RowState | None, now_us: int) -> list[Write] | str:
    """Return the writes that make `wanted` the newest version, or why they cannot be written."""
    if wanted is None:
        if evidence.name.static:
            return [put_statics(evidence.reading, evidence.name.key, [None] * len(evidence.columns), now_us, 0)]
        return [delete_row(evidence, now_us)]
    expiries = {e for cell in wanted.cells for e in each_time(cell.expires)}
    timeless = any(cell.value is not None and cell.expires is None for cell in wanted.cells)
    if len(expiries) > 1 or (expiries and timeless):
        return "its cells expire at different times, which one write cannot restore"
    ttl = min(expiries, default=0) - now_us // 1_000_000 if expiries else 0
    if expiries and ttl <= 0:
        return "what there was before has expired by now"
    values = [cell.value for cell in wanted.cells]
    put = put_statics if evidence.name.static else put_row
    write = put(evidence.reading, evidence.name.key, values, now_us, ttl)
    return [write]
