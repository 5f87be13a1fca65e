"""A range digested piece by piece: nothing left out or read twice, no piece too long, sums that add up."""

from __future__ import annotations

import asyncio
import bisect
import random
from collections.abc import Callable

import pytest

from consistency.pieces import PIECE_S, Piece, PieceWidth, in_pieces
from consistency.reading import Capabilities, Depth, Reading
from consistency.serverdigest import ServerDigest
from consistency.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange, assert_tiles
from consistency.tree import Digest
from tests.unit.fake_cluster import table

EVERYTHING = TokenRange.full_ring()
HASHES = ServerDigest(Reading(table(), Depth.CONTENT, Capabilities()), newest=True)
SUMS = ServerDigest(
    Reading(table(), Depth.VERSIONS, Capabilities(hashes=False, collection_times=False, timed=False)), newest=True
)


def plus(one: Digest, other: Digest) -> Digest:
    """Add what the tests count."""
    return Digest(one.rows + other.rows, b"")


class Node:
    """Holds rows at `tokens`, and takes a millisecond and a microsecond a row for a query."""

    def __init__(self, tokens: list[int], each_s: float = 1e-6) -> None:
        self.tokens, self.each_s = sorted(tokens), each_s
        self.asked: list[TokenRange] = []
        self.busy: list[float] = []

    def count(self, token_range: TokenRange) -> int:
        """Count the rows of a range."""
        return bisect.bisect_right(self.tokens, token_range.end) - bisect.bisect_right(self.tokens, token_range.start)

    async def digest(self, token_range: TokenRange) -> Piece:
        """Say how many rows a range holds, and how long that took."""
        rows = self.count(token_range)
        self.asked.append(token_range)
        self.busy.append(0.0005 + rows * self.each_s)
        return Piece(Digest(rows, b""), self.busy[-1])


def digested(
    node: Node, token_range: TokenRange, small: Callable[[], bool] = lambda: True, width: PieceWidth | None = None
) -> Digest:
    """Digest a range of such a node."""
    return asyncio.run(in_pieces(token_range, width or PieceWidth(), node.digest, plus, small))


@pytest.mark.parametrize("seed", range(20))
def test_pieces_tile_the_range_whatever_lies_in_it(seed: int) -> None:
    """Evenly spread or all in one corner: every token is read once, and no row is lost or counted twice."""
    rng = random.Random(seed)
    spread = rng.choice((RING_SIZE // 2, 2**40, 2**10, 1))
    begin = rng.randrange(MIN_TOKEN + 1, MAX_TOKEN - spread)
    node = Node([begin + rng.randrange(spread) for _ in range(rng.randrange(3_000))], each_s=rng.choice((1e-7, 1e-3)))
    middle = rng.randrange(MIN_TOKEN + 1, MAX_TOKEN)
    ranges = (EVERYTHING, TokenRange(MIN_TOKEN, middle), TokenRange(middle, MAX_TOKEN), TokenRange(begin - 1, begin))
    for token_range in ranges:
        node.asked.clear()
        assert digested(node, token_range).rows == node.count(token_range)
        assert_tiles(node.asked, [token_range])


def test_a_piece_keeps_a_node_busy_for_a_few_milliseconds() -> None:
    """Of a range that takes 0.4 s in one go no piece takes much longer than wanted."""
    rng = random.Random(5)
    node = Node([rng.randrange(MIN_TOKEN + 1, MAX_TOKEN) for _ in range(2_000)], each_s=200e-6)
    digested(node, EVERYTHING)
    assert max(node.busy) < 2.5 * PIECE_S
    assert len(node.asked) < 4 * 0.4 / PIECE_S


def test_an_empty_range_takes_few_queries() -> None:
    """Pieces that are over at once become wider, eight times each: a small table costs a handful of queries."""
    node = Node([])
    digested(node, EVERYTHING)
    assert len(node.asked) <= 6


def test_a_pause_of_the_node_is_forgotten() -> None:
    """One piece that took long for another reason makes the next ones narrower, and only those."""
    width = PieceWidth(RING_SIZE // 100)
    whole = TokenRange(0, RING_SIZE // 100)
    width.learn(whole, Piece(Digest(5_000, b""), 0.2))
    assert width.tokens == pytest.approx(RING_SIZE // 800)
    for _ in range(3):
        width.learn(TokenRange(0, width.tokens), Piece(Digest(600, b""), PIECE_S / 8))
    assert width.tokens >= RING_SIZE // 100


def test_few_rows_that_take_long_are_not_cut_for_ever() -> None:
    """Rows of megabytes, or a node that is slow at everything: narrower pieces would only be more of them."""
    node = Node([MIN_TOKEN + 1 + i * 2**58 for i in range(60)], each_s=0.05)
    digested(node, EVERYTHING)
    assert len(node.asked) < 400


def test_the_last_narrow_piece_of_a_range_tells_nothing_of_a_full_one() -> None:
    """It is over at once because there is nothing in it."""
    width = PieceWidth(2**50)
    width.learn(TokenRange(0, 3), Piece(Digest(0, b""), PIECE_S / 8))
    assert width.tokens == 2**50


def test_what_is_left_is_read_in_one_go_once_nobody_else_works() -> None:
    """And in pieces again when somebody does."""
    turns = iter([True, True, False])
    node = Node([])
    digested(node, EVERYTHING, lambda: next(turns), PieceWidth(2**50))
    assert len(node.asked) == 3
    assert_tiles(node.asked, [EVERYTHING])


@pytest.mark.parametrize(("asked", "words", "word_bytes"), [(HASHES, 1, 20), (SUMS, 3, 8)])
def test_the_digest_of_a_range_is_the_sum_of_its_parts(asked: ServerDigest, words: int, word_bytes: int) -> None:
    """As the server would have summed all of it: sums of hashes grow, sums of bigints wrap around, null is nothing."""
    rng = random.Random(words)
    most = 2 ** (8 * min(word_bytes, 16) - 1)

    def bigint(number: int) -> bytes:
        return number.to_bytes(8, "big", signed=True)

    def wrapped(number: int) -> bytes | None:
        if word_bytes == 8:
            return bigint((number + 2**63) % 2**64 - 2**63)
        return number.to_bytes(word_bytes, "big", signed=True) if number else None

    for _ in range(200):
        parts = [
            (rng.randrange(10), [rng.randrange(-most, most) for _ in range(words)], rng.randrange(2**50))
            for _ in range(2)
        ]
        one, other = (
            asked.decode((bigint(rows), *(wrapped(n) for n in numbers), bigint(newest)))
            for rows, numbers, newest in parts
        )
        sums = [sum(pair) for pair in zip(parts[0][1], parts[1][1], strict=True)]
        newest_us = max(newest for _, _, newest in parts)
        whole = asked.decode((bigint(parts[0][0] + parts[1][0]), *map(wrapped, sums), bigint(newest_us)))
        assert asked.add(one, other) == whole
        assert asked.add(one, other).newest_us == whole.newest_us == newest_us
    nothing = asked.decode((bigint(0), *([None] * words), None))
    assert asked.add(nothing, one) == asked.add(one, nothing) == one
    assert asked.add(nothing, nothing).newest_us is None
