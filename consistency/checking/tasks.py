"""What a check is asked to do, and how each of its tables is read, or why it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consistency.checking.plan import Aside
from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions, TableTask
from consistency.cluster.port import ClusterReader
from consistency.cluster.table_reading import choose
from consistency.errors import UsageError
from consistency.ledger import LedgerFile, PartRecorder, RunRecorder
from consistency.model.ownership import DISPUTED, cut_arcs, disputed_ranges
from consistency.model.part import Part
from consistency.model.reading import Depth, Route
from consistency.model.ring import Arc, Ring, around
from consistency.model.schema import Keyspace, Table

_ALONE = "one replica here, so there is nothing to compare"


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What to check and how; None leaves the choice to the tool. As the options of `consistency check`."""

    names: tuple[str, ...] = ()
    depth: Depth | None = None
    route: Route | None = None
    dc: str | None = None
    """Compare the replicas of this data centre only."""
    views: bool = False
    non_owners: bool = False
    findings: Path | None = None
    """Where all findings are written, one JSON object a line; mode 0600, no values."""
    settle_window_s: float | None = None
    """For how many seconds a difference must last before it is claimed; by default as the servers' timeout asks."""
    rf_minimum: int = 3
    run_time_s: float | None = None
    """Begin no further range after this long; the ranges read longest ago come first."""
    sample: Sample | None = None
    """Read a sample of each table; None reads all."""
    part: Part | None = None
    """Read one part of the ring; the others are read by other runs, and their accounts are put together."""
    run_name: str = ""
    """What the parts of one run call it, so that none is put together with a part of another run."""
    run_id: str | None = None
    """The name the report gives itself; one is drawn where none is given."""
    scan: ScanOptions = field(default_factory=ScanOptions)
    only_tokens: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """By `keyspace.table`: the tokens of the partitions to check, for tables of which no more is wanted."""

    def __post_init__(self) -> None:
        if self.non_owners and self.run_time_s is not None:
            raise UsageError("--non-owners reads whole tables and cannot be cut into slices: leave out --run-time")
        if self.sample is not None and (self.non_owners or self.run_time_s is not None):
            raise UsageError("a sample goes neither with --non-owners nor with --run-time: leave these out")
        if self.part is not None and (self.sample is not None or self.run_time_s is not None):
            raise UsageError("--part reads all of its part: leave out --sample, --within and --run-time")
        if self.run_name and self.part is None:
            raise UsageError("--run names the run that a part is of: give --part too")

    @property
    def terms(self) -> dict[str, Any]:
        """What all parts of one run must have been asked alike, by the name of the option."""
        return {
            "scope": sorted(self.names),
            "--depth": self.depth and self.depth.value,
            "--route": self.route and self.route.value,
            "--dc": self.dc,
            "--views": self.views,
            "--non-owners": self.non_owners,
            "--rf-min": self.rf_minimum,
            "--settle": self.settle_window_s,
            "--max-clock-skew": self.scan.max_skew_s,
        }


def recorder_of(ledger: LedgerFile, options: CheckOptions) -> RunRecorder | PartRecorder:
    """Return what records a check in a ledger: as a run, or as a part of one."""
    if options.part is None:
        return ledger.recorder()
    return ledger.part_recorder(options.part, options.run_name, options.terms)


class Tasks:
    """Decides for each table of one ring and schema."""

    def __init__(
        self, reader: ClusterReader, ring: Ring, schema: Mapping[str, Keyspace], options: CheckOptions
    ) -> None:
        self._reader = reader
        self._ring = ring
        self._schema = schema
        self._options = options
        self.arcs_of: dict[str, tuple[Arc, ...]] = {}
        """By keyspace: the token ranges by replicas in scope."""

    async def task(self, table: Table) -> TableTask | str:
        """Return how to scan a table, or why it cannot be scanned."""
        return await self._masked(table) or self._task(table)

    async def _masked(self, table: Table) -> str:
        """Say why a table with masked columns cannot be compared: a role without UNMASK reads and hashes the mask."""
        hidden = [c.name for c in table.columns if c.masked]
        if not hidden or await self._reader.sees_masked(table):
            return ""
        grant = f"GRANT UNMASK ON TABLE {table.quoted} TO our role"
        return f"{', '.join(hidden)} masked for our role, so differences would not be seen; run: {grant}"

    def _task(self, table: Table) -> TableTask | str:
        keyspace = self._schema[table.keyspace]
        if keyspace.replication.transient:
            return "transient replication: its transient replicas hold no full copy to compare"
        arcs = self._arcs(keyspace)
        if table.full_name in self._options.only_tokens:
            arcs = around(arcs, self._options.only_tokens[table.full_name])
        arcs, asides = self._set_aside(arcs, keyspace)
        alone = not arcs and all(aside.skipped for aside in asides)
        if alone and not self._options.non_owners:
            return "one replica, so there is nothing to compare"
        choice = choose(table, self._reader.capabilities, self._options.depth, self._options.route)
        if choice.reading is None or choice.route is None:
            return choice.refusal
        looked_at = [aside.arc for aside in asides] if alone else arcs
        nodes = {node for arc in looked_at for node in arc.replicas}
        locality = "+".join(sorted({self._reader.locality(node).value for node in nodes}))
        whole = TableTask(choice.reading, choice.route, arcs, locality, asides)
        return whole if self._options.part is None else whole.part(self._options.part)

    def _set_aside(self, arcs: Sequence[Arc], keyspace: Keyspace) -> tuple[tuple[Arc, ...], tuple[Aside, ...]]:
        """Return the arcs to compare, and those that cannot be, with the reason."""
        agreed, doubted = cut_arcs(arcs, disputed_ranges(self._ring, keyspace.replication))
        asides = [Aside(arc, DISPUTED) for arc in doubted]
        asides += [Aside(arc, _ALONE, skipped=True) for arc in agreed if len(arc.replicas) < 2]
        return tuple(arc for arc in agreed if len(arc.replicas) > 1), tuple(asides)

    def _arcs(self, keyspace: Keyspace) -> tuple[Arc, ...]:
        if keyspace.name not in self.arcs_of:
            arcs = self._ring.arcs(keyspace.replication)
            if self._options.dc is not None:
                kept = [Arc(tuple(n for n in a.replicas if n.dc == self._options.dc), a.ranges) for a in arcs]
                arcs = tuple(arc for arc in kept if arc.replicas)
            self.arcs_of[keyspace.name] = arcs
        return self.arcs_of[keyspace.name]
