"""Explain one finding: read the row now on every replica that owns it, and say who wins and by which rule."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.table_reading import choose
from consistency.errors import ReplicaError, UsageError
from consistency.model.reading import Cell, CellColumn, Depth, Locality, Reading, Route, RowState
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.servertime import ServerTime
from consistency.results.findings import Finding, Kind, read_findings, read_header
from consistency.results.verdict import ExitCode
from consistency.rows.classify import DEFAULT_MAX_SKEW_S, Judgement, judge_row
from consistency.rows.merge_join import RowName
from consistency.rows.read import read_state
from consistency.rows.reconcile import EMPTY, Contest, Rule

States = Mapping[Node, RowState | None]


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

    `states` holds the owners that were read, None where there is no such row; `strangers` the nodes of a
    non-owner finding; `unread` those that did not answer, with the reason.
    """

    finding: Finding
    reading: Reading
    name: RowName
    when: ServerTime
    """The one instant at which it was read and is judged."""
    states: States
    strangers: States = field(default_factory=dict)
    unread: Mapping[Node, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[CellColumn, ...]:
        """The columns compared, in the order of every state's cells."""
        return self.reading.statics if self.name.static else self.reading.regulars

    @property
    def now_us(self) -> int:
        """The instant in microseconds since the epoch, by the most advanced of the servers' clocks."""
        return self.when.latest_us

    @property
    def differs(self) -> bool:
        """Whether anything is wrong with the row now, as far as it could be read."""
        return bool(self.facts)

    @property
    def held_by_strangers(self) -> bool:
        """Whether a node holds the row that does not own it."""
        return any(state is not None for state in self.strangers.values())

    @property
    def gone(self) -> bool:
        """Whether no replica that was read has the row."""
        return not any(state is not None for state in (*self.states.values(), *self.strangers.values()))

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns: a row that agrees where it could be read, but not everywhere, is unknown."""
        return ExitCode.of(wrong=self.differs, unknown=bool(self.unread) or not self.states)

    @cached_property
    def judgement(self) -> Judgement:
        """Every kind that applies now, and each column's contest."""
        if not any(state is not None for state in self.states.values()):
            return Judgement((), ())
        return judge_row(self.reading, self.states, when=self.when, max_skew_s=DEFAULT_MAX_SKEW_S)

    @property
    def facts(self) -> tuple[Kind, ...]:
        """The kinds that apply now, gravest first."""
        return self.judgement.facts + ((Kind.NON_OWNER,) if self.held_by_strangers else ())

    @property
    def newest_us(self) -> int | None:
        """The newest write time of any copy."""
        held = [*self.states.values(), *self.strangers.values()]
        return max((s.newest_us for s in held if s is not None and s.newest_us is not None), default=None)

    def contested(self) -> list[tuple[int, CellColumn, Contest]]:
        """Return the columns that the holders of the row do not agree on, with their place in a state."""
        pairs = zip(self.cells, self.judgement.contests, strict=False)
        return [(i, column, c) for i, (column, c) in enumerate(pairs) if c.rule is not Rule.SAME]

    def lacks(self, node: Node) -> list[str]:
        """Name the columns in which a replica that has the row is behind."""
        return [column.column.name for _, column, contest in self.contested() if node not in contest.current]


def decided_by(contest: Contest, versions: Sequence[Cell], *, multicell: bool) -> str:
    """Say by which of Cassandra's rules the winner of a column wins over the other versions."""
    others = [cell for cell in versions if cell != contest.winner]
    if contest.rule is Rule.SAME:
        return "the same everywhere"
    if all(cell == EMPTY for cell in others):
        return "only holder"
    if multicell:
        return "merged element by element"
    if contest.rule is Rule.NEWER:
        return "newer write time"
    if contest.rule is Rule.EXPIRY or any(cell.expires != contest.winner.expires for cell in others):
        return "same write time, later expiry"
    return "same write time, greater value"


def choose_finding(path: Path, number: int) -> Chosen:
    """Take finding `number` (from 1) from a file; UsageError where the file or the number cannot be used."""
    header = read_header(path)
    with path.open("rb") as lines:
        total = sum(1 for _ in lines) - 1
    if not total:
        msg = f"{path} holds no finding: the check that wrote it found no row that differs"
        raise UsageError(msg)
    found = next(islice(read_findings(path), number - 1, number), None) if number <= total else None
    if found is None:
        msg = f"--row {number}: {path} holds {total} findings; the first is --row 1"
        raise UsageError(msg)
    return Chosen(found, number, total, header)


async def explain(reader: ClusterReader, clock: Clock, chosen: Chosen) -> Explanation:
    """Read the row of a finding on every replica, at one instant."""
    finding = chosen.finding
    ring, schema = await reader.ring(), await reader.schema()
    keyspace, table = _table(ring, schema, finding)
    name = _row_name(table, finding)
    reading = _reading(table, reader)
    when = clock.server_time()
    owners = ring.replicas_of(finding.token, keyspace.replication)
    strangers = _strangers(ring, finding, owners)
    nodes = [*owners, *strangers]
    answers = await asyncio.gather(
        *(_ask(reader, reading, name, node, when.expiry_s) for node in owners),
        *(_ask_stranger(reader, reading, name, node, when.expiry_s) for node in strangers),
    )
    read = {node: answer for node, answer in zip(nodes, answers, strict=True) if not isinstance(answer, str)}
    return Explanation(
        finding=finding,
        reading=reading,
        name=name,
        when=when,
        states={node: state for node, state in read.items() if node not in strangers},
        strangers={node: state for node, state in read.items() if node in strangers},
        unread={node: answer for node, answer in zip(nodes, answers, strict=True) if isinstance(answer, str)},
        warnings=(*_warnings(ring, chosen.header), *filter(None, [reader.traces.sentence])),
    )


def _table(ring: Ring, schema: Mapping[str, Keyspace], finding: Finding) -> tuple[Keyspace, Table]:
    keyspace = schema.get(finding.keyspace)
    table = None if keyspace is None else keyspace.tables.get(finding.table)
    if keyspace is None or table is None:
        what = f"keyspace {finding.keyspace}" if keyspace is None else f"table {finding.keyspace}.{finding.table}"
        msg = f"cluster {ring.cluster!r} has no {what}: it was dropped, or the findings are another cluster's"
        raise UsageError(msg)
    if not keyspace.replication.replicated:
        msg = f"keyspace {finding.keyspace} is no longer replicated; run the check again"
        raise UsageError(msg)
    return keyspace, table


def _row_name(table: Table, finding: Finding) -> RowName:
    """Address the row by the server's own bytes; a key without clustering columns names the static row."""
    names = [c.name for c in table.primary_key]
    partition = [c.name for c in table.partition_key]
    static = bool(table.clustering) and set(finding.key_hex) == set(partition)
    wanted = partition if static else names
    if set(finding.key_hex) != set(wanted):
        msg = f"{table.full_name} has another primary key than when it was checked; run the check again"
        raise UsageError(msg)
    return RowName(finding.token, tuple(bytes.fromhex(finding.key_hex[n]) for n in wanted), static)


def _reading(table: Table, reader: ClusterReader) -> Reading:
    choice = choose(table, reader.capabilities, Depth.CONTENT, Route.CLIENT)
    if choice.reading is None:
        raise UsageError(choice.refusal)
    return choice.reading.full


def _strangers(ring: Ring, finding: Finding, owners: Sequence[Node]) -> list[Node]:
    if finding.kind is not Kind.NON_OWNER:
        return []
    wanted = {view.host_id for view in finding.replicas.values()}
    if "" in wanted:  # an address may be another node's by now
        msg = "the findings file is of an earlier version and tells the node by its address alone; run the check again"
        raise UsageError(msg)
    return [node for node in ring.nodes if node.host_id in wanted and node not in owners]


async def _ask(reader: ClusterReader, reading: Reading, name: RowName, node: Node, now_s: int) -> RowState | str | None:
    """Return the row's state on one node, or why it could not be read."""
    try:
        return await read_state(reader, reading, name, node, now_s)
    except ReplicaError as error:
        return error.reason


async def _ask_stranger(
    reader: ClusterReader, reading: Reading, name: RowName, node: Node, now_s: int
) -> RowState | str | None:
    if reader.locality(node) is not Locality.NODE_LOCAL:
        return "what a node holds without owning it can be read with NODE_LOCAL only"
    return await _ask(reader, reading, name, node, now_s)


def _warnings(ring: Ring, header: Mapping[str, Any]) -> list[str]:
    if header.get("cluster") != ring.cluster:
        return [f"the findings are of cluster {header.get('cluster')!r}, this is {ring.cluster!r}"]
    if header.get("ring") != ring.fingerprint:
        return ["the ring has changed since the check; the owners shown are those of now"]
    return []
