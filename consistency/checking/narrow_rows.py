"""Which rows of a leaf differ, found by a hash of each: keys and hashes leave the nodes, and no other row does.

For rows of 2 kB that is a fiftieth of the bytes. Where partitions hold many rows each has a digest of its own first,
and only the rows of those that differ are hashed. A row whose hashes differ is read by its key, on all replicas
at one instant, and is a difference only if these copies differ.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from consistency.checking.joined_rows import joined_rows
from consistency.checking.leaves import DifferingPartitions, DifferingRows, LeafResult, digest_leaf
from consistency.checking.listing import Listing
from consistency.checking.narrow_partitions import (
    MOST_HELD,
    Partitions,
    differing_partitions,
    gather_rows,
    not_in_all,
)
from consistency.checking.plan import Leaf
from consistency.cluster.server_digest import ServerDigest
from consistency.cluster.table_reader import TableReader
from consistency.errors import ReplicaError, ReplicaRefused
from consistency.model.cqlorder import UnorderableTypeError, key_function
from consistency.model.layout import token_in
from consistency.model.reading import RawRow, Reading
from consistency.model.ring import Node
from consistency.model.tree import Digest
from consistency.rows.merge_join import Difference, JoinCounts
from consistency.rows.names import RowName, named_key
from consistency.rows.read import read_states

MOST_KNOWN = 2_000
"""Rows of one leaf that are remembered until they are read: of more their hashes are compared once again."""
_BATCH = 2_000
_DENSE = 0.3
"""If more rows of a leaf than this share differ, all of them are read in pages instead of those by key."""


async def differing_rows(
    table: TableReader,
    leaf: Leaf,
    counts: JoinCounts,
    partitions: Partitions,
    listing: Listing,
    differing: DifferingPartitions | DifferingRows | None = None,
) -> AsyncGenerator[Difference | Leaf, None]:
    """Yield every row of a leaf on which its replicas differ, in ring order; raises a ReplicaError as `rows` does.

    Where they are too many to be listed it yields the leaf instead. `differing`: the partitions, or rows, of the leaf
    that differ, if that is known already.
    """
    counted_before = counts.rows
    names = await _differing_names(table, leaf, table.now_s(), counts, partitions, differing)
    if not listing.takes(len(names)):
        yield leaf
        return
    if len(names) > _DENSE * (counts.rows - counted_before) and _order(table.reading) is not None:
        async with aclosing(joined_rows(table, leaf, JoinCounts(), table.now_s())) as joined:
            async for difference in joined:
                yield difference
        return
    names.sort(key=lambda name: (name.token, name.key))
    for at in range(0, len(names), _BATCH):
        batch = names[at : at + _BATCH]
        seen = await read_states(table.reader, table.reading, batch, leaf.replicas, table.now_s())
        for name, (states, unread) in zip(batch, seen, strict=True):
            for node, reason in unread.items():
                raise ReplicaError(reason, node)
            if len(set(states.values())) > 1:
                yield Difference(name, states)


async def digest_by_row(table: TableReader, leaf: Leaf, partitions: Partitions, *, leaf_rows: int) -> LeafResult:
    """Digest a leaf of about `leaf_rows` rows on all its replicas at one instant, by their hashes, piece by piece.

    Its rows that differ are found on the way; they are told where they are not too many to be remembered. A leaf of
    which a piece is too large to be held, as a huge partition is, is digested whole. Raises a ReplicaError if a
    replica does not answer.
    """
    now_s, first = table.now_s(), leaf.replicas[0]
    newest_us = (await table.digest(first, leaf.token_range, now_s, newest=True)).newest_us
    asked = ServerDigest(table.reading, newest=True)
    digests: dict[Node, Digest] = dict.fromkeys(leaf.replicas, asked.of_hashes([]))
    digests[first] = replace(digests[first], newest_us=newest_us)
    names: list[RowName] = []
    counts = JoinCounts()
    for piece in partitions.pieces_by_row(leaf, leaf_rows):
        hashed = await gather_rows([table.row_hashes(node, piece, now_s) for node in leaf.replicas], most=MOST_HELD)
        if any(len(rows) > MOST_HELD for rows in hashed):
            partitions.dense = True
            return await digest_leaf(table, leaf)
        for node, rows in zip(leaf.replicas, hashed, strict=True):
            digests[node] = asked.add(digests[node], asked.of_hashes([row[-1] or b"" for row in rows]))
        names += _told_apart(table.reading, hashed, counts)[: MOST_KNOWN + 1 - len(names)]
    partitions.dense |= len(names) > MOST_KNOWN
    known = None if len(names) > MOST_KNOWN else DifferingRows(tuple(names), counts.rows)
    return LeafResult(leaf, now_s, digests, {}, table.scheme, differing=known)


async def _differing_names(
    table: TableReader,
    leaf: Leaf,
    now_s: int,
    counts: JoinCounts,
    partitions: Partitions,
    differing: DifferingPartitions | DifferingRows | None,
) -> list[RowName]:
    """Return the rows whose hashes differ, and count all rows."""
    if isinstance(differing, DifferingRows):
        counts.rows += differing.rows
        return list(differing.names)
    if differing is None and table.provable(leaf.replicas) and partitions.worth_it(table.reading):
        differing = await differing_partitions(table, leaf, now_s, partitions)
    if differing is not None:
        narrowed = JoinCounts(differing.agreed_rows)
        try:
            names = await _differing_names_of(table, leaf, now_s, narrowed, differing)
        except ReplicaRefused:
            partitions.refused = True  # guardrails can forbid long lists after IN
        else:
            counts.rows += narrowed.rows
            return names
    hashed = await gather_rows([table.row_hashes(n, leaf.token_range, now_s) for n in leaf.replicas])
    return _told_apart(table.reading, hashed, counts)


async def _differing_names_of(
    table: TableReader, leaf: Leaf, now_s: int, counts: JoinCounts, differing: DifferingPartitions
) -> list[RowName]:
    """Return the rows of some partitions whose hashes differ, and count their rows."""
    names: list[RowName] = []
    for batch in differing.batches:
        hashed = await gather_rows([table.row_hashes_of(node, batch, now_s) for node in leaf.replicas])
        names += _told_apart(table.reading, hashed, counts)
    return names


def _told_apart(reading: Reading, hashed: Sequence[set[RawRow]], counts: JoinCounts) -> list[RowName]:
    first, unequal = hashed[0], not_in_all(hashed)
    keys = reading.hash_layout.key
    counts.rows += len(first) + len({row[keys] for row in unequal} - {row[keys] for row in unequal & first})
    places = {row[keys]: token_in(row) for row in unequal}
    names = [RowName(token, named_key(key)) for key, token in places.items()]
    return _one_name_each(reading, names) if reading.table.respelled else names


def _order(reading: Reading) -> Callable[[Sequence[Any]], tuple[Any, ...]] | None:
    """Return what sorts clustering keys as the server does; None if we do not know its order."""
    try:
        return key_function([(c.type, c.reversed) for c in reading.table.clustering])
    except UnorderableTypeError:
        return None


def _one_name_each(reading: Reading, names: Sequence[RowName]) -> list[RowName]:
    """Keep one of the names that Cassandra takes for one row."""
    width, order = len(reading.table.partition_key), _order(reading)
    if order is None:
        return list(names)  # a custom type: the row may be told of twice
    kept: dict[object, RowName] = {}
    for name in sorted(names, key=lambda name: name.key):
        kept.setdefault((name.key[:width], order(name.key[width:])), name)
    return list(kept.values())
