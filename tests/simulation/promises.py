"""What a check promises, held against what was there to be found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from consistency.checking.plan import Leaf, TablePlan
from consistency.checking.tasks import CheckOptions
from consistency.ledger.port import RangeRead
from consistency.model.reading import Capabilities, Depth, Reading
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding
from consistency.results.report import Report
from consistency.results.verdict import ExitCode, Verdict
from tests.simulation.clocks import Clocks
from tests.simulation.histories import Damage, RowKey, Traffic, TrafficPlan
from tests.simulation.memory import Fault, Pace, SimCluster
from tests.simulation.storage import token_of
from tests.simulation.truth import truth
from tests.simulation.vclock import EPOCH_S


@dataclass(frozen=True)
class Case:
    """Everything that a seed stands for."""

    seed: int
    capabilities: Capabilities
    options: CheckOptions
    pace: Pace
    traffic: TrafficPlan | None
    faults: tuple[Fault, ...]
    stop_at_s: float | None
    ring_changes_at_s: float | None
    schema_changes_at_s: float | None
    clocks: Clocks

    @property
    def exact(self) -> bool:
        """Whether nothing happens that could keep the check from finding everything."""
        quiet = self.traffic is None or (self.traffic.only_clean and not self.traffic.lost)
        drifts = self.ring_changes_at_s is not None or self.schema_changes_at_s is not None
        part = self.options.sample is not None and self.options.sample.share != 1.0
        limited = self.stop_at_s is not None or self.options.run_time_s is not None or part
        return quiet and not drifts and not self.faults and not limited


@dataclass
class Outcome:
    """What came of a case; `broken` are the promises that were not kept, a sentence each."""

    case: Case
    report: Report
    findings: list[Finding]
    counted: list[RangeFinding]
    planted: dict[RowKey, str]
    still: set[RowKey]
    future: set[RowKey]
    """Rows on which all replicas agree, with a write time in the future."""
    damage: Damage
    cluster: SimCluster
    traffic: Traffic | None
    plans: list[TablePlan]
    seconds: float
    reads: Mapping[str, list[RangeRead]] = field(default_factory=dict)
    """What a ledger would be told of each table's ranges."""
    broken: list[str] = field(default_factory=list)


def row_of(finding: Finding, table: Table) -> RowKey:
    """Return which row a finding is about."""
    names = [c.name for c in table.partition_key]
    key = tuple(bytes.fromhex(finding.key_hex[name]) for name in names)
    clustering = [finding.key_hex.get(c.name) for c in table.clustering]
    static = bool(table.clustering) and None in clustering
    return finding.table, key, None if static else tuple(bytes.fromhex(text or "") for text in clustering)


def broken_promises(outcome: Outcome, tables: Mapping[str, Table]) -> list[str]:
    """Return the promises that were not kept, a sentence each."""
    out = [*_coverage(outcome), *_verdict(outcome), *_clean_passes(outcome), *_findings(outcome, tables)]
    out += _by_the_clocks(outcome, tables)
    if outcome.case.exact:
        out += _exactness(outcome, tables)
    return out


def _coverage(outcome: Outcome) -> list[str]:
    out = []
    report = outcome.report
    for name, c in [("all", report.coverage), *((t.full_name, t.coverage) for t in report.tables)]:
        if c.planned != c.completed + c.skipped + c.failed or min(c.planned, c.completed, c.skipped, c.failed) < 0:
            out.append(f"coverage of {name} does not add up: {c}")
    if len(report.tables) != len({t.full_name for t in report.tables}) or not report.tables:
        out.append("a table is reported twice, or none is")
    return out


def _verdict(outcome: Outcome) -> list[str]:
    """Hold every `consistent`, of the run and of each table, against what was there to be found."""
    case, report = outcome.case, outcome.report
    out = []
    claims = {report.verdict, *(table.verdict for table in report.tables)}
    if (Verdict.SAMPLED if case.options.sample is None else Verdict.CONSISTENT) in claims:
        out.append("a sample is called consistent, or a check of everything a sample")
    if report.verdict is Verdict.SAMPLED and report.interrupted:
        out.append("interrupted, and yet a claim")
    if report.verdict is Verdict.CONSISTENT:
        # Violations of replication, such as an RF of 2, make the exit code 1 whatever the verdict.
        if report.interrupted or report.exit_code not in (ExitCode.CONSISTENT, ExitCode.DIVERGENT):
            out.append(f"consistent with exit code {int(report.exit_code)}")
        described = outcome.cluster.described_at
        for what, at in (("ring", case.ring_changes_at_s), ("schema", case.schema_changes_at_s)):
            moved = what == "schema" or _changed_hands(outcome.cluster, TokenRange.full_ring())
            if at is not None and described and described[-1] >= at and moved:
                out.append(f"consistent, though the {what} changed at {at:.2f} s")
    missed = _wrong_throughout(outcome)
    plans = {plan.table.name: plan for plan in outcome.plans}
    for table in report.tables:
        if table.verdict is not Verdict.CONSISTENT:
            continue
        hidden = [row for row in missed if row[0] == table.table]
        if hidden:
            out.append(f"{table.table} consistent, though from the start to the end something was wrong with {hidden}")
        plan = plans[table.table]
        unread = [leaf for leaf in plan.leaves if not _was_read(outcome.cluster, plan.table, leaf)]
        if unread:
            out.append(f"{table.table} consistent, though {len(unread)} leaves were not read on all replicas")
    return out


def _wrong_throughout(outcome: Outcome) -> set[RowKey]:
    """Return the rows that were wrong from the start to the end, as the run's own reading shows them."""
    touched = outcome.traffic.touched if outcome.traffic else set()
    lasting = {row for row in outcome.planted if row in outcome.still and row not in touched}
    return (lasting & _seeable(outcome)) | (outcome.future - touched)


def _clean_passes(outcome: Outcome) -> list[str]:
    """Hold every range that a ledger would call clean against what was there to be found."""
    out = []
    missed = _wrong_throughout(outcome)
    plans = {plan.table.name: plan.table for plan in outcome.plans}
    for name, reads in outcome.reads.items():
        clean = [read for read in reads if read.clean]
        hidden = [
            row for row in missed if row[0] == name and any(token_of(row[1]) in read.token_range for read in clean)
        ]
        if hidden:
            out.append(
                f"a range of {name} called clean, though from the start to the end something was wrong with {hidden}"
            )
        unread = [r for r in clean if not _was_read(outcome.cluster, plans[name], Leaf(r.token_range, r.replicas))]
        if unread:
            out.append(f"{len(unread)} ranges of {name} called clean that were not read on all replicas")
        if clean and _altered(outcome, name):
            out.append(f"ranges of {name} called clean, though the schema changed")
        if any(_moved(outcome, read.token_range) for read in clean):
            out.append(f"ranges of {name} called clean, though they went to other replicas")
    return out


def _altered(outcome: Outcome, table: str) -> bool:
    """Whether a table was altered before the cluster was described for the last time."""
    case = outcome.case
    changed = case.schema_changes_at_s is not None and _last_described(outcome) >= case.schema_changes_at_s
    return changed and (case.seed % 3 == 2 or table == "t0")


def _moved(outcome: Outcome, token_range: TokenRange) -> bool:
    """Whether some of a range changed hands before the cluster was described for the last time."""
    at_s = outcome.case.ring_changes_at_s
    return at_s is not None and _last_described(outcome) >= at_s and _changed_hands(outcome.cluster, token_range)


def _last_described(outcome: Outcome) -> float:
    described = outcome.cluster.described_at
    return described[-1] if described else float("-inf")


def _changed_hands(cluster: SimCluster, token_range: TokenRange) -> bool:
    """Whether a token of a range has other replicas at the end: asked of every token where that can begin or end."""
    before, after = cluster.ring_before, cluster.ring_later() if cluster.ring_later else cluster.ring_before
    ends = {token for ring in (before, after) for token, _ in ring.owners}
    asked = [token for token in (*ends, token_range.end) if token in token_range]
    replication = cluster.replication
    return any(set(before.replicas_of(t, replication)) != set(after.replicas_of(t, replication)) for t in asked)


def _was_read(cluster: SimCluster, table: Table, leaf: Leaf) -> bool:
    """Whether every replica digested a leaf, whole or in the parts that it was cut into as it was refused."""
    return all(
        (node, table.name, leaf.token_range) in cluster.digested or _in_parts(cluster, table, leaf, node)
        for node in leaf.replicas
    )


def _in_parts(cluster: SimCluster, table: Table, leaf: Leaf, node: Node) -> bool:
    """Whether digests of parts of a leaf leave no token out."""
    whole = leaf.token_range
    parts = (r for n, name, r in cluster.digested if (n, name) == (node, table.name) and whole.covers(r))
    upto = whole.start
    for part in sorted(parts):
        if part.start > upto:
            return False
        upto = max(upto, part.end)
    return upto == whole.end


def _seeable(outcome: Outcome) -> set[RowKey]:
    """Return the rows that differ in what the run's own reading shows."""
    found: set[RowKey] = set()
    for plan in outcome.plans:
        table = plan.table
        depth = next(t.depth for t in outcome.report.tables if t.table == table.name)
        reading = Reading(table, Depth(depth), outcome.case.capabilities)
        found |= set(truth(outcome.cluster, table, reading, EPOCH_S + 3600))
    return found


def _findings(outcome: Outcome, tables: Mapping[str, Table]) -> list[str]:
    out = []
    rows = [row_of(finding, tables[finding.table]) for finding in outcome.findings]
    twice = [row for row, count in Counter(rows).items() if count > 1]
    if twice:
        out.append(f"more than one finding on {twice}")
    lossy = outcome.traffic.lossy if outcome.traffic else set()
    ahead = _written_ahead_meanwhile(outcome, tables)
    false = [row for row in rows if row not in outcome.damage.rows and row[:2] not in lossy and row not in ahead]
    if false:
        out.append(f"a finding on rows whose replicas never differed but for writes in flight: {false}")
    suspected = outcome.damage.rows | ahead | {row for row in _touched(outcome) if row[:2] in lossy}
    for counted in outcome.counted:
        able = [row for row in suspected - set(rows) if _lies_in(row, counted)]
        if counted.rows > len(able):
            out.append(f"{counted.rows} rows counted in {counted.token_range}, of which {len(able)} can differ")
    told = len(rows) + sum(counted.rows for counted in outcome.counted)
    if sum(outcome.report.findings_by_kind.values()) != told:
        out.append(f"{told} findings were told, {outcome.report.findings_by_kind} counted")
    if told and outcome.report.verdict is not Verdict.DIVERGENT:
        out.append(f"{len(rows)} findings and the verdict {outcome.report.verdict.value}")
    return out


def _exactness(outcome: Outcome, tables: Mapping[str, Table]) -> list[str]:
    if not outcome.plans:
        return []
    planned = {plan.table.name for plan in outcome.plans}
    expected = {row for row in _seeable(outcome) if row in outcome.planted and row[0] in planned}
    expected |= {row for row in outcome.future if row[0] in planned}
    found = {row_of(finding, tables[finding.table]) for finding in outcome.findings}
    found -= _written_ahead_meanwhile(outcome, tables)
    out = []
    for counted in outcome.counted:
        here = {row for row in expected - found if _lies_in(row, counted)}
        if len(here) != counted.rows:
            out.append(f"{counted.rows} rows counted in {counted.token_range} of {counted.table}: {here}")
        found |= here
    if found != expected:
        out.append(f"found too much: {found - expected}; not found: {expected - found}")
    whole = all(not t.coverage.skipped for t in outcome.report.tables)
    well = Verdict.CONSISTENT if outcome.case.options.sample is None else Verdict.SAMPLED
    if outcome.traffic is None and not expected and whole and outcome.report.verdict is not well:
        out.append(f"nothing differs and nothing went wrong, yet the verdict is {outcome.report.verdict.value}")
    return out


def _touched(outcome: Outcome) -> set[RowKey]:
    return outcome.traffic.touched if outcome.traffic else set()


def _lies_in(row: RowKey, counted: RangeFinding) -> bool:
    return row[0] == counted.table and token_of(row[1]) in counted.token_range


def _written_ahead_meanwhile(outcome: Outcome, tables: Mapping[str, Table]) -> set[RowKey]:
    """Return the rows found to lie in the future that were written during the check: by a client that is ahead."""
    touched = outcome.traffic.touched if outcome.traffic else set()
    rows = {row_of(f, tables[f.table]) for f in outcome.findings if f.kind is Kind.FUTURE_WRITE_TIME}
    return rows & touched


def _by_the_clocks(outcome: Outcome, tables: Mapping[str, Table]) -> list[str]:
    """Hold what depends on time against the servers' true clocks, whatever the check took them for."""
    out = []
    latest_us = (EPOCH_S + outcome.case.clocks.latest_s) * 1e6
    for finding in outcome.findings:
        row, table = row_of(finding, tables[finding.table]), tables[finding.table]
        newest = [_newest(view) for view in finding.replicas.values() if view.state not in _NO_COPY]
        if not finding.facts or finding.kind is not finding.facts[0]:
            out.append(f"a finding of no kind on {row}")
        times = [time for time in newest if time is not None]
        future_us = latest_us + outcome.case.options.scan.max_skew_s * 1e6
        if Kind.FUTURE_WRITE_TIME in finding.facts and max(times, default=0) <= future_us:
            out.append(f"{row} called a future write, which by the most advanced server's clock it is not")
        read = sum(view.state is not State.UNREADABLE for view in finding.replicas.values())
        old = len(times) == len(newest) and all(t < latest_us - table.gc_grace_seconds * 1e6 for t in times)
        few = Kind.MISSING in finding.facts and newest and len(newest) <= read // 2
        if few and old and Kind.ZOMBIE_SUSPECT not in finding.facts:
            out.append(f"{row} is past gc_grace by a server's clock, and no zombie suspect")
    return out


def _newest(view: ReplicaView) -> int | None:
    times = (t for times in view.writetimes.values() for t in (times if isinstance(times, list) else [times]))
    return max((time for time in times if time is not None), default=None)


_NO_COPY = (State.MISSING, State.UNREADABLE)
