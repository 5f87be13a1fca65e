"""The lanes of a node: one question in each, a closer look before the scan, and none lost by who gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consistency.cluster.digests import Digests
from consistency.cluster.gate import Gate
from consistency.cluster.lanes import Lanes, Look
from consistency.cluster.row_hash import HASH_SPELLINGS
from consistency.cluster.waits import within
from consistency.model.reading import Route
from consistency.model.ring import Node
from consistency.model.row_arrays import Shown
from consistency.model.tokens import TokenRange
from tests.unit.test_differing_rows import READING


async def _spellings(lanes: Lanes) -> list[str]:
    """Return what is free now."""
    found: list[str] = []
    async with AsyncExitStack() as held:
        with suppress(asyncio.TimeoutError, TimeoutError):
            while True:
                async with within(0.01):
                    found.append(await held.enter_async_context(lanes.one(Look.ROWS)))
    return found


def test_readers_share_out_the_lanes_of_a_node() -> None:
    """No spelling of the hash is used by two of up to four readers, and none is left unused."""

    def spellings(reader: int, readers: int) -> list[str]:
        return asyncio.run(_spellings(Lanes.shared(4, reader, readers)))

    for readers in (1, 2, 3, 4):
        used = [name for reader in range(readers) for name in spellings(reader, readers)]
        assert sorted(used) == sorted(HASH_SPELLINGS)
    assert all(len(spellings(reader, 9)) == 1 for reader in range(9))
    assert len(asyncio.run(_spellings(Lanes.shared(2)))) == 2


async def _served(lanes: Lanes, waiting: list[tuple[str, Look]], *, giving_up: str = "") -> list[str]:
    """Return the order in which questions that wait get the only lane; one gives up just as it is its turn."""
    order: list[str] = []

    async def ask(name: str, look: Look) -> None:
        async with lanes.one(look):
            order.append(name)

    async with lanes.one(Look.RANGE):
        tasks = {name: asyncio.create_task(ask(name, look)) for name, look in waiting}
        await asyncio.sleep(0)
        assert not order
    if giving_up:
        tasks[giving_up].cancel()
    async with within(5):
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    return order


def test_a_closer_look_goes_before_the_scan() -> None:
    """And of looks alike the one that has waited longest."""
    waiting = [("leaf 1", Look.RANGE), ("leaf 2", Look.RANGE), ("its partitions", Look.PARTITIONS)]
    waiting += [("rows", Look.ROWS), ("other rows", Look.ROWS)]
    order = asyncio.run(_served(Lanes(["MD5"]), waiting))
    assert order == ["rows", "other rows", "its partitions", "leaf 1", "leaf 2"]


@pytest.mark.parametrize("giving_up", ["first", "second"])
def test_who_gives_up_takes_no_lane_with_it(giving_up: str) -> None:
    """Whether it was its turn just now or not yet: the others are served, and the lane is free in the end."""

    async def main() -> None:
        lanes = Lanes(["MD5"])
        order = await _served(lanes, [(n, Look.ROWS) for n in ("first", "second", "third")], giving_up=giving_up)
        assert order == [name for name in ("first", "second", "third") if name != giving_up]
        assert await _spellings(lanes) == ["MD5"]

    asyncio.run(main())


def test_each_question_says_how_close_it_looks() -> None:
    """Rows and arrays of them, partitions, ranges."""
    seen: list[Look] = []

    @asynccontextmanager
    async def lane(_: object, look: Look) -> AsyncGenerator[str, None]:
        seen.append(look)
        yield "MD5"

    async def nothing(*_: object, **__: object) -> AsyncGenerator[Any, None]:
        for page in list[object]():
            yield page

    async def aggregate(*_: object, **__: object) -> tuple[list[None], float]:
        return [None, None], 0.0

    gate = SimpleNamespace(
        lane=lane, pages=nothing, range_pages=nothing, aggregate=aggregate, asks_little=lambda _: False
    )
    sizes = SimpleNamespace(learn=aggregate, hashed=lambda *_: None, stored=lambda _: 0)
    digests = Digests(cast("Gate", gate), cast("Any", sizes), cast("Any", None))
    node, ring = cast("Node", "node 1"), TokenRange.full_ring()

    async def main() -> None:
        for pages in (
            digests.of_rows(node, READING, ring, 1),
            digests.of_rows_in(node, READING, [(b"\0\0\0\1",)], 1),
            digests.of_partitions(node, READING, ring, 1, newest=False),
        ):
            assert [page async for page in pages] == []
        await digests.arrays_of_rows(node, READING, ring, 1, Shown.KINDS)
        await digests.of_range(node, READING, Route.SERVER, ring, 1, newest=False)

    asyncio.run(main())
    assert seen == [Look.ROWS, Look.ROWS, Look.PARTITIONS, Look.ROWS, Look.RANGE]
