"""A plan whose rows workers read and decide: what the driver hands out and puts together, and what a worker does.

Rows are decided without a look for deletes first. Then, as far as the bound on traces allows, those whose forecast
hangs on one are read once more, with it: so the bound is kept, and the plan is the same however many workers there are.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from consistency.cluster.locality import TracesLeft
from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import ConnectError
from consistency.results.forecast import Forecast
from consistency.rows.delete_search import DeleteSearch
from consistency.rows.names import RowRef
from consistency.spreading.handing import Handing
from consistency.spreading.messages import Order, Terms, Work
from consistency.spreading.port import Workers
from repair.deciding.case import CaseReader
from repair.deciding.decide import Rule
from repair.deciding.policy import Policy
from repair.keeping.planfile import PlannedRow
from repair.planning.planner import FoundRow, PlannedRows, PlanOptions, Progress, plan_rows

_MOST_ROWS = 400
_UNITS_EACH = 3


Searched = tuple[str, tuple[str, ...], str]
"""A table, a partition of it, and the host id of a node on which a delete may be hidden."""


@dataclass(frozen=True)
class RowsUnit:
    """Some rows to be decided by one worker: the table, token and key of each, and whether only a non-owner held it.

    `max_traces` reads may look for deletes.
    """

    number: int
    rows: tuple[tuple[str, str, int, Mapping[str, str], bool], ...]
    max_traces: int = 0

    @classmethod
    def of(cls, number: int, rows: Sequence[FoundRow], max_traces: int = 0) -> RowsUnit:
        """Return the unit of some rows."""
        told = [(row.ref.keyspace, row.ref.table, row.ref.token, row.ref.key_hex, row.only_non_owner) for row in rows]
        return cls(number, tuple(told), max_traces)

    @property
    def found(self) -> list[FoundRow]:
        """The rows."""
        return [
            FoundRow(RowRef(keyspace, table, token, key), only_non_owner)
            for keyspace, table, token, key, only_non_owner in self.rows
        ]

    def as_text(self) -> str:
        """Return the JSON form."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> RowsUnit:
        """Read the JSON form."""
        data = json.loads(text)
        return cls(data["number"], tuple(tuple(row) for row in data["rows"]), data["max_traces"])


@dataclass(frozen=True)
class RowsDecided:
    """What came of a unit: its rows as a plan has them, and where deletes were not looked for, as the bound was met."""

    rows: tuple[Mapping[str, Any], ...]
    skipped: tuple[Searched, ...]
    refused: str
    traces: TracesLeft

    def as_text(self) -> str:
        """Return the JSON form."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> RowsDecided:
        """Read the JSON form."""
        data = json.loads(text)
        places = tuple((table, tuple(key), host_id) for table, key, host_id in data["skipped"])
        return cls(tuple(data["rows"]), places, data["refused"], TracesLeft.from_json(data["traces"]))


class Shared:
    """Has workers decide. Raises a ConsistencyError if they cannot connect, or if nobody could read some rows."""

    def __init__(self, reader: ClusterReader, clock: Clock, workers: Workers, terms: Terms) -> None:
        self._reader = reader
        self._clock = clock
        self._workers = workers
        self._terms = terms

    async def decide(
        self,
        evidence: CaseReader,
        rows: Sequence[FoundRow],
        options: PlanOptions,
        salt: str,
        progress: Progress | None,
    ) -> PlannedRows:
        """Hand the rows out, and put what came of them in their order."""
        order = self._order(evidence, rows, options, salt)
        try:
            await self._workers.start(order.as_text(), lambda _: None)
            return await self._decided(evidence, rows, options, progress)
        finally:
            await self._workers.close()

    def _order(self, evidence: CaseReader, rows: Sequence[FoundRow], options: PlanOptions, salt: str) -> Order:
        named, run_id = {row.ref.full_name: row.ref for row in rows}, str(uuid.uuid4())
        names = {name: [ref.keyspace, ref.table] for name, ref in named.items()}
        tables = {name: evidence.fingerprint(ref) for name, ref in named.items()}
        size, told = self._workers.size, {**_options_json(options), "salt": salt, "tables": names}
        return Order(Work.PLAN, run_id, told, self._terms.divided(size), size, evidence.ring.fingerprint, tables)

    async def _decided(
        self,
        evidence: CaseReader,
        rows: Sequence[FoundRow],
        options: PlanOptions,
        progress: Progress | None,
    ) -> PlannedRows:
        # As by one process: rows of the same owners are asked for together.
        order = sorted(range(len(rows)), key=lambda n: evidence.together(rows[n].ref))
        most = max(1, min(_MOST_ROWS, -(-len(order) // (_UNITS_EACH * self._workers.size))))
        parts = [(order[at : at + most], 0) for at in range(0, len(order), most)]
        first = await self._read(rows, parts, progress)
        places = sorted({place for came in first.came.values() for place in came.skipped})
        allowed = places[: options.max_traces]
        second = await self._read(rows, list(_searched(evidence, rows, allowed, most)), None)
        made = {**first.planned(), **second.planned()}
        refused = next((came.refused for came in second.came.values() if came.refused), "")
        skipped = 0 if refused else len(places) - len(allowed)
        traces = sum((came.traces for came in (*first.came.values(), *second.came.values())), self._reader.traces)
        return PlannedRows([made[n] for n in range(len(rows))], skipped, refused, traces)

    async def _read(
        self, rows: Sequence[FoundRow], parts: Sequence[tuple[list[int], int]], progress: Progress | None
    ) -> _Deciding:
        deciding = _Deciding(rows, parts, progress)
        await Handing(self._workers, self._clock, deciding).run(asyncio.Event())
        return deciding


def _searched(
    evidence: CaseReader,
    rows: Sequence[FoundRow],
    places: Sequence[Searched],
    most: int,
) -> Iterator[tuple[list[int], int]]:
    """Yield the rows of partitions in which deletes are looked for, partition by partition, and by how many reads."""
    wanted = Counter((table, key) for table, key, _ in places)
    of: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for number, ref in enumerate(row.ref for row in rows):
        partition = ref.full_name, tuple(ref.key_hex[column.name] for column in evidence.table(ref).partition_key)
        if partition in wanted:
            of[partition].append(number)
    part: list[int] = []
    traces = 0
    for partition, numbers in of.items():
        part, traces = [*part, *numbers], traces + wanted[partition]
        if len(part) >= most:
            yield part, traces
            part, traces = [], 0
    if part:
        yield part, traces


class _Deciding:
    """Takes what was decided of rows, in parts with so many traces each."""

    def __init__(
        self, rows: Sequence[FoundRow], parts: Sequence[tuple[list[int], int]], progress: Progress | None
    ) -> None:
        self._rows = rows
        self._parts = parts
        self._progress = progress
        self._done = 0
        self.came: dict[int, RowsDecided] = {}

    async def units(self) -> AsyncIterator[RowsUnit]:
        """Yield a unit of each part."""
        for number, (part, traces) in enumerate(self._parts):
            yield RowsUnit.of(number, [self._rows[n] for n in part], traces)

    def fresh(self, unit: RowsUnit) -> RowsUnit:
        """Return it as it is."""
        return unit

    async def take(self, unit: RowsUnit, came: str) -> None:
        """Keep what was decided."""
        self.came[unit.number] = RowsDecided.from_text(came)
        self._done += len(unit.rows)
        if self._progress:
            self._progress(self._done, len(self._rows))

    def give_up(self, unit: RowsUnit, why: str) -> None:  # noqa: ARG002 - no part of a plan is a plan
        """Raise: there is no plan without these rows."""
        msg = f"{why}; plan again"
        raise ConnectError(msg)

    def planned(self) -> dict[int, PlannedRow]:
        """Return each row as a plan has it, by its number."""
        return {
            n: replace(PlannedRow.from_json(row), ref=self._rows[n].ref)
            for number, (part, _) in enumerate(self._parts)
            for n, row in zip(part, self.came[number].rows, strict=True)
        }


class RowsReader:
    """What a worker does: it reads rows anew, and decides each."""

    def __init__(self, reader: ClusterReader, evidence: CaseReader, options: PlanOptions, salt: str) -> None:
        self._reader = reader
        self._evidence = evidence
        self._options = options
        self._salt = salt
        self._traces = TracesLeft()
        self.stop = asyncio.Event()

    async def read(self, unit: str) -> str:
        """Decide the rows of a unit."""
        asked = RowsUnit.from_text(unit)
        search = DeleteSearch(self._reader, asked.max_traces)
        planned = await plan_rows(self._evidence, search, asked.found, self._options, self._salt, None)
        before, self._traces = self._traces, self._reader.traces
        return RowsDecided(
            tuple(row.as_json() for row in planned),
            tuple(
                sorted((table, tuple(part.hex() for part in key), node.host_id) for table, key, node in search.skipped)
            ),
            search.refused,
            self._traces - before,
        ).as_text()


async def prepared(reader: ClusterReader, clock: Clock, order: Order) -> RowsReader:
    """Return what decides rows for an order; UnitFailed if ring or tables are not those that the driver has seen."""
    evidence = await CaseReader.open(reader, clock)
    names = order.options["tables"].items()
    seen = {name: evidence.fingerprint(RowRef(keyspace, table, 0, {})) for name, (keyspace, table) in names}
    order.require_seen(evidence.ring.fingerprint, seen)
    return RowsReader(reader, evidence, _options(order.options), order.options["salt"])


def _options_json(options: PlanOptions) -> dict[str, Any]:
    """Return what workers must know of the options of a plan, as JSON."""
    return {
        "policy": options.policy.as_json(),
        "only": sorted(rule.value for rule in options.only),
        "forecasts": sorted(each.value for each in options.forecasts),
    }


def _options(data: Mapping[str, Any]) -> PlanOptions:
    """Read the JSON form."""
    only, forecasts = frozenset(map(Rule, data["only"])), frozenset(map(Forecast, data["forecasts"]))
    return PlanOptions(Policy.from_json(data["policy"]), only, forecasts=forecasts)
