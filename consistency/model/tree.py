"""Merkle trees over the leaves of one replica set, and where N of them differ.

A leaf hashes (scheme, range, row count, digest); an inner node hashes (level, left, right), in order, so
that equal roots can only stand over equal leaves in equal places. Nothing is ever combined by XOR.
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
_LEAF_MARK, _UNREAD_MARK, _INNER_MARK = 0, 1, 2

ReplicaT = TypeVar("ReplicaT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Digest:
    """What one leaf of one replica hashes to: how many rows, and the digest of them all.

    `newest_us` is the newest write time in the leaf where it was asked for; equal digests have equal ones.
    """

    rows: int
    value: bytes
    newest_us: int | None = field(default=None, compare=False)


def leaf_hash(token_range: TokenRange, digest: Digest | None, scheme: str) -> bytes:
    """Return the 16-byte hash of one leaf; an unread leaf has a hash of its own that equals no read one."""
    if digest is None:
        head = _LEAF.pack(_UNREAD_MARK, SCHEME_VERSION, token_range.start, token_range.end, 0, 0)
        return xxhash.xxh3_128_digest(head)
    name = scheme.encode()
    head = _LEAF.pack(_LEAF_MARK, SCHEME_VERSION, token_range.start, token_range.end, digest.rows, len(name))
    return xxhash.xxh3_128_digest(head + name + digest.value)


@dataclass(frozen=True, slots=True)
class MerkleTree:
    """The levels of a tree, leaves first; an odd node at the end of a level is carried up unchanged."""

    levels: tuple[tuple[bytes, ...], ...]

    @classmethod
    def build(cls, leaves: Sequence[bytes]) -> MerkleTree:
        """Build the tree over leaf hashes in ring order; at least one."""
        if not leaves:
            raise InternalError("a Merkle tree needs at least one leaf")
        levels = [tuple(leaves)]
        while len(levels[-1]) > 1:
            below, height = levels[-1], len(levels)
            levels.append(
                tuple(
                    inner_hash(height, below[i], below[i + 1]) if i + 1 < len(below) else below[i]
                    for i in range(0, len(below), 2)
                )
            )
        return cls(tuple(levels))

    @property
    def root(self) -> bytes:
        """The hash over everything."""
        return self.levels[-1][0]


def inner_hash(level: int, left: bytes, right: bytes) -> bytes:
    """Hash two children in order, together with their height."""
    return xxhash.xxh3_128_digest(_INNER.pack(_INNER_MARK, level) + left + right)


def differing_leaves(trees: Mapping[ReplicaT, MerkleTree]) -> list[int]:
    """Return the positions of the leaves on which the trees are not all equal, in ring order.

    Starts at the roots and descends only where they differ. All trees must have the same shape.
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
        if len(hashes) == 1:
            continue
        if level == 0:
            found.append(position)
            continue
        below = len(every[0].levels[level - 1])
        children = [i for i in (2 * position, 2 * position + 1) if i < below]
        pending.extend((level - 1, i) for i in reversed(children))
    return found


def agreeing_groups(digests: Mapping[ReplicaT, Digest | None]) -> list[tuple[ReplicaT, ...]]:
    """Group the replicas that were read by equal digest, the largest group first: N ways, never as pairs."""
    groups: dict[Digest, list[ReplicaT]] = {}
    for replica, digest in digests.items():
        if digest is not None:
            groups.setdefault(digest, []).append(replica)
    return sorted((tuple(group) for group in groups.values()), key=len, reverse=True)
