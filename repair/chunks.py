"""A chunk: a part of a planned range whose rows are read, journaled, merged and verified together.

It ends between two tokens, and holds as many rows that differ as memory and the breaker have room for. Its rows are
evidence like any others: joined from all replicas at one instant, and decided by the rules of single rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from consistency.checking.joined_rows import joined_rows
from consistency.checking.plan import Leaf
from consistency.cluster.port import Clock, Key
from consistency.model.reading import RawRow, RowState
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from consistency.results.range_findings import RangeFinding
from consistency.rows.merge_join import JoinCounts
from consistency.rows.names import named_key
from repair.case import Case, CaseReader
from repair.copies import Copies
from repair.decide import Action, Decision, Rule, decide, kept_to
from repair.forecast import may_vanish
from repair.mergeable import place_of
from repair.policy import Policy

_MERGED = frozenset({Rule.LAST_WRITE, Rule.TIE, Rule.EXPIRY})


@dataclass(frozen=True, eq=False)
class Judged:
    """A row that differs, and what its evidence asks for."""

    case: Case
    decision: Decision

    @property
    def token(self) -> int:
        """The token of its partition."""
        return self.case.name.token


def is_simple(decision: Decision) -> bool:
    """Whether the servers' own merge is all that is to be done with a row, so that its range may be read at ALL."""
    return decision.action is Action.RECONCILE and decision.rule in _MERGED and not decision.refused


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a chunk may be."""

    rows: int = 1_000
    """Rows that differ: a second's worth of work, so that what was read is not old when it is acted on."""
    read: int = 20_000
    """Rows after which a chunk ends before the next one that differs."""
    size: int = 16 * 1024 * 1024
    """Bytes of the values of rows that differ."""
    of_token: int = 20_000
    """Rows of one partition that are kept in memory together: those of a larger one are left alone."""
    of_token_size: int = 64 * 1024 * 1024
    """Bytes of their values."""


@dataclass
class Chunk:
    """What was read of a part of a range: the rows that differ, in ring order.

    `too_many`: how many rows differ of a partition that has more than are kept together; then the chunk is that one.
    """

    token_range: TokenRange
    rows: list[Judged] = field(default_factory=list)
    too_many: int = 0
    page_rows: int = 1
    """The most rows that a replica sent at once: so many it can bear."""


class ChunkReader:
    """Reads one planned range, chunk by chunk."""

    def __init__(
        self, cases: CaseReader, found: RangeFinding, policy: Policy, clock: Clock, limits: Limits | None = None
    ) -> None:
        self._limits = limits or Limits()
        self.place = place_of(found)
        self._cases = cases
        self._policy = policy
        self._clock = clock
        self._table = cases.table_reader(self.place)
        self._owners = cases.owners(self.place)

    async def next(self, left: TokenRange, room: int) -> Chunk:
        """Read the next chunk of what is left of the range; about `room` of its rows may vanish once they are merged.

        Raises a ReplicaError where a replica does not answer.
        """
        rows: list[Judged] = []
        seen, doubtful, size, token = JoinCounts(), 0, 0, left.start
        async with aclosing(self._judged(left, seen)) as found:
            async for judged in found:
                full = doubtful >= room or self._full(len(rows), seen.rows, size)
                if rows and full and judged.token != token:
                    return Chunk(TokenRange(left.start, judged.token - 1), rows, 0, seen.largest_page)
                token = judged.token
                rows.append(judged)
                size += _bytes(judged.case)
                doubtful += may_vanish(judged.case, judged.decision)
                if len(rows) > self._limits.of_token or size > self._limits.of_token_size:
                    before = [each for each in rows if each.token != token]
                    if not before:
                        counted = len(rows) + await _count_at(token, found)
                        return Chunk(TokenRange(left.start, token), [], counted)
                    return Chunk(TokenRange(left.start, token - 1), before, 0, seen.largest_page)
        return Chunk(left, rows, 0, max(seen.largest_page, 1))

    def _full(self, rows: int, read: int, size: int) -> bool:
        limits = self._limits
        return rows >= limits.rows or read >= limits.read or size >= limits.size

    async def again(self, token_range: TokenRange) -> list[Judged]:
        """Read what differs in a part of the range now."""
        async with aclosing(self._judged(token_range, JoinCounts())) as found:
            return [judged async for judged in found]

    async def _judged(self, token_range: TokenRange, seen: JoinCounts) -> AsyncGenerator[Judged, None]:
        when = self._clock.server_time()
        rows = joined_rows(self._table, Leaf(token_range, self._owners), seen, when.expiry_s)
        async with aclosing(rows) as found:
            async for case in self._cases.cases_of_range(self.place, found, when):
                # What the servers forbid by now waits until they allow it, as it does for a row of a plan.
                yield Judged(case, kept_to(Action.RECONCILE, case, decide(case, self._policy)))

    async def copies_of(self, token_range: TokenRange, keys: Collection[Key]) -> Mapping[Key, Copies]:
        """Read the rows of these keys in a part of the range on every replica, whether they differ or not."""
        wanted, now_s = frozenset(keys), self._table.now_s()
        raws = await asyncio.gather(*(self._raws(node, token_range, wanted, now_s) for node in self._owners))
        return {key: self._copies([of_node.get(key) for of_node in raws], now_s) for key in wanted}

    async def _raws(
        self, node: Node, token_range: TokenRange, wanted: Collection[Key], now_s: int
    ) -> dict[Key, RawRow]:
        found: dict[Key, RawRow] = {}
        place = self._table.reading.layout.key
        async with aclosing(self._table.rows(node, token_range, now_s)) as pages:
            async for page in pages:
                found.update((key, raw) for raw in page if (key := named_key(raw[place])) in wanted)
        return found

    def _copies(self, raws: list[RawRow | None], now_s: int) -> Copies:
        reading = self._table.reading
        states: dict[RawRow | None, RowState | None] = {None: None}
        for raw in raws:
            if raw not in states and raw is not None:
                states[raw] = reading.row_state(raw, now_s)
        return {node.host_id: states[raw] for node, raw in zip(self._owners, raws, strict=True)}


async def _count_at(token: int, found: AsyncGenerator[Judged, None]) -> int:
    """Count the further rows of one token."""
    count = 0
    async for judged in found:
        if judged.token != token:
            break
        count += 1
    return count


def _bytes(case: Case) -> int:
    """Return how much memory the values of a row's copies take, those of equal copies once."""
    return sum(len(cell.value or b"") for state in set(case.present.values()) for cell in state.cells)
