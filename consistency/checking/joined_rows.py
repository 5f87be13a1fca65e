"""The rows of a leaf, read on all its replicas: joined one by one, or a window of tokens at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from consistency.checking.plan import Leaf
from consistency.cluster.table_reader import TableReader
from consistency.rows.merge_join import Difference, JoinCounts, join_rows
from consistency.rows.windows import Window, windows

OF_TOKEN, OF_TOKEN_BYTES = 20_000, 64 * 1024 * 1024
"""Rows of one partition that are kept in memory together, and their bytes on one replica."""


async def joined_rows(
    table: TableReader, leaf: Leaf, counts: JoinCounts, now_s: int
) -> AsyncGenerator[Difference, None]:
    """Yield the rows of a leaf on which its replicas differ, in ring order; raises a ReplicaError as `rows` does."""
    async with AsyncExitStack() as opened:
        streams = {
            node: await opened.enter_async_context(aclosing(table.rows(node, leaf.token_range, now_s)))
            for node in leaf.replicas
        }
        joined = await opened.enter_async_context(aclosing(join_rows(table.reading, streams, now_s, counts)))
        async for difference in joined:
            yield difference


async def windowed_rows(
    table: TableReader,
    leaf: Leaf,
    counts: JoinCounts,
    now_s: int,
    most: int = OF_TOKEN,
    most_bytes: int = OF_TOKEN_BYTES,
) -> AsyncGenerator[Window, None]:
    """Yield the rows of a leaf window by window, copies in the order of its replicas; raises a ReplicaError as `rows`.

    WindowTooWide if a partition has more rows than are kept in memory together.
    """
    async with AsyncExitStack() as opened:
        streams = [
            await opened.enter_async_context(aclosing(table.packed_rows(node, leaf.token_range, now_s)))
            for node in leaf.replicas
        ]
        found = windows(table.reading.layout, streams, leaf.token_range.end, counts, most, most_bytes)
        async with aclosing(found) as each:
            async for window in each:
                yield window
