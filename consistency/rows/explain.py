"""Explain one finding: read the row now on every replica that owns it, and say who wins and by which rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from consistency.cluster.port import Clock, ClusterReader
from consistency.errors import UsageError
from consistency.model.reading import Cell, CellColumn, Locality
from consistency.model.ring import Node, Ring
from consistency.results.figures import counted
from consistency.results.findings import Finding, is_range, read_findings, read_header
from consistency.results.kinds import Kind
from consistency.results.verdict import ExitCode
from consistency.rows.classify import Judgement, judge_row
from consistency.rows.delete_search import DeleteSearch
from consistency.rows.evidence import Evidence, EvidenceReader, read_evidence
from consistency.rows.names import RowName, RowRef
from consistency.rows.read import States
from consistency.rows.reconcile import EMPTY, Contest, DecidedBy


@dataclass(frozen=True, slots=True)
class Chosen:
    """A finding taken from a file: its number there (from 1), how many there are, and the file's header."""

    finding: Finding
    number: int
    total: int
    header: Mapping[str, Any]


@dataclass(frozen=True)
class Explanation:
    """What one row is on every replica now.

    `evidence` is of the owners; `non_owners` holds the nodes of a non-owner finding, `unread_non_owners` those of them
    that did not answer, with the reason.
    """

    finding: Finding
    evidence: Evidence
    non_owners: States = field(default_factory=dict)
    unread_non_owners: Mapping[Node, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    undeleted: bool = False
    """Whether no replica that lacks the row can hold a delete of it, by traces: a merge brings the row back."""

    @property
    def name(self) -> RowName:
        """Which row."""
        return self.evidence.name

    @property
    def states(self) -> States:
        """The owners that were read, None if there is no such row."""
        return self.evidence.states

    @property
    def unread(self) -> Mapping[Node, str]:
        """Every node that did not answer, with the reason."""
        return {**self.evidence.unread, **self.unread_non_owners}

    @property
    def differs(self) -> bool:
        """Whether anything is wrong with the row now, as far as it could be read."""
        return bool(self.facts)

    @property
    def held_by_non_owners(self) -> bool:
        """Whether a node holds the row that does not own it."""
        return any(state is not None for state in self.non_owners.values())

    @property
    def gone(self) -> bool:
        """Whether no replica that was read has the row."""
        return not any(state is not None for state in (*self.states.values(), *self.non_owners.values()))

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns: a row that agrees where it could be read, but not everywhere, is unknown."""
        return ExitCode.of(wrong=self.differs, unknown=bool(self.unread) or not self.states)

    @cached_property
    def judgement(self) -> Judgement:
        """Every kind that applies now, and each column's contest."""
        return judge_row(self.evidence) if self.evidence.present else Judgement((), ())

    @property
    def facts(self) -> tuple[Kind, ...]:
        """The kinds that apply now, gravest first."""
        return self.judgement.facts + ((Kind.NON_OWNER,) if self.held_by_non_owners else ())

    @property
    def newest_us(self) -> int | None:
        """The newest write time of any copy."""
        times = [self.evidence.newest_us, *(s.newest_us for s in self.non_owners.values() if s is not None)]
        return max((time for time in times if time is not None), default=None)

    def contested(self) -> list[tuple[int, CellColumn, Contest]]:
        """Return the columns that the holders of the row do not agree on, with their place in a state."""
        pairs = zip(self.evidence.columns, self.judgement.contests, strict=False)
        return [(i, column, c) for i, (column, c) in enumerate(pairs) if c.decided_by is not DecidedBy.SAME]

    def lacks(self, node: Node) -> list[str]:
        """Name the columns in which a replica that has the row is behind."""
        behind = [column for _, column, contest in self.contested() if node not in contest.current]
        return [column.column.name for column in behind if column.writetime]

    @property
    def undated(self) -> list[str]:
        """Name the columns that differ and of which the servers tell no write time: no copy is known to be newer.

        Counters, and before 5.0 collections.
        """
        return [column.column.name for _, column, _ in self.contested() if not column.writetime]


def decided_by(contest: Contest, versions: Sequence[Cell], *, multicell: bool) -> str:
    """Say by which of Cassandra's rules the winner of a column wins over the other versions."""
    others = [cell for cell in versions if cell != contest.winner]
    if contest.decided_by is DecidedBy.SAME:
        return "the same everywhere"
    if all(cell == EMPTY for cell in others):
        return "only holder"
    if multicell:
        return "merged element by element"
    if contest.decided_by is DecidedBy.NEWER:
        return "newer write time"
    if contest.decided_by is DecidedBy.EXPIRY or any(cell.expires != contest.winner.expires for cell in others):
        return "same write time, later expiry"
    return "same write time, greater value"


def choose_finding(path: Path, number: int) -> Chosen:
    """Take finding `number` (from 1) from a file; UsageError if the file or the number cannot be used."""
    header = read_header(path)
    with path.open(encoding="utf-8", errors="replace") as lines:
        of_ranges = Counter(map(is_range, lines))
    ranges, total = of_ranges[True], of_ranges[False] - 1  # the header is no row
    if not total:
        msg = f"{path} holds no finding: its check found no differing row"
        if ranges:
            some = counted(ranges, "range")
            msg = f"{path} lists no row, it counts those of {some}: check with --max-findings all to list them"
        raise UsageError(msg)
    found = next(islice(read_findings(path), number - 1, number), None) if number <= total else None
    if found is None:
        msg = f"--row {number}: {path} holds {counted(total, 'finding')}; the first is --row 1"
        raise UsageError(msg)
    return Chosen(found, number, total, header)


async def explain(reader: ClusterReader, clock: Clock, chosen: Chosen, *, traces: bool = True) -> Explanation:
    """Read the row of a finding on every replica, by one instant; with `traces` look for its delete where it lacks."""
    finding, rows = chosen.finding, await EvidenceReader.open(reader, clock)
    ref = RowRef.of(finding)
    non_owners = _non_owners(rows.ring, finding, rows.owners(ref))
    evidence = await rows.read(ref)
    search = DeleteSearch(reader, len(evidence.owners) if traces else 0)
    (undeleted,) = await search.rules_out([evidence])
    there, unread = await _read_non_owners(reader, evidence, non_owners)
    return Explanation(
        finding=finding,
        evidence=evidence,
        non_owners=there,
        unread_non_owners=unread,
        warnings=(*_warnings(rows.ring, chosen.header), *filter(None, [reader.traces.sentence])),
        undeleted=undeleted,
    )


def _non_owners(ring: Ring, finding: Finding, owners: Sequence[Node]) -> list[Node]:
    if finding.kind is not Kind.NON_OWNER:
        return []
    wanted = {view.host_id for view in finding.replicas.values()}
    if "" in wanted:  # an address may be another node's by now
        msg = "the findings file is of an earlier version and names the node only by its address; run the check again"
        raise UsageError(msg)
    return [node for node in ring.nodes if node.host_id in wanted and node not in owners]


async def _read_non_owners(
    reader: ClusterReader, evidence: Evidence, nodes: Sequence[Node]
) -> tuple[States, Mapping[Node, str]]:
    """Read the row on nodes that do not own it."""
    local = [node for node in nodes if reader.locality(node) is Locality.NODE_LOCAL]
    hidden = {node: _NOT_LOCAL for node in nodes if node not in local}
    (found,) = await read_evidence(reader, evidence.reading, [evidence.name], local, evidence.when)
    return found.states, {**hidden, **found.unread}


_NOT_LOCAL = "rows on a non-owner can be read only with NODE_LOCAL"


def _warnings(ring: Ring, header: Mapping[str, Any]) -> list[str]:
    if header.get("cluster") != ring.cluster:
        return [f"the findings are of cluster {header.get('cluster')!r}, this is {ring.cluster!r}"]
    if header.get("ring") != ring.fingerprint:
        return ["the ring has changed since the check; the current owners are shown"]
    return []
