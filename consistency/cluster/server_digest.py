"""The digest of a range that a server computes: what it is asked, what it answers, and how parts add up."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from consistency.cluster import selects
from consistency.cluster.row_hash import fixed_part, hash_bytes
from consistency.model.layout import DIGEST
from consistency.model.reading import RawRow, Reading
from consistency.model.row_arrays import HashedRows
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest

_WORD_BITS = 32
_LONG = struct.Struct(">q")
_SUM_BYTES = 20
"""A sum of hashes of 16 bytes."""
_SUM_MASK = (1 << 8 * _SUM_BYTES) - 1


@dataclass(frozen=True, slots=True)
class ServerDigest:
    """The digest of a reading's rows: their count and the sum of their hashes.

    With `newest` it tells the newest write time as well.
    """

    reading: Reading
    newest: bool

    def query(self, token_range: TokenRange, spelling: str) -> str:
        """Return the query for a range; `spelling` is the lane's of the algorithm."""
        return selects.hash_digest(self.reading, token_range, spelling, newest=self.newest)

    def decode(self, row: RawRow) -> Digest:
        """Return the digest that a query answered."""
        return self.total([row])

    def add(self, one: Digest, other: Digest) -> Digest:
        """Return the digest of two ranges that do not overlap, from theirs: sums add up, as the server's do."""
        value = _sum_bytes(int.from_bytes(one.value, "big") + int.from_bytes(other.value, "big"))
        newest = max((us for us in (one.newest_us, other.newest_us) if us is not None), default=None)
        return Digest(one.rows + other.rows, value, newest)

    def total(self, rows: Collection[RawRow]) -> Digest:
        """Return the digest of ranges that do not overlap, from what was answered for each."""
        count = sum(bigint(row[DIGEST.count]) for row in rows)
        number = sum(_number(row[DIGEST.sum]) for row in rows)
        return Digest(count, _sum_bytes(number), newest_time([cell for row in rows for cell in row[DIGEST.times]]))

    def of_hashes(self, hashes: Sequence[bytes]) -> Digest:
        """Return the digest of a range from the hashes of its rows, which tell no write time."""
        number = _total(hashes) - fixed_part(self.reading) * len(hashes)
        return Digest(len(hashes), _sum_bytes(number))

    def of_arrays(self, rows: HashedRows) -> Digest:
        """Return the digest of a range from the hashes of its rows as arrays, with the newest of their write times."""
        raw = rows.hashes[:, : hash_bytes(self.reading) // 8].astype(">u8").tobytes()
        number = _added(raw, len(rows)) - fixed_part(self.reading) * len(rows)
        return Digest(len(rows), _sum_bytes(number), rows.newest_us)


def _sum_bytes(number: int) -> bytes:
    return (number & _SUM_MASK).to_bytes(_SUM_BYTES, "big")


def _total(hashes: Sequence[bytes]) -> int:
    """Add up hashes, each a signed number; where all are of one width no number is made of any by itself."""
    if len(set(map(len, hashes))) != 1:
        return sum(map(_number, hashes))
    return _added(b"".join(hashes), len(hashes))


def _added(raw: bytes, count: int) -> int:
    """Add up so many signed numbers of one width, which follow each other."""
    if not count:
        return 0
    words = np.frombuffer(raw, ">u4").reshape(count, -1)
    number = 0
    for column in words.sum(axis=0, dtype=np.uint64):
        number = (number << _WORD_BITS) + int(column)
    negative = int((words[:, 0] >> (_WORD_BITS - 1)).sum())
    return number - (negative << _WORD_BITS * words.shape[1])


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", "big", signed=True)


def newest_time(cells: Sequence[bytes | None]) -> int | None:
    """Return the latest of some columns' newest write times, None if there is none."""
    return max((bigint(cell) for cell in cells if cell), default=None)


def bigint(raw: bytes | None) -> int:
    """Return a bigint's value; null counts as 0, which is what a sum of nothing is."""
    return _LONG.unpack(raw)[0] if raw else 0
