"""Take a repair back: an explicit new write, with a new write time, of what there was before.

Only what the journal proves to have been changed by the repair is undone: what was refused or never sent is not, and
what was never answered is left alone and named.

What there was differed between replicas. Undo writes, to all of them, what a strict majority held, column by
column; after a purge it writes the purged row back. It says what it cannot bring back: rows of which no majority
held one version, the old write times, counters, rows of which a replica could not be read, and anything that has
been written since. Nor does it write into the future: what it would have to win over and that a clock which is ahead
stamped is left alone until the slowest of the servers' clocks has passed it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from consistency.cluster.guardrails import Refusal
from consistency.cluster.port import Clock
from consistency.cluster.waits import side_by_side
from consistency.errors import ReplicaError
from consistency.model.reading import Cell, RowState
from consistency.results.figures import counted
from consistency.rows.cells import atoms
from consistency.rows.names import RowRef
from consistency.rows.reconcile import rank
from repair.applying.guard import Guard
from repair.applying.outcomes import Tally
from repair.applying.pace import Pace
from repair.deciding.case import Case, CaseReader
from repair.deciding.copies import Copies, copies
from repair.deciding.decide import Action
from repair.deciding.forecast import Change
from repair.deciding.permitted import Way, through_coordinator
from repair.keeping.entries import Entry, Fate, Result
from repair.keeping.journal import Journal
from repair.keeping.record import Record
from repair.undoing.restoring import restoring, truncated_since
from repair.undoing.undo_chunks import OfChunk, OfRow, chunk_to_undo
from repair.writing.statements import Write, batch
from repair.writing.writer import RowWriter

_NEVER = -(2**63)
_AT_ONCE = 8
NO_MAJORITY = "no majority of its replicas held one version before the repair, so there is nothing to restore"
_UNCHANGED = "the repair changed nothing of it"
_AS_BEFORE = "nothing to undo: every replica holds the same as before the repair"
KEEPS_NEW_TIMES = "with a new write time: the old ones cannot be brought back"


@dataclass(frozen=True, slots=True)
class ActedOn:
    """A row that something was to be done with: its number in the journal, what, and what the journal knows of it."""

    number: int
    ref: RowRef
    action: Action
    entry: Entry


class Undoing(Enum):
    """What undoing a row means: told of one row, and of many."""

    NOTHING = "as most replicas held it before: nothing to undo", "as most replicas held them before: nothing to undo"
    REWRITE = "to be written again, as most replicas held it", "to be written again, as most replicas held them"
    DELETE = "to be DELETED, as most replicas did not have it", "to be DELETED, as most replicas did not have them"
    UNPURGE = (
        "purged before: to be written to ALL its replicas, also to those that never had it",
        "purged before: to be written to ALL their replicas, also to those that never had them",
    )
    IMPOSSIBLE = "cannot be undone: " + NO_MAJORITY, "cannot be undone: no majority held one version of each before"
    UNCHANGED = "not changed by the repair: nothing to undo", "not changed by the repair: nothing to undo"
    UNKNOWN = (
        "left alone unless it is as it was: it is not known whether the repair changed it",
        "left alone unless they are as they were: it is not known whether the repair changed them",
    )

    def of(self, count: int) -> str:
        """Return what so many rows come to."""
        one, many = self.value
        return counted(count, f"row {one}", f"rows {many}")


class Proof(str, Enum):
    """What the journal proves of a row that something was to be done with."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"


def proof(entry: Entry) -> Proof:
    """Say whether the repair changed the row: acknowledged, and every replica read before and after it."""
    if entry.fate is Fate.NONE:
        return Proof.UNCHANGED
    if entry.fate is not Fate.DONE or entry.after is None or entry.after.keys() != (entry.before or {}).keys():
        return Proof.UNKNOWN
    return Proof.CHANGED if entry.changed else Proof.UNCHANGED


def unproven(entry: Entry) -> str:
    """Say why it is not known whether the repair changed a row."""
    if entry.result is None:
        return "left alone: the run ended before it was known whether the row was changed"
    if entry.fate is None:
        return "left alone: the journal is of an older version, which did not write down what was changed"
    why = f": {entry.reason}" if entry.reason else ""
    return f"left alone: it is not known whether the repair changed it{why}"


def to_bring_back(action: Action, before: Copies) -> RowState | str | None:
    """Return the copy to bring back, None for no row, or why there is none; after a purge, what was purged.

    A strict majority of the replicas must have had the row, or lacked it, and agreed on each of its columns: votes are
    taken by column, so what was written to a quorum is never voted down.
    """
    copies = list(before.values())
    held = [state for state in copies if state is not None]
    if action is Action.PURGE:
        return _all_that_was_held(held)
    needed = len(copies) // 2 + 1
    if len(copies) - len(held) >= needed:
        return None
    if len(held) < needed:
        return NO_MAJORITY
    cells = []
    for place in range(len(held[0].cells)):
        votes = Counter(Cell(None) if state is None else state.cells[place] for state in copies)
        cell, count = votes.most_common(1)[0]
        if count < needed:
            return NO_MAJORITY
        cells.append(cell)
    return RowState(tuple(cells))


def _all_that_was_held(held: list[RowState]) -> RowState | str:
    """Return the newest of each column, purged or not."""
    cells = []
    for column in zip(*(state.cells for state in held), strict=True):
        values = {cell for cell in column if cell.value is not None}
        if len(values) > 1 and any(isinstance(cell.writetimes, tuple) for cell in values):
            return "its replicas held different elements of a collection, which one write cannot bring back"
        cells.append(max(values, key=rank, default=Cell(None)))
    return RowState(tuple(cells))


def to_undo(record: Record) -> dict[int, Entry]:
    """Return the rows of the plan that were to be acted on and are not undone, also if an earlier undo could not."""
    return {
        number: entry
        for number, entry in sorted(record.entries.items())
        if entry.before is not None and entry.undo is not Result.UNDONE
    }


def preview(record: Record) -> Counter[Undoing]:
    """Count what an undo would do with the journal's rows."""
    found = Counter(undoing(record.plan.rows[number].action, entry) for number, entry in to_undo(record).items())
    for chunk, rows in record.unpacked():
        found.update(undoing(row.planned.action, row.entry) for row in chunk_to_undo(chunk, rows).values())
    return found


def undoing(action: Action, entry: Entry) -> Undoing:
    """Say what an undo would do with a row."""
    wanted = to_bring_back(action, entry.before or {})
    proven = proof(entry)
    if proven is not Proof.CHANGED:
        return Undoing.UNCHANGED if proven is Proof.UNCHANGED else Undoing.UNKNOWN
    if isinstance(wanted, str):
        return Undoing.IMPOSSIBLE
    if set((entry.after or {}).values()) == {wanted}:
        return Undoing.NOTHING
    if action is Action.PURGE:
        return Undoing.UNPURGE
    return Undoing.DELETE if wanted is None else Undoing.REWRITE


def became(result: Result, action: Action, entry: Entry) -> Change | None:
    """Say what an undo has done to a row; None if it wrote nothing: what most replicas lacked stays gone."""
    done = undoing(action, entry)
    if result is not Result.UNDONE or done not in (Undoing.DELETE, Undoing.REWRITE, Undoing.UNPURGE):
        return None
    if done is Undoing.DELETE:
        return Change.DELETED
    return Change.RESTORED if entry.change is Change.DELETED else Change.UPDATED


class Undoer:
    """Undoes the verified rows of one journal."""

    def __init__(
        self, evidence: CaseReader, writer: RowWriter, guard: Guard, clock: Clock, *, only_moves: bool = True
    ) -> None:
        """Undo with these; `only_moves`: what was done has brought no cell that no replica had."""
        self._only_moves = only_moves
        self._evidence = evidence
        self._writer = writer
        self._guard = guard
        self._clock = clock

    async def run(
        self, record: Record, journal: Journal, pace: Pace, stop: asyncio.Event, progress: Callable[[Tally], None]
    ) -> Tally:
        """Undo every row that was acted on and not undone yet; ends early, between rows, when `stop` is set.

        Rows of ranges are undone a chunk after the other, so that no more of them are in memory.
        """
        acted = to_undo(record)
        tally = Tally(len(acted) + sum(chunk.to_undo for chunk in record.chunks.values()))
        planned = record.plan.rows
        of_plan = (ActedOn(n, planned[n].ref, planned[n].action, entry) for n, entry in acted.items())
        await self.rows(of_plan, journal, pace, stop, tally, progress)
        for name in sorted(record.chunks):
            chunk = record.chunks[name]
            if chunk.to_undo and not tally.interrupted:
                held, of_chunk = chunk_to_undo(chunk, record.rows_of(chunk)), OfChunk(journal, name)
                rows = (ActedOn(n, row.planned.ref, row.planned.action, row.entry) for n, row in held.items())
                await self.rows(rows, of_chunk, pace, stop, tally, progress)
                if not tally.interrupted:
                    await of_chunk.ended()
        return tally

    async def rows(
        self,
        acted: Iterable[ActedOn],
        journal: OfRow,
        pace: Pace,
        stop: asyncio.Event,
        tally: Tally,
        progress: Callable[[Tally], None],
    ) -> None:
        """Undo rows, some of them side by side; what came of each is kept and counted."""
        waiting = iter(acted)

        async def lane() -> None:
            for row in waiting:
                await pace.wait(stop)
                if stop.is_set():
                    tally.interrupted = True
                    return
                result, reason = await self._row(row, journal)
                if result is not Result.UNCHANGED:
                    await journal.undone(row.number, result, reason)
                tally.add(result, reason, became(result, row.action, row.entry))
                progress(tally)

        await side_by_side(lane, _AT_ONCE)

    async def _row(self, row: ActedOn, journal: OfRow) -> tuple[Result, str]:
        """Undo one row that was acted on, and say what came of that and why."""
        await self._guard.check()
        entry = row.entry
        proven = proof(entry)
        if proven is Proof.UNCHANGED:
            return Result.UNCHANGED, f"{_UNCHANGED}: {entry.reason}" if entry.reason else _UNCHANGED
        evidence = await self._evidence.read(row.ref)
        if proven is Proof.CHANGED:
            return await self._changed(row, evidence, journal)
        as_before = not evidence.unread and copies(evidence) == entry.before
        return (Result.UNCHANGED, _AS_BEFORE) if as_before else (Result.NOT_UNDONE, unproven(entry))

    async def _changed(self, row: ActedOn, evidence: Case, journal: OfRow) -> tuple[Result, str]:
        """Undo a row that the repair changed."""
        entry = row.entry
        wanted = to_bring_back(row.action, entry.before or {})
        refusal = _refusal(entry, evidence, only_moves=self._only_moves) or (wanted if isinstance(wanted, str) else "")
        if refusal or isinstance(wanted, str):
            return Result.NOT_UNDONE, refusal
        if entry.undoing_us is not None and not _goes_on(entry, evidence, wanted):
            return Result.NOT_UNDONE, "it has been written to since its undo started"
        if evidence.agreed and next(iter(evidence.states.values())) == wanted:
            return Result.UNDONE, "nothing to write: most replicas held the same before"
        at_us = entry.undoing_us or write_time(row.action, wanted, entry, evidence)
        if too_early := _too_early(at_us, evidence):
            return Result.NOT_UNDONE, too_early
        truncated = "" if wanted is None else await truncated_since(self._writer, evidence, entry)
        writes = truncated or restoring(evidence, wanted, at_us)
        if isinstance(writes, str):
            return Result.NOT_UNDONE, writes
        way = through_coordinator(evidence, (at_us,))
        if entry.undoing_us is None and not way.refused:
            await journal.undoing(row.number, at_us)
        return await self._written(row.ref, way, batch(writes), wanted)

    async def _written(self, ref: RowRef, way: Way, write: Write, wanted: RowState | None) -> tuple[Result, str]:
        if way.refused:
            return Result.NOT_UNDONE, way.refused
        try:
            await self._writer.through(way.node, write, at_all=way.at_all)
        except ReplicaError as error:
            return Result.NOT_UNDONE, Refusal.of(error).text
        after = await self._evidence.read(ref)
        if after.unread or not all(_same_values(state, wanted) for state in after.states.values()):
            return Result.NOT_UNDONE, "written, but not every replica shows it: run the check"
        return Result.UNDONE, KEEPS_NEW_TIMES


def write_time(action: Action, wanted: RowState | None, entry: Entry, evidence: Case) -> int:
    """Return the oldest write time that wins over what the repair left, so that later writes win over it.

    Where a delete may hide what is to be restored, its time is not known: then it must be as late as may be, and
    later than any delete that a server had stamped when the repair was done with the row.
    """
    if action is Action.PURGE:  # the purge deleted at the copies' own write times
        return max(_newest(state) for state in (entry.before or {}).values()) + 1
    newest = max(_newest(state) for state in evidence.states.values())
    hidden = wanted is not None and (
        newest == _NEVER
        or any(held is None for held in evidence.states.values())
        or any(
            there.value is not None and (now.value is None or column.column.type.is_multicell)
            for held in evidence.states.values()
            for column, there, now in zip(evidence.columns, wanted.cells, held.cells if held else (), strict=False)
        )
    )
    if hidden or newest == _NEVER:
        known_us = max(newest, _NEVER if entry.by_us is None else entry.by_us)
        return max(evidence.when.writable_us, known_us + 1)
    return newest + 1


def _too_early(at_us: int, evidence: Case) -> str:
    """Say why a row cannot be undone yet: a write of ours that lies in a server's future would hide others' writes."""
    ahead_us = at_us - evidence.when.writable_us
    if ahead_us <= 0:
        return ""
    wait_s = math.ceil(ahead_us / 1e6)
    return (
        "what it would have to win over may be newer than the slowest of the servers' clocks: undo it again in"
        f" {wait_s:,} s"
    )


def _same_values(state: RowState | None, wanted: RowState | None) -> bool:
    if state is None or wanted is None:
        return state is wanted
    return [cell.value for cell in state.cells] == [cell.value for cell in wanted.cells]


def _refusal(entry: Entry, evidence: Case, *, only_moves: bool) -> str:
    """Say why a row cannot be undone; empty if it can."""
    if evidence.table.is_counter:
        return "a counter cannot be set to an earlier total"
    if any(column.column.masked for column in evidence.columns):
        return "it has masked columns, whose values we may not have read"
    if evidence.unread or len(entry.before or {}) < len(evidence.owners):
        return "not every replica was read then or can be read now"
    if entry.undoing_us is not None:
        return ""
    foreign = only_moves and not _only_moved(evidence, entry)
    if entry.after is None or copies(evidence) != entry.after or foreign:
        return "it has been written to since, or a kill kept its end out of the journal: look, and write it yourself"
    return ""


def _goes_on(entry: Entry, evidence: Case, wanted: RowState | None) -> bool:
    """Whether an undo that was begun may go on: each replica holds what the repair left, or what that undo wrote.

    Anything else is somebody's write, also one of a client whose clock is behind, which the undo would win over.
    """
    left = entry.after or {}
    return all(
        (node.host_id in left and state == left[node.host_id])
        or (_same_values(state, wanted) and _written_at(evidence, state) <= {None, entry.undoing_us})
        for node, state in evidence.states.items()
    )


def _written_at(evidence: Case, state: RowState | None) -> set[int | None]:
    return {atom.writetime for atom in atoms(evidence.columns, state).values()}


def _only_moved(evidence: Case, entry: Entry) -> bool:
    """Whether everything that is there now was there before on some replica: a repair writes nothing new."""
    known = {item for state in (entry.before or {}).values() for item in atoms(evidence.columns, state).items()}
    return all(set(atoms(evidence.columns, s).items()) <= known for s in (entry.after or {}).values())


def _newest(state: RowState | None) -> int:
    return _NEVER if state is None or state.newest_us is None else state.newest_us
