"""A journal as read: line by line, so that its size does not matter; of chunks only what is known without unpacking."""

from __future__ import annotations

import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from consistency.errors import DAMAGED, UsageError
from repair.deciding.copies import copies_from_json
from repair.keeping.chain import check_of
from repair.keeping.chunk_lines import ChunkName, ChunkRecord, ChunkRow, Source, rows_of, take_chunk
from repair.keeping.entries import Account, Entry, Place, Result, ended
from repair.keeping.files import REPAIR_JOURNAL
from repair.keeping.planfile import Plan, parse_plan

DISTRUSTED = "nothing after it can be trusted: put back a copy of the file as it was written, or check and plan again"
"""What follows from a line that is not as it was written."""


def _no_source(place: Place) -> bytes:
    raise ValueError(place)


@dataclass(frozen=True)
class Record:
    """A journal as read: the plan, an entry for every row that something was written about, and its chunks."""

    plan: Plan
    entries: Mapping[int, Entry] = field(default_factory=dict)
    length: int = 0
    """Bytes up to the end of the last whole line."""
    chunks: Mapping[ChunkName, ChunkRecord] = field(default_factory=dict)
    source: Source = field(default=_no_source, repr=False)
    name: str = "the journal"
    check: int | None = None
    """The checksum of the last whole line; None in a journal without checksums."""

    @property
    def complete(self) -> bool:
        """Whether every row of the plan has an outcome, and every range was merged to its end."""
        rows = all(self.entries.get(n, Entry()).result is not None for n in range(len(self.plan.rows)))
        waiting = any(chunk.waiting for chunk in self.chunks.values())
        return rows and not waiting and not self._unread_ranges

    @property
    def _unread_ranges(self) -> list[int]:
        """The ranges that no chunk has come to the end of."""
        ends = {(chunk.number, chunk.token_range.end) for chunk in self.chunks.values()}
        return [n for n, found in enumerate(self.plan.ranges) if (n, found.token_range.end) not in ends]

    @property
    def open_rows(self) -> list[int]:
        """The rows of the plan that a resume goes on with."""
        return [n for n in range(len(self.plan.rows)) if self.entries.get(n, Entry()).open]

    @property
    def open_ranges(self) -> list[int]:
        """The ranges that a resume goes on with."""
        unended = {chunk.number for chunk in self.chunks.values() if chunk.open}
        return sorted(unended | set(self._unread_ranges))

    @property
    def results(self) -> Counter[Result]:
        """Count the rows that have an outcome by what came of them, those of chunks too."""
        found = Counter(entry.result for entry in self.entries.values() if entry.result is not None)
        for chunk in self.chunks.values():
            found.update(chunk.account.results)
        return found

    @property
    def account(self) -> Account:
        """Count what came of the rows, those of chunks too, and of their undoing."""
        found = Account()
        for entry in self.entries.values():
            if entry.result is not None:
                found.add(entry.result, entry.reason, entry.change)
            if entry.undo is not None:
                found.add(entry.undo, entry.undo_reason)
        for chunk in self.chunks.values():
            found.add_all(chunk.account)
            found.add_all(chunk.undo_account)
        return found

    def chunks_of(self, number: int) -> list[ChunkRecord]:
        """Return the chunks of a range in ring order."""
        return sorted(
            (chunk for chunk in self.chunks.values() if chunk.number == number), key=lambda chunk: chunk.token_range
        )

    def rows_of(self, chunk: ChunkRecord) -> list[ChunkRow]:
        """Unpack the rows of a chunk."""
        found = self.plan.ranges[chunk.number]
        try:
            return rows_of(chunk, found.keyspace, found.table, self.source)
        except (*DAMAGED, OSError, zlib.error) as error:
            msg = f"{self.name}: the rows of a range are damaged ({type(error).__name__}); nothing of it can be trusted"
            raise UsageError(msg) from None

    def unpacked(self) -> Iterator[tuple[ChunkRecord, list[ChunkRow]]]:
        """Yield every chunk with its rows, one at a time, in ring order."""
        for name in sorted(self.chunks):
            yield self.chunks[name], self.rows_of(self.chunks[name])


def read_journal(path: Path) -> Record:
    """Read a journal, or say in one line why it is none; a last line cut short is left out."""
    with REPAIR_JOURNAL.opened(path) as file:
        return _parsed(file, str(path), partial(_read_back, path))


def _read_back(path: Path, place: Place) -> bytes:
    with path.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def parse_journal(raw: bytes, name: str) -> Record:
    """Read a journal's bytes up to the last whole line."""
    return _parsed(io.BytesIO(raw), name, lambda place: raw[place[0] : place[0] + place[1]])


def _parsed(file: BinaryIO, name: str, source: Source) -> Record:
    lines = _whole_lines(file)
    first, (_, length) = next(lines, (b"", (0, 0)))
    header = REPAIR_JOURNAL.header(first, name)
    plan = parse_plan(str(header.get("plan")).encode(), f"the plan in {name}")
    check = REPAIR_JOURNAL.first_check(first, header)
    entries: dict[int, Entry] = {}
    chunks: dict[ChunkName, ChunkRecord] = {}
    for number, (line, place) in enumerate(lines, start=2):
        try:
            check = check_of(line, check)
            data = json.loads(line)
            if take_chunk(data, place, chunks):
                _require(all(0 <= chunk < len(plan.ranges) for chunk, _ in chunks))
            else:
                _require(0 <= _take(data, entries) < len(plan.rows))
        except DAMAGED:
            msg = f"{name} line {number} is damaged; {DISTRUSTED}"
            raise UsageError(msg) from None
        length = sum(place)
    return Record(plan, entries, length, chunks, source, name, check)


def _whole_lines(file: BinaryIO) -> Iterator[tuple[bytes, Place]]:
    """Yield each line with its place, without one at the end that was cut short."""
    at = 0
    for line in file:
        if line.endswith(b"\n"):
            yield line, (at, len(line))
        at += len(line)


def _require(fits: bool) -> None:  # noqa: FBT001
    if not fits:
        raise ValueError(fits)


def _take(data: Mapping[str, Any], entries: dict[int, Entry]) -> int:
    """Take note of a line about one row; return the row's number."""
    number = row_of(data)
    entries[number] = entry_after(data, entries.get(number, Entry()))
    return number


def row_of(data: Mapping[str, Any]) -> int:
    """Return the number of the row that a line is about; KeyError, ValueError or TypeError if it is none."""
    named = [data[name] for name in ("intent", "outcome", "undoing") if name in data]
    return int(named[0] if named else data["undo"])


def entry_after(data: Mapping[str, Any], held: Entry) -> Entry:
    """Return what is known of a row after one more line about it; raises as `row_of` does."""
    if "intent" in data:
        # A second intent comes from a resume: where the first one may have been carried out its pre-image is the true
        # one, and nothing is known of the second one yet.
        first = held.pre_image
        return Entry(copies_from_json(data["before"]) if first is None else first)
    if "outcome" in data:
        return ended(held.before, data)
    if "undoing" in data:
        return replace(held, undoing_us=int(data["at"]))
    return replace(held, undo=Result(data["result"]), undo_reason=str(data["reason"]))
