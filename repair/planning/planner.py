"""Make a plan: read evidence for every row of a findings file, decide, and keep what apply needs."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from consistency import __version__
from consistency.checking.settle_window import settle_window
from consistency.cluster.locality import TracesLeft
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.waits import side_by_side
from consistency.errors import UsageError
from consistency.model.ring import Ring
from consistency.model.schema import Table
from consistency.model.servertime import iso_time, skew_sentence
from consistency.results.figures import counted
from consistency.results.findings import read_findings, read_header, read_ranges
from consistency.results.forecast import Forecast
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding
from consistency.rows.delete_search import DEFAULT_MOST_TRACES, DeleteSearch, search_warnings
from consistency.rows.names import RowRef
from repair.deciding.case import Case, CaseReader
from repair.deciding.copies import copies, digests
from repair.deciding.decide import Action, Decision, Rule, decide
from repair.deciding.forecast import forecast
from repair.deciding.mergeable import FEW, RangeMerge, place_of, why_by_rows
from repair.deciding.policy import Policy
from repair.keeping.planfile import Plan, PlannedRow
from repair.planning.dense import ListedRow, dense_ranges, dense_warnings, listed_rows
from repair.planning.ranges import rows_of_ranges

_AT_ONCE = 8
_BATCH = 100


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What to plan: the policy, the rules and forecasts to act by, all when none are named, and for how many rows."""

    policy: Policy = field(default_factory=Policy)
    only: frozenset[Rule] = frozenset()
    max_rows: int | None = None
    forecasts: frozenset[Forecast] = frozenset()
    max_traces: int = DEFAULT_MOST_TRACES
    """Traced reads that look for deletes on replicas which lack rows; 0: none."""
    range_merge: RangeMerge = RangeMerge.AUTO
    """Which ranges, of counted rows or of many listed ones, are merged as ranges; of others each row is planned."""

    def __post_init__(self) -> None:
        if self.range_merge is RangeMerge.ONLY and self._chooses_rows:
            raise UsageError(
                "--range-merge only leaves rows out, and --only, --only-forecast and --max-rows choose among rows: give"
                " one or the other"
            )

    @property
    def _chooses_rows(self) -> bool:
        return bool(self.only or self.forecasts or self.max_rows is not None)

    @property
    def may_merge(self) -> bool:
        """Whether a range may be merged as one: rows that are to be chosen by rule, forecast or number are planned."""
        return self.range_merge is not RangeMerge.NEVER and not self._chooses_rows


Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row that was found to differ, and whether only a node that does not own it was found to hold it."""

    ref: RowRef
    only_non_owner: bool = False


@dataclass(frozen=True)
class PlannedRows:
    """What was decided of some rows, in their order; in how many partitions deletes were not looked for, and why."""

    rows: list[PlannedRow]
    skipped: int
    refused: str
    traces: TracesLeft
    """What was left on the servers."""


class Deciding(Protocol):
    """Whoever reads rows anew and decides each: this process, or workers."""

    async def decide(
        self,
        evidence: CaseReader,
        rows: Sequence[FoundRow],
        options: PlanOptions,
        salt: str,
        progress: Progress | None,
    ) -> PlannedRows:
        """Return what was decided of rows."""


class Alone:
    """Has this process decide."""

    def __init__(self, reader: ClusterReader) -> None:
        self._reader = reader

    async def decide(
        self,
        evidence: CaseReader,
        rows: Sequence[FoundRow],
        options: PlanOptions,
        salt: str,
        progress: Progress | None,
    ) -> PlannedRows:
        """Read and decide."""
        search = DeleteSearch(self._reader, options.max_traces)
        planned = await plan_rows(evidence, search, rows, options, salt, progress)
        return PlannedRows(planned, len(search.skipped), search.refused, self._reader.traces)


async def make_plan(
    reader: ClusterReader,
    clock: Clock,
    findings: Path,
    options: PlanOptions,
    progress: Progress | None = None,
    deciding: Deciding | None = None,
) -> Plan:
    """Read every finding's row anew and decide; nothing is written to the cluster."""
    header = read_header(findings)
    listed, ranges = list(listed_rows(read_findings(findings))), list(read_ranges(findings))
    window_s, note = await settle_window(reader, options.policy.settle_s)
    options = replace(options, policy=replace(options.policy, settle_s=window_s))
    evidence = await CaseReader.open(reader, clock)
    require_same_cluster(header, evidence.ring, findings)
    merged, by_rows = await _sorted_out(evidence, ranges, options)
    # Where somebody chose among the rows, no others are to be acted on: a range would take them along.
    whole = header.get("listed") == len(listed)
    dense = await dense_ranges(evidence, reader, listed, ranges, options.policy) if options.may_merge and whole else []
    gone = {id(row) for each in dense for row in each.rows}
    listed = [row for row in listed if id(row) not in gone]
    merged += [each.found for each in dense]
    only_ranges = options.range_merge is RangeMerge.ONLY
    read = [] if only_ranges else [ref async for ref in rows_of_ranges(evidence, [found for found, _ in by_rows])]
    rows = _distinct([] if only_ranges else listed, read)
    salt = secrets.token_hex(16)
    decided = await (deciding or Alone(reader)).decide(evidence, rows, options, salt, progress)
    planned = decided.rows
    named = {ref.full_name: ref for ref in (*(row.ref for row in planned), *map(place_of, merged))}
    tables = {name: evidence.table(ref) for name, ref in named.items()}
    return Plan(
        run_id=secrets.token_hex(8),
        findings_run_id=str(header.get("run_id", "")),
        created_at=iso_time(clock.now_us()),
        tool=__version__,
        cluster=evidence.ring.cluster,
        ring=evidence.ring.fingerprint,
        tables={name: evidence.fingerprint(ref) for name, ref in named.items()},
        policy=options.policy,
        salt=salt,
        rows=tuple(_within(planned, options.max_rows)),
        warnings=tuple(
            filter(
                None,
                (
                    note,
                    *dense_warnings(dense),
                    skew_sentence(clock.readings),
                    *_warnings(tables),
                    *_out_of_reach(evidence, planned),
                    *(_left_out(len(listed), by_rows) if only_ranges else ()),
                    *search_warnings(decided.skipped, decided.refused, options.max_traces),
                    decided.traces.sentence,
                ),
            )
        ),
        ranges=tuple(merged),
        left_out=len(listed) + sum(found.rows for found, _ in by_rows) if only_ranges else 0,
    )


async def _sorted_out(
    evidence: CaseReader, ranges: Iterable[RangeFinding], options: PlanOptions
) -> tuple[list[RangeFinding], list[tuple[RangeFinding, str]]]:
    """Tell the ranges that are merged as ranges from those whose rows are planned, with the reason if there is one."""
    merged: list[RangeFinding] = []
    by_rows: list[tuple[RangeFinding, str]] = []
    for found in ranges:
        few = found.rows < FEW and options.range_merge is RangeMerge.AUTO
        reason = "" if few or not options.may_merge else await why_by_rows(evidence, found, options.policy)
        if options.may_merge and not few and not reason:
            merged.append(found)
        else:
            by_rows.append((found, reason))
    return merged, by_rows


def _left_out(listed: int, by_rows: Sequence[tuple[RangeFinding, str]]) -> Iterable[str]:
    """Say what a plan of ranges only leaves out."""
    if listed:
        yield f"--range-merge only: {counted(listed, 'listed row')} left out"
    ranges, rows = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for found, reason in by_rows:
        ranges[found.full_name, reason] += 1
        rows[found.full_name, reason] += found.rows
    for (name, reason), count in ranges.items():
        some = f"{counted(rows[name, reason], 'row')} in {counted(count, 'range')}"
        yield f"--range-merge only: {some} of {name} left out: {reason}"


def require_same_cluster(header: Mapping[str, Any], ring: Ring, path: Path) -> None:
    """Refuse a findings file of another cluster, or of this one with another ring."""
    if header.get("cluster") != ring.cluster:
        msg = f"{path} is of cluster {header.get('cluster')!r}, this is {ring.cluster!r}; check this one first"
        raise UsageError(msg)
    if header.get("ring") != ring.fingerprint:
        first = next(read_findings(path), None) or next(read_ranges(path), None)
        hosts = {view.host_id for view in first.replicas.values()} if first is not None else set()
        if hosts - {""} and not hosts & ring.host_ids:
            msg = f"{path} is of another cluster called {ring.cluster!r}, of other nodes; check this one first"
            raise UsageError(msg)
        msg = f"the ring has changed since {path} was written: other nodes own the rows now; run the check again"
        raise UsageError(msg)


def _distinct(listed: Iterable[ListedRow], counted: Iterable[RowRef]) -> list[FoundRow]:
    """Return each row once; one that an owner holds too is no row of a non-owner alone."""
    rows = {ref.identity: FoundRow(ref) for ref in counted}
    for row in listed:
        before = rows.get(row.ref.identity)
        alone = row.kind is Kind.NON_OWNER and (before is None or before.only_non_owner)
        rows[row.ref.identity] = FoundRow(row.ref, alone)
    return list(rows.values())


async def plan_rows(
    evidence: CaseReader,
    search: DeleteSearch,
    rows: Sequence[FoundRow],
    options: PlanOptions,
    salt: str,
    progress: Progress | None,
) -> list[PlannedRow]:
    """Read and decide many rows at once, in the order of the findings."""
    planned: dict[int, PlannedRow] = {}
    # The owners are asked for many rows at once.
    order = sorted(range(len(rows)), key=lambda n: evidence.together(rows[n].ref))
    batches = iter([order[at : at + _BATCH] for at in range(0, len(order), _BATCH)])

    async def lane() -> None:
        for batch in batches:
            made = await plan_batch(evidence, search, [rows[n] for n in batch], options, salt)
            planned.update(zip(batch, made, strict=True))
            if progress:
                progress(len(planned), len(rows))

    await side_by_side(lane, _AT_ONCE)
    return [planned[number] for number in range(len(rows))]


async def plan_batch(
    evidence: CaseReader, search: DeleteSearch, rows: Sequence[FoundRow], options: PlanOptions, salt: str
) -> list[PlannedRow]:
    """Read some rows and decide each."""
    seen = await evidence.read_many([row.ref for row in rows])
    decisions = [_decided(row, case, options) for row, case in zip(rows, seen, strict=True)]
    told = await _forecasts(search, seen, decisions)
    planned = [
        _planned(row.ref, case, decision, each, options, salt)
        for row, case, decision, each in zip(rows, seen, decisions, told, strict=True)
    ]
    return [replace(row, sentence=await _of_view(evidence, row)) if row.rule is Rule.VIEW else row for row in planned]


async def _of_view(evidence: CaseReader, row: PlannedRow) -> str:
    """Say what helps a view's row: where the row that it is made from agrees, a repair of that one does not."""
    base = evidence.base_of(row.ref)
    found = await evidence.read(base) if base is not None else None
    if base is None or found is None or found.unread:
        return row.sentence
    name = row.ref.full_name
    if found.agreed:
        view = f"{row.ref.keyspace} {row.ref.table}"
        return (
            f"a materialized view is never written directly, and the row of its table {base.full_name} agrees on every"
            f" replica: nodetool repair --full {view} puts {name} right, or drop the view and create it anew"
        )
    return (
        f"a materialized view is never written directly: repair its table {base.full_name}, whose row differs, then"
        f" check {name} again"
    )


def _decided(row: FoundRow, seen: Case, options: PlanOptions) -> Decision:
    decision = decide(seen, options.policy)
    if row.only_non_owner and decision.done:
        decision = Decision(Rule.NOT_OWNED, sentence=Rule.NOT_OWNED.sentence)
    if options.only and decision.rule not in options.only and decision.action is not Action.NONE:
        decision = replace(decision, action=Action.NONE, sentence="not asked for: --only names other rules", refused="")
    return decision


async def _forecasts(
    search: DeleteSearch, seen: Sequence[Case], decisions: Sequence[Decision]
) -> list[Forecast | None]:
    """Say what becomes of each row; of those of which the copies do not tell, look for deletes."""
    told = [forecast(case, decision) for case, decision in zip(seen, decisions, strict=True)]
    unsure = [n for n, each in enumerate(told) if each is Forecast.UNKNOWN and decisions[n].action is Action.RECONCILE]
    ruled_out = await search.rules_out([seen[n] for n in unsure])
    for n, undeleted in zip(unsure, ruled_out, strict=True):
        told[n] = forecast(seen[n], decisions[n], undeleted=undeleted)
    return told


def _planned(
    ref: RowRef, seen: Case, decision: Decision, told: Forecast | None, options: PlanOptions, salt: str
) -> PlannedRow:
    if options.forecasts and told is not None and told not in options.forecasts:
        decision = replace(
            decision, action=Action.NONE, sentence=f"not asked for: its forecast is {told.value}", refused=""
        )
        told = None
    return PlannedRow(
        ref,
        decision.rule,
        decision.action,
        decision.sentence,
        digests(copies(seen), salt),
        tuple(sorted(node.name for node in seen.unread)),
        seen.by_dc(),
        decision.refused,
        told,
        tuple(sorted(node.name for node, state in seen.states.items() if state is None)) if told else (),
    )


def _within(rows: list[PlannedRow], limit: int | None) -> Iterable[PlannedRow]:
    """Act on the first rows only, if there is a limit; the others stay in the plan as left alone."""
    acting = 0
    for row in rows:
        acting += row.action is not Action.NONE
        if limit is not None and acting > limit and row.action is not Action.NONE:
            yield replace(
                row, action=Action.NONE, sentence=f"beyond --max-rows {limit}", refused="", forecast=None, lacking=()
            )
        else:
            yield row


def _out_of_reach(evidence: CaseReader, rows: Iterable[PlannedRow]) -> Iterable[str]:
    """Say once of each keyspace why its rows cannot be merged by the servers."""
    found = dict.fromkeys(evidence.reach(row.ref).not_at_all for row in rows)
    yield from (f"the servers cannot merge these rows by a read at ALL: {reason}" for reason in found if reason)


def _warnings(tables: Mapping[str, Table]) -> Iterable[str]:
    for name, table in sorted(tables.items()):
        if table.compaction == "TimeWindowCompactionStrategy":
            yield f"{name} uses TimeWindowCompactionStrategy: old rows that are repaired land in the newest window"
        if any(column.masked for column in table.columns):
            yield f"{name} has masked columns: without UNMASK a difference in them cannot be seen"
