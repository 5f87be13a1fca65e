"""Murmur3 tokens and the ranges between them.

A range is `(start, end]`, as everywhere in Cassandra. `start >= end` wraps over the end of the ring. The whole
ring is always `TokenRange.full_ring()`, never two tokens that happen to be equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from consistency.errors import InternalError, TopologyError

MIN_TOKEN = -(2**63)
MAX_TOKEN = 2**63 - 1
RING_SIZE = 2**64 - 1
"""The number of tokens: every signed 64-bit value except MIN_TOKEN (Murmur3Partitioner maps it to MAX)."""


@dataclass(frozen=True, slots=True, order=True)
class TokenRange:
    """The tokens in `(start, end]`; never wraps, so `start < end`."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not MIN_TOKEN <= self.start < self.end <= MAX_TOKEN:
            msg = f"({self.start}, {self.end}] is not a token range inside the ring"
            raise TopologyError(msg)

    @classmethod
    def full_ring(cls) -> TokenRange:
        """Return the range of all tokens."""
        return cls(MIN_TOKEN, MAX_TOKEN)

    @classmethod
    def at(cls, token: int) -> TokenRange:
        """Return the range of one token; no key has the least one of the ring."""
        return cls(token - 1, token)

    @property
    def width(self) -> int:
        """The number of tokens in the range."""
        return self.end - self.start

    @property
    def share(self) -> float:
        """The range as a part of the ring, from 0 to 1."""
        return self.width / RING_SIZE

    def __contains__(self, token: object) -> bool:
        return isinstance(token, int) and self.start < token <= self.end

    def __str__(self) -> str:
        return f"({self.start}, {self.end}]"

    def covers(self, other: TokenRange) -> bool:
        """Return whether all of `other` lies in this range."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: TokenRange) -> bool:
        """Return whether any token lies in both."""
        return self.start < other.end and other.start < self.end

    def split(self, parts: int) -> tuple[TokenRange, ...]:
        """Cut into at most `parts` ranges of nearly equal width that tile this one.

        Returns fewer if there are fewer tokens than parts; a single token cannot be cut.
        """
        parts = max(1, min(parts, self.width))
        pieces = tuple(self.piece(number, parts) for number in range(parts))
        assert_tiles(pieces, [self])
        return pieces

    def piece(self, number: int, parts: int) -> TokenRange:
        """Return one of the ranges that `split` gives, counted from 0, without making the others."""
        start, end = (self.start + self.width * cut // parts for cut in (number, number + 1))
        return TokenRange(start, end)


def unwrapped(start: int, end: int) -> tuple[TokenRange, ...]:
    """Return `(start, end]` as ranges that do not wrap; `start == end` is the whole ring of a one-token cluster.

    MIN_TOKEN belongs to no partition, so a range that would end there is left out.
    """
    if start == end:
        return (TokenRange.full_ring(),)
    if start < end:
        return (TokenRange(start, end),)
    head = (TokenRange(MIN_TOKEN, end),) if end > MIN_TOKEN else ()
    tail = (TokenRange(start, MAX_TOKEN),) if start < MAX_TOKEN else ()
    return head + tail


def around_tokens(whole: TokenRange, tokens: Iterable[int]) -> tuple[TokenRange, ...]:
    """Cut a range so that each of these tokens, which lie in it, becomes a separate range."""
    ends = sorted({end for token in tokens for end in (token - 1, token)} | {whole.end})
    starts = [whole.start, *ends]
    return tuple(TokenRange(a, b) for a, b in zip(starts, ends, strict=False) if a < b)


def merged(ranges: Iterable[TokenRange]) -> tuple[TokenRange, ...]:
    """Return the same tokens with touching ranges joined, in ring order; overlaps are an error."""
    out: list[TokenRange] = []
    for piece in sorted(ranges):
        if out and piece.start < out[-1].end:
            msg = f"token ranges {out[-1]} and {piece} overlap"
            raise TopologyError(msg)
        if out and piece.start == out[-1].end:
            out[-1] = TokenRange(out[-1].start, piece.end)
        else:
            out.append(piece)
    return tuple(out)


def assert_tiles(pieces: Sequence[TokenRange], wholes: Sequence[TokenRange]) -> None:
    """Prove that `pieces` cover `wholes` exactly: no token is lost, and none occurs twice.

    Every coverage figure depends on this, so it runs in production and not only in tests.
    """
    if merged(pieces) != merged(wholes):
        msg = f"{len(pieces)} pieces do not tile {len(wholes)} token ranges"
        raise InternalError(msg)
