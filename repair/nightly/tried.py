"""What earlier nights tried in vain: a repair that had no effect on a row is not tried again until its copies change.

A delete that no replica hands on keeps its row apart for as long as it lies there. Asking for the same merge every
night costs a read at ALL each, and tells nothing new. The journals of the nights before say what was tried and what
each replica held after it. `repair plan` and `repair apply` of an operator do not look here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from consistency.errors import ConsistencyError
from consistency.rows.names import Identity
from repair.deciding.copies import Copies, digests
from repair.deciding.decide import Action, Rule
from repair.keeping.entries import Entry, Result
from repair.keeping.planfile import Plan, PlannedRow
from repair.keeping.record import read_journal


@dataclass(frozen=True, slots=True)
class InVain:
    """A repair of one row that left every copy as it was: what was done, when, why it had no effect."""

    action: Action
    tried_at: str
    reason: str
    copies: Copies


def tried_in_vain(directory: Path) -> dict[Identity, InVain]:
    """Read the journals in a directory; of a row that was tried twice the last one counts.

    A journal that cannot be read tells nothing: its rows are tried again.
    """
    found: dict[Identity, InVain] = {}
    records = []
    for path in directory.glob("*.journal.jsonl"):
        try:
            records.append(read_journal(path))
        except ConsistencyError:
            continue
    for record in sorted(records, key=lambda record: record.plan.created_at):
        for number, entry in record.entries.items():
            row = record.plan.rows[number]
            found.pop(row.ref.identity, None)
            if _had_no_effect(entry) and entry.after is not None:
                tried = InVain(row.action, record.plan.created_at, entry.reason, entry.after)
                found[row.ref.identity] = tried
    return found


def leave_what_was_in_vain(plan: Plan, tried: Mapping[Identity, InVain]) -> Plan:
    """Return the plan without doing again what had no effect on copies that are the same today."""
    return replace(plan, rows=tuple(_left_if_in_vain(row, tried, plan.salt) for row in plan.rows))


def _left_if_in_vain(row: PlannedRow, tried: Mapping[Identity, InVain], salt: str) -> PlannedRow:
    before = tried.get(row.ref.identity)
    if before is None or row.action is not before.action:
        return row
    if row.seen != digests(before.copies, salt):
        return row
    sentence = f"tried in vain on {before.tried_at[:10]}, and no copy has changed since: {before.reason}"
    return replace(row, rule=Rule.OUT_OF_REACH, action=Action.NONE, sentence=sentence)


def _had_no_effect(entry: Entry) -> bool:
    """Whether our writes were done and every replica that was read before and after shows what it did before."""
    return entry.result is Result.DIVERGENT and not entry.changed and entry.before == entry.after
