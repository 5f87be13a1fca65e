"""Take a sync back: what the taker's replicas held before is written again, where nothing newer was written since."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from repair.applying.outcomes import Tally
from repair.applying.pace import Pace
from repair.deciding.decide import Action as RepairAction
from repair.keeping.entries import Result
from repair.sync.decide import Action
from repair.sync.journal import SyncJournal, SyncRecord
from repair.sync.planfile import SyncRow
from repair.undoing.undo import ActedOn, Undoer, Undoing, undoing


def as_repaired(action: Action) -> RepairAction:
    """Return which action of a repair is taken back in the same way: a delete at the copies' own times is a purge."""
    return RepairAction.PURGE if action is Action.DELETE else RepairAction.WRITE_BACK


def to_undo(record: SyncRecord) -> list[int]:
    """Return the numbers of the rows that were begun and are not undone."""
    return [number for number, entry in record.entries(record.begun) if entry.undo is not Result.UNDONE]


def preview(record: SyncRecord) -> Counter[Undoing]:
    """Count what an undo would do with the journal's rows."""
    found: Counter[Undoing] = Counter()
    for number, planned in _planned(record, to_undo(record)):
        found[undoing(as_repaired(planned.action), record.entry(number))] += 1
    return found


def _planned(record: SyncRecord, numbers: Sequence[int]) -> Iterator[tuple[int, SyncRow]]:
    """Read rows of the plan by rising numbers, none of them kept."""
    rows = enumerate(record.plan.rows())
    return ((number, next(planned for at, planned in rows if at == number)) for number in numbers)


async def undo_all(
    undoer: Undoer,
    record: SyncRecord,
    journal: SyncJournal,
    pace: Pace,
    stop: asyncio.Event,
    progress: Callable[[Tally], None],
) -> Tally:
    """Undo every row that was acted on and not undone yet; ends early, between rows, when `stop` is set."""
    numbers, side = to_undo(record), record.plan.policy.direction.taker
    tally = Tally(len(numbers))
    rows = _planned(record, numbers)
    acted = (ActedOn(n, row.ref.on(side), as_repaired(row.action), record.entry(n)) for n, row in rows)
    await undoer.rows(acted, journal, pace, stop, tally, progress)
    return tally
