"""Rows asked for by the token of their partition, never by its key: then a trace keeps no key, and no server writes.

A read of one partition at LOCAL_ONE may be speculated: its coordinator asks a second replica, and where the two differ
it makes them agree before it answers (read_repair BLOCKING). A read of a token range asks one replica and writes
nothing (measured: docs/design/0016). So where a trace must prove an answer rows are read by range, and the trace, which
the servers keep for a day, holds a token.

A partition is read page by page until every row wanted of it was seen. Of a large one, what a few pages do not show is
asked for by its clustering key, which is still a range read. The trace of a further page of a partition names its key,
and that of a clustering key holds it: both are counted, and the report says so.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import replace

from consistency.cluster import selects
from consistency.cluster.driver import murmur3
from consistency.cluster.port import Key, Pages
from consistency.cluster.wire import INT, Page, Statement
from consistency.errors import PageTooLarge, ReplicaForbidden, ReplicaRefused, ReplicaTimeout, TooMuchToScan
from consistency.model.cqlbytes import partition_bytes
from consistency.model.cqlorder import UnorderableTypeError, key_function
from consistency.model.layout import token_in
from consistency.model.reading import RawRow, Reading
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange

Ask = Callable[[Node, Reading, str, Key, int], Pages]
"""Pages through a node's answer to a statement: its text, the values bound, the instant that TTLs are judged at."""

MOST_PAGES = 4
"""Pages of one partition that are read for a few rows of it; for more rows than this, as many as there are rows."""


class RowsByToken:
    """Reads rows of one replica by the tokens of their partitions."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def rows(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        """Read rows by key, those of one partition together; a row that is not there is left out."""
        width = len(reading.table.partition_key)
        wanted: dict[Key, list[Key]] = defaultdict(list)
        for key in dict.fromkeys(keys):
            wanted[key[:width]].append(key)
        found = await asyncio.gather(*(self._of_partition(node, reading, keys, now_s) for keys in wanted.values()))
        return {key: row for some in found for key, row in some.items()}

    async def row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row."""
        return (await self.rows(node, reading, [key], now_s)).get(key)

    async def static_row(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one partition's static cells."""
        text = selects.select_statics_at(reading, token_of(key))
        async with aclosing(self._ask(node, reading, text, (), now_s)) as pages:
            async for rows in pages:
                for row in rows:
                    if row[reading.static_layout.partition] == key:
                        return row
        return None

    async def _of_partition(self, node: Node, reading: Reading, keys: Sequence[Key], now_s: int) -> dict[Key, RawRow]:
        """Read rows of one partition; others can have its token."""
        name = _names(reading)
        left = {name(key): key for key in keys}
        found: dict[Key, RawRow] = {}
        try:
            whole = await self._paged(node, reading, left, found, now_s)
        except (TooMuchToScan, ReplicaTimeout):
            if not reading.table.clustering:
                raise
            whole = False
        if left and not (whole and name is not _spelled):
            alone = await asyncio.gather(*(self._in_large(node, reading, key, now_s) for key in left.values()))
            found.update((key, row) for key, row in zip(left.values(), alone, strict=True) if row is not None)
        return found

    async def _paged(
        self, node: Node, reading: Reading, left: dict[Hashable, Key], found: dict[Key, RawRow], now_s: int
    ) -> bool:
        """Move the rows of a partition from `left` to `found`, a page at a time; False if it was not read whole."""
        name = _names(reading)
        partition = next(iter(left.values()))[: len(reading.table.partition_key)]
        text = selects.select_rows_at(reading, token_of(partition))
        most = max(MOST_PAGES, len(left))
        async with aclosing(self._ask(node, reading, text, (), now_s)) as pages:
            async for rows in pages:
                for row in rows:
                    if row[reading.layout.partition] == partition and reading.has_row(row):
                        key = left.pop(name(row[reading.layout.key]), None)
                        if key is not None:
                            found[key] = row
                most -= 1
                if not left or (reading.table.clustering and most == 0):
                    return not left
        return True

    async def _in_large(self, node: Node, reading: Reading, key: Key, now_s: int) -> RawRow | None:
        """Read one row of a partition that has too many, by its clustering key."""
        width = len(reading.table.partition_key)
        text = selects.select_row_at(reading, token_of(key[:width]))
        try:
            return await self._only(node, reading, text, key[width:], key[:width], now_s)
        except (PageTooLarge, ReplicaForbidden):
            raise
        except ReplicaRefused as error:
            table = reading.table
            if not table.copies_on_read:
                return await self._only(node, reading, selects.select_row(reading), key, key[:width], now_s)
            msg = (
                f"{error}; without NODE_LOCAL a large partition's row can be read otherwise only where that makes no "
                f"server write: ALTER TABLE {table.quoted} WITH speculative_retry = 'NEVER'"
            )
            raise ReplicaRefused(msg) from error

    async def _only(
        self, node: Node, reading: Reading, text: str, values: Key, partition: Key, now_s: int
    ) -> RawRow | None:
        async with aclosing(self._ask(node, reading, text, values, now_s)) as pages:
            async for rows in pages:
                for row in rows:
                    if row[reading.layout.partition] == partition and reading.has_row(row):
                        return row
        return None


async def paged_by_range(
    pages: Callable[[Statement], AsyncGenerator[Page, None]],
    token_range: TokenRange,
    statement: Callable[[TokenRange], Statement],
) -> AsyncGenerator[Page, None]:
    """Page through a range of which every row begins with its token, and leave no key in the servers' traces.

    The trace of a further page names the partition that it goes on from. So each page is a range of its own: it ends
    before the partition that it may have cut; one that is larger than a page is gone on with all the same.
    """
    left: TokenRange | None = token_range
    while left is not None:
        part, left = left, None
        async with aclosing(pages(statement(part))) as found:
            async for page in found:
                cut = None if page.paging_state is None else before_last_token(page)
                if cut is None:
                    yield page
                else:
                    yield cut[0]
                    left = TokenRange(cut[1] - 1, token_range.end)
                    break


def before_last_token(page: Page) -> tuple[Page, int] | None:
    """Cut off the partition that a page ends in, and return its token; None if the page holds no other."""
    rows = page.rows()
    last = token_in(rows[-1])
    kept = next((at for at in range(len(rows), 0, -1) if token_in(rows[at - 1]) != last), 0)
    if not kept:
        return None
    tail = sum(INT.size + len(cell or b"") for row in rows[kept:] for cell in row)
    return replace(page, row_count=kept, body=page.body[: len(page.body) - tail]), last


def token_of(partition: Key) -> int:
    """Return the token of a partition key."""
    return murmur3(partition_bytes(partition))


def _names(reading: Reading) -> Callable[[Sequence[bytes | None]], Hashable]:
    """Return what tells a partition's rows apart by their primary keys, as Cassandra does."""
    table = reading.table
    if not table.respelled:
        return tuple
    width = len(table.partition_key)
    try:
        order = key_function([(c.type, c.reversed) for c in table.clustering])
    except UnorderableTypeError:
        return _spelled
    return lambda key: order(key[width:])


def _spelled(key: Sequence[bytes | None]) -> Hashable:
    """Tell rows apart by bytes where a clustering column is of a custom type: the server looks for those not found."""
    return tuple(key)
