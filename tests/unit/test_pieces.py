"""A range digested piece by piece: nothing left out or read twice, no piece too long, sums that add up."""

from __future__ import annotations

import asyncio
import bisect
import random
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consistency.cluster.digests import Digests
from consistency.cluster.gate import Gate
from consistency.cluster.query_size import _FIRST_PART, PIECE_S, Piece, PieceSize, in_pieces
from consistency.cluster.row_pages import RowPages
from consistency.cluster.row_sizes import RowSizes
from consistency.cluster.server_digest import ServerDigest
from consistency.cluster.wire import Page
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange, assert_tiles
from consistency.model.tree import Digest
from tests.unit.fake_cluster import table
from tests.unit.test_differing_rows import READING

EVERYTHING = TokenRange.full_ring()
ASKED = ServerDigest(Reading(table(), Depth.CONTENT, Capabilities()), newest=True)


def plus(one: Digest, other: Digest) -> Digest:
    """Add what the tests count."""
    return Digest(one.rows + other.rows, b"")


class Node:
    """Holds rows at `tokens`; a query takes it half a millisecond, `each_s` for a row, and `more_s` in some ranges."""

    def __init__(
        self,
        tokens: list[int],
        each_s: float = 1e-6,
        row_bytes: int = 100,
        more_s: Callable[[TokenRange], float] = lambda _: 0.0,
    ) -> None:
        self.tokens, self.each_s, self.row_bytes, self.more_s = sorted(tokens), each_s, row_bytes, more_s
        self.asked: list[TokenRange] = []
        self.busy: list[float] = []

    def count(self, token_range: TokenRange) -> int:
        """Count the rows of a range."""
        return bisect.bisect_right(self.tokens, token_range.end) - bisect.bisect_right(self.tokens, token_range.start)

    async def digest(self, token_range: TokenRange) -> Piece:
        """Say how many rows a range holds, and how long that took."""
        rows = self.count(token_range)
        self.asked.append(token_range)
        self.busy.append(0.0005 + rows * self.each_s + self.more_s(token_range))
        return Piece(Digest(rows, b""), self.busy[-1], self.row_bytes)


def digested(
    node: Node, token_range: TokenRange, small: Callable[[], bool] = lambda: True, size: PieceSize | None = None
) -> Digest:
    """Digest a range of such a node."""
    return asyncio.run(in_pieces(token_range, size or PieceSize(), node.digest, plus, small))


def spread(count: int, seed: int = 5) -> list[int]:
    """Return tokens all over the ring."""
    rng = random.Random(seed)
    return [rng.randrange(MIN_TOKEN + 1, MAX_TOKEN) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_tile_the_range_whatever_lies_in_it(seed: int) -> None:
    """Evenly spread or all in one corner: every token is read once, and no row is lost or counted twice."""
    rng = random.Random(seed)
    width = rng.choice((RING_SIZE // 2, 2**40, 2**10, 1))
    begin = rng.randrange(MIN_TOKEN + 1, MAX_TOKEN - width)
    node = Node([begin + rng.randrange(width) for _ in range(rng.randrange(3_000))], each_s=rng.choice((1e-7, 1e-3)))
    middle = rng.randrange(MIN_TOKEN + 1, MAX_TOKEN)
    ranges = (EVERYTHING, TokenRange(MIN_TOKEN, middle), TokenRange(middle, MAX_TOKEN), TokenRange(begin - 1, begin))
    for token_range in ranges:
        node.asked.clear()
        assert digested(node, token_range).rows == node.count(token_range)
        assert_tiles(node.asked, [token_range])


@pytest.mark.parametrize(
    ("count", "each_s", "row_bytes"), [(40_000, 1e-6, 100), (40_000, 10e-6, 2_000), (300, 5e-3, 10**6)]
)
def test_a_piece_keeps_a_node_busy_for_a_few_milliseconds(count: int, each_s: float, row_bytes: int) -> None:
    """Small rows or large, once it is learnt how long they take; leaf after leaf."""
    node, size = Node(spread(count), each_s, row_bytes), PieceSize()
    for leaf in EVERYTHING.split(4):
        digested(node, leaf, size=size)
    learnt = node.busy[len(node.busy) // 4 :]
    assert max(learnt) < max(2 * PIECE_S, 10 * each_s)
    assert len(node.asked) < 4 * (1 + count * each_s / PIECE_S)


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("each_s", [0.0, 0.02])
def test_a_small_table_takes_few_queries(count: int, each_s: float) -> None:
    """Also where the node is so busy that each of them takes long: more and smaller ones would only take longer."""
    node = Node(spread(count), more_s=lambda _: each_s)
    digested(node, EVERYTHING)
    assert len(node.asked) <= 4


@pytest.mark.parametrize("count", [20_000, 200_000])
def test_a_node_that_is_slow_at_everything_is_not_asked_for_less_and_less(count: int) -> None:
    """A thousand rows are few enough."""
    node = Node(spread(count), more_s=lambda _: 0.05)
    for leaf in EVERYTHING.split(5):
        digested(node, leaf, size=PieceSize())
    assert len(node.asked) <= 5 * (_FIRST_PART + 1) + 2 * count / 1_000


def test_a_pause_of_the_node_is_forgotten() -> None:
    """Pieces that took long for another reason make the next ones smaller, and only those."""
    node, size = Node(spread(100_000)), PieceSize()
    digested(node, EVERYTHING, size=size)
    before = size.rows
    for _ in range(2):
        size.learn(TokenRange(0, 2**60), Piece(Digest(4_000, b""), 0.3, 100))
    assert size.rows == pytest.approx(1_000)
    digested(node, EVERYTHING, size=size)
    assert size.rows == pytest.approx(before, rel=0.3)


def test_a_field_of_tombstones_is_not_widened_into() -> None:
    """Few rows that took very long: what lies there is not rows."""
    node = Node(spread(100), more_s=lambda part: part.share * 100)
    digested(node, EVERYTHING)
    assert len(node.asked) <= _FIRST_PART + 1


def test_the_last_narrow_piece_of_a_range_tells_nothing_of_a_full_one() -> None:
    """It is over at once because there is nothing in it."""
    size = PieceSize(2**50)
    size.learn(TokenRange(0, 3), Piece(Digest(0, b""), 0.0005, 100))
    assert size.tokens == 2**50


def test_whole_leaves_teach_too() -> None:
    """Read in one go while nobody works with the cluster: somebody may come."""
    node, size = Node(spread(160_000)), PieceSize()
    for leaf in EVERYTHING.split(4):
        digested(node, leaf, lambda: False, size)
    node.busy.clear()
    digested(node, EVERYTHING, size=size)
    assert max(node.busy) < 2 * PIECE_S
    assert len(node.asked) < 4 + 160 * 1.5 / 4


def test_what_is_left_is_read_in_one_go_once_nobody_else_works() -> None:
    """And in pieces again when somebody does."""
    turns = iter([True, True, False])
    node = Node([])
    digested(node, EVERYTHING, lambda: next(turns), PieceSize(2**50))
    assert len(node.asked) == 3
    assert_tiles(node.asked, [EVERYTHING])


def test_the_digest_of_a_range_is_the_sum_of_its_parts() -> None:
    """As the server would have summed all of it: sums of hashes grow, and null is nothing."""
    rng = random.Random(1)

    def bigint(number: int) -> bytes:
        return number.to_bytes(8, "big", signed=True)

    def varint(number: int) -> bytes | None:
        return number.to_bytes(20, "big", signed=True) if number else None

    for _ in range(200):
        parts = [(rng.randrange(10), rng.randrange(-(2**127), 2**127), rng.randrange(2**50)) for _ in range(2)]
        one, other = (ASKED.decode((bigint(rows), varint(n), bigint(newest))) for rows, n, newest in parts)
        rows, total = (sum(column) for column in list(zip(*parts, strict=True))[:2])
        newest_us = max(newest for _, _, newest in parts)
        whole = ASKED.decode((bigint(rows), varint(total), bigint(newest_us)))
        assert ASKED.add(one, other) == whole
        assert ASKED.add(one, other).newest_us == whole.newest_us == newest_us
    nothing = ASKED.decode((bigint(0), None, None))
    assert ASKED.add(nothing, one) == ASKED.add(one, nothing) == one
    assert ASKED.add(nothing, nothing).newest_us is None


@pytest.mark.parametrize("little", [True, False])
def test_partitions_are_digested_in_pieces_too(*, little: bool) -> None:
    """While others work: a page holds partitions of however many rows. Each page is taken apart once."""
    asked: list[str] = []
    counted: list[int] = []
    apart: list[Page] = []

    class Told(Page):
        def rows(self) -> list[tuple[bytes | None, ...]]:
            apart.append(self)
            return [(b"token", bytes([len(apart)]), (3).to_bytes(8, "big"), b"sum")]

    @asynccontextmanager
    async def lane(*_: object) -> AsyncGenerator[str, None]:
        yield "MD5"

    async def learn(*_: object) -> None:
        pass

    async def pages(_: object, text: str, rows: Callable[[Page], int]) -> AsyncGenerator[Page, None]:
        asked.append(text)
        for _page in range(2):
            counted.append(rows(page := Told(1, 4, b"")))
            yield page

    gate = SimpleNamespace(lane=lane, pages=pages, asks_little=lambda _: little)
    sizes = SimpleNamespace(learn=learn, hashed=lambda _, text, *__: text)
    digests = Digests(cast("Gate", gate), cast("RowSizes", sizes), cast("RowPages", None))

    async def main() -> list[RawRow]:
        told = digests.of_partitions(cast("Any", "node 1"), READING, EVERYTHING, 1, newest=False)
        return [row async for page in told for row in page]

    rows = asyncio.run(main())
    assert len(asked) == len(set(asked)) == (_FIRST_PART + 1 if little else 1)
    assert [row[1] for row in rows] == [bytes([n + 1]) for n in range(2 * len(asked))]
    assert len(apart) == len(counted) == 2 * len(asked)
    assert set(counted) == {3}
    ends = [int(re.findall(r"<= (-?[0-9]+)", text)[0]) for text in asked]
    starts = [int(found[0]) if (found := re.findall(r" > (-?[0-9]+)", text)) else MIN_TOKEN for text in asked]
    assert_tiles([TokenRange(start, end) for start, end in zip(starts, ends, strict=True)], [EVERYTHING])
