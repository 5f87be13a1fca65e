"""Rows asked for by key, many in one request, where the node's own answer needs no trace to prove it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from consistency.cluster import selects
from consistency.cluster.gate import Gate
from consistency.cluster.key_batches import Batch, batches
from consistency.cluster.port import Key
from consistency.cluster.row_pages import RowPages
from consistency.cluster.row_sizes import RowSizes
from consistency.model.reading import RawRow, Reading
from consistency.model.ring import Node


class RowsByKey:
    """Reads rows of one replica by their keys."""

    def __init__(self, gate: Gate, sizes: RowSizes, pages: RowPages) -> None:
        self._gate = gate
        self._sizes = sizes
        self._pages = pages

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row."""
        return await self._one(node, reading, selects.select_row(reading), key, now_s)

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one partition's static cells."""
        return await self._one(node, reading, selects.select_static(reading), key, now_s)

    async def _one(self, node: Node, reading: Reading, text: str, key: Key, now_s: int) -> RawRow | None:
        page = await self._gate.named(node, self._sizes.sent(reading, text, now_s, key))
        return next(iter(page.rows()), None)

    async def rows(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        """Read rows in batches; a row that is not there is left out.

        The server may name a row by other bytes than we do (the decimals 1.0 and 1.00 are one clustering key): of
        such keys, and where a batch brings what was not asked for, each that it lacks is asked for alone.
        """
        found: dict[Key, RawRow] = {}
        alone: list[Key] = []
        made = batches(reading, keys, page_rows=self._sizes.page_rows(reading))
        batched = await asyncio.gather(*(self._batch(node, reading, batch, now_s) for batch in made))
        for batch, rows in batched:
            found.update((key, rows[key]) for key in batch.keys if key in rows)
            if reading.table.respelled or not batch.expects(rows.keys()):
                alone += [key for key in batch.keys if key not in rows]
        rows_alone = await asyncio.gather(*(self.row(node, reading, key, now_s) for key in alone))
        found.update((key, row) for key, row in zip(alone, rows_alone, strict=True) if row is not None)
        return found

    async def _batch(
        self, node: Node, reading: Reading, batch: Batch, now_s: int
    ) -> tuple[Batch, dict[tuple[bytes | None, ...], RawRow]]:
        async with aclosing(self._pages.named(node, reading, batch.cql, batch.values, now_s)) as pages:
            return batch, {row[reading.layout.key]: row async for rows in pages for row in rows}
