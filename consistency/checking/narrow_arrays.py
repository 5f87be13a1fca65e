"""Leaves digested by the hashes of their rows, as arrays: where leaf after leaf differs and rows are only counted.

A leaf's digest is the sum of these hashes, and they are what the count of its rows begins with (range_rows.py): it is
not digested first and then hashed. A leaf that turns out equal cost a little more than its digest.
"""

from __future__ import annotations

from consistency.checking.leaves import LeafResult, digest_leaf
from consistency.checking.narrow_partitions import MOST_HELD, Partitions
from consistency.checking.plan import Leaf
from consistency.checking.range_rows import FirstReading, FirstReadings, RangeRows
from consistency.cluster.server_digest import ServerDigest
from consistency.cluster.table_reader import TableReader
from consistency.model.ring import Node
from consistency.model.tree import Digest


async def digest_by_arrays(table: TableReader, leaf: Leaf, partitions: Partitions, *, leaf_rows: int) -> LeafResult:
    """Digest a leaf of about `leaf_rows` rows on all its replicas at one instant, piece by piece.

    What differs in it is remembered, unless two rows of it have one name. A leaf of which a piece is too large to be
    held, as a huge partition is, is digested whole. Raises a ReplicaError if a replica does not answer.
    """
    now_s, asked = table.now_s(), ServerDigest(table.reading, newest=True)
    digests: dict[Node, Digest] = dict.fromkeys(leaf.replicas, asked.total([]))
    found: list[FirstReading | None] = []
    for piece in partitions.pieces_by_row(leaf, leaf_rows):
        rows = RangeRows(table, Leaf(piece, leaf.replicas), now_s)
        replicas = await rows.hashed(most=MOST_HELD)
        if any(len(held) > MOST_HELD for held in replicas):
            partitions.huge = True
            return await digest_leaf(table, leaf)
        for node, held in zip(leaf.replicas, replicas, strict=True):
            digests[node] = asked.add(digests[node], asked.of_arrays(held))
        found.append(rows.begun_with(replicas))
    known = tuple(part for part in found if part is not None)
    differing = FirstReadings(tuple(part for part in known if len(part.unlike))) if len(known) == len(found) else None
    return LeafResult(leaf, now_s, digests, {}, table.scheme, differing=differing)
