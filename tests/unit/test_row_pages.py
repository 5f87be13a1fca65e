"""Pages of rows that replicas hold alike are taken apart once."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable
from typing import cast

from consistency.cluster.gate import Gate
from consistency.cluster.row_pages import RowPages
from consistency.cluster.row_sizes import RowSizes
from consistency.cluster.wire import Page, Statement
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from tests.simulation.values import int_bytes, long_bytes, make_table
from tests.unit.test_repair_applying import NODES

READING = Reading(make_table("t", ["int"], []), Depth.CONTENT, Capabilities())
FULL = TokenRange.full_ring()


def page(*rows: RawRow) -> Page:
    """Return rows as a server sends them."""
    cells = [cell or b"" for row in rows for cell in row]
    return Page(len(rows), 2, b"".join(struct.pack(">i", len(cell)) + cell for cell in cells))


class Sending:
    """Nodes that each send the pages which they were given."""

    def __init__(self, *pages: list[Page]) -> None:
        self._pages = dict(zip(NODES, pages, strict=False))

    async def range_pages(
        self, node: Node, _range: TokenRange, _statement: Callable[[TokenRange], Statement]
    ) -> AsyncGenerator[Page, None]:
        """Send a node's pages."""
        for each in self._pages[node]:
            yield each


class Unsized:
    """Rows of which nobody asks how large they are."""

    async def learn(self, *_: object) -> None:
        """Learn nothing."""

    def saw(self, *_: object) -> None:
        """Take note of nothing."""


def test_pages_of_the_same_bytes_are_the_same_rows() -> None:
    """The second replica's page is not taken apart again; one that differs in a byte is."""
    rows = [(long_bytes(n), int_bytes(n)) for n in range(3)]
    other = [*rows[:2], (long_bytes(2), int_bytes(9))]
    gate = Sending([page(*rows)], [page(*rows)], [page(*other)])
    reader = RowPages(cast("Gate", gate), cast("RowSizes", Unsized()))

    async def read(node: Node) -> list[list[RawRow]]:
        return [found async for found in reader.of_range(node, READING, FULL, 0)]

    async def main() -> None:
        (first,), (second,), (third,) = [await read(node) for node in NODES[:3]]
        assert first == rows
        assert second is first
        assert third == other

    asyncio.run(main())


def test_only_a_few_pages_are_kept() -> None:
    """Memory does not grow with what is read."""
    pages = [page((long_bytes(n), int_bytes(n))) for n in range(50)]
    reader = RowPages(cast("Gate", Sending(pages)), cast("RowSizes", Unsized()))

    async def main() -> None:
        assert len([found async for found in reader.of_range(NODES[0], READING, FULL, 0)]) == 50
        assert len(reader._recent._pages) < 10

    asyncio.run(main())
