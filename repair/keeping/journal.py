"""The journal: what apply is about to do, with every replica's pre-image, and what came of it.

JSON Lines, mode 0600, a line fsynced before anything follows from it. The first line holds the whole
plan, so that resume and undo need no other file. A kill can cut the last line short: it is dropped.

An outcome says what is known of our writes to the row, and which replicas they changed: undo rests on that alone.
Journals of schema 1 do not say it, and those before schema 3 have no checksums (`chain.py`). Of replicas
that hold the same the copy is written once.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from consistency.errors import ConsistencyError, LockedError, UsageError
from consistency.private import create_private
from repair.deciding.copies import Copies, copies_from_json, copies_json
from repair.keeping.chain import chained, first_check
from repair.keeping.entries import Outcome, Place, Result, outcome_json
from repair.keeping.files import REPAIR_JOURNAL, json_line
from repair.keeping.planfile import Plan
from repair.keeping.record import Record, read_journal


class Read(Protocol):
    """A journal as read."""

    @property
    def length(self) -> int:
        """Bytes up to the end of the last whole line."""

    @property
    def check(self) -> int | None:
        """The checksum of the last whole line; None in a journal without checksums."""


RecordT = TypeVar("RecordT", bound=Read)
JournalT = TypeVar("JournalT", bound="Journal")


class JournalError(ConsistencyError):
    """The journal cannot be written, so nothing more may be done to the cluster."""


class Lines(ABC):
    """What a journal is told of rows and chunks, line by line; whoever keeps the lines says how."""

    @abstractmethod
    async def _add(self, raw: bytes) -> Place:
        """Keep a line, durable on return; tell where it lies."""

    async def intent(self, number: int, before: Copies) -> Place:
        """Say what is about to be done to a row, before it is; durable on return. Tells where `intended` finds it."""
        return await self._add(json_line({"intent": number, "before": copies_json(before)}))

    async def outcome(self, number: int, outcome: Outcome, by_us: int | None = None) -> None:
        """Say what came of a row, and when; durable on return."""
        await self._add(json_line({"outcome": number, **outcome_json(outcome, by_us)}))

    async def note(self, data: Mapping[str, Any]) -> None:
        """Keep a line about a chunk; durable on return."""
        await self._add(json_line(data))

    async def undoing(self, number: int, at_us: int) -> None:
        """Say that a row is about to be undone by a write at this time; durable on return."""
        await self._add(json_line({"undoing": number, "at": at_us}))

    async def undone(self, number: int, result: Result, reason: str) -> None:
        """Say what came of undoing a row; durable on return."""
        await self._add(json_line({"undo": number, "result": result.value, "reason": reason}))


class Journal(Lines):
    """An open journal; one process at a time.

    Lines of rows under way at once share an fsync: whoever waits for one takes along what was added meanwhile.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self._handle = handle
        self.path = path
        self._waiting: list[bytes] = []
        self._added = self._durable = 0
        self._end = os.fstat(handle).st_size
        self._check: int | None = None
        self._way_on = "resume"
        self._broken: JournalError | None = None
        self._syncing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    command = "repair"
    """The command that goes on with it."""

    @classmethod
    def create(cls, path: Path, plan: Plan) -> Journal:
        """Begin a journal; a file that is there already is never overwritten."""
        return cls.begun(path, [json_line({**REPAIR_JOURNAL.mark, "plan": plan.text()})])

    @classmethod
    def begun(cls: type[JournalT], path: Path, first: Iterable[bytes]) -> JournalT:  # noqa: PYI019 - Self is 3.11
        """Begin a journal by what stands first in it, durable on return, or leave no file."""
        try:
            handle = create_private(path, os.O_APPEND)
        except FileExistsError:
            msg = f"--journal {path} exists: continue it with '{cls.command} resume {path}', or name a new file"
            raise UsageError(msg) from None
        except OSError as error:
            msg = f"--journal {path}: {error.strerror}; name a file in a directory that can be written"
            raise UsageError(msg) from None
        journal = cls(handle, path)
        journal._lock()
        try:
            for part in first:
                if journal._check is None:
                    journal._check = first_check(part)
                journal._write(part)
                journal._end += len(part)
            _sync_directory(path)
        except JournalError as error:
            journal.close()
            path.unlink(missing_ok=True)  # a header cut short is of no use to resume
            cause = error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else error
            msg = f"--journal {path} cannot be written: {reason}; nothing was begun: name a file where there is room"
            raise JournalError(msg) from None
        return journal

    @classmethod
    def reopen(cls, path: Path, way_on: str = "resume") -> tuple[Journal, Record]:
        """Go on with a journal, after its last whole line; `way_on` is what goes on once more, if this is cut short."""
        return cls.gone_on_with(path, read_journal, way_on)

    @classmethod
    def gone_on_with(  # noqa: PYI019 - Self is 3.11
        cls: type[JournalT], path: Path, read: Callable[[Path], RecordT], way_on: str
    ) -> tuple[JournalT, RecordT]:
        """Go on with a journal after the last whole line that `read` tells of; nobody else writes to it meanwhile."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            msg = f"cannot write to {path}: {error.strerror}"
            raise UsageError(msg) from None
        journal = cls(handle, path)
        journal._lock()
        try:
            record = read(path)
        except UsageError:
            journal.close()
            raise
        os.ftruncate(handle, record.length)
        journal._end, journal._check = record.length, record.check
        journal._way_on = way_on
        return journal, record

    def intended(self, place: Place) -> Copies:
        """Return the copies of an intent, read back: those of a large partition are not kept in memory."""
        at, length = place
        try:
            return copies_from_json(json.loads(os.pread(self._handle, length, at))["before"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"the journal {self.path} cannot be read back: {type(error).__name__}; nothing more was begun"
            raise JournalError(msg) from None

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

    async def _add(self, raw: bytes) -> Place:
        if self._check is not None:
            raw, self._check = chained(raw, self._check)
        place = self._end, len(raw)
        self._waiting.append(raw)
        self._end += len(raw)
        self._added += 1
        mine = self._added
        async with self._syncing:
            if self._durable >= mine:
                return place
            if self._broken:  # its last line may be torn: nothing can follow it
                raise self._broken
            batch, upto = b"".join(self._waiting), self._added
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
            del self._waiting[: upto - self._durable]
            self._durable = upto
        return place

    def _write(self, raw: bytes) -> None:
        try:
            while raw:
                raw = raw[os.write(self._handle, raw) :]
            os.fsync(self._handle)
        except OSError as error:
            msg = (
                f"the journal {self.path} cannot be written: {error.strerror}; nothing more was begun: "
                f"make room, then '{self.command} {self._way_on} {self.path}'"
            )
            self._broken = JournalError(msg)
            raise self._broken from None


def _sync_directory(path: Path) -> None:
    """Make the file's name durable as well."""
    with suppress(OSError):
        handle = os.open(path.resolve().parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
