"""The result of a comparison that has ended: each table as far as it was read on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from consistency.checking.scan import Scan
from consistency.checking.scans import Scans
from consistency.cluster.locality import TracesLeft
from consistency.comparing.preparing import Planned
from consistency.comparing.settlements import PairSettlements
from consistency.comparing.settling import PairSettler
from consistency.model.sides import Side, SidedNode
from consistency.results.comparison import ComparedCluster, ComparedTable, Comparison
from consistency.results.findings import FindingsWriter
from consistency.results.pair_findings import GRAVEST_FIRST
from consistency.results.range_findings import Counted
from consistency.results.report import TableReport, not_scanned
from consistency.results.sample import Sampling


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
        planned, options = self.planned, self.planned.options
        return Comparison(
            run_id=planned.run_id,
            started_at=planned.started_at,
            seconds=seconds,
            compare=options.compare.value,
            tolerated_s=options.tolerate_writetime_s,
            read=options.read.value,
            clusters={side: self._cluster(side) for side in Side},
            tables=tuple(sorted(self._tables(), key=lambda t: (t.report.keyspace, t.report.table))),
            top=self.settlements.top,
            not_checked=planned.matched.left_out,
            findings_path=str(options.findings) if options.findings and not writer.error else None,
            findings_error=writer.error,
            interrupted=self.interrupted,
            notes=planned.notes,
            traces=traces,
            sampling=None if options.sample is None else Sampling(options.sample.asked, options.sample.seed),
        )

    def _cluster(self, side: Side) -> ComparedCluster:
        ring = self.planned.sides[side].ring
        read = {node for _, account in self.scans.accounts for r in account.results.values() for node in r.digests}
        own = {node.node for node in read if isinstance(node, SidedNode) and node.side is side}
        return ComparedCluster(ring.cluster, ring.cluster_id, {n.name: n.dc for n in ring.nodes if n in own})

    def _tables(self) -> Iterator[ComparedTable]:
        targets = self.planned.targets
        for scan in self.scans:
            name = scan.task.reading.table.full_name
            yield self._table(self._scanned(scan), targets[name].full_name)
        for task in self.planned.tasks:
            table = task.reading.table
            if table.full_name not in self.scans:
                unread = not_scanned(table.keyspace, table.name, "not reached before the run ended", failed=True)
                yield self._table(unread, targets[table.full_name].full_name)
        for reasons in (self.planned.refused, self.planned.matched.lacking):
            for name, reason in reasons.items():
                keyspace, _, table_name = name.partition(".")
                found = targets.get(name)
                yield self._table(not_scanned(keyspace, table_name, reason), found.full_name if found else "")

    def _table(self, report: TableReport, target: str) -> ComparedTable:
        name = report.full_name
        kinds = self.settlements.kinds(name)
        return ComparedTable(
            report=report,
            target=target,
            compare=self.planned.options.compare.value,
            kinds={kind.value: kinds[kind.value] for kind in GRAVEST_FIRST if kinds[kind.value]},
            inner={side: dict(self.settlements.inner(name, side)) for side in Side},
            counted=self.settlements.counted(name),
            schema=self.planned.schema.get(name, ()),
        )

    def _scanned(self, scan: Scan) -> TableReport:
        name = scan.task.reading.table.full_name
        # After an interrupt some suspects still wait to be judged.
        unsettled = self.settlements.unsettled(name) + self.settler.waiting_of(name) + scan.ranges.waiting
        inner = sum(self.settlements.inner(name, side).total() for side in Side)
        divergent = self.settlements.kinds(name).total() + inner
        return scan.report(divergent=divergent, unsettled=unsettled, counted=Counted())
