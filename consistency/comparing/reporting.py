"""The result of a comparison that has ended: each table as far as it was read on both sides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from consistency.checking.reporting import NOT_REACHED
from consistency.checking.scan import Scan
from consistency.checking.scans import Scans
from consistency.cluster.locality import TracesLeft
from consistency.comparing.preparing import Planned
from consistency.comparing.settlements import PairSettlements
from consistency.comparing.settling import PairSettler
from consistency.model.sides import Side
from consistency.results.comparison import ComparedCluster, ComparedTable, Comparison
from consistency.results.findings import FindingsWriter
from consistency.results.pair_findings import GRAVEST_FIRST, InnerFinding, PairFinding
from consistency.results.range_findings import Counted
from consistency.results.report import TableReport, not_scanned
from consistency.results.sample import Sampling


@dataclass(frozen=True)
class Ran:
    """What of a comparison is told when it has ended: by whom it was read does not matter.

    `tables` are those that were scanned, `replicas` the names of the nodes that were read, with their side.
    """

    tables: tuple[ComparedTable, ...]
    replicas: Collection[str]
    top: Sequence[PairFinding | InnerFinding]
    notes: Sequence[str]
    traces: TracesLeft
    interrupted: bool

    def result(self, planned: Planned, writer: FindingsWriter, seconds: float) -> Comparison:
        """Return the result; the findings file is closed."""
        options = planned.options
        tables = (*self.tables, *_not_scanned(planned, {table.report.full_name for table in self.tables}))
        return Comparison(
            run_id=planned.run_id,
            started_at=planned.started_at,
            seconds=seconds,
            compare=options.compare.value,
            tolerated_s=options.tolerate_writetime_s,
            read=options.read.value,
            clusters={side: self._cluster(planned, side) for side in Side},
            tables=tuple(sorted(tables, key=lambda t: (t.report.keyspace, t.report.table))),
            top=tuple(self.top),
            not_checked=planned.matched.left_out,
            findings_path=str(options.findings) if options.findings and not writer.error else None,
            findings_error=writer.error,
            interrupted=self.interrupted,
            notes=tuple(self.notes),
            traces=self.traces,
            sampling=None if options.sample is None else Sampling(options.sample.asked, options.sample.seed),
        )

    def _cluster(self, planned: Planned, side: Side) -> ComparedCluster:
        ring = planned.sides[side].ring
        read = [node for node in ring.nodes if f"{side} {node.name}" in self.replicas]
        places, releases = {node.name: node.dc for node in read}, {node.name: node.release for node in read}
        return ComparedCluster(ring.cluster, ring.cluster_id, places, releases)


def _not_scanned(planned: Planned, scanned: Collection[str]) -> Iterator[ComparedTable]:
    """Yield the tables whose rows were not compared, with the reason."""
    for task in planned.tasks:
        table = task.reading.table
        if table.full_name not in scanned:
            unread = not_scanned(table.keyspace, table.name, NOT_REACHED, failed=True)
            yield compared_table(planned, unread)
    for reasons in (planned.refused, planned.matched.lacking):
        for name, reason in reasons.items():
            keyspace, _, table_name = name.partition(".")
            yield compared_table(planned, not_scanned(keyspace, table_name, reason))


def compared_table(
    planned: Planned,
    report: TableReport,
    kinds: Mapping[str, int] | None = None,
    inner: Mapping[Side, Mapping[str, int]] | None = None,
    counted: int = 0,
) -> ComparedTable:
    """Return what was learned of a table: how it was read, and its rows that differ, by kind and side."""
    name, found = report.full_name, kinds or {}
    target = planned.targets.get(name)
    return ComparedTable(
        report=report,
        target=target.full_name if target else "",
        compare=planned.options.compare.value,
        kinds={kind.value: found[kind.value] for kind in GRAVEST_FIRST if found.get(kind.value)},
        inner={side: dict((inner or {}).get(side, {})) for side in Side},
        counted=counted,
        schema=planned.schema.get(name, ()),
    )


@dataclass(frozen=True)
class Ended:
    """A comparison that has ended, by itself or by an interrupt."""

    planned: Planned
    scans: Scans
    settlements: PairSettlements
    settler: PairSettler
    interrupted: bool

    def report(self, writer: FindingsWriter, traces: TracesLeft, seconds: float) -> Comparison:
        """Build the result from what was counted; the findings file is closed."""
        read = {node for _, account in self.scans.accounts for r in account.results.values() for node in r.digests}
        tables, replicas = tuple(map(self._table, self.scans)), {node.name for node in read}
        ran = Ran(tables, replicas, self.settlements.top, self.planned.notes, traces, self.interrupted)
        return ran.result(self.planned, writer, seconds)

    def _table(self, scan: Scan) -> ComparedTable:
        name = scan.task.reading.table.full_name
        kinds = self.settlements.kinds(name)
        inner = {side: self.settlements.inner(name, side) for side in Side}
        # After an interrupt some suspects still wait to be judged.
        unsettled = self.settlements.unsettled(name) + self.settler.waiting_of(name) + scan.ranges.waiting
        divergent = kinds.total() + sum(of_side.total() for of_side in inner.values())
        report = scan.report(divergent=divergent, unsettled=unsettled, counted=Counted())
        return compared_table(self.planned, report, kinds, inner, self.settlements.counted(name))
