"""The report of a check that has ended: each table as far as it was read, what is against the rules, and the causes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
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
from consistency.model.schema import Keyspace
from consistency.results.findings import FindingsWriter
from consistency.results.report import Report, Severity, TableReport, Violation, not_scanned
from consistency.results.sample import Sampling
from consistency.results.unstreamed import Owned
from consistency.results.verdict import Verdict

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
        tables = self._tables()
        # In a part of the ring a node may well hold nothing.
        whole = () if options.part or prepared.piece else tables
        owned = Owned({s.task.reading.table.full_name: a.rows for s, a in self.scans.accounts}, prepared.shares)
        return Report(
            run_id=prepared.run_id,
            cluster=prepared.ring.cluster,
            started_at=prepared.started_at,
            seconds=seconds,
            tables=tables,
            violations=broken_rules(prepared, whole),
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


def unreadable_tables(prepared: Prepared) -> list[TableReport]:
    """Return the reports of tables in scope whose schema cannot be read."""
    out = []
    for full_name, reason in prepared.scope.unreadable.items():
        keyspace, _, table = full_name.partition(".")
        out.append(not_scanned(keyspace, table, f"its schema cannot be read: {reason}", failed=True))
    return out


def broken_rules(prepared: Prepared, tables: Iterable[TableReport]) -> tuple[Violation, ...]:
    """Judge the keyspaces in scope, and what nodes hold of these tables."""
    found = judge_replication(
        prepared.ring,
        prepared.schema,
        scope=prepared.scope.keyspaces,
        rf_minimum=prepared.options.rf_minimum,
        with_nodes=False,
    )
    # What the nodes disagree on is unknown, and the coverage says so: here it is named.
    named = (replace(v, severity=Severity.WARNING) for v in judge_agreement(prepared.ring))
    empty = empty_owners(prepared.ring, prepared.schema, tables)
    return tuple(sorted((*found, *named, *empty), key=gravest_first))


def empty_owners(ring: Ring, schema: Mapping[str, Keyspace], tables: Iterable[TableReport]) -> tuple[Violation, ...]:
    """Judge what nodes hold of tables that were read whole.

    Where all replicas agree none is judged: no node lacks what others hold in its ranges, and these are empty.
    """
    by_keyspace: dict[str, dict[tuple[str, Node], int]] = defaultdict(dict)
    for table in tables:
        if table.verdict in (Verdict.DIVERGENT, Verdict.UNKNOWN):
            held = {(table.table, ring.by_id[host]): rows for host, rows in table.held.items()}
            by_keyspace[table.keyspace].update(held)
    judged = (judge_holdings(ring, schema[keyspace], rows) for keyspace, rows in by_keyspace.items() if rows)
    return tuple(violation for found in judged for violation in found)
