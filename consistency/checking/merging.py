"""Put the parts of a run together to one run: its report, its findings file, and what a ledger keeps of it.

The whole is consistent only if every part is there and was consistent in itself. A part that is missing, was
interrupted, or is of another run, ring or schema leaves its piece of the ring unread.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from consistency import __version__
from consistency.checking.listeners import Listeners
from consistency.checking.merged_tables import Lacking, merged_table
from consistency.checking.observer import Observer, Silent
from consistency.checking.part_findings import findings_of, locate
from consistency.checking.preparing import shares_of
from consistency.checking.reporting import empty_owners
from consistency.cluster.locality import TracesLeft
from consistency.errors import UsageError
from consistency.ledger.part_account import PartAccount
from consistency.ledger.port import Recorder, RunFacts
from consistency.model.part import Part
from consistency.model.ring import Arc
from consistency.results.findings import FindingsWriter, Header
from consistency.results.report import MergedParts, Report, TableReport
from consistency.results.unstreamed import Owned


@dataclass(frozen=True)
class Whole:
    """The parts of one run by number, with the ledger that each is from; `notes` say what was left out and why."""

    parts: tuple[tuple[PartAccount, Path], ...]
    notes: tuple[str, ...] = ()

    @property
    def accounts(self) -> list[PartAccount]:
        """The parts that are there."""
        return [account for account, _ in self.parts]

    @property
    def first(self) -> PartAccount:
        """The part with the lowest number that is there."""
        return self.parts[0][0]

    @property
    def missing(self) -> tuple[Part, ...]:
        """The parts that are not there."""
        of, there = self.first.part.of, {account.part.number for account in self.accounts}
        return tuple(Part(number, of) for number in range(1, of + 1) if number not in there)

    @property
    def run_id(self) -> str:
        """The id of the run that they make together: the same for the same parts."""
        ids = "\n".join(sorted(account.part_id for account in self.accounts))
        return str(uuid.UUID(hashlib.sha256(ids.encode()).hexdigest()[:32]))

    @property
    def started_us(self) -> int:
        """When the first of them began."""
        return min(account.facts.started_us for account in self.accounts)

    @property
    def facts(self) -> RunFacts:
        """What a recorder is told of the run."""
        return replace(self.first.facts, run_id=self.run_id, started_us=self.started_us)


def choose(found: Iterable[tuple[PartAccount, Path]], run_name: str | None, used: Mapping[str, str]) -> Whole:
    """Choose the parts of the newest run, or of the one named; the rest is left out, with notes.

    `used` are parts that were merged to a whole run before: they are taken again only all together. UsageError if there
    is none.
    """
    kept = [(account, path) for account, path in found if run_name in (None, account.run_name)]
    if not kept:
        named = "no part" if run_name is None else f"no part of the run {run_name!r}"
        msg = f"the ledgers hold {named}; write one: consistency check --part I/N --ledger FILE"
        raise UsageError(msg)
    kept.sort(key=lambda each: each[0].facts.started_us)
    fresh = [each for each in kept if each[0].part_id not in used]
    newest, _ = (fresh or kept)[-1]
    chosen: dict[int, tuple[PartAccount, Path]] = {}
    notes = []
    for account, path in kept:
        if why := _unlike(account, newest, used):
            notes.append(f"part {account.part} in {path} is left out: {why}")
        else:
            if (older := chosen.get(account.part.number)) is not None and older[0].part_id != account.part_id:
                notes.append(f"part {account.part} in {older[1]} is left out: {path} has a newer one")
            chosen[account.part.number] = account, path
    return Whole(tuple(chosen[number] for number in sorted(chosen)), tuple(notes))


def _unlike(account: PartAccount, newest: PartAccount, used: Mapping[str, str]) -> str:
    """Say why a part is none of the newest one's run; empty if it is one."""
    if account.run_name != newest.run_name:
        return f"it is of another run, {account.run_name or 'without a name'}"
    if account.part.of != newest.part.of:
        return f"the newest run has {newest.part.of} parts"
    if used.get(account.part_id) != used.get(newest.part_id):
        return "it belongs to a run that was merged before"
    mine, other = account.facts, newest.facts
    if mine.ring.fingerprint != other.ring.fingerprint:
        return "the ring has changed since (a node joined, left or moved); run it again"
    if _prints(mine) != _prints(other):
        return "the schema has changed since; run it again"
    unlike = [name for name in newest.terms if account.terms.get(name) != newest.terms[name]]
    return f"it was checked with another {', '.join(unlike)}; run it again" if unlike else ""


def _prints(facts: RunFacts) -> dict[str, tuple[str, object]]:
    return {t.full_name: (t.fingerprint, facts.schema[t.keyspace].replication) for t in facts.tables}


def merge(
    whole: Whole, findings: Path | None, recorder: Recorder | None = None, observer: Observer | None = None
) -> Report:
    """Return the report of the whole; write all findings to a file, tell the observer, and have the run recorded.

    UsageError if a part's findings file is missing, or is not the one that the part wrote.
    """
    first, run_id, watching = whole.first, whole.run_id, observer or Silent()
    header = Header(run_id, first.report.cluster, first.facts.ring.fingerprint, _started(whole), _tool())
    files = [(account, locate(account, ledger)) for account, ledger in whole.parts]
    if recorder is not None:
        recorder.begin(whole.facts)
    listeners = Listeners(recorder, watching, first.facts.ring.tokens)
    with FindingsWriter(findings, header) as writer:
        for account, path in files:
            depths = {read.table.full_name: read.depth for read in account.reads}
            for found in findings_of(account, path):
                listeners.tell(found, depths[found.full_name], writer)
    report = _report(whole, writer, listeners)
    for table in report.tables:
        watching.table_done(table)
    if recorder is not None:
        _record(whole, report, recorder)
    return report


def _report(whole: Whole, writer: FindingsWriter, listeners: Listeners) -> Report:
    accounts, first = whole.accounts, whole.first
    reports, ring, schema = [account.report for account in accounts], first.facts.ring, first.facts.schema
    tables = _tables(whole)
    violations = {v: None for report in reports for v in report.violations}
    violations |= dict.fromkeys(empty_owners(ring, schema, tables))
    owned = Owned({table.full_name: table.rows for table in tables}, shares_of(_arcs(whole).values()))
    return Report(
        run_id=whole.run_id,
        cluster=first.report.cluster,
        started_at=_started(whole),
        seconds=(max(account.ended_us for account in accounts) - whole.started_us) / 1e6,
        tables=tables,
        violations=tuple(violations),
        findings_by_kind={kind.value: count for kind, count in sorted(writer.counts.items())},
        top=listeners.top,
        not_checked={name: why for report in reports for name, why in report.not_checked.items()},
        replicas=tuple(n.name for n in ring.nodes if any(n.name in report.replicas for report in reports)),
        findings_path=str(writer.path) if writer.path and not writer.error else None,
        findings_error=writer.error,
        likely_causes=listeners.causes.causes(owned),
        places={node.name: node.dc for node in ring.nodes},
        notes=tuple(dict.fromkeys([*(note for report in reports for note in report.notes), *whole.notes])),
        traces=sum((report.traces for report in reports), TracesLeft()),
        cluster_id=first.report.cluster_id,
        run_name=first.run_name,
        parts=MergedParts(first.part.of, tuple(part.number for part in whole.missing)),
    )


def _tool() -> str:
    return f"consistency {__version__}"


def _started(whole: Whole) -> str:
    return min(account.report.started_at for account in whole.accounts)


def _arcs(whole: Whole) -> dict[str, tuple[Arc, ...]]:
    """Return the arcs of each keyspace in scope, of the replicas that are compared."""
    facts = whole.first.facts
    out: dict[str, tuple[Arc, ...]] = {}
    for name in {table.keyspace for table in facts.tables}:
        arcs = facts.ring.arcs(facts.schema[name].replication)
        of_dc = (Arc(tuple(n for n in arc.replicas if facts.dc in (None, n.dc)), arc.ranges) for arc in arcs)
        out[name] = tuple(arc for arc in of_dc if arc.replicas)
    return out


def _tables(whole: Whole) -> tuple[TableReport, ...]:
    arcs = _arcs(whole)
    told: dict[tuple[str, str], list[TableReport]] = {}
    for account in whole.accounts:
        for table in account.report.tables:
            entered = told.setdefault((table.keyspace, table.table), [])
            entered.append(_in_doubt(table, arcs, account.part) if account.report.interrupted else table)
    lacking = [(part, f"part {part} of the run is missing: run it, then merge again") for part in whole.missing]
    return tuple(
        merged_table(tables, [Lacking(part.of_arcs(_compared(arcs, keyspace)), why) for part, why in lacking])
        for (keyspace, _), tables in sorted(told.items())
    )


def _compared(arcs: Mapping[str, tuple[Arc, ...]], keyspace: str) -> tuple[Arc, ...]:
    return tuple(arc for arc in arcs.get(keyspace, ()) if len(arc.replicas) > 1)


def _in_doubt(table: TableReport, arcs: Mapping[str, tuple[Arc, ...]], part: Part) -> TableReport:
    """Return what an interrupted part says of a table: it did not see whether ring and schema changed meanwhile."""
    why = f"part {part} of the run was interrupted: run it again, then merge again"
    return merged_table([table], [Lacking(part.of_arcs(_compared(arcs, table.keyspace)), why)])


def _record(whole: Whole, report: Report, recorder: Recorder) -> None:
    """Record the run as if one check had read all of it."""
    by_table = {(read.table.full_name, read.depth): read for account in whole.accounts for read in account.reads}
    trees = {table.full_name: table.trees for table in report.tables}
    for (name, depth), one in by_table.items():
        same = [r for account in whole.accounts for r in account.reads if (r.table.full_name, r.depth) == (name, depth)]
        ranges = sorted((each for read in same for each in read.ranges), key=lambda each: each.token_range)
        all_nodes = all(read.non_owners for read in same)
        recorder.table_read(one.table, depth, ranges, non_owners=all_nodes, trees=trees[name])
    recorder.end(report)
