"""A comparison of two clusters that is spread over workers: what its driver puts together, what its workers read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from consistency.checking.observer import PairObserver, SilentPair
from consistency.checking.run import plenty
from consistency.checking.scan import ScanOptions, TableTask
from consistency.cluster.locality import TracesLeft
from consistency.comparing.changes import PairChanges
from consistency.comparing.opening import Pair
from consistency.comparing.placement import sided
from consistency.comparing.preparing import CompareOptions, Planned, Read, plan_comparison
from consistency.comparing.reader import PairClock, PairReader
from consistency.comparing.reporting import Ran, compared_table
from consistency.comparing.run import changes_since, nobody, run_planned
from consistency.comparing.settlements import Tell
from consistency.comparing.terms import Compare
from consistency.errors import UsageError
from consistency.ledger.table_account import table_json
from consistency.model.reading import Route
from consistency.model.ring import Node
from consistency.model.sides import Side
from consistency.results.comparison import Comparison
from consistency.results.findings import FindingsWriter
from consistency.results.pair_findings import InnerFinding, PairFinding, PairRange, compared_of
from consistency.results.report import TOP_FINDINGS
from consistency.spreading.assembling import Assembling, TableUnits
from consistency.spreading.driving import lead
from consistency.spreading.messages import Order, Terms, Unit, UnitRead, Work
from consistency.spreading.planning import prints
from consistency.spreading.port import Workers
from consistency.spreading.reading import Telling


async def compare_spread(
    pair: Pair,
    options: CompareOptions,
    workers: Workers,
    terms: Terms,
    observer: PairObserver | None = None,
    stop: asyncio.Event | None = None,
    room: Callable[[], Awaitable[None]] = plenty,
    take: Tell = nobody,
) -> Comparison:
    """Compare the tables in scope by workers; otherwise as `run_compare`.

    Raises a ConsistencyError if the workers cannot connect. What nobody could read is unknown.
    """
    if options.sample is not None:
        raise UsageError("workers read whole tables: leave out --sample and --within")
    planned = await plan_comparison(pair, PairClock(pair), options)
    watching = observer or SilentPair()
    return await lead(PairSpread(pair, planned, terms, watching, room, take), workers, watching, stop)


@dataclass
class PairUnits(TableUnits):
    """What is known of two tables, with the rows that differ."""

    kinds: Counter[str] = field(default_factory=Counter)
    inner: dict[Side, Counter[str]] = field(default_factory=lambda: {side: Counter() for side in Side})
    counted: int = 0

    def take(self, came: UnitRead, nodes: Mapping[str, Node]) -> None:
        """Enter what came of a unit."""
        super().take(came, nodes)
        self.kinds.update(came.report["kinds"])
        for side in Side:
            self.inner[side].update(came.report["inner"][side.value])
        self.counted += came.report["counted_rows"]


class PairSpread:
    """A comparison as its driver knows it."""

    def __init__(
        self,
        pair: Pair,
        planned: Planned,
        terms: Terms,
        observer: PairObserver,
        room: Callable[[], Awaitable[None]],
        take: Tell,
    ) -> None:
        self.reader = PairReader(pair, planned.targets)
        self.clock = PairClock(pair)
        self.scan = planned.options.scan
        nodes = [node for side, seen in planned.sides.items() for node in sided(side, seen.ring).values()]
        self.whole: Assembling[PairUnits] = Assembling(planned.tasks, nodes, planned.notes, PairUnits)
        self._pair = pair
        self._planned = planned
        self._terms = terms
        self._observer = observer
        self._room = room
        self._take = take
        self._top: list[PairFinding | InnerFinding] = []

    def order(self, readers: int) -> Order:
        """Return what so many workers are told first."""
        planned = self._planned
        terms, options = self._terms.divided(readers), compare_options_json(planned.options)
        return Order(Work.COMPARE, planned.run_id, options, terms, readers, _rings(planned), _pair_prints(planned))

    def writer(self) -> FindingsWriter:
        """Return what writes the findings file."""
        return FindingsWriter(self._planned.options.findings, self._planned.header)

    def changes(self) -> PairChanges:
        """Return what tells whether both sides are what they were when the comparison was planned."""
        return changes_since(self._pair, self._planned)

    async def take_findings(self, unit: Unit, came: UnitRead, writer: FindingsWriter) -> None:
        """Write them, and pass them on."""
        known = self.whole.tables[unit.table]
        for line in came.findings:
            found, rows = compared_of(line), 1
            if isinstance(found, PairRange):
                rows = max(found.rows, *found.inner.values(), 1)
            else:
                known.listed += 1
                if len(self._top) < TOP_FINDINGS:
                    self._top.append(found)
            writer.write_line(found)
            self._observer.differing(rows)
            self._take(found)
            await self._room()

    def result(self, writer: FindingsWriter, *, interrupted: bool) -> Comparison:
        """Return the result of the whole."""
        planned, whole = self._planned, self.whole
        tables = tuple(
            compared_table(planned, units.report(), units.kinds, units.inner, units.counted)
            for units in whole.tables.values()
        )
        traces = whole.traces(self.reader.traces)
        ran = Ran(tables, whole.replicas, self._top, tuple(whole.notes), traces, interrupted)
        result = ran.result(planned, writer, self.clock.monotonic() - planned.started)
        for table in result.tables:
            self._observer.table_done(table.report)
        return result


def _rings(planned: Planned) -> str:
    return " ".join(planned.sides[side].ring.fingerprint for side in Side)


def _pair_prints(planned: Planned) -> dict[str, str]:
    """Return a fingerprint of each pair of tables, and of where it lies on both sides."""
    targets = planned.targets
    return {name: f"{print_} {targets[name].fingerprint}" for name, print_ in prints(planned.tasks).items()}


class PairPieces:
    """A comparison as its workers know it."""

    def __init__(self, pair: Pair, planned: Planned) -> None:
        self.clock = PairClock(pair)
        self.tasks: Sequence[TableTask] = planned.tasks
        self.leaf_rows = planned.options.scan.leaf_rows
        self._pair = pair
        self._planned = planned
        self._reader = PairReader(pair, planned.targets)

    @classmethod
    async def prepared(cls, pair: Pair, order: Order) -> PairPieces:
        """Plan the comparison of an order; UnitFailed if rings or tables are not those that the driver has seen."""
        options = replace(compare_options(order.options), run_id=order.run_id)
        planned = await plan_comparison(pair, PairClock(pair), options)
        order.require_seen(_rings(planned), _pair_prints(planned))
        return cls(pair, planned)

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers so far."""
        return self._reader.traces

    async def read(self, unit: Unit, task: TableTask, telling: Telling, stop: asyncio.Event) -> UnitRead:
        """Read the leaves of a unit on both sides; what could not be read of it is in its account, not raised."""
        options = self._planned.options
        planned = replace(
            self._planned,
            options=replace(options, scan=replace(options.scan, max_findings=unit.max_findings)),
            started_us=self.clock.now_us(),
            started=self.clock.monotonic(),
            matched=replace(self._planned.matched, lacking={}, left_out={}),
            tasks=(task,),
            refused={},
            piece=True,
        )
        result = await run_planned(self._pair, planned, telling, stop, take=telling.keep)
        (table,) = result.tables
        replicas = [f"{side} {name}" for side, cluster in result.clusters.items() for name in cluster.replicas]
        return UnitRead(
            unit.number,
            {**table.as_json(), **table_json(table.report)},
            (),
            tuple(telling.findings),
            tuple(replicas),
            result.notes,
            result.interrupted,
        )


def compare_options_json(options: CompareOptions) -> dict[str, Any]:
    """Return what workers must know of the options of a comparison, as JSON."""
    return {
        "names": list(options.names),
        "compare": options.compare.value,
        "tolerate_writetime_s": options.tolerate_writetime_s,
        "read": options.read.value,
        "route": options.route and options.route.value,
        "dc": options.dc,
        "target_dc": options.target_dc,
        "settle_window_s": options.settle_window_s,
        "scan": asdict(options.scan),
    }


def compare_options(data: Mapping[str, Any]) -> CompareOptions:
    """Read the JSON form."""
    return CompareOptions(
        **{
            **data,
            "names": tuple(data["names"]),
            "compare": Compare(data["compare"]),
            "read": Read(data["read"]),
            "route": data["route"] and Route(data["route"]),
            "scan": ScanOptions(**data["scan"]),
        }
    )
