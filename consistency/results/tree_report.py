"""The Merkle trees of a table, as figures that can be filed and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from consistency.model.tree import MerkleTree

LeafHashes = tuple[TokenRange, tuple[bytes | None, ...]]
"""A leaf, and its hash on each replica of its set, in their order; None if it was not read."""


@dataclass(frozen=True)
class TreeReport:
    """The Merkle trees of one replica set over one table: what was compared.

    `hashes` has every leaf in ring order, at least one. `differing` leaves had unlike digests, and their rows were
    compared. `scheme` says what was hashed: roots of different schemes cannot be compared.
    """

    replicas: tuple[Node, ...]
    scheme: str
    hashes: tuple[LeafHashes, ...] = field(repr=False)  # asyncio.run prints what its coroutine returned, to itself
    differing: int

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return len(self.hashes)

    @cached_property
    def roots(self) -> Mapping[Node, bytes | None]:
        """Each replica's root, None if one of its leaves was not read."""
        held = [hashes for _, hashes in self.hashes]
        return {n: MerkleTree.build([hashes[at] for hashes in held]).root for at, n in enumerate(self.replicas)}

    @property
    def agreed(self) -> tuple[tuple[TokenRange, bytes], ...]:
        """The range and the hash of each leaf on which all replicas agree."""
        alike = ((leaf, set(hashes)) for leaf, hashes in self.hashes)
        return tuple((leaf, h) for leaf, held in alike if len(held) == 1 for h in held if h is not None)

    @property
    def root(self) -> bytes | None:
        """The root that all replicas have; None if they have none in common."""
        found = set(self.roots.values())
        return found.pop() if len(found) == 1 else None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form; hashes in hexadecimal digits."""
        return {
            "replicas": [node.name for node in self.replicas],
            "root": self.root.hex() if self.root else None,
            "roots": {node.name: root.hex() if root else None for node, root in self.roots.items()},
            "leaves": self.leaves,
            "differing": self.differing,
        }


def joined(trees: Sequence[TreeReport]) -> tuple[TreeReport, ...]:
    """Put trees of several pieces of a table together: one of each replica set, over all of its leaves."""
    by_set: dict[tuple[str, ...], list[TreeReport]] = {}
    for tree in trees:
        by_set.setdefault(tuple(node.host_id for node in tree.replicas), []).append(tree)
    return tuple(
        TreeReport(
            some[0].replicas,
            "+".join(sorted({tree.scheme for tree in some if tree.scheme})),
            tuple(sorted((leaf for tree in some for leaf in tree.hashes), key=lambda leaf: leaf[0])),
            sum(tree.differing for tree in some),
        )
        for some in by_set.values()
    )
