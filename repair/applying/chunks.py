"""A chunk: a part of a planned range whose rows are read, journaled, merged and verified together.

It ends between two tokens, and holds as many rows that differ as memory and the breaker have room for. Rows are sorted
out by the window (`consistency/rows/windows.py`): the plain ones stay arrays, each of the others is evidence like any
other, from all replicas at one instant and decided by the rules of single rows. A partition that is larger than a
window is walked through instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np

from consistency.checking.joined_rows import OF_TOKEN, OF_TOKEN_BYTES, joined_rows, windowed_rows
from consistency.checking.plan import Leaf
from consistency.cluster.packed_rows import PackedRow, tokens_of
from consistency.cluster.port import Clock
from consistency.errors import InternalError
from consistency.model.layout import token_in
from consistency.model.reading import RawRow, Reading, RowState
from consistency.model.servertime import ServerTime
from consistency.model.tokens import TokenRange
from consistency.results.range_findings import RangeFinding
from consistency.rows.merge_join import JoinCounts
from consistency.rows.names import RowName, named_key
from consistency.rows.read import States
from consistency.rows.windows import KeyCells, RawCopies, Window, WindowTooWide, by_key, bytes_of
from repair.deciding.case import Case, CaseReader
from repair.deciding.copies import Copies
from repair.deciding.decide import Action, Decision, Rule, decide, kept_to
from repair.deciding.forecast import may_vanish
from repair.deciding.mergeable import place_of
from repair.deciding.plain_rows import PlainRows, Sorter, can_be_plain
from repair.deciding.policy import Policy

Make = Callable[[RowName, States], Case]

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

    rows: int = 5_000
    """Rows that differ: a second's worth of work, so that what was read is not old when it is acted on."""
    read: int = 20_000
    """Rows after which a chunk ends."""
    size: int = 16 * 1024 * 1024
    """Bytes of the copies of rows that differ."""
    of_token: int = OF_TOKEN
    """Rows of one partition that are kept in memory together: those of a larger one are left alone."""
    of_token_size: int = OF_TOKEN_BYTES
    """Bytes of their copies, those of rows that are alike as well."""


@dataclass
class Chunk:
    """What was read of a part of a range: the rows that differ, in ring order.

    `too_many`: how many rows differ of a partition that has more than are kept together; then the chunk is that one.
    """

    token_range: TokenRange
    when: ServerTime
    rows: list[Judged] = field(default_factory=list)
    plain: PlainRows = field(default_factory=PlainRows.none)
    too_many: int = 0
    page_rows: int = 1
    """The most rows that a replica sent at once: so many it can bear."""


@dataclass(frozen=True, eq=False)
class Held:
    """A part of a range as its replicas hold it: rows that differ, and some that are alike everywhere, by key.

    `as_foreseen`: those that all replicas hold as was foreseen, which are not taken apart.
    """

    differing: dict[KeyCells, RawCopies]
    alike: dict[KeyCells, RawRow]
    as_foreseen: set[PackedRow]


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
        self.owners = cases.owners(self.place)

    @property
    def reading(self) -> Reading:
        """What is read of each row."""
        return self._table.reading

    async def next(self, left: TokenRange, room: int) -> Chunk:
        """Read the next chunk of what is left of the range; about `room` of its rows may vanish once they are merged.

        Raises a ReplicaError if a replica does not answer.
        """
        try:
            return await self._by_windows(left, room)
        except WindowTooWide:
            return await self._by_rows(left, room)

    async def _by_windows(self, left: TokenRange, room: int) -> Chunk:
        when, counts, limits = self._clock.server_time(), JoinCounts(), self._limits
        make = await self._cases.cases_at(self.place, when)
        building = _Building(left, when)
        try:
            async with aclosing(self._windows(left, when.expiry_s, counts)) as found:
                async for window in found:
                    building.take(window, *self._sorted(window, make, when), limits, room)
                    if building.full or (building.count and counts.rows >= limits.read):
                        break
        except WindowTooWide:
            if not building.count:
                raise
        return building.chunk(max(1, counts.largest_page))

    def _windows(
        self, token_range: TokenRange, now_s: int, counts: JoinCounts | None = None
    ) -> AsyncGenerator[Window, None]:
        leaf, limits = Leaf(token_range, self.owners), self._limits
        return windowed_rows(self._table, leaf, counts or JoinCounts(), now_s, limits.of_token, limits.of_token_size)

    def _sorted(self, window: Window, make: Make, when: ServerTime) -> tuple[PlainRows, list[Judged]]:
        """Tell the plain rows of a window from those that must be looked at one by one."""
        keys, copies = list(window.differing), list(window.differing.values())
        if not keys or not can_be_plain(self.reading):
            others = [self._judged_row(key, held, make, when) for key, held in window.differing.items()]
            return PlainRows.none(), others
        plain, may_vanish, newest = Sorter(self.reading, self.owners, self._policy, when).told_apart(copies)
        plain &= np.fromiter((None not in key for key in keys), np.bool_, len(keys))
        if plain.any():
            first = int(np.argmax(plain))
            # What does not depend on the row, such as what the servers allow, is decided by the rules themselves.
            like_all = self._judged_row(keys[first], copies[first], make, when).decision
            plain &= is_simple(like_all) and like_all.rule is Rule.LAST_WRITE
        others = [self._judged_row(keys[n], copies[n], make, when) for n in np.flatnonzero(~plain).tolist()]
        return PlainRows(window.tokens, keys, copies, may_vanish, newest).take(plain), others

    def _judged_row(self, key: KeyCells, copies: RawCopies, make: Make, when: ServerTime) -> Judged:
        """Judge a row by its raw copies; InternalError if these differ in a way that cannot be named."""
        reading, states = self.reading, {}
        for raw in copies:
            if raw is not None and raw not in states:
                states[raw] = reading.row_state(raw, when.expiry_s, key)
        if None not in copies and len(set(states.values())) == 1:
            raise InternalError("two rows differ in a way that cannot be named; the range cannot be compared")
        token = token_in(next(iter(states)))
        held = {n: None if raw is None else states[raw] for n, raw in zip(self.owners, copies, strict=True)}
        return self._judge(make(RowName(token, named_key(key)), held))

    def _judge(self, case: Case) -> Judged:
        # What the servers forbid by now waits until they allow it, as it does for a row of a plan.
        return Judged(case, kept_to(Action.RECONCILE, case, decide(case, self._policy)))

    async def judged(self, rows: Mapping[KeyCells, RawCopies], when: ServerTime) -> list[Judged]:
        """Judge rows by raw copies that were read at an instant."""
        make = await self._cases.cases_at(self.place, when)
        return [self._judged_row(key, copies, make, when) for key, copies in rows.items()]

    async def of_no_row(self, when: ServerTime) -> Case:
        """Return the case of a row that no replica holds: what it says of table and servers holds for every row."""
        make = await self._cases.cases_at(self.place, when)
        return make(RowName(self.place.token, ()), dict.fromkeys(self.owners))

    async def held(
        self,
        token_range: TokenRange,
        when: ServerTime,
        sought: Mapping[KeyCells, int],
        foreseen: Mapping[KeyCells, PackedRow],
    ) -> Held:
        """Read a part of the range on every replica, as of an instant; WindowTooWide if a partition is too large.

        `sought` has the tokens of rows that are looked for, `foreseen` what all replicas are to hold of others. Of the
        rows that are alike only those are kept that are sought, or were foreseen otherwise: there may be many more, and
        large ones.
        """
        found, layout = Held({}, {}, set()), self.reading.layout
        keys, left = sought.keys() | foreseen.keys(), set(foreseen.values())
        async with aclosing(self._windows(token_range, when.expiry_s)) as each:
            async for window in each:
                found.differing.update(window.differing)
                as_foreseen = left.intersection(window.alike)
                left -= as_foreseen
                found.as_foreseen.update(as_foreseen)
                tokens = np.union1d(np.array([*sought.values()], np.int64), tokens_of([*left]))
                near = np.flatnonzero(np.isin(tokens_of(window.alike), tokens)).tolist() if len(tokens) else ()
                alike = by_key(layout, [window.alike[n] for n in near])
                found.alike.update((key, alike[key]) for key in alike.keys() & keys)
        return found

    def copies_in(self, held: Held, key: KeyCells, when: ServerTime) -> Copies:
        """Return a row as each replica holds it, by the host id; None if there is no such row."""
        alike = held.alike.get(key)
        raws = held.differing.get(key, (alike,) * len(self.owners))
        states: dict[RawRow | None, RowState | None] = {None: None}
        for raw in raws:
            if raw is not None and raw not in states:
                states[raw] = self.reading.row_state(raw, when.expiry_s)
        return {node.host_id: states[raw] for node, raw in zip(self.owners, raws, strict=True)}

    async def _by_rows(self, left: TokenRange, room: int) -> Chunk:
        """Read a chunk by walking through its rows, of which one partition may have more than memory has room for."""
        when = self._clock.server_time()
        rows: list[Judged] = []
        seen, doubtful, size, token = JoinCounts(), 0, 0, left.start
        async with aclosing(self._walk(left, seen, when)) as found:
            async for judged in found:
                full = doubtful >= room or self._full(len(rows), seen.rows, size)
                if rows and full and judged.token != token:
                    return Chunk(TokenRange(left.start, judged.token - 1), when, rows, page_rows=seen.largest_page)
                token = judged.token
                rows.append(judged)
                size += _bytes(judged.case)
                doubtful += may_vanish(judged.case, judged.decision)
                if len(rows) > self._limits.of_token or size > self._limits.of_token_size:
                    before = [each for each in rows if each.token != token]
                    if not before:
                        counted = len(rows) + await _count_at(token, found)
                        return Chunk(TokenRange(left.start, token), when, too_many=counted)
                    return Chunk(TokenRange(left.start, token - 1), when, before, page_rows=seen.largest_page)
        return Chunk(left, when, rows, page_rows=max(seen.largest_page, 1))

    def _full(self, rows: int, read: int, size: int) -> bool:
        limits = self._limits
        return rows >= limits.rows or read >= limits.read or size >= limits.size

    async def again(self, token_range: TokenRange) -> list[Judged]:
        """Read what differs in a part of the range now, row by row."""
        async with aclosing(self._walk(token_range, JoinCounts(), self._clock.server_time())) as found:
            return [judged async for judged in found]

    async def _walk(self, token_range: TokenRange, seen: JoinCounts, when: ServerTime) -> AsyncGenerator[Judged, None]:
        rows = joined_rows(self._table, Leaf(token_range, self.owners), seen, when.expiry_s)
        async with aclosing(rows) as found:
            async for case in self._cases.cases_of_range(self.place, found, when):
                yield self._judge(case)


def _most_of_a_token(window: Window) -> int:
    """Return how many rows of one token differ at most."""
    return int(np.unique(window.tokens, return_counts=True)[1].max(initial=0))


class _Building:
    """A chunk that grows by the window."""

    def __init__(self, left: TokenRange, when: ServerTime) -> None:
        self._left = left
        self._when = when
        self._end = left.start
        self._rows: list[Judged] = []
        self._plain: list[PlainRows] = []
        self._doubtful = self._size = self.count = 0
        self.full = False

    def take(self, window: Window, plain: PlainRows, rows: Sequence[Judged], limits: Limits, room: int) -> None:
        """Take the rows of a window, or those of them for which there is room; the last one ends between two tokens.

        Raises WindowTooWide if the rows of one of its tokens are too many to be kept together, and none come before.
        """
        size = bytes_of([raw for held in window.differing.values() for raw in held])
        if _most_of_a_token(window) > limits.of_token or size > limits.of_token_size:
            if not self.count:
                raise WindowTooWide
            self.full = True
            return
        doubtful = [each.token for each in rows if may_vanish(each.case, each.decision)]
        doubtful = sorted([*doubtful, *plain.tokens[plain.may_vanish].tolist()])
        ends = []
        if self.count + len(window.tokens) >= limits.rows:
            ends.append(int(window.tokens[max(0, limits.rows - self.count - 1)]))
        if self._doubtful + len(doubtful) >= room:
            ends.append(doubtful[max(0, room - self._doubtful - 1)])
        self._end = min(ends, default=window.end)
        within = plain.take(plain.tokens <= self._end)
        self._plain.append(within)
        self._rows += (kept := [each for each in rows if each.token <= self._end])
        self._doubtful += sum(token <= self._end for token in doubtful)
        self._size += size
        self.count += len(within) + len(kept)
        self.full = bool(ends) or self._size >= limits.size

    def chunk(self, page_rows: int) -> Chunk:
        """Return the chunk as it has become."""
        return Chunk(
            TokenRange(self._left.start, self._end), self._when, self._rows, PlainRows.joined(self._plain), 0, page_rows
        )


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
