"""A findings file as an index in memory: where each row is in the file, and what it can be found by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consistency.cli.show.terminal.problems import key_text
from consistency.errors import DAMAGED, UsageError
from consistency.model.cqltext import visible
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, copy_findings, differing_replicas, is_range, read_header, read_ranges
from consistency.results.kinds import Kind

SLICES = TokenRange.full_ring().split(16)
"""The number of parts of the ring to look through."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding: its number (from 1), its place in the file, and what the list shows and searches."""

    number: int
    offset: int
    kind: Kind
    table: str
    part: int
    label: str
    differing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter; None matches everything. `words` must all occur in a row."""

    table: str | None = None
    part: int | None = None
    kind: Kind | None = None
    replica: str | None = None
    words: tuple[str, ...] = ()

    def takes(self, entry: Entry) -> bool:
        """Whether a row matches."""
        return (
            (self.table is None or entry.table == self.table)
            and (self.part is None or entry.part == self.part)
            and (self.kind is None or entry.kind is self.kind)
            and (self.replica is None or self.replica in entry.differing)
            and all(word in _haystack(entry) for word in self.words)
        )


def _haystack(entry: Entry) -> str:
    return f"{entry.kind.value}\n{entry.table}\n{entry.label}\n{' '.join(entry.differing)}".lower()


class Shelf:
    """The rows of a file in its order; a row is read again when it is shown."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            msg = f"{path} is not a regular file; browse reads it more than once"
            raise UsageError(msg)
        self.path = path
        self.header: Mapping[str, Any] = read_header(path)
        self.entries: list[Entry] = list(_entries(path))
        self.counted = sum(found.rows for found in read_ranges(path))
        """Rows that the file counts by range, and does not list."""
        self.by_table: Counter[str] = Counter()
        self.by_part: Counter[tuple[str, int]] = Counter()
        self.by_kind: Counter[Kind] = Counter()
        self.by_replica: Counter[str] = Counter()
        for entry in self.entries:
            self.by_table[entry.table] += 1
            self.by_part[entry.table, entry.part] += 1
            self.by_kind[entry.kind] += 1
            self.by_replica.update(entry.differing)

    def finding(self, entry: Entry) -> Finding:
        """Read one row."""
        try:
            with self.path.open("rb") as file:
                file.seek(entry.offset)
                return Finding.from_json(json.loads(file.readline()))
        except (OSError, *DAMAGED):
            msg = f"{self.path} changed while it was open; open it again"
            raise UsageError(msg) from None

    def matching(self, choice: Choice) -> list[Entry]:
        """Return the rows that match, in the file's order."""
        return [entry for entry in self.entries if choice.takes(entry)]

    def write(self, target: Path, numbers: Collection[int]) -> int:
        """Write rows to another findings file; return how many."""
        return copy_findings(self.path, target, numbers, "--output")


def _entries(path: Path) -> Iterator[Entry]:
    tables: dict[str, str] = {}
    sides: dict[tuple[str, ...], tuple[str, ...]] = {}
    with path.open("rb") as file:
        offset, number = len(file.readline()), 0
        for at, line in enumerate(file, start=2):
            if is_range(line.decode("ascii", "replace")):
                offset += len(line)
                continue
            number += 1
            try:
                found = Finding.from_json(json.loads(line))
            except DAMAGED:
                msg = f"{path} line {at} is not a finding; run the check again"
                raise UsageError(msg) from None
            table = visible(f"{found.keyspace}.{found.table}")
            differing = tuple(visible(name) for name in differing_replicas(found))
            yield Entry(
                number=number,
                offset=offset,
                kind=found.kind,
                table=tables.setdefault(table, table),
                part=next((i for i, part in enumerate(SLICES) if found.token in part), 0),
                label=f"{key_text(found.key)}  token {found.token}",
                differing=sides.setdefault(differing, differing),
            )
            offset += len(line)
