"""The journal: what apply is about to do, with every replica's pre-image, and what came of it.

JSON Lines, mode 0600, a line fsynced before anything follows from it. The first line holds the whole
plan, so that resume and undo need no other file. A kill can cut the last line short: it is dropped.

An outcome says what is known of our writes to the row, and which replicas they changed: undo rests on that alone.
Journals of schema 1 do not say it. Of replicas that hold the same the copy is written once.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from consistency.errors import ConsistencyError, LockedError, UsageError
from consistency.private import closing, create_private
from repair.copies import Copies, copies_from_json, copies_json
from repair.forecast import Change
from repair.planfile import Plan, parse_plan, require_private

Place = tuple[int, int]
"""Where a line of the file begins, and its length in bytes."""

SCHEMA_VERSION = 2
_READ = (1, 2)


class Result(str, Enum):
    """What came of one row."""

    VERIFIED = "verified"
    LEFT = "left-alone"
    SKIPPED = "skipped"
    DIVERGENT = "still-divergent"
    WAITING = "waits-for-node"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    UNDONE = "undone"
    NOT_UNDONE = "not-undone"
    UNCHANGED = "not-changed"


class Fate(str, Enum):
    """What is known of our writes to a row."""

    NONE = "none"
    """Nothing was sent, or what was sent was refused before anything was done."""
    DONE = "done"
    """What was sent was acknowledged; what was not acknowledged was surely not done."""
    UNKNOWN = "unknown"
    """Something was sent of which it is not known whether it was done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a row and why, the copies after it, and what is known of our writes to it."""

    result: Result
    reason: str = ""
    after: Copies | None = None
    fate: Fate = Fate.NONE
    changed: frozenset[str] = frozenset()
    """The host ids of the replicas whose copies our writes changed, proven by reading them after."""
    change: Change | None = None
    """What became of the row; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal knows of one row: pre-image once acted on, outcome once verified, copies after it."""

    before: Copies | None = None
    result: Result | None = None
    reason: str = ""
    after: Copies | None = None
    by_us: int | None = None
    """When that was seen, by the most advanced of the servers' clocks: no server had stamped a later write by then."""
    undoing_us: int | None = None
    """The write time of an undo that was begun."""
    undo: Result | None = None
    undo_reason: str = ""
    fate: Fate | None = None
    """None while a row is under way, and in journals that do not tell."""
    changed: frozenset[str] = frozenset()
    change: Change | None = None

    @property
    def open(self) -> bool:
        """Whether resume goes on with the row: it has no end yet, or one that was a refusal or is not known."""
        return self.result in (None, Result.REFUSED, Result.UNKNOWN) and self.undoing_us is None

    @property
    def pre_image(self) -> Copies | None:
        """The copies before our writes; None where none of ours can have reached the row."""
        return None if self.fate is Fate.NONE else self.before


@dataclass(frozen=True)
class Record:
    """A journal as read: the plan, and an entry for every row that something was written about."""

    plan: Plan
    entries: Mapping[int, Entry] = field(default_factory=dict)
    length: int = 0
    """Bytes up to the end of the last whole line."""

    @property
    def complete(self) -> bool:
        """Whether every row of the plan has an outcome."""
        return all(self.entries.get(n, Entry()).result is not None for n in range(len(self.plan.rows)))

    @property
    def open_rows(self) -> list[int]:
        """The rows that a resume goes on with."""
        return [n for n in range(len(self.plan.rows)) if self.entries.get(n, Entry()).open]


class JournalError(ConsistencyError):
    """The journal cannot be written, so nothing more may be done to the cluster."""


class Journal:
    """An open journal; one process at a time.

    Lines of rows under way at once share an fsync: whoever waits for one takes along what was added meanwhile.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self._handle = handle
        self.path = path
        self._waiting: list[bytes] = []
        self._added = self._durable = 0
        self._end = os.fstat(handle).st_size
        self._broken: JournalError | None = None
        self._syncing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    @classmethod
    def create(cls, path: Path, plan: Plan) -> Journal:
        """Begin a journal; a file that is there already is never overwritten."""
        try:
            handle = create_private(path, os.O_APPEND)
        except FileExistsError:
            msg = f"--journal {path} exists: continue it with 'repair resume {path}', or name a new file"
            raise UsageError(msg) from None
        except OSError as error:
            msg = f"--journal {path}: {error.strerror}; name a file in a directory that can be written"
            raise UsageError(msg) from None
        journal = cls(handle, path)
        journal._lock()
        try:
            header = line({"schema": SCHEMA_VERSION, "type": "repair-journal", "plan": plan.text()})
            journal._write(header)
            journal._end = len(header)
            _sync_directory(path)
        except JournalError as error:
            journal.close()
            path.unlink(missing_ok=True)  # a header cut short is of no use to resume
            msg = f"--journal {path} cannot be written: {error.__context__ or error}; nothing was begun"
            raise JournalError(msg) from None
        return journal

    @classmethod
    def reopen(cls, path: Path) -> tuple[Journal, Record]:
        """Go on with a journal, after its last whole line."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            msg = f"cannot write to {path}: {error.strerror}"
            raise UsageError(msg) from None
        journal = cls(handle, path)
        journal._lock()
        try:
            record = read_journal(path)
        except UsageError:
            journal.close()
            raise
        os.ftruncate(handle, record.length)
        journal._end = record.length
        return journal, record

    async def intent(self, number: int, before: Copies) -> Place:
        """Say what is about to be done to a row, before it is; durable on return. Tells where `intended` finds it."""
        raw = intent_line(number, before)
        place = self._end, len(raw)
        await self._add(raw)
        return place

    def intended(self, place: Place) -> Copies:
        """Return the copies of an intent, read back: those of a large partition are not kept in memory."""
        at, length = place
        try:
            return copies_from_json(json.loads(os.pread(self._handle, length, at))["before"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"the journal {self.path} cannot be read back: {type(error).__name__}; nothing more was begun"
            raise JournalError(msg) from None

    async def outcome(self, number: int, outcome: Outcome, by_us: int | None = None) -> None:
        """Say what came of a row, and when; durable on return."""
        await self._add(outcome_line(number, outcome, by_us))

    async def undoing(self, number: int, at_us: int) -> None:
        """Say that a row is about to be undone by a write at this time; durable on return."""
        await self._add(line({"undoing": number, "at": at_us}))

    async def undone(self, number: int, result: Result, reason: str) -> None:
        """Say what came of undoing a row; durable on return."""
        await self._add(undone_line(number, result, reason))

    def close(self) -> None:
        """Close the file, which frees it for others."""
        self._thread.shutdown(wait=True)
        os.close(self._handle)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            msg = f"another run writes to {self.path}"
            raise LockedError(msg) from None

    async def _add(self, raw: bytes) -> None:
        self._waiting.append(raw)
        self._end += len(raw)
        self._added += 1
        mine = self._added
        async with self._syncing:
            if self._durable >= mine:
                return
            if self._broken:  # its last line may be torn: nothing can follow it
                raise self._broken
            batch, upto = b"".join(self._waiting), self._added
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
            del self._waiting[: upto - self._durable]
            self._durable = upto

    def _write(self, raw: bytes) -> None:
        try:
            while raw:
                raw = raw[os.write(self._handle, raw) :]
            os.fsync(self._handle)
        except OSError as error:
            msg = (
                f"the journal {self.path} cannot be written: {error.strerror}; nothing more was begun: "
                f"make room, then 'repair resume {self.path}'"
            )
            self._broken = JournalError(msg)
            raise self._broken from None


def line(data: Mapping[str, Any]) -> bytes:
    """Return one line of the file."""
    return (json.dumps(data, ensure_ascii=True, separators=(",", ":")) + "\n").encode()


def intent_line(number: int, before: Copies) -> bytes:
    """Return the line of an intent."""
    return line({"intent": number, "before": copies_json(before)})


def outcome_line(number: int, outcome: Outcome, by_us: int | None = None) -> bytes:
    """Return the line of an outcome."""
    data: dict[str, Any] = {"outcome": number, "result": outcome.result.value, "reason": outcome.reason}
    data |= {"fate": outcome.fate.value, "changed": sorted(outcome.changed)}
    if outcome.after is not None:
        data["after"] = copies_json(outcome.after)
    if outcome.change is not None:
        data["change"] = outcome.change.value
    if by_us is not None:
        data["by"] = by_us
    return line(data)


def undone_line(number: int, result: Result, reason: str) -> bytes:
    """Return the line of an undo."""
    return line({"undo": number, "result": result.value, "reason": reason})


def _sync_directory(path: Path) -> None:
    """Make the file's name durable as well."""
    with suppress(OSError):
        handle = os.open(path.resolve().parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_journal(file: Path) -> bool:
    """Whether a file is a journal, as its first bytes say; UsageError where it cannot be read."""
    try:
        if file.exists() and not file.is_file():
            msg = f"{file} is not a regular file"
            raise UsageError(msg)
        with file.open("rb") as lines:
            return b'"repair-journal"' in lines.read(200)
    except OSError as error:
        msg = f"cannot read {file}: {error.strerror}"
        raise UsageError(msg) from None


def read_journal(path: Path) -> Record:
    """Read a journal, or say in one line why it is none; a last line cut short is left out."""
    raw = require_private(path, f"run: {closing(path)}, if you know that it is whole")
    return parse_journal(raw, str(path))


def parse_journal(raw: bytes, name: str) -> Record:
    """Read a journal's bytes up to the last whole line."""
    whole = raw[: raw.rfind(b"\n") + 1]
    first, *lines = whole.split(b"\n")[:-1] or [b""]
    try:
        header = json.loads(first)
        if header["type"] != "repair-journal":
            raise ValueError(header["type"])
        planned = str(header["plan"]).encode()
    except (KeyError, ValueError, TypeError, RecursionError):
        msg = f"{name} is not a repair journal: line 1 is not its header"
        raise UsageError(msg) from None
    if header.get("schema") not in _READ:
        msg = f"{name} has schema {header.get('schema')!r}; this version reads {_READ[0]} and {_READ[1]}"
        raise UsageError(msg)
    plan = parse_plan(planned, f"the plan in {name}")
    entries: dict[int, Entry] = {}
    for number, line in enumerate(lines, start=2):
        try:
            _take(json.loads(line), entries)
            if not all(0 <= row < len(plan.rows) for row in entries):
                raise ValueError(number)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            msg = f"{name} line {number} is damaged; nothing after it can be trusted"
            raise UsageError(msg) from None
    return Record(plan, entries, len(whole))


def _take(data: Mapping[str, Any], entries: dict[int, Entry]) -> None:
    if "intent" in data:
        number, held = int(data["intent"]), entries.get(int(data["intent"]), Entry())
        # A second intent comes from a resume: where the first one may have been carried out its pre-image is the true
        # one, and nothing is known of the second one yet.
        first = held.pre_image
        entries[number] = Entry(copies_from_json(data["before"]) if first is None else first)
    elif "outcome" in data:
        number = int(data["outcome"])
        before = entries.get(number, Entry()).before
        after = copies_from_json(data["after"]) if "after" in data else None
        by_us = int(data["by"]) if "by" in data else None
        fate = Fate(data["fate"]) if "fate" in data else None
        changed = frozenset(map(str, data.get("changed", ())))
        done = Change(data["change"]) if "change" in data else None
        entries[number] = Entry(
            before, Result(data["result"]), str(data["reason"]), after, by_us, fate=fate, changed=changed, change=done
        )
    elif "undoing" in data:
        number = int(data["undoing"])
        entries[number] = replace(entries.get(number, Entry()), undoing_us=int(data["at"]))
    else:
        number = int(data["undo"])
        held = entries.get(number, Entry())
        entries[number] = replace(held, undo=Result(data["result"]), undo_reason=str(data["reason"]))
