"""Merkle trees: equal roots stand over equal leaves in equal places, and every difference is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.errors import InternalError
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest, MerkleTree, differing_leaves, leaf_hash

LEAVES = st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=40)
HERE, THERE = TokenRange(0, 10), TokenRange(10, 20)


@given(LEAVES, st.data())
def test_the_differing_leaves_are_exactly_those_that_differ(leaves: list[bytes], data: st.DataObject) -> None:
    """Whatever was changed on whichever replica, the descent ends at those leaves and no other."""
    replicas = {0: list(leaves), 1: list(leaves), 2: list(leaves)}
    for position in data.draw(st.sets(st.integers(0, len(leaves) - 1))):
        replicas[data.draw(st.integers(0, 2))][position] = b"changed".ljust(16, b"\0")
    trees = {name: MerkleTree.build(hashes) for name, hashes in replicas.items()}
    wanted = [i for i in range(len(leaves)) if len({hashes[i] for hashes in replicas.values()}) > 1]
    assert differing_leaves(trees) == wanted


@given(LEAVES, LEAVES)
def test_roots_are_equal_only_over_equal_leaves(left: list[bytes], right: list[bytes]) -> None:
    """A root tells one list of leaves from another."""
    assert (MerkleTree.build(left).root == MerkleTree.build(right).root) == (left == right)


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=2, max_size=20, unique=True), st.data())
def test_two_swapped_leaves_are_noticed(leaves: list[bytes], data: st.DataObject) -> None:
    """Order counts: an XOR of the leaves would call these equal."""
    i, j = data.draw(st.lists(st.integers(0, len(leaves) - 1), min_size=2, max_size=2, unique=True))
    swapped = list(leaves)
    swapped[i], swapped[j] = leaves[j], leaves[i]
    trees = {0: MerkleTree.build(leaves), 1: MerkleTree.build(swapped)}
    assert differing_leaves(trees) == sorted((i, j))


def test_a_leaf_hash_covers_range_count_digest_and_scheme() -> None:
    """Anything a leaf stands for changes its hash, and an unread leaf equals no read one."""
    digest = Digest(3, b"\1" * 20)
    hashes = [
        leaf_hash(HERE, digest, "content/server"),
        leaf_hash(THERE, digest, "content/server"),
        leaf_hash(HERE, Digest(4, b"\1" * 20), "content/server"),
        leaf_hash(HERE, Digest(3, b"\2" * 20), "content/server"),
        leaf_hash(HERE, digest, "versions/server"),
        leaf_hash(HERE, None, "content/server"),
        leaf_hash(HERE, Digest(0, b""), "content/server"),
    ]
    assert len(set(hashes)) == len(hashes)


def test_trees_of_different_shapes_are_not_compared() -> None:
    """Trees that do not cover the same leaves are a fault of ours, not a difference."""
    trees = {0: MerkleTree.build([b"a"]), 1: MerkleTree.build([b"a", b"b"])}
    with pytest.raises(InternalError):
        differing_leaves(trees)
    with pytest.raises(InternalError):
        MerkleTree.build([])


@given(LEAVES, st.data())
def test_what_was_not_read_is_no_difference_and_hides_none(leaves: list[bytes], data: st.DataObject) -> None:
    """A leaf that one replica has no hash of is compared on the others; the tree of the one has no root."""
    places = st.integers(0, len(leaves) - 1)
    replicas: dict[int, list[bytes | None]] = {0: list(leaves), 1: list(leaves), 2: list(leaves)}
    changed, unread = data.draw(st.sets(places)), data.draw(st.sets(places))
    for position in changed:
        replicas[1][position] = b"changed".ljust(16, b"\0")
    for position in unread:
        replicas[2][position] = None
    trees = {name: MerkleTree.build(hashes) for name, hashes in replicas.items()}
    assert differing_leaves(trees) == sorted(i for i in changed if leaves[i] != replicas[1][i])
    assert (trees[2].root is None) == bool(unread)
    assert (trees[0].root == trees[1].root) == (replicas[0] == replicas[1])
