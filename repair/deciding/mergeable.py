"""Which ranges of counted rows can be merged as ranges, by reads of all their rows at ALL, and why others cannot."""

from __future__ import annotations

from enum import Enum

from consistency.cluster.guardrails import NO_GUARDRAILS
from consistency.cluster.wire import ALL
from consistency.model.ownership import disputed_ranges, overlap
from consistency.model.reading import Reading
from consistency.model.schema import Table
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding
from consistency.rows.names import RowRef
from repair.deciding.case import CaseReader
from repair.deciding.policy import Policy, Zombies

_UNTOLD = "it has collections, and a server is older than Cassandra 5.0, which alone tells when they were written"

FEW = 500
"""Rows that are read by key sooner than a range of some ten thousand is read as a whole."""


class RangeMerge(str, Enum):
    """Whether a plan keeps ranges whose rows were counted, or reads them again and plans each row."""

    AUTO = "auto"
    NEVER = "never"
    ONLY = "only"


def place_of(found: RangeFinding) -> RowRef:
    """Return what stands for a row of the range where only its table and its owners are asked for."""
    return RowRef(found.keyspace, found.table, found.token_range.end, {})


async def why_by_rows(cases: CaseReader, found: RangeFinding, policy: Policy) -> str:
    """Say why the rows of a range are to be planned one by one; empty if it can be merged as a range."""
    place = place_of(found)
    table, owners = cases.table(place), cases.owners(place)
    reasons = (
        _table_forbids(table),
        _policy_forbids(found, policy),
        _untold_ages(cases.table_reader(place).reading, found),
        "" if all(node.up for node in owners) else "a replica is down",
        "" if _of_one_replica_set(cases, found) else "the nodes do not agree on one set of replicas for it",
        cases.reach(place).not_at_all,
    )
    if reason := next(filter(None, reasons), ""):
        return reason
    guarded = await cases.guardrails(table)
    forbidden = [guarded.get(node, NO_GUARDRAILS).reads.get(ALL, "") for node in owners]
    return forbidden[0] if all(forbidden) else ""


def _policy_forbids(found: RangeFinding, policy: Policy) -> str:
    """Say why the operator's policy asks for rows: it acts on zombies, and only rows that a plan names are acted on."""
    if policy.zombies is Zombies.QUARANTINE or not found.kinds.get(Kind.ZOMBIE_SUSPECT):
        return ""
    return f"--zombies {policy.zombies.value} decides row by row"


def _untold_ages(reading: Reading, found: RangeFinding) -> str:
    """Say why rows are decided one by one where servers before 5.0 do not tell when a collection was written.

    What a minority holds of it is left as a zombie suspect, and a range is merged around the whole partition of such a
    row. A row that a replica lacks is rarely one.
    """
    told = all(column.writetime for column in reading.regulars)
    return "" if told or set(found.kinds) <= {Kind.MISSING} else _UNTOLD


def _table_forbids(table: Table) -> str:
    """Say what of a table keeps its ranges from being merged."""
    forbidden = (
        (table.view_of, "a materialized view is never written directly"),
        (table.is_counter, "counters are merged row by row"),
        (table.statics, "it has static columns, which a read of rows does not merge"),
        (table.respelled, "its keys can be spelled in several ways"),
        (any(column.masked for column in table.columns), "it has masked columns"),
        (table.read_repair != "BLOCKING", f"read_repair is {table.read_repair}: no read makes the servers merge"),
    )
    return next((reason for applies, reason in forbidden if applies), "")


def _of_one_replica_set(cases: CaseReader, found: RangeFinding) -> bool:
    """Whether all of the range has the same replicas, and no node sees others."""
    replication = cases.keyspace(place_of(found)).replication
    within, ring = found.token_range, cases.ring
    if ring.disputed and overlap(within, disputed_ranges(ring, replication)):
        return False
    inside = {token for token in ring.tokens if within.start < token < within.end}
    return len({frozenset(ring.replicas_of(token, replication)) for token in (*inside, within.end)}) == 1
