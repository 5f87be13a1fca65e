"""The digest of a range that a server computes: what it is asked, what it answers, and how parts add up."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from consistency.cluster import selects
from consistency.model.layout import DigestLayout
from consistency.model.reading import RawRow, Reading
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest

_LONG = struct.Struct(">q")
_HASH_BYTES = 20
"""A sum of hashes of 16 bytes."""


@dataclass(frozen=True, slots=True)
class ServerDigest:
    """The digest of a reading's rows: a sum of their hashes from Cassandra 5.0 on, sums of write times before.

    With `newest` it tells the newest write time as well.
    """

    reading: Reading
    newest: bool

    def query(self, token_range: TokenRange, algorithm: str) -> str:
        """Return the query for a range; `algorithm` is the spelling of the hash, where there is one."""
        if self.reading.capabilities.hashes:
            return selects.hash_digest(self.reading, token_range, algorithm, newest=self.newest)
        return selects.sum_digest(self.reading, token_range, newest=self.newest)

    def decode(self, row: RawRow) -> Digest:
        """Return the digest that a query answered."""
        layout = self._layout
        value = b"".join(self._word(_number(cell)) for cell in row[layout.sums])
        return Digest(bigint(row[layout.count]), value, newest_time(row[layout.times]))

    def add(self, one: Digest, other: Digest) -> Digest:
        """Return the digest of two ranges that do not overlap, from theirs: sums add up, as the server's do."""
        size = self._word_bytes
        pairs = ((one.value[at : at + size], other.value[at : at + size]) for at in range(0, len(one.value), size))
        value = b"".join(self._word(int.from_bytes(a, "big") + int.from_bytes(b, "big")) for a, b in pairs)
        newest = max((us for us in (one.newest_us, other.newest_us) if us is not None), default=None)
        return Digest(one.rows + other.rows, value, newest)

    def total(self, rows: Collection[RawRow]) -> Digest:
        """Return the digest of ranges that do not overlap, from what was answered for each; hashes only."""
        layout = self._layout
        count = sum(bigint(row[layout.count]) for row in rows)
        number = sum(_number(cell) for row in rows for cell in row[layout.sums])
        return Digest(count, self._word(number), newest_time([cell for row in rows for cell in row[layout.times]]))

    @property
    def _layout(self) -> DigestLayout:
        """Where things stand in an answer."""
        if self.reading.capabilities.hashes:
            return DigestLayout.hashed()
        return DigestLayout.summed(len(selects.newest_terms(self.reading)) if self.newest else 0)

    @property
    def _word_bytes(self) -> int:
        return _HASH_BYTES if self.reading.capabilities.hashes else _LONG.size

    def _word(self, number: int) -> bytes:
        size = self._word_bytes
        return (number & ((1 << 8 * size) - 1)).to_bytes(size, "big")


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", "big", signed=True)


def newest_time(cells: Sequence[bytes | None]) -> int | None:
    """Return the latest of some columns' newest write times, None where there is none."""
    return max((bigint(cell) for cell in cells if cell), default=None)


def bigint(raw: bytes | None) -> int:
    """Return a bigint's value; null counts as 0, which is what a sum of nothing is."""
    return _LONG.unpack(raw)[0] if raw else 0


def lanes(count: int) -> asyncio.Queue[str]:
    """Return the spellings of the hash that a node may be asked with at once, each in use by one query at a time."""
    free: asyncio.Queue[str] = asyncio.Queue()
    for spelling in selects.HASH_SPELLINGS[:count]:
        free.put_nowait(spelling)
    return free
