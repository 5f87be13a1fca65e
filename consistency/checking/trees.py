"""The trees of a scan: grown over what each replica's ranges were digested to, and asked where the replicas differ.

No digest is compared anywhere else. Leaves are compared branch by branch while the scan goes on, so that rows of those
that differ settle meanwhile, and all of them once more at its end. A leaf that differs and is cut into parts has its
parts compared in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

from consistency.checking.leaves import LeafResult
from consistency.model.ring import Node
from consistency.model.tree import MerkleTree, differing_leaves, leaf_hash

BRANCH = 4
"""So many neighbouring leaves of a replica set are compared as soon as all of them are digested."""


def grow(results: Sequence[LeafResult]) -> dict[Node, MerkleTree]:
    """Build a tree for each replica over neighbouring ranges, at least one, of one replica set."""
    return {
        node: MerkleTree.build([leaf_hash(r.leaf.token_range, r.digests.get(node), r.scheme) for r in results])
        for node in results[0].leaf.replicas
    }


def differing(results: Sequence[LeafResult]) -> list[LeafResult]:
    """Return those of some neighbouring ranges on which the replicas that were read differ, in their order."""
    return [results[i] for i in differing_leaves(grow(results))] if results else []
