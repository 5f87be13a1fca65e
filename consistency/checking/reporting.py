"""The report of a check that has ended: each table as far as it was read, what is against the rules, and the causes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from consistency.auditing.holdings import judge_holdings
from consistency.auditing.nodes import judge_agreement
from consistency.auditing.rules import gravest_first, judge_replication
from consistency.checking.preparing import Prepared
from consistency.checking.scan import Scan
from consistency.checking.scans import Scans
from consistency.checking.settle import Settler
from consistency.checking.settlements import Settlements
from consistency.cluster.locality import TracesLeft
from consistency.ledger.port import Recorder, known_as
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table
from consistency.results.findings import FindingsWriter
from consistency.results.report import Report, Severity, TableReport, Violation, not_scanned
from consistency.results.sample import Sampling
from consistency.results.unstreamed import Owned

NOT_REACHED = "not reached before the run ended"


@dataclass(frozen=True)
class Ended:
    """A check that has ended, by itself or by an interrupt."""

    prepared: Prepared
    scans: Scans
    settlements: Settlements
    settler: Settler
    interrupted: bool

    def report(self, writer: FindingsWriter, recorder: Recorder | None, traces: TracesLeft, seconds: float) -> Report:
        """Build the report from what was counted; the findings file is closed."""
        prepared, options, listeners = self.prepared, self.prepared.options, self.settlements.listeners
        read = {
            node for _, account in self.scans.accounts for result in account.results.values() for node in result.digests
        }
        owned = Owned({s.task.reading.table.full_name: a.rows for s, a in self.scans.accounts}, prepared.shares)
        return Report(
            run_id=prepared.run_id,
            cluster=prepared.ring.cluster,
            started_at=prepared.started_at,
            seconds=seconds,
            tables=self._tables(),
            violations=broken_rules(prepared, self._held()),
            findings_by_kind={kind.value: count for kind, count in sorted(writer.counts.items())},
            top=listeners.top,
            not_checked=prepared.scope.not_checked,
            replicas=tuple(node.name for node in prepared.ring.nodes if node in read),
            findings_path=str(options.findings) if options.findings and not writer.error else None,
            findings_error=writer.error,
            interrupted=self.interrupted,
            run_time_s=options.run_time_s,
            likely_causes=() if options.part or prepared.piece else listeners.causes.causes(owned),
            places={node.name: node.dc for node in prepared.ring.nodes},
            notes=prepared.notes,
            traces=traces,
            cluster_id=known_as(recorder, prepared.ring),
            sampling=None if options.sample is None else Sampling(options.sample.asked, options.sample.seed),
            part=options.part,
            run_name=options.run_name,
        )

    def record(self, recorder: Recorder, report: Report) -> None:
        """Write down for later runs what was read of each table."""
        for scan, account in self.scans.accounts:
            table, depth = scan.task.reading.table, scan.task.reading.depth
            waiting = self.settler.waiting_of(table.full_name) + scan.ranges.waiting
            ranges = account.ranges_read(waiting=waiting > 0)
            non_owners = self.prepared.options.non_owners and not self.interrupted and not scan.extra
            recorder.table_read(table, depth, ranges, non_owners=non_owners, trees=account.trees())
        recorder.end(report)

    def _tables(self) -> tuple[TableReport, ...]:
        unscanned = (*self.prepared.refused, *self._not_reached(), *unreadable_tables(self.prepared))
        tables = (*unscanned, *map(self._scanned, self.scans))
        return tuple(sorted(tables, key=lambda t: (t.keyspace, t.table)))

    def _scanned(self, scan: Scan) -> TableReport:
        name = scan.task.reading.table.full_name
        # After an interrupt some suspects still wait to be judged.
        unsettled = self.settlements.unsettled(name) + self.settler.waiting_of(name) + scan.ranges.waiting
        divergent, counted = self.settlements.divergent(name), self.settlements.counted(name)
        return scan.report(divergent=divergent, unsettled=unsettled, counted=counted)

    def _not_reached(self) -> list[TableReport]:
        tables = (task.reading.table for task in self.prepared.tasks)
        left = (table for table in tables if table.full_name not in self.scans)
        return [not_scanned(table.keyspace, table.name, NOT_REACHED, failed=True) for table in left]

    def _held(self) -> dict[Table, Mapping[Node, int]]:
        """Return how many rows each node holds, of a whole run: a node may well hold nothing in a part of the ring."""
        if self.prepared.options.part is not None or self.prepared.piece:
            return {}
        return {scan.task.reading.table: scan.rows_by_node() for scan in self.scans}


def unreadable_tables(prepared: Prepared) -> list[TableReport]:
    """Return the reports of tables in scope whose schema cannot be read."""
    out = []
    for full_name, reason in prepared.scope.unreadable.items():
        keyspace, _, table = full_name.partition(".")
        out.append(not_scanned(keyspace, table, f"its schema cannot be read: {reason}", failed=True))
    return out


def broken_rules(prepared: Prepared, held: Mapping[Table, Mapping[Node, int]]) -> tuple[Violation, ...]:
    """Judge the keyspaces in scope, and what nodes hold of tables that were read whole."""
    found = judge_replication(
        prepared.ring,
        prepared.schema,
        scope=prepared.scope.keyspaces,
        rf_minimum=prepared.options.rf_minimum,
        with_nodes=False,
    )
    # What the nodes disagree on is unknown, and the coverage says so: here it is named.
    named = (replace(v, severity=Severity.WARNING) for v in judge_agreement(prepared.ring))
    empty = empty_owners(prepared.ring, prepared.schema, held)
    return tuple(sorted((*found, *named, *empty), key=gravest_first))


def empty_owners(
    ring: Ring, schema: Mapping[str, Keyspace], held: Mapping[Table, Mapping[Node, int]]
) -> tuple[Violation, ...]:
    """Judge what nodes hold of tables that were read whole."""
    by_keyspace: dict[str, dict[tuple[str, Node], int]] = defaultdict(dict)
    for table, rows_by_node in held.items():
        by_keyspace[table.keyspace].update({(table.name, node): rows for node, rows in rows_by_node.items()})
    judged = (judge_holdings(ring, schema[keyspace], rows) for keyspace, rows in by_keyspace.items())
    return tuple(violation for found in judged for violation in found)
