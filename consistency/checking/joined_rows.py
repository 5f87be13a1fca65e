"""The rows of a leaf, read on all its replicas and joined: the way where servers cannot hash rows, or most differ."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from consistency.checking.plan import Leaf
from consistency.cluster.table_reader import TableReader
from consistency.rows.merge_join import Difference, JoinCounts, join_rows


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
