"""The lines of a journal about chunks of ranges: many rows in a line, packed, and what is known without unpacking it.

A line before a chunk is merged holds every copy of its rows, and what earlier attempts came to; a line after it says
what came of each. Both name the chunk by the number of its range in the plan and by its tokens. Who reads a journal
keeps where these lines are, and unpacks one chunk at a time.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from consistency.model.tokens import TokenRange
from consistency.rows.names import RowRef
from repair.deciding.copies import Copies, copies_from_json, copies_json
from repair.deciding.decide import Action, Rule
from repair.deciding.forecast import Change
from repair.keeping.entries import Account, Entry, Fate, Outcome, Place, Result, ended, outcome_json
from repair.keeping.plain_lines import as_merged, unpacked
from repair.keeping.planfile import PlannedRow

Source = Callable[[Place], bytes]
"""Reads a line of the journal again."""

ChunkName = tuple[int, int]
"""The number of a planned range, and the token after which the chunk begins."""

_LEVEL = 3


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """One row of a chunk: what was decided, and what the journal knows of it."""

    planned: PlannedRow
    entry: Entry


@dataclass
class ChunkRecord:
    """What a journal knows of one chunk without unpacking it: where its lines are, and what came of its rows.

    `acted` rows have their copies in the journal, and `waiting` of them no outcome. `undoing` and `undone` are by the
    row's place in the chunk; once an undo has ended with all of its rows, `undone` holds those that it could not undo.
    """

    number: int
    token_range: TokenRange
    before: Place | None = None
    after: Place | None = None
    account: Account = field(default_factory=Account)
    acted: int = 0
    waiting: int = 0
    undoing: dict[int, int] = field(default_factory=dict)
    undone: dict[int, tuple[Result, str]] = field(default_factory=dict)
    undo_ended: bool = False
    undo_account: Account = field(default_factory=Account)

    @property
    def name(self) -> ChunkName:
        """What lines call it."""
        return self.number, self.token_range.start

    @property
    def unended(self) -> int:
        """How many rows a resume goes on with: without an end yet, refused, or not known."""
        if self.undoing or self.undo_ended:
            return 0
        return self.waiting + self.account.results[Result.REFUSED] + self.account.results[Result.UNKNOWN]

    @property
    def open(self) -> bool:
        """Whether resume goes on with it."""
        return bool(self.unended)

    @property
    def to_undo(self) -> int:
        """How many rows were acted on and are not taken back."""
        if self.undo_ended:
            return sum(result is not Result.UNDONE for result, _ in self.undone.values())
        return self.acted - sum(result is Result.UNDONE for result, _ in self.undone.values())

    def is_undone(self, place: int) -> bool:
        """Whether a row was taken back already."""
        if place in self.undone:
            return self.undone[place][0] is Result.UNDONE
        return self.undo_ended


def merging_json(
    number: int,
    token_range: TokenRange,
    columns: Sequence[str],
    rows: Sequence[ChunkRow],
    plain: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the line about a chunk that is about to be merged: every copy of its rows, and earlier outcomes.

    `plain` are rows that follow after those, as `plain_lines.py` packs them.
    """
    packed = [
        [
            row.planned.ref.token,
            [row.planned.ref.key_hex[column] for column in columns],
            row.planned.rule.value,
            row.planned.action.value,
            copies_json(row.entry.before or {}),
            _outcome_json(row.entry),
        ]
        for row in rows
    ]
    data = {
        **_named("merging", number, token_range),
        "columns": list(columns),
        "count": len(rows) + (int(plain["count"]) if plain else 0),
        "rows": _pack(packed),
    }
    return data | {"plain": plain} if plain else data


def _outcome_json(entry: Entry) -> dict[str, Any] | None:
    if entry.result is None:
        return None
    outcome = Outcome(entry.result, entry.reason, entry.after, entry.fate or Fate.NONE, entry.changed, entry.change)
    return outcome_json(outcome, entry.by_us)


Ended = Outcome | Entry | Literal[1] | None
"""What came of a row of a chunk: an entry is an outcome of an earlier attempt, AS_FORESEEN of a plain row that every
replica holds as its merge was foreseen, None of a row that was not begun."""

AS_FORESEEN: Literal[1] = 1


def merged_json(
    number: int, token_range: TokenRange, outcomes: Sequence[Ended], account: Account, by_us: int
) -> dict[str, Any]:
    """Return the line about what came of a chunk: of each row in the order of the line before, and counted."""
    packed = [_ended_json(each, by_us) for each in outcomes]
    named = _named("merged", number, token_range)
    counted = {"account": account.as_json(), "waiting": packed.count(None), "by": by_us}
    return {**named, **counted, "rows": _pack(packed)}


def _ended_json(ended: Ended, by_us: int) -> dict[str, Any] | int | None:
    if isinstance(ended, Entry):
        return _outcome_json(ended)
    return outcome_json(ended, by_us) if isinstance(ended, Outcome) else ended


def unmerging_json(name: ChunkName, place: int, at_us: int) -> dict[str, Any]:
    """Return the line about a row that is about to be undone by a write at this time."""
    return {"unmerging": name[0], "start": name[1], "row": place, "at": at_us}


def unmerged_json(name: ChunkName, place: int, result: Result, reason: str) -> dict[str, Any]:
    """Return the line about what came of undoing a row."""
    return {"unmerged": name[0], "start": name[1], "row": place, "result": result.value, "reason": reason}


def undo_ended_json(name: ChunkName) -> dict[str, Any]:
    """Return the line that an undo has ended with all rows of a chunk."""
    return {"unmerged": name[0], "start": name[1], "ended": True}


def _named(what: str, number: int, token_range: TokenRange) -> dict[str, Any]:
    return {what: number, "start": token_range.start, "end": token_range.end}


def take_chunk(data: Mapping[str, Any], place: Place, chunks: dict[ChunkName, ChunkRecord]) -> bool:
    """Take note of a line about a chunk; False if it is about something else."""
    if "merging" in data:
        _merging(data, place, chunks)
    elif "merged" in data:
        held = _held(data, "merged", chunks)
        held.after, held.waiting = place, int(data["waiting"])
        held.account = Account.from_json(data["account"])
    elif "unmerging" in data:
        chunks[int(data["unmerging"]), int(data["start"])].undoing[int(data["row"])] = int(data["at"])
    elif "unmerged" in data:
        _unmerged(data, chunks[int(data["unmerged"]), int(data["start"])])
    else:
        return False
    return True


def _merging(data: Mapping[str, Any], place: Place, chunks: dict[ChunkName, ChunkRecord]) -> None:
    """A second line comes from a resume: it holds all that the first ones said, and nothing is known of its end yet."""
    held = _held(data, "merging", chunks)
    # What has vanished stays counted, whatever becomes of this attempt.
    held.before, held.after, held.account = place, None, Account(vanished=held.account.vanished)
    held.acted = held.waiting = int(data["count"])


def _held(data: Mapping[str, Any], what: str, chunks: dict[ChunkName, ChunkRecord]) -> ChunkRecord:
    number, token_range = int(data[what]), TokenRange(int(data["start"]), int(data["end"]))
    held = chunks.setdefault((number, token_range.start), ChunkRecord(number, token_range))
    if held.token_range != token_range:
        raise ValueError(token_range)
    return held


def _unmerged(data: Mapping[str, Any], held: ChunkRecord) -> None:
    if not data.get("ended"):
        result, reason = Result(data["result"]), str(data["reason"])
        earlier = held.undone.get(int(data["row"]))
        if earlier is not None and earlier[0] is Result.NOT_UNDONE:
            held.undo_account.results[Result.NOT_UNDONE] -= 1
            held.undo_account.reasons[earlier] -= 1
        held.undone[int(data["row"])] = result, reason
        held.undo_account.add(result, reason)
        return
    held.undone = {row: found for row, found in held.undone.items() if found[0] is not Result.UNDONE}
    held.undoing = {row: at_us for row, at_us in held.undoing.items() if row in held.undone}
    held.undo_ended = True


def rows_of(chunk: ChunkRecord, keyspace: str, table: str, source: Source) -> list[ChunkRow]:
    """Unpack the rows of a chunk; KeyError, ValueError, TypeError or zlib.error if its lines are damaged."""
    if chunk.before is None:
        return []
    data = json.loads(source(chunk.before))
    rows = [_row(keyspace, table, data["columns"], each) for each in _unpack(data["rows"])]
    if "plain" in data:
        rows += [_plain_row(keyspace, table, data["columns"], each) for each in unpacked(data["plain"])]
    if chunk.after is None:
        return rows
    after = json.loads(source(chunk.after))
    return [_with_outcome(row, each, after) for row, each in zip(rows, _unpack(after["rows"]), strict=True)]


def _with_outcome(row: ChunkRow, outcome: Any, line: Mapping[str, Any]) -> ChunkRow:
    if outcome is None:
        return row
    before = row.entry.before
    if outcome != AS_FORESEEN:
        return ChunkRow(row.planned, ended(before, outcome))
    after = as_merged(before or {})
    changed = frozenset(host for host, state in (before or {}).items() if after[host] != state)
    became = foreseen(before or {})
    entry = Entry(before, Result.VERIFIED, "", after, int(line["by"]), fate=Fate.DONE, changed=changed, change=became)
    return ChunkRow(row.planned, entry)


def foreseen(before: Copies) -> Change:
    """Say what becomes of a plain row that is merged as foreseen."""
    return Change.RESTORED if None in before.values() else Change.UPDATED


def _plain_row(keyspace: str, table: str, columns: Sequence[str], data: tuple[int, Sequence[str], Copies]) -> ChunkRow:
    token, key, copies = data
    ref = RowRef(keyspace, table, token, dict(zip(columns, key, strict=True)))
    return ChunkRow(PlannedRow(ref, Rule.LAST_WRITE, Action.RECONCILE, "", {}), Entry(copies))


def _row(keyspace: str, table: str, columns: Sequence[str], data: Sequence[Any]) -> ChunkRow:
    token, key, rule, action, before, outcome = data
    ref = RowRef(keyspace, table, int(token), dict(zip(columns, map(str, key), strict=True)))
    copies = copies_from_json(before)
    entry = Entry(copies) if outcome is None else ended(copies, outcome)
    return ChunkRow(PlannedRow(ref, Rule(rule), Action(action), "", {}), entry)


def _pack(data: Sequence[Any]) -> str:
    raw = json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(raw, _LEVEL)).decode()


def _unpack(text: str) -> list[Any]:
    found: list[Any] = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    return found
