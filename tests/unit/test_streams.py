"""What a replica streams is closed by whoever asked for it, also where nobody reads it to its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import SimpleNamespace
from typing import cast

import pytest

from consistency.checking.future import written_after
from consistency.checking.leaves import LeafResult
from consistency.checking.non_owners import NonOwnerScan
from consistency.checking.scan import Scan
from consistency.cluster.clock import SystemClock
from consistency.cluster.port import Pages, ReplicaReader
from consistency.cluster.table_reader import TableReader
from consistency.model.reading import Capabilities, Depth, Locality, Reading, Route
from consistency.model.ring import Arc
from consistency.model.servertime import ServerTime
from consistency.model.tokens import TokenRange
from tests.simulation.values import int_bytes, long_bytes, make_table
from tests.unit.fake_cluster import nodes

READING = Reading(make_table("t", ("int",), (), (), ("int",)), Depth.CONTENT, Capabilities())


class Endless:
    """Sends the same page for ever, of a row from the future; counts the streams that are open."""

    def __init__(self) -> None:
        self.open = 0

    async def rows(self, _: object, reading: Reading, *__: object) -> Pages:
        self.open += 1
        try:
            while True:
                await asyncio.sleep(0)
                value = (int_bytes(1),) if reading.depth is Depth.CONTENT else ()
                yield [(long_bytes(1), int_bytes(1), *value, long_bytes(2**60), None)]
        finally:
            self.open -= 1

    def locality(self, _: object) -> Locality:
        return Locality.NODE_LOCAL


def table_reader(reader: Endless) -> TableReader:
    """Have the table read from it."""
    return TableReader(cast("ReplicaReader", reader), READING, Route.SERVER, SystemClock())


def test_rows_from_the_future_are_read_no_longer_than_they_are_taken() -> None:
    """Whoever has seen enough of them closes the stream below as well."""
    reader = Endless()
    result = cast("LeafResult", SimpleNamespace(leaf=SimpleNamespace(token_range=TokenRange(0, 9)), digests=nodes()))

    async def first() -> int:
        found = written_after(table_reader(reader), result, ServerTime.exactly(0), 60.0)
        async with aclosing(found):
            return len(await anext(found))

    assert asyncio.run(first()) == 1
    assert reader.open == 0


def test_a_look_at_a_non_owner_that_ends_early_closes_its_stream() -> None:
    """A report that fails, or an interrupt while it waits for room."""
    reader = Endless()
    owner, other = nodes()[:2]
    task = SimpleNamespace(reading=READING, arcs=[Arc((owner,), (TokenRange(0, 9),))], asides=())

    async def full(*_: object) -> None:
        raise OSError("no space left")

    async def look() -> int:
        scan = NonOwnerScan([owner, other], full)
        with pytest.raises(OSError, match="no space"):
            await scan.run(cast("Scan", SimpleNamespace(task=task, table=table_reader(reader))))
        return reader.open

    assert asyncio.run(look()) == 0
