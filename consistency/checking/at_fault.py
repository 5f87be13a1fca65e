"""Which part of a leaf a server refuses to read: found by halving again and again, so that the rest can be compared.

A guardrail that forbids to read one partition (its index is too large, it holds too many tombstones) forbids every read
of a range that holds it. Ranges that are refused are cut into parts until one token is left; what lies between is read
like any other leaf. A refusal by a guardrail comes quickly, so a partition at fault is found within 22 rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import Leaf
from consistency.errors import ReplicaError, TooMuchToScan
from consistency.model.tokens import TokenRange

MOST_AT_FAULT = 32
"""Partitions of one table that are looked for; if there are more, the ranges that hold them stay unread."""
_PARTS = 8

Digest = Callable[[Leaf], Awaitable[LeafResult]]


def too_large(result: LeafResult) -> bool:
    """Whether a leaf was not read because of what it holds, by a replica that answers."""
    errors = result.errors.values()
    return any(isinstance(e, TooMuchToScan) for e in errors) and result.leaf.token_range.width > 1


def lasting(result: LeafResult) -> bool:
    """Whether asking once more cannot help: each replica that failed was asked too much."""
    return bool(result.errors) and all(isinstance(error, TooMuchToScan) for error in result.errors.values())


@dataclass(slots=True)
class AtFault:
    """Looks for what is at fault in the leaves of one table, within bounds."""

    left: int = MOST_AT_FAULT

    async def parts(self, digest: Digest, result: LeafResult) -> tuple[TokenRange, ...]:
        """Return ranges that tile a leaf that is too large: those at fault apart, those between them as one.

        The whole leaf as it was where that is not found out: a replica does not answer, or too much is at fault.
        """
        whole = result.leaf.token_range
        nodes = tuple(node for node, error in result.errors.items() if isinstance(error, TooMuchToScan))
        try:
            found = await self._tiles(lambda part: digest(Leaf(part, nodes)), whole)
        except ReplicaError:
            return (whole,)
        return tuple(part for part, _ in _joined(found))

    async def _tiles(
        self, digest: Callable[[TokenRange], Awaitable[LeafResult]], refused: TokenRange
    ) -> list[tuple[TokenRange, bool]]:
        """Tile a range that is refused as a whole; with each part whether it may be read together with its neighbours.

        Where none of its parts is refused, the whole was too much: its parts stay apart.
        """
        if refused.width == 1 or self.left <= 0:
            self.left -= 1
            return [(refused, False)]
        answers = await asyncio.gather(*map(digest, refused.split(_PARTS)))
        for answer in answers:
            for error in answer.errors.values():
                if not isinstance(error, TooMuchToScan):
                    raise error
        blamed = any(answer.errors for answer in answers)
        tiles: list[tuple[TokenRange, bool]] = []
        for answer in answers:
            part = answer.leaf.token_range
            tiles += await self._tiles(digest, part) if answer.errors else [(part, blamed)]
        return tiles


def _joined(tiles: Sequence[tuple[TokenRange, bool]]) -> list[tuple[TokenRange, bool]]:
    """Join parts that can be read together."""
    out: list[tuple[TokenRange, bool]] = []
    for part, together in tiles:
        if out and together and out[-1][1]:
            out[-1] = (TokenRange(out[-1][0].start, part.end), True)
        else:
            out.append((part, together))
    return out
