"""Plans and journals as files: JSON Lines of mode 0600, each known by its first line and believed only if it is whole.

A plan is sealed: its last line is the SHA-256 of all before it, and it takes its place whole or not at all. A journal
grows line by line (`journal.py`), and holds its plan.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from consistency.errors import UsageError
from consistency.private import begin_partial, closing, is_open_to_others, partial_of
from consistency.results.json_lines import KNOWN_FILES
from repair.keeping.chain import first_check


@dataclass(frozen=True, slots=True)
class Format:
    """One of the files: what it is called, and which of its schemas this version reads."""

    type: str
    called: str
    schemas: tuple[int, ...]
    again: str = ""
    """How to have another one, if this one cannot be used; empty of a journal, which cannot be made again."""
    chained_since: int = 0
    """The first of a journal's schemas whose lines have checksums (`chain.py`)."""

    @property
    def mark(self) -> dict[str, Any]:
        """What the first line begins with: the newest of the schemas is the one that is written."""
        return {"schema": max(self.schemas), "type": self.type}

    def is_of(self, path: Path) -> bool:
        """Whether a file is one, as its first bytes say; UsageError if it cannot be read."""
        try:
            if path.exists() and not path.is_file():
                msg = f"{path} is not a regular file"
                raise UsageError(msg)
            with path.open("rb") as file:
                return self._marks(file.read(200))
        except OSError as error:
            raise _unreadable(path, error) from None

    def _marks(self, first: bytes) -> bool:
        return f'"{self.type}"'.encode() in first

    def header(self, first: bytes, name: str) -> dict[str, Any]:
        """Read the first line; UsageError if it is not of this format, or of a schema that is not known."""
        data = json_of(first)
        if data.get("type") != self.type:
            found = KNOWN_FILES.get(str(data.get("type")))
            msg = f"{name} is not {self.called}: {f'it is {found}' if found else 'line 1 is not its header'}"
            raise UsageError(msg)
        if data.get("schema") not in self.schemas:
            *older, newest = map(str, self.schemas)
            known = f"{', '.join(older)} and {newest}" if older else newest
            msg = f"{name} has schema {data.get('schema')!r}; this version reads {known}{self.or_again}"
            raise UsageError(msg)
        return data

    def first_check(self, first: bytes, header: Mapping[str, Any]) -> int | None:
        """Return the checksum of a journal's first line; None of a journal whose lines have none."""
        return first_check(first) if header["schema"] >= self.chained_since else None

    @property
    def or_again(self) -> str:
        """What a message ends with."""
        return f": {self.again}" if self.again else ""

    @contextmanager
    def opened(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file that only its owner may have written, or say in one line why it cannot be trusted or read."""
        remedy = f"run: {closing(path)}, if you know that it is whole"
        _require_private(path, f"{self.again}, or {remedy}" if self.again else remedy)
        try:
            with path.open("rb") as file:
                yield file
        except OSError as error:
            raise _unreadable(path, error) from None

    def require_replaceable(self, path: Path) -> None:
        """Refuse to take the place of anything else: a journal's pre-images are not to be had again."""
        if path.exists() and not path.is_file():
            msg = f"--output {path} is not a regular file; name another"
            raise UsageError(msg)
        with suppress(OSError), path.open("rb") as file:
            first = file.readline(200)
            if first and not self._marks(first):
                msg = f"--output {path} exists and is not {self.called}: it is not replaced; name another file"
                raise UsageError(msg)


REPAIR_PLAN = Format("repair-plan", "a repair plan", (1,), "plan again")
REPAIR_JOURNAL = Format("repair-journal", "a repair journal", (1, 2, 3), chained_since=3)
SYNC_PLAN = Format("sync-plan", "the plan of a sync", (1,), "plan again")
SYNC_JOURNAL = Format("sync-journal", "the journal of a sync", (1, 2), chained_since=2)
FORMATS = (REPAIR_PLAN, REPAIR_JOURNAL, SYNC_PLAN, SYNC_JOURNAL)


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot read {path}: {error.strerror}")


def _require_private(path: Path, remedy: str) -> None:
    """Say in one line why a file cannot be trusted, if it cannot: only its owner may read and write it."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            msg = f"{path} is not a regular file"
            raise UsageError(msg)
        with path.open("rb"):
            pass
    except OSError as error:
        raise _unreadable(path, error) from None
    if found.st_uid not in (os.geteuid(), 0):
        msg = f"{path} belongs to another user, who may have changed it: {remedy}"
        raise UsageError(msg)
    if is_open_to_others(found.st_mode):
        mode = found.st_mode & 0o777
        msg = f"{path} may be read or written by others (mode {mode:04o}), so it cannot be trusted: {remedy}"
        raise UsageError(msg)


_in_short = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def json_line(data: Mapping[str, Any]) -> bytes:
    """Return one line of a file."""
    return (_in_short(data) + "\n").encode()


def json_of(line: bytes) -> dict[str, Any]:
    """Return what a line holds; nothing if it is no JSON object."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


class Seal:
    """Takes the lines of a file one by one, and gives the last one, which seals it."""

    def __init__(self) -> None:
        """Begin with no line."""
        self._digest = hashlib.sha256()
        self.length = 0
        """Bytes of all lines so far."""

    def line(self, data: Mapping[str, Any]) -> bytes:
        """Return the next line."""
        raw = json_line(data)
        self._digest.update(raw)
        self.length += len(raw)
        return raw

    def last(self) -> bytes:
        """Return the line that seals the file."""
        return json_line({"sha256": self._digest.hexdigest()})


class SealedWriter:
    """Writes a sealed file as it is made, whole or not at all, durable and readable by its owner alone."""

    def __init__(self, path: Path, of: Format) -> None:
        """Begin; UsageError if no file can be made there, or something else lies there."""
        self._path = path
        self._partial = partial_of(path)
        self._ended = False
        self._seal = Seal()
        of.require_replaceable(path)
        with self._or_lost():
            self._file = os.fdopen(begin_partial(path), "wb")

    def __enter__(self) -> SealedWriter:  # noqa: PYI034 - Self is 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._ended:
            with suppress(OSError):
                self._partial.unlink()
        with suppress(OSError):  # last, because the name is another run's from then on
            self._file.close()

    @property
    def length(self) -> int:
        """Bytes of all lines so far."""
        return self._seal.length

    @contextmanager
    def _or_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"--output {self._path}: {error.strerror}; name a file in a directory that can be written"
            raise UsageError(msg) from None

    def add(self, data: Mapping[str, Any]) -> None:
        """Write one line."""
        with self._or_lost():
            self._file.write(self._seal.line(data))

    def end(self) -> None:
        """Seal the file, and put it in its place."""
        with self._or_lost():
            self._file.write(self._seal.last())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._partial.replace(self._path)
            self._ended = True


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a whole sealed file says of itself: its header, its last line before the seal, and where both lie."""

    header: Mapping[str, Any]
    last: bytes
    place: int
    """Where the first line after the header begins, in bytes."""
    last_at: int
    """Where the last line before the seal begins, in bytes."""


def unsealed(file: BinaryIO, of: Format, name: str, at: int, length: int) -> Sealed:
    """Read a sealed file that takes `length` bytes from `at` on, and check every byte of it against its seal."""
    file.seek(at)
    first = file.readline()
    header = of.header(first, name)
    digest = hashlib.sha256(first)
    before, last = b"", b""
    left = length - len(first)
    while left > 0 and (line := file.readline()):
        left -= len(line)
        if last:
            digest.update(last)
        before, last = last, line
    seal = json_of(last).get("sha256")
    if seal is None or not last.endswith(b"\n") or left:
        msg = f"{name} is cut short: its last line is not the checksum{of.or_again}"
        raise UsageError(msg)
    if seal != digest.hexdigest():
        msg = f"{name} was changed after it was written: its checksum does not fit{of.or_again}"
        raise UsageError(msg)
    return Sealed(header, before, at + len(first), at + length - len(last) - len(before))
