"""Merkle trees over token ranges: one tree a replica, all of one shape, compared from the root downwards.

A leaf hashes (scheme, range, row count, digest); an inner node hashes (level, left, right), in order, so
that equal roots can only stand over equal leaves in equal places. Nothing is ever combined by XOR. A leaf that was not
read has no hash, and neither has any node above it: unknown equals nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import xxhash

from consistency.errors import InternalError
from consistency.model.tokens import TokenRange

SCHEME_VERSION = 1
_LEAF = struct.Struct(">BBqqqI")
_INNER = struct.Struct(">BB")
_LEAF_MARK, _INNER_MARK = 0, 2

ReplicaT = TypeVar("ReplicaT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Digest:
    """What one leaf of one replica hashes to: how many rows, and the digest of them all.

    `newest_us` is the newest write time in the leaf where it was asked for; equal digests have equal ones.
    """

    rows: int
    value: bytes
    newest_us: int | None = field(default=None, compare=False)


def leaf_hash(token_range: TokenRange, digest: Digest | None, scheme: str) -> bytes | None:
    """Return the 16-byte hash of one leaf, None if it was not read.

    `scheme` says what was hashed and where: digests of different schemes are never compared.
    """
    if digest is None:
        return None
    name = scheme.encode()
    head = _LEAF.pack(_LEAF_MARK, SCHEME_VERSION, token_range.start, token_range.end, digest.rows, len(name))
    return xxhash.xxh3_128_digest(head + name + digest.value)


@dataclass(frozen=True, slots=True)
class MerkleTree:
    """The levels of a tree, leaves first; an odd node at the end of a level is carried up unchanged."""

    levels: tuple[tuple[bytes | None, ...], ...]

    @classmethod
    def build(cls, leaves: Sequence[bytes | None]) -> MerkleTree:
        """Build the tree over leaf hashes in ring order; at least one."""
        if not leaves:
            raise InternalError("a Merkle tree needs at least one leaf")
        levels = [tuple(leaves)]
        while len(levels[-1]) > 1:
            below, height = levels[-1], len(levels)
            levels.append(
                tuple(
                    _parent(height, below[i], below[i + 1]) if i + 1 < len(below) else below[i]
                    for i in range(0, len(below), 2)
                )
            )
        return cls(tuple(levels))

    @property
    def root(self) -> bytes | None:
        """The hash over everything; None if a leaf was not read."""
        return self.levels[-1][0]


def _parent(level: int, left: bytes | None, right: bytes | None) -> bytes | None:
    """Hash two children in order, together with their height."""
    if left is None or right is None:
        return None
    return xxhash.xxh3_128_digest(_INNER.pack(_INNER_MARK, level) + left + right)


def differing_leaves(trees: Mapping[ReplicaT, MerkleTree]) -> list[int]:
    """Return the positions of the leaves on which the replicas that were read differ, in ring order.

    Starts at the roots and descends only if they are not all known and equal. All trees must have the same shape.
    """
    every = list(trees.values())
    if not every:
        return []
    shapes = {tuple(map(len, tree.levels)) for tree in every}
    if len(shapes) != 1:
        raise InternalError("Merkle trees of different shapes were compared")
    height = len(every[0].levels) - 1
    found: list[int] = []
    pending = [(height, 0)]
    while pending:
        level, position = pending.pop()
        hashes = {tree.levels[level][position] for tree in every}
        if level == 0:
            if len(hashes - {None}) > 1:
                found.append(position)
            continue
        if len(hashes) == 1 and None not in hashes:
            continue
        below = len(every[0].levels[level - 1])
        children = [i for i in (2 * position, 2 * position + 1) if i < below]
        pending.extend((level - 1, i) for i in reversed(children))
    return found
