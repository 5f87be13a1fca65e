"""What a comparison knows before it reads a row: both rings and schemas, and how each pair of tables is read."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from consistency import __version__
from consistency.checking.changes import Snapshot
from consistency.checking.plan import Aside
from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions, TableTask
from consistency.checking.settle_window import settled_how
from consistency.cluster.port import Clock
from consistency.cluster.table_reading import choose
from consistency.comparing.matching import Matched, TablePair, match_tables
from consistency.comparing.opening import Cluster, Pair, naming
from consistency.comparing.placement import Owned, Owners, joint_arcs, sided
from consistency.comparing.reader import in_common
from consistency.comparing.schemas import declared_otherwise, why_not_compared
from consistency.comparing.terms import Compare, Terms
from consistency.errors import UsageError
from consistency.model.reading import Route
from consistency.model.ring import Arc, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.servertime import iso_time
from consistency.model.sides import Side, SidedNode
from consistency.results.comparison import SchemaDifference
from consistency.results.figures import counted
from consistency.results.pair_findings import PairHeader


class Read(str, Enum):
    """How a side is read: every replica by itself, or at LOCAL_QUORUM, as an application reads it."""

    REPLICAS = "replicas"
    QUORUM = "quorum"


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare and how; None leaves the choice to the tool. As the options of `consistency compare`."""

    names: tuple[str, ...] = ()
    """`KS`, `KS.TABLE`, or with other names in the target `KS=KS2`, `KS.TABLE=KS2.TABLE2`."""
    compare: Compare = Compare.WRITETIMES
    tolerate_writetime_s: float = 0.0
    read: Read = Read.REPLICAS
    """The clusters must have been opened for it (`open_pair`)."""
    route: Route | None = None
    dc: str | None = None
    """Compare the replicas of this data centre of the source only."""
    target_dc: str | None = None
    findings: Path | None = None
    """Where all findings are written, one JSON object a line; mode 0600, no values."""
    settle_window_s: float | None = None
    """For how many seconds a difference must last before it is claimed; by default both clusters' windows together."""
    sample: Sample | None = None
    run_id: str | None = None
    scan: ScanOptions = field(default_factory=ScanOptions)

    @property
    def terms(self) -> Terms:
        """What a row must have in common."""
        return Terms(self.compare, round(self.tolerate_writetime_s * 1e6))

    @property
    def kept_as(self) -> str:
        """What a ledger must know to tell comparisons of other terms apart."""
        parts = [self.compare.value, self.read.value]
        parts += [f"tolerate={self.tolerate_writetime_s:g}"] if self.tolerate_writetime_s else []
        parts += [f"dc={self.dc}"] if self.dc else []
        parts += [f"target_dc={self.target_dc}"] if self.target_dc else []
        return " ".join(parts)

    def __post_init__(self) -> None:
        if self.tolerate_writetime_s and self.compare is Compare.VALUES:
            raise UsageError("write times are not compared, so none need be tolerated: leave out --tolerate-writetime")


@dataclass(frozen=True)
class Planned:
    """A comparison, about to begin.

    `tasks` are scanned, by the names of the source; `refused` maps a table to why its rows are not compared. `schema`
    tells by table what is declared otherwise. `started_us` is by the servers' clocks, `started` for measuring.
    """

    options: CompareOptions
    run_id: str
    started_us: int
    started: float
    sides: Mapping[Side, Snapshot]
    matched: Matched
    tasks: tuple[TableTask, ...]
    refused: Mapping[str, str]
    schema: Mapping[str, tuple[SchemaDifference, ...]]
    window_s: float
    notes: tuple[str, ...]
    piece: bool = False
    """Whether this is a piece of a comparison whose driver judges the whole, and looks back at rings and schemas."""

    @property
    def started_at(self) -> str:
        """When it began, as it is written."""
        return iso_time(self.started_us)

    @property
    def targets(self) -> dict[str, Table]:
        """The target's table of each table of the source."""
        return {pair.source.full_name: pair.target for pair in self.matched.pairs}

    @property
    def header(self) -> PairHeader:
        """What the findings file says of the comparison."""
        clusters = {side: (seen.ring.cluster, seen.ring.fingerprint) for side, seen in self.sides.items()}
        compare, tolerated_s = self.options.compare.value, self.options.tolerate_writetime_s
        return PairHeader(self.run_id, self.started_at, f"consistency {__version__}", compare, tolerated_s, clusters)


async def plan_comparison(pair: Pair, clock: Clock, options: CompareOptions) -> Planned:
    """Read rings and schemas and decide how each table is read; UsageError if a name does not exist on a side."""
    run_id, started_us, started = options.run_id or str(uuid.uuid4()), clock.now_us(), clock.monotonic()
    sides = dict(zip(Side, await asyncio.gather(*map(_snapshot, pair)), strict=True))
    for side, dc, option in ((Side.SOURCE, options.dc, "--dc"), (Side.TARGET, options.target_dc, "--target-dc")):
        _require_dc(side, sides[side].ring, dc, option)
    matched = match_tables(sides[Side.SOURCE].schema, sides[Side.TARGET].schema, options.names)
    _refuse_itself(pair, matched, options)
    planner = _Planner(pair, sides, options)
    tasks: list[TableTask] = []
    refused: dict[str, str] = {}
    schema: dict[str, tuple[SchemaDifference, ...]] = {}
    for tables in matched.pairs:
        name = tables.source.full_name
        schema[name] = declared_otherwise(tables, sides[Side.SOURCE].schema, sides[Side.TARGET].schema)
        task = why_not_compared(schema[name]) or await planner.task(tables)
        if isinstance(task, TableTask):
            tasks.append(task)
        else:
            refused[name] = task
    window_s, notes = await _window(pair, options)
    return Planned(options, run_id, started_us, started, sides, matched, tuple(tasks), refused, schema, window_s, notes)


async def _snapshot(cluster: Cluster) -> Snapshot:
    with naming(cluster.side):
        return Snapshot(await cluster.reader.ring(), await cluster.reader.schema())


def _require_dc(side: Side, ring: Ring, dc: str | None, option: str) -> None:
    if dc is not None and dc not in ring.datacenters:
        msg = f"{option} {dc}: the {side} has no such data centre; it has {', '.join(ring.datacenters)}"
        raise UsageError(msg)


def _refuse_itself(pair: Pair, matched: Matched, options: CompareOptions) -> None:
    """Compare no table with itself: the same hosts named twice would prove that a copy is whole which nobody made."""
    if not pair.is_one or options.dc != options.target_dc:
        return
    itself = [tables.source.full_name for tables in matched.pairs if tables.source.full_name == tables.target.full_name]
    if itself:
        more = f" and {counted(len(itself) - 1, 'more table')}" if len(itself) > 1 else ""
        msg = (
            f"source and target are one cluster, so {itself[0]}{more} would be compared with itself: name the hosts of"
            " another cluster with --target-hosts, another keyspace as KS=KS2, or data centres with --dc, --target-dc"
        )
        raise UsageError(msg)


async def _window(pair: Pair, options: CompareOptions) -> tuple[float, tuple[str, ...]]:
    """Return the settle window, and what must be said about it and about the servers' clocks.

    Whoever writes to both clusters may do so one after the other: the second write may begin when the first one is
    over, so by default it is waited for as long as both clusters together let their writes take.
    """
    found = [await settled_how(cluster.reader, cluster.clock, options.settle_window_s) for cluster in pair]
    windows = [window_s for window_s, _ in found]
    notes = [f"{c.side}: {note}" for c, (_, of_side) in zip(pair, found, strict=True) for note in of_side]
    return sum(windows) if options.settle_window_s is None else max(windows), tuple(notes)


class _Planner:
    """Decides for each pair of tables how it is read, or why it is not."""

    def __init__(self, pair: Pair, sides: Mapping[Side, Snapshot], options: CompareOptions) -> None:
        self._pair = pair
        self._sides = sides
        self._options = options
        self._nodes = {side: sided(side, described.ring) for side, described in sides.items()}
        self._capabilities = in_common(*(cluster.reader.capabilities for cluster in pair))
        self._arcs: dict[tuple[str, str], tuple[tuple[Arc, ...], tuple[Aside, ...]]] = {}

    async def task(self, tables: TablePair) -> TableTask | str:
        """Return how to scan a pair of tables, or why it cannot be scanned."""
        return await self._masked(tables) or self._task(tables)

    async def _masked(self, tables: TablePair) -> str:
        """Say on which side columns are masked for our role: it reads and hashes the mask."""
        for cluster, table in zip(self._pair, (tables.source, tables.target), strict=True):
            hidden = [column.name for column in table.columns if column.masked]
            if hidden and not await cluster.reader.sees_masked(table):
                grant = f"GRANT UNMASK ON TABLE {table.quoted} TO our role"
                return f"{cluster.side}: {', '.join(hidden)} masked for our role; run there: {grant}"
        return ""

    def _task(self, tables: TablePair) -> TableTask | str:
        keyspaces = self._keyspaces(tables)
        for side, keyspace in keyspaces.items():
            if keyspace.replication.transient:
                return f"{side}: transient replication: its transient replicas hold no full copy to compare"
        compare = Compare.VALUES if tables.source.is_counter else self._options.compare
        if compare is Compare.EXPIRIES and not self._capabilities.timed:
            return "when cells expire is told exactly by native protocol 5 alone: use --compare writetimes"
        arcs, asides = self._placed(keyspaces)
        choice = choose(tables.source, self._capabilities, compare.depth, self._options.route)
        if choice.reading is None or choice.route is None:
            return choice.refusal
        nodes = {node for arc in arcs for node in arc.replicas if isinstance(node, SidedNode)}
        locality = "+".join(sorted({self._pair.of(n.side).reader.locality(n.node).value for n in nodes}))
        return TableTask(choice.reading, choice.route, arcs, locality, asides)

    def _keyspaces(self, tables: TablePair) -> dict[Side, Keyspace]:
        return {
            Side.SOURCE: self._sides[Side.SOURCE].schema[tables.source.keyspace],
            Side.TARGET: self._sides[Side.TARGET].schema[tables.target.keyspace],
        }

    def _placed(self, keyspaces: Mapping[Side, Keyspace]) -> tuple[tuple[Arc, ...], tuple[Aside, ...]]:
        names = (keyspaces[Side.SOURCE].name, keyspaces[Side.TARGET].name)
        if names not in self._arcs:
            dcs = {Side.SOURCE: self._options.dc, Side.TARGET: self._options.target_dc}
            source, target = (
                Owners(
                    side,
                    self._sides[side].ring,
                    keyspaces[side].replication,
                    dcs[side],
                    one_each=self._options.read is Read.QUORUM,
                )
                for side in Side
            )
            self._arcs[names] = joint_arcs(source, target, self._nodes)
        return self._arcs[names]


def owners_in(tasks: Sequence[TableTask]) -> Mapping[str, Owned]:
    """Return who owns the tokens of each table that is scanned."""
    return {task.reading.table.full_name: Owned(task.arcs) for task in tasks}
