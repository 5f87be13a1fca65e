"""Digests of token ranges put together from those of pieces, so that no single query holds a node for long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import reduce

from consistency.tokens import RING_SIZE, TokenRange
from consistency.tree import Digest

PIECE_S = 0.004
"""How long a piece should keep a node busy: an application's request that has to wait behind it waits no longer."""
_FIRST_WIDTH = RING_SIZE // 1024
_LEAST_ROWS = 10
"""A piece of so few rows is not made narrower: what takes long then is not their number."""
_MOST_CHANGE = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """The digest of a piece, and how many seconds it kept the node busy."""

    digest: Digest
    busy_s: float


@dataclass(slots=True)
class PieceWidth:
    """How many tokens of one table one node digests in `PIECE_S`, learnt from each piece before."""

    tokens: int = _FIRST_WIDTH

    def cut(self, left: TokenRange) -> tuple[TokenRange, TokenRange | None]:
        """Cut the next piece off what is left of a range; return it and the rest."""
        end = left.start + self.tokens
        if end >= left.end:
            return left, None
        return TokenRange(left.start, end), TokenRange(end, left.end)

    def learn(self, token_range: TokenRange, piece: Piece) -> None:
        """Make the next piece narrower where one took long, and wider where it did not."""
        factor = min(PIECE_S / max(piece.busy_s, PIECE_S / _MOST_CHANGE), _MOST_CHANGE)
        fitting = int(token_range.width * max(factor, 1 / _MOST_CHANGE))
        if factor < 1:
            # The last piece of a range may be narrow already and still take long.
            if piece.digest.rows > _LEAST_ROWS:
                self.tokens = max(1, min(self.tokens, fitting))
        else:
            # Or so narrow that how fast it was tells nothing of a full one.
            self.tokens = min(RING_SIZE, max(self.tokens, fitting))


async def in_pieces(
    token_range: TokenRange,
    width: PieceWidth,
    digest: Callable[[TokenRange], Awaitable[Piece]],
    add: Callable[[Digest, Digest], Digest],
    small: Callable[[], bool],
) -> Digest:
    """Digest a range: piece by piece as long as `small` says so, and what is left in one go once it does not."""
    digests: list[Digest] = []
    left: TokenRange | None = token_range
    while left is not None:
        part, left = width.cut(left) if small() else (left, None)
        piece = await digest(part)
        width.learn(part, piece)
        digests.append(piece.digest)
    return reduce(add, digests)
