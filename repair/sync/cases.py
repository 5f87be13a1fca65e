"""A row on both sides: what gives and what takes, read at one time, against one snapshot of each cluster."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from consistency.comparing.matching import TablePair
from consistency.comparing.opening import Pair, naming
from consistency.comparing.schemas import columns_apart, why_not_compared
from consistency.errors import UsageError
from consistency.model.reading import RowState
from consistency.model.schema import Table
from consistency.model.sides import Side
from consistency.rows.evidence import Evidence, EvidenceReader
from consistency.rows.names import RowName, RowRef
from repair.deciding.case import Case, CaseReader, fingerprint
from repair.deciding.copies import Copies, copies, state_digest
from repair.sync.policy import Direction


@dataclass(frozen=True, slots=True)
class PairRef:
    """Which row: one key under the names that the table has on either side."""

    source: RowRef
    target: RowRef

    @classmethod
    def of(cls, source: RowRef, target: tuple[str, str]) -> PairRef:
        """Return the row of the source, and the same of a table of the target, `(keyspace, table)`."""
        return cls(source, RowRef(*target, source.token, source.key_hex, source.key))

    def on(self, side: Side) -> RowRef:
        """Return the row by its name on a side."""
        return self.source if side is Side.SOURCE else self.target


@dataclass(frozen=True)
class PairCase:
    """The evidence of one row on the side that gives and the side that takes.

    `masked`: a side on which our role reads the mask of a column, None if there is none.
    """

    giver: Evidence
    taker: Case
    direction: Direction
    masked: Side | None = None

    @property
    def sides(self) -> tuple[tuple[Side, Evidence], ...]:
        """Both sides' evidence, what gives first."""
        return (self.direction.giver, self.giver), (self.direction.taker, self.taker)

    def seen(self, salt: str) -> dict[Side, str]:
        """Return a keyed digest of each side's copies: tells changed from unchanged, holds no value."""
        return {side: copies_digest(copies(evidence), salt) for side, evidence in self.sides}

    @property
    def read(self) -> dict[Side, int]:
        """How many replicas of each side were read."""
        return {side: len(evidence.states) for side, evidence in self.sides}


def copies_digest(held: Copies, salt: str) -> str:
    """Digest all copies of one side; what several replicas hold is digested once."""
    distinct = {id(state): state for state in held.values()}
    known = {key: state_digest(state, salt) for key, state in distinct.items()}
    text = json.dumps(sorted((host, known[id(state)]) for host, state in held.items()))
    return hashlib.blake2b(text.encode(), key=salt.encode(), digest_size=16).hexdigest()


class PairCaseReader:
    """Reads rows on both sides."""

    def __init__(self, pair: Pair, direction: Direction, readers: tuple[EvidenceReader, CaseReader]) -> None:
        """Read with the readers of the giver and the taker."""
        self._pair = pair
        self._direction = direction
        self.giver, self.taker = readers
        self._masked: dict[str, Side | None] = {}

    @classmethod
    async def open(cls, pair: Pair, direction: Direction) -> PairCaseReader:
        """Take a snapshot of either side's ring and schema."""
        giver, taker = pair.of(direction.giver), pair.of(direction.taker)
        opened = (
            await EvidenceReader.open(giver.reader, giver.clock),
            await CaseReader.open(taker.reader, taker.clock),
        )
        return cls(pair, direction, opened)

    def on(self, side: Side) -> EvidenceReader:
        """Return what reads a side."""
        return self.giver if side is self._direction.giver else self.taker

    def fingerprint(self, ref: PairRef, side: Side) -> str:
        """Name what a plan rests on of the row's table on a side."""
        reader, named = self.on(side), ref.on(side)
        with naming(side):
            return fingerprint(reader.keyspace(named), reader.table(named))

    async def read(self, ref: PairRef) -> PairCase:
        """Read one row."""
        (case,) = await self.read_many([ref])
        return case

    async def read_many(self, refs: Sequence[PairRef]) -> list[PairCase]:
        """Read rows on all replicas of both sides, in the order of `refs`."""
        for ref in refs:
            await self._look_at(ref)
        giver, taker = self._direction.giver, self._direction.taker
        given, taken = await asyncio.gather(
            self.giver.read_many([ref.on(giver) for ref in refs]), self.taker.read_many([ref.on(taker) for ref in refs])
        )
        return [
            PairCase(one, other, self._direction, self._masked[_names(ref)])
            for ref, one, other in zip(refs, given, taken, strict=True)
        ]

    async def cases_at(self, place: PairRef) -> Callable[[RowName, Mapping[Side, RowState | None]], PairCase] | None:
        """Return what makes cases of rows of a range, read from now on, that all replicas of each side hold alike.

        `place` stands for any of them. None if they must be read by key: the nodes of a side disagree on who owns rows,
        or the sides tell different things of a row, so that one reading of the range is not each side's own.
        """
        await self._look_at(place)
        giver, taker = self._direction.giver, self._direction.taker
        rings = [self.on(side).ring for side in Side]
        able = {self.on(side).reading(place.on(side)).capabilities for side in Side}
        if any(ring.disputed for ring in rings) or len(able) > 1:
            return None
        given = self.giver.evidence_at(place.on(giver))
        taken = await self.taker.cases_at(place.on(taker), self._pair.of(taker).clock.server_time())
        givers, takers = self.giver.owners(place.on(giver)), self.taker.owners(place.on(taker))
        masked = self._masked[_names(place)]

        def case(name: RowName, held: Mapping[Side, RowState | None]) -> PairCase:
            one = given(name, dict.fromkeys(givers, held[giver]))
            return PairCase(one, taken(name, dict.fromkeys(takers, held[taker])), self._direction, masked)

        return case

    async def _look_at(self, ref: PairRef) -> None:
        """See once a table that both sides declare the same columns, and whether our roles read them as stored."""
        if _names(ref) in self._masked:
            return
        tables: dict[Side, Table] = {}
        for side in Side:
            with naming(side):
                tables[side] = self.on(side).table(ref.on(side))
        if reason := why_not_compared(columns_apart(TablePair(*(tables[side] for side in Side)))):
            msg = f"{_names(ref)}: {reason}; compare again"
            raise UsageError(msg)
        masked = None
        for side, table in tables.items():
            if any(c.masked for c in table.columns) and not await self._pair.of(side).reader.sees_masked(table):
                masked = masked or side
        self._masked[_names(ref)] = masked


def _names(ref: PairRef) -> str:
    return f"{ref.source.full_name}={ref.target.full_name}"
