"""The journal of a sync: the whole plan first, then what was about to be done to each row, and what came of it.

Lines and their meaning are those of a repair's journal. Of a row nothing but where its lines lie is kept in memory: a
journal of a million rows takes some forty megabytes, and an entry is read back when it is needed.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from consistency.errors import DAMAGED, UsageError
from repair.keeping.chain import check_of
from repair.keeping.entries import Account, Entry
from repair.keeping.files import SYNC_JOURNAL, json_line
from repair.keeping.journal import Journal
from repair.keeping.record import DISTRUSTED, entry_after, row_of
from repair.sync.planfile import SyncPlan, parse_plan

_PIECE = 1 << 20
_WORDS = ("intent", "outcome", "undoing", "undo")


class SyncRecord:
    """A journal as read: its plan, and where the lines lie that tell of each row; 0 is nowhere."""

    def __init__(self, plan: SyncPlan, path: Path, length: int, check: int | None) -> None:
        """Know nothing of any row yet."""
        self.plan = plan
        self.path = path
        self.length = length
        """Bytes up to the end of the last whole line."""
        self.check = check
        """The checksum of the last whole line; None in a journal without checksums."""
        self._at = {word: array("q", bytes(8 * plan.summary.rows)) for word in _WORDS}
        self._open = bytearray(b"\1") * plan.summary.rows

    def take(self, data: dict[str, Any], at: int) -> None:
        """Take note of a line about one row, which lies there; KeyError, ValueError or TypeError if it is none."""
        number, word = row_of(data), next(word for word in _WORDS if word in data)
        if not 0 <= number < len(self._open):
            raise ValueError(number)
        held = Entry() if word != "intent" or not self._at["intent"][number] else self.entry(number)
        after = entry_after(data, held)
        if word == "intent":
            self._at["outcome"][number] = 0  # of a second attempt nothing is known yet
        if word != "intent" or held.pre_image is None:
            self._at[word][number] = at
        if word == "outcome":
            self._open[number] = after.open
        elif word == "undoing":
            self._open[number] = 0

    def is_open(self, number: int) -> bool:
        """Whether a resume goes on with a row."""
        return bool(self._open[number])

    @property
    def open_rows(self) -> int:
        """How many rows a resume goes on with."""
        return sum(self._open)

    @property
    def begun(self) -> Iterator[int]:
        """The numbers of the rows that were to be acted on."""
        return (number for number, at in enumerate(self._at["intent"]) if at)

    @property
    def ended(self) -> int:
        """How many rows have an outcome."""
        return sum(at != 0 for at in self._at["outcome"])

    def entry(self, number: int, file: BinaryIO | None = None) -> Entry:
        """Read back what is known of a row."""
        places = [self._at[word][number] for word in _WORDS]
        if not any(places):
            return Entry()
        if file is None:
            with self.path.open("rb") as opened:
                return self.entry(number, opened)
        entry = Entry()
        for at in filter(None, places):
            file.seek(at)
            entry = entry_after(json.loads(file.readline()), entry)
        return entry

    def entries(self, numbers: Iterator[int]) -> Iterator[tuple[int, Entry]]:
        """Read back what is known of some rows, one after the other."""
        with self.path.open("rb") as file:
            for number in numbers:
                yield number, self.entry(number, file)

    def account(self, *, with_open: bool = True) -> Account:
        """Count what came of the rows that have an outcome; also of those that a resume goes on with, or not."""
        account = Account()
        numbers = (n for n, at in enumerate(self._at["outcome"]) if at and (with_open or not self._open[n]))
        for _, entry in self.entries(numbers):
            if entry.result is not None:
                account.add(entry.result, entry.reason, entry.change)
        return account

    def deletes_begun(self) -> int:
        """Count the rows of which something was to be deleted, and perhaps was: what the breaker counts."""
        if not self.plan.summary.deletes:
            return 0
        deleted = (n for n, row in enumerate(self.plan.rows()) if row.action.deletes and self._at["intent"][n])
        return sum(entry.pre_image is not None for _, entry in self.entries(deleted))

    def undone(self) -> Account:
        """Count what came of the rows that were to be undone."""
        account = Account()
        for _, entry in self.entries(number for number, at in enumerate(self._at["undo"]) if at):
            if entry.undo is not None:
                account.add(entry.undo, entry.undo_reason)
        return account


class SyncJournal(Journal):
    """An open journal of a sync; one process at a time."""

    command = "sync"

    @classmethod
    def begin(cls, path: Path, plan: SyncPlan) -> tuple[SyncJournal, SyncRecord]:
        """Begin a journal by a copy of the plan."""
        size = plan.path.stat().st_size
        journal = cls.begun(path, _copied(plan.path, size))
        try:
            return journal, read_sync_journal(path)
        except UsageError:
            journal.close()
            raise

    @classmethod
    def go_on(cls, path: Path, way_on: str = "resume") -> tuple[SyncJournal, SyncRecord]:
        """Go on with a journal, after its last whole line; `way_on` is what goes on once more, if this is cut short."""
        return cls.gone_on_with(path, read_sync_journal, way_on)


def _copied(plan: Path, size: int) -> Iterator[bytes]:
    yield json_line({**SYNC_JOURNAL.mark, "plan": size})
    with plan.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def read_sync_journal(path: Path) -> SyncRecord:
    """Read a journal, or say in one line why it is none; a last line cut short is left out."""
    with SYNC_JOURNAL.opened(path) as file:
        return _parsed(file, path)


def _parsed(file: BinaryIO, path: Path) -> SyncRecord:
    first = file.readline()
    header = SYNC_JOURNAL.header(first, str(path))
    length, check = int(header.get("plan", 0)), SYNC_JOURNAL.first_check(first, header)
    at = len(first) + length
    if path.stat().st_size < at:
        msg = f"{path} holds no whole plan: nothing was begun; delete it and apply the plan again"
        raise UsageError(msg)
    record = SyncRecord(parse_plan(file, path, len(first), length), path, at, check)
    file.seek(at)
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record.check = check_of(line, record.check)
            record.take(json.loads(line), at)
        except (*DAMAGED, StopIteration):
            msg = f"{path}: line {number} after the plan is damaged; {DISTRUSTED}"
            raise UsageError(msg) from None
        at += len(line)
        record.length = at
    return record
