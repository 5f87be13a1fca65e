"""The layouts of what servers send of a table: rows, static rows, hashes of rows, digests of partitions and of ranges.

All but the last begin with the token and the key. A layout is made once for a reading and says where the rest stands;
what is sent stays a plain tuple, for there are millions of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def token_in(raw: Sequence[bytes | None]) -> int:
    """Return the token that a row, a hash or a partition's digest begins with."""
    return int.from_bytes(raw[0] or b"", "big", signed=True)


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Token, primary key, static cells, regular cells."""

    partition: slice
    clustering: slice
    key: slice
    statics: slice
    regulars: slice

    @classmethod
    def of(cls, *, partition: int, clustering: int, statics: int, regulars: int) -> RowLayout:
        """Return the layout of rows with so many cells of each."""
        rows = 1 + partition
        cells = rows + clustering
        return cls(
            partition=slice(1, rows),
            clustering=slice(rows, cells),
            key=slice(1, cells),
            statics=slice(cells, cells + statics),
            regulars=slice(cells + statics, cells + statics + regulars),
        )

    @property
    def of_static_row(self) -> StaticLayout:
        """The layout of a partition's static row where that is read alone."""
        return StaticLayout(self.partition, slice(self.partition.stop, None))

    @property
    def of_hash(self) -> HashLayout:
        """The layout of a row's hash."""
        return HashLayout(self.key)

    @property
    def of_partition_digest(self) -> PartitionLayout:
        """The layout of a partition's digest."""
        count = self.partition.stop
        return PartitionLayout(self.partition, count, slice(count, None), slice(count + 2))


@dataclass(frozen=True, slots=True)
class StaticLayout:
    """Token, partition key, static cells."""

    partition: slice
    statics: slice


@dataclass(frozen=True, slots=True)
class HashLayout:
    """Token, primary key, hash."""

    key: slice


@dataclass(frozen=True, slots=True)
class PartitionLayout:
    """Token, partition key, count of rows, sum of their hashes, and the newest write times where they were asked for.

    `digest` has the layout of a range's digest; `compared` is all but the write times, which one replica tells.
    """

    partition: slice
    count: int
    digest: slice
    compared: slice


@dataclass(frozen=True, slots=True)
class DigestLayout:
    """Count of rows, sum of their hashes, and the newest write times of columns where they were asked for."""

    count: int
    sum: int
    times: slice


DIGEST = DigestLayout(count=0, sum=1, times=slice(2, None))
"""The layout of a range's digest, whatever the reading."""
