"""Digests of token ranges put together from those of pieces, so that no single query holds a node for long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import reduce

from consistency.model.tokens import RING_SIZE, TokenRange
from consistency.model.tree import Digest

PIECE_S = 0.004
"""How long a piece should keep a node busy: an application's request that has to wait behind it waits no longer."""
_FIRST_PART = 16
"""What part of a range the first piece of a table is."""
_FIRST_ROWS = 4_000
_TELLING_ROWS, _TELLING_BYTES = 1_000, 256 * 1024
"""From so many rows, or bytes, on the time a piece took tells how long rows take; below, what else the node did."""
_SLOW_S = 25 * PIECE_S
"""A piece of few rows that took so long read something else than rows: tombstones."""
_GROWTH, _CAREFUL = 8, 2
"""How much wider a piece may be than the one before, and after an empty one where rows are known to lie."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The digest of a piece, how many seconds it kept the node busy, and about how large its rows are."""

    digest: Digest
    busy_s: float
    row_bytes: int


@dataclass(slots=True)
class PieceSize:
    """How much of one table one node digests in `PIECE_S`, learnt from each piece before."""

    tokens: int | None = None
    rows: float = _FIRST_ROWS
    told: bool = False
    """Whether `rows` is more than a guess."""

    def cut(self, left: TokenRange, whole: TokenRange) -> tuple[TokenRange, TokenRange | None]:
        """Cut the next piece off what is left of a range; return it and the rest."""
        if self.tokens is None:
            self.tokens = max(1, whole.width // _FIRST_PART)
        end = left.start + self.tokens
        if end >= left.end:
            return left, None
        return TokenRange(left.start, end), TokenRange(end, left.end)

    def learn(self, token_range: TokenRange, piece: Piece) -> None:
        """Have the next piece hold more rows where one was quick, fewer where it was slow, as dense as they lie here.

        The time that few rows took is that of a query and of whatever the node did besides: it says nothing of how many
        more there may be, and where a busy node made pieces of few rows smaller still, they would never end.
        """
        rows = piece.digest.rows
        telling = rows >= _TELLING_ROWS or rows * piece.row_bytes >= _TELLING_BYTES
        if telling:
            fitting = rows * PIECE_S / piece.busy_s
            if self.told:  # one that was held up by something else is not taken at its word
                fitting = min(2 * self.rows, max(self.rows / 4, fitting))
            self.told = True
            self.rows = max(1, min(_TELLING_ROWS, _TELLING_BYTES / piece.row_bytes), fitting)
        elif piece.busy_s > _SLOW_S:
            return
        narrow = self.tokens is not None and token_range.width < self.tokens
        if not narrow or rows >= _TELLING_ROWS:  # the last piece of a range may tell nothing of how dense rows lie
            most = _GROWTH if rows or not self.told else _CAREFUL
            self.tokens = max(1, min(RING_SIZE, int(token_range.width * min(most, self.rows / max(rows, 0.1)))))


async def in_pieces(
    token_range: TokenRange,
    size: PieceSize,
    digest: Callable[[TokenRange], Awaitable[Piece]],
    add: Callable[[Digest, Digest], Digest],
    small: Callable[[], bool],
) -> Digest:
    """Digest a range: piece by piece as long as `small` says so, and what is left in one go once it does not."""
    digests: list[Digest] = []
    left: TokenRange | None = token_range
    while left is not None:
        part, left = size.cut(left, token_range) if small() else (left, None)
        piece = await digest(part)
        size.learn(part, piece)
        digests.append(piece.digest)
    return reduce(add, digests)
