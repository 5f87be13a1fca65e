"""Explain one finding of a comparison: read the row now on every replica of both sides, and say how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from consistency.comparing.matching import Schema, TablePair
from consistency.comparing.opening import Pair
from consistency.comparing.placement import Owners, sided
from consistency.comparing.reader import PairClock, PairReader, in_common
from consistency.comparing.rows import Unlike, agreed, by_side, compare_row
from consistency.comparing.schemas import declared_otherwise, why_not_compared
from consistency.comparing.terms import Compare, Terms
from consistency.errors import UsageError
from consistency.model.reading import Depth, Reading
from consistency.model.ring import Ring
from consistency.model.schema import Table
from consistency.model.sides import Side
from consistency.results.figures import counted
from consistency.results.pair_findings import PairFinding, PairHeader, PairKind, read_compared, read_pair_header
from consistency.results.verdict import ExitCode
from consistency.rows.evidence import Evidence, read_evidence
from consistency.rows.names import RowRef, row_name
from consistency.rows.read import States


@dataclass(frozen=True, slots=True)
class ChosenPair:
    """A row that differs between two clusters, from a file: its number (from 1), how many there are, the header."""

    finding: PairFinding
    number: int
    total: int
    header: PairHeader

    @property
    def terms(self) -> Terms:
        """By what the row was compared."""
        return Terms.of(self.header)


@dataclass(frozen=True)
class PairExplanation:
    """What a row is on every replica of both clusters now; `warnings` say what has changed since it was found."""

    chosen: ChosenPair
    evidence: Evidence
    terms: Terms
    warnings: tuple[str, ...] = ()

    @cached_property
    def sides(self) -> Mapping[Side, States]:
        """The copies of either side."""
        return by_side(self.evidence.states)

    @cached_property
    def unlike(self) -> Unlike:
        """How the sides differ for sure now; nothing if a side was not read at all."""
        if not all(self.sides.values()):
            return Unlike()
        return compare_row(self.evidence.columns, self.evidence.states, self.terms)

    @property
    def facts(self) -> tuple[PairKind, ...]:
        """The kinds that apply now, gravest first."""
        return self.unlike.facts

    @property
    def torn(self) -> tuple[Side, ...]:
        """The sides whose replicas do not hold the same."""
        return tuple(side for side, copies in self.sides.items() if not agreed(copies))

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns."""
        unknown = bool(self.evidence.unread) or not all(self.sides.values())
        return ExitCode.of(wrong=bool(self.facts or self.torn), unknown=unknown)


def choose_pair_finding(path: Path, number: int) -> ChosenPair:
    """Take the row `number` (from 1) that differs between the clusters; UsageError if there is none."""
    header = read_pair_header(path)
    total = sum(isinstance(found, PairFinding) for found in read_compared(path))
    if not total:
        msg = f"{path} lists no row that differs between the clusters; those of one cluster are for its own check"
        raise UsageError(msg)
    rows = (found for found in read_compared(path) if isinstance(found, PairFinding))
    found = next(islice(rows, number - 1, number), None) if number <= total else None
    if found is None:
        some = counted(total, "row that differs", "rows that differ")
        msg = f"--row {number}: {path} holds {some} between the clusters; the first is --row 1"
        raise UsageError(msg)
    return ChosenPair(found, number, total, header)


async def explain_pair(pair: Pair, chosen: ChosenPair) -> PairExplanation:
    """Read the row of a finding on every replica of both sides, by one instant."""
    rings = {cluster.side: await cluster.reader.ring() for cluster in pair}
    schemas = {cluster.side: await cluster.reader.schema() for cluster in pair}
    finding = chosen.finding
    names = {Side.SOURCE: (finding.keyspace, finding.table), Side.TARGET: finding.target}
    tables = TablePair(*(_table(side, schemas[side], rings[side], names[side]) for side in Side))
    declared = declared_otherwise(tables, schemas[Side.SOURCE], schemas[Side.TARGET])
    if reason := why_not_compared(declared):
        msg = f"{finding.full_name}: {reason}; compare again"
        raise UsageError(msg)
    nodes = [
        node
        for side in Side
        for node in Owners(side, rings[side], schemas[side][names[side][0]].replication).of(
            finding.token, sided(side, rings[side])
        )
    ]
    able = in_common(pair.source.reader.capabilities, pair.target.reader.capabilities)
    reading = Reading(tables.source, Depth.CONTENT, able)
    reader, clock = PairReader(pair, {tables.source.full_name: tables.target}), PairClock(pair)
    name = row_name(tables.source, RowRef(finding.keyspace, finding.table, finding.token, finding.key_hex))
    (evidence,) = await read_evidence(reader, reading, [name], nodes, clock.server_time())
    terms = Terms(Compare.VALUES) if tables.source.is_counter else chosen.terms
    return PairExplanation(chosen, evidence, terms, tuple(_warnings(rings, chosen.header)))


def _table(side: Side, schema: Schema, ring: Ring, name: tuple[str, str]) -> Table:
    keyspace = schema.get(name[0])
    if keyspace is None or name[1] not in keyspace.tables:
        what = f"{side}: cluster {ring.cluster!r} has no table {'.'.join(name)}"
        msg = f"{what}: it was dropped, or this is another cluster"
        raise UsageError(msg)
    return keyspace.tables[name[1]]


def _warnings(rings: Mapping[Side, Ring], header: PairHeader) -> Iterator[str]:
    for side, ring in rings.items():
        cluster, fingerprint = header.clusters[side]
        if cluster != ring.cluster:
            yield f"the {side} of the comparison was cluster {cluster!r}, this is {ring.cluster!r}"
        elif fingerprint != ring.fingerprint:
            yield f"the ring of the {side} has changed since; its current owners are shown"
