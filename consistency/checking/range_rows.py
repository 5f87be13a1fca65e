"""The rows of a range that differ, as arrays: of hashes that the servers make, or of rows that are joined here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import numpy as np
import xxhash

from consistency.checking.joined_rows import joined_rows
from consistency.checking.plan import Leaf
from consistency.cluster.table_reader import TableReader
from consistency.model.reading import Cell, Reading, RowState, each_time
from consistency.model.ring import Node
from consistency.model.row_arrays import NO_TIME, UnlikeRows, compare
from consistency.rows.merge_join import Difference, JoinCounts


async def unlike_rows(table: TableReader, leaf: Leaf, now_s: int, *, times: bool) -> UnlikeRows:
    """Return the rows of a leaf on which its replicas differ; raises a ReplicaError where one does not answer.

    With `times` they show what tells their kinds apart, too. Two spellings of a key are two hashes, so the rows of a
    table that can have them are joined.
    """
    if table.hashes_times and not table.reading.table.respelled:
        asked = (table.hashed_rows(node, leaf.token_range, now_s, times=times) for node in leaf.replicas)
        return compare(await asyncio.gather(*asked))
    async with aclosing(joined_rows(table, leaf, JoinCounts(), now_s)) as found:
        return _as_arrays(table.reading, leaf.replicas, [difference async for difference in found])


def _as_arrays(reading: Reading, nodes: Sequence[Node], found: Sequence[Difference]) -> UnlikeRows:
    """Return differences as arrays, in the order of their keys' hashes."""
    named = sorted(((_number(_key_bytes(each)), each) for each in found), key=lambda pair: pair[0])
    columns = max(len(reading.regulars), len(reading.statics))
    rows = UnlikeRows(
        np.array([each.name.token for _, each in named], np.int64),
        np.array([key for key, _ in named], np.uint64),
        np.zeros((len(named), len(nodes)), np.bool_),
        np.zeros((len(named), len(nodes), 2), np.uint64),
        np.zeros((len(named), len(nodes)), np.uint64),
        np.zeros((len(named), len(nodes)), np.uint64),
        np.full((len(named), len(nodes), columns), NO_TIME),
    )
    for row, (_, each) in enumerate(named):
        for place, node in enumerate(nodes):
            if (state := each.states[node]) is not None:
                rows.present[row, place] = True
                rows.hashes[row, place] = _hash(state)
                rows.expiries[row, place] = _number(repr([cell.expires for cell in state.cells]).encode())
                rows.ages[row, place] = _number(repr([cell.writetimes for cell in state.cells]).encode())
                rows.times[row, place, : len(state.cells)] = [_newest(cell) for cell in state.cells]
    return rows


def _key_bytes(difference: Difference) -> bytes:
    return repr((difference.name.key, difference.name.static)).encode()


def _number(raw: bytes) -> int:
    return xxhash.xxh3_64_intdigest(raw)


def _hash(state: RowState) -> tuple[int, int]:
    high, low = divmod(xxhash.xxh3_128_intdigest(repr(state).encode()), 2**64)
    return high, low


def _newest(cell: Cell) -> int:
    return max(each_time(cell.writetimes), default=NO_TIME)
