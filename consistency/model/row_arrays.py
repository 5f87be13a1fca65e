"""Rows of one token range on its replicas as arrays: which of them differ, and how. No row is an object here.

A row takes some 50 bytes and no Python of its own, so a range on which most rows differ costs little more than one
on which none does. Keys are hashes of keys: who wants to name a row reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

NO_TIME = np.iinfo(np.int64).min
"""Stands for the write time of a column that a row does not hold."""

Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]


class Shown(Enum):
    """What is read of rows beside their names and hashes: the newest write times too, or all that tells kinds apart."""

    ROWS = "rows"
    AGES = "ages"
    KINDS = "kinds"


@dataclass(frozen=True, eq=False)
class HashedRows:
    """The rows of a range on one replica, in any order.

    Shapes, for n rows of c columns: `tokens` (n,); `keys` (n,), a hash of the primary key; `hashes` (n, 2), of all that
    is read of the row; `expiries` (n,), of when its cells expire; `ages` (n,), of when the elements of its collections
    were written; `times` (n, c), the newest write time of each column in microseconds, NO_TIME if there is none.
    """

    tokens: Numbers
    keys: Hashes
    hashes: Hashes
    expiries: Hashes
    ages: Hashes
    times: Numbers

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def distinct(self) -> bool:
        """Whether no two rows have one key: two keys can have one hash, and two partitions one token."""
        ordered = np.sort(self.keys)
        return not (ordered[1:] == ordered[:-1]).any()

    def take(self, which: Flags) -> HashedRows:
        """Return some of the rows."""
        return HashedRows(
            self.tokens[which],
            self.keys[which],
            self.hashes[which],
            self.expiries[which],
            self.ages[which],
            self.times[which],
        )

    @property
    def newest_us(self) -> int | None:
        """The newest of the write times that were read, None if there is none."""
        newest = int(self.times.max(initial=NO_TIME))
        return None if newest == NO_TIME else newest

    @property
    def without_times(self) -> HashedRows:
        """The same rows, as if no write time had been read."""
        return replace(self, times=self.times[:, :0])

    @classmethod
    def none(cls, columns: int) -> HashedRows:
        """Return no rows of so many columns."""
        return cls(
            np.zeros(0, np.int64),
            np.zeros(0, np.uint64),
            np.zeros((0, 2), np.uint64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint64),
            np.zeros((0, columns), np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence[HashedRows], columns: int) -> HashedRows:
        """Return the rows of several parts of a range."""
        if not parts:
            return cls.none(columns)
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.hashes for part in parts]),
            np.concatenate([part.expiries for part in parts]),
            np.concatenate([part.ages for part in parts]),
            np.concatenate([part.times for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class UnlikeRows:
    """The rows of a range that not all of its replicas hold alike.

    Shapes, for n rows on r replicas: `tokens` and `keys` (n,), keys in ascending order; `present` (n, r); `hashes`
    (n, r, 2); `expiries` and `ages` (n, r); `times` (n, r, c). What a replica does not hold is 0, its times NO_TIME.
    """

    tokens: Numbers
    keys: Hashes
    present: Flags
    hashes: Hashes
    expiries: Hashes
    ages: Hashes
    times: Numbers

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, which: Flags) -> UnlikeRows:
        """Return some of the rows."""
        return UnlikeRows(
            self.tokens[which],
            self.keys[which],
            self.present[which],
            self.hashes[which],
            self.expiries[which],
            self.ages[which],
            self.times[which],
        )

    @property
    def newest(self) -> Numbers:
        """The newest write time of each row, NO_TIME if it shows none."""
        if not self.times.shape[2]:
            return np.full(len(self), NO_TIME)
        newest: Numbers = self.times.max(axis=(1, 2))
        return newest

    def same_as(self, earlier: UnlikeRows) -> Flags:
        """Return which rows every replica holds exactly as it did earlier, when they differed too."""
        same: Flags = np.zeros(len(self), np.bool_)
        _, mine, theirs = np.intersect1d(self.keys, earlier.keys, assume_unique=True, return_indices=True)
        alike = (self.present[mine] == earlier.present[theirs]).all(axis=1)
        alike &= (self.hashes[mine] == earlier.hashes[theirs]).all(axis=(1, 2))
        same[mine] = alike
        return same

    def known_to(self, earlier: UnlikeRows) -> Flags:
        """Return which rows differed earlier too, whatever they hold now."""
        known: Flags = np.isin(self.keys, earlier.keys, assume_unique=True)
        return known


def compare(replicas: Sequence[HashedRows]) -> UnlikeRows:
    """Return the rows that not all replicas hold with the same hash; of each replica all names are distinct."""
    unlike = [rows.take(which) for rows, which in zip(replicas, _told_apart(replicas), strict=True)]
    keys, places = np.unique(np.concatenate([rows.keys for rows in unlike]), return_inverse=True)
    shape, columns = (len(keys), len(unlike)), unlike[0].times.shape[1]
    found = UnlikeRows(
        np.zeros(len(keys), np.int64),
        keys,
        np.zeros(shape, np.bool_),
        np.zeros((*shape, 2), np.uint64),
        np.zeros(shape, np.uint64),
        np.zeros(shape, np.uint64),
        np.full((*shape, columns), NO_TIME),
    )
    start = 0
    for number, rows in enumerate(unlike):
        at = places[start : start + len(rows)]
        start += len(rows)
        found.tokens[at] = rows.tokens
        found.present[at, number] = True
        found.hashes[at, number] = rows.hashes
        found.expiries[at, number] = rows.expiries
        found.ages[at, number] = rows.ages
        found.times[at, number] = rows.times
    return found


def _told_apart(replicas: Sequence[HashedRows]) -> Sequence[Flags]:
    """Return of each replica which of its rows not all others hold with the same hash: no more is asked of the rest."""
    first, *others = replicas
    if all(np.array_equal(first.keys, rows.keys) for rows in others):  # in ring order, and none is missing anywhere
        unlike = np.zeros(len(first), np.bool_)
        for rows in others:
            unlike |= (rows.hashes != first.hashes).any(axis=1)
        return [unlike] * len(replicas)
    keys = np.concatenate([rows.keys for rows in replicas])
    hashes = np.concatenate([rows.hashes for rows in replicas])
    order, width = np.argsort(keys), len(replicas)
    keys, hashes = keys[order], hashes[order]
    # A key that all replicas hold takes as many places here as there are replicas, and with it what they hold.
    starts = np.flatnonzero(keys[: max(0, len(keys) - width + 1)] == keys[width - 1 :])
    for place in range(1, width):
        starts = starts[(hashes[starts] == hashes[starts + place]).all(axis=1)]
    told = np.ones(len(keys), np.bool_)
    for place in range(width):
        told[order[starts + place]] = False
    return np.split(told, np.cumsum([len(rows) for rows in replicas])[:-1])


def stale(rows: UnlikeRows) -> Flags:
    """Return which replicas (n, r) hold an older version of some column than another replica of the row."""
    newest = rows.times.max(axis=1, keepdims=True, initial=NO_TIME)
    behind: Flags = (rows.times < newest).any(axis=2) & rows.present
    return behind


def times_differ(rows: UnlikeRows) -> Flags:
    """Return of which rows the replicas that hold them show unlike write times, of columns or of elements."""
    differ: Flags = stale(rows).any(axis=1) | _differ(rows, rows.ages)
    return differ


def expiries_differ(rows: UnlikeRows) -> Flags:
    """Return of which rows the replicas that hold them show unlike expiries."""
    return _differ(rows, rows.expiries)


def _differ(rows: UnlikeRows, hashes: Hashes) -> Flags:
    lowest: Hashes = np.where(rows.present, hashes, np.iinfo(np.uint64).max).min(axis=1)
    highest: Hashes = np.where(rows.present, hashes, 0).max(axis=1)
    differ: Flags = np.not_equal(lowest, highest)
    return differ
