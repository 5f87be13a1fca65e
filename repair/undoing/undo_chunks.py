"""What of a chunk an undo takes back, and how the journal keeps that: by the rows' places in the chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from repair.keeping.chunk_lines import ChunkName, ChunkRecord, ChunkRow, undo_ended_json, unmerged_json, unmerging_json
from repair.keeping.entries import Result
from repair.keeping.journal import Journal


class OfRow(Protocol):
    """Where it is kept what is undone of a row."""

    async def undoing(self, number: int, at_us: int) -> None:
        """Keep the write time of a row's undo before it is sent; durable on return."""

    async def undone(self, number: int, result: Result, reason: str) -> None:
        """Keep what came of undoing a row; durable on return."""


@dataclass(frozen=True, slots=True)
class OfChunk:
    """Keeps what is undone of one chunk, by the row's place in it."""

    journal: Journal
    name: ChunkName

    async def undoing(self, number: int, at_us: int) -> None:
        """Keep the write time of a row's undo; durable on return."""
        await self.journal.note(unmerging_json(self.name, number, at_us))

    async def undone(self, number: int, result: Result, reason: str) -> None:
        """Keep what came of undoing a row; durable on return."""
        await self.journal.note(unmerged_json(self.name, number, result, reason))

    async def ended(self) -> None:
        """Keep that an undo has ended with all rows; durable on return."""
        await self.journal.note(undo_ended_json(self.name))


def chunk_to_undo(chunk: ChunkRecord, rows: Sequence[ChunkRow]) -> dict[int, ChunkRow]:
    """Return the rows of a chunk that were to be acted on and are not undone, by their place in it."""
    return {
        place: replace(row, entry=replace(row.entry, undoing_us=chunk.undoing.get(place)))
        for place, row in enumerate(rows)
        if not chunk.is_undone(place)
    }
