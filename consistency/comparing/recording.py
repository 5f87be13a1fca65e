"""What a ledger keeps of comparisons of two clusters: each pair of tables with where its rows lay, in and out.

That two tables were equal is proven for the replicas that were read. So it says nothing once nodes, their addresses,
tokens or the replication are others, though it is still told when the tables were last equal.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from consistency.comparing.matching import Schema, TablePair, match_tables
from consistency.comparing.opening import Pair, ring_of
from consistency.comparing.preparing import CompareOptions, Planned
from consistency.comparing.reader import PairClock
from consistency.errors import LedgerError
from consistency.ledger import ComparedPair, LedgerFile, PastComparison
from consistency.model.ring import Ring
from consistency.model.schema import Table
from consistency.model.servertime import ServerTime, iso_time
from consistency.model.sides import Side
from consistency.results.comparison import Comparison, SchemaDifference
from consistency.results.verdict import Verdict

Rings = Mapping[Side, Ring]
Schemas = Mapping[Side, Schema]


class Keeps(Protocol):
    """What takes comparisons that have ended."""

    def record(self, pair: ComparedPair, compared_us: int, verdict: Verdict, placement: str) -> PastComparison | None:
        """Record one."""


def placement(tables: TablePair, rings: Rings, schemas: Schemas) -> str:
    """Return what changes when other nodes may hold the rows of either table, or the nodes are reached elsewhere.

    A cluster that was made from copies of another's disks has its names and ids, but not its addresses.
    """
    text = []
    for side, table in ((Side.SOURCE, tables.source), (Side.TARGET, tables.target)):
        nodes = sorted(f"{node.host_id} {node.name}" for node in rings[side].nodes)
        replication = schemas[side][table.keyspace].replication
        text.append(f"{rings[side].cluster_id} {rings[side].fingerprint} {nodes} {replication}")
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Begun:
    """A comparison that is about to begin: when, and as what each pair of tables is recorded, by the source's name."""

    began_us: int
    tables: Mapping[str, tuple[ComparedPair, str]]

    def enter(self, result: Comparison, kept: Keeps) -> None:
        """Record each table of the result; of one that was cut off none, as nothing was judged."""
        if result.interrupted:
            return
        for table in result.tables:
            known = self.tables.get(table.report.full_name)
            if known is not None:
                pair, where = known
                kept.record(pair, self.began_us, table.verdict, where)


async def begin(pair: Pair, options: CompareOptions) -> Begun:
    """Look at both clusters as they are before a comparison of whole tables."""
    rings = {cluster.side: await ring_of(cluster) for cluster in pair}
    schemas = {cluster.side: await cluster.reader.schema() for cluster in pair}
    matched = match_tables(schemas[Side.SOURCE], schemas[Side.TARGET], options.names)
    named = {
        tables.source.full_name: (as_kept(tables, options), placement(tables, rings, schemas))
        for tables in matched.pairs
    }
    # Each server's clock is later than this, so no write that the comparison sees is older than it says.
    return Begun(PairClock(pair).server_time().earliest_us, named)


def as_kept(tables: TablePair, options: CompareOptions) -> ComparedPair:
    """Return as what a pair of tables is known to a ledger."""
    return ComparedPair(tables.source, tables.target, options.kept_as)


@dataclass(frozen=True)
class Looked:
    """Pairs of tables and both clusters, as they were at one look."""

    pairs: tuple[TablePair, ...]
    rings: Rings
    schemas: Schemas

    @classmethod
    def planned(cls, planned: Planned) -> Looked:
        """Return what a comparison has planned to read; what it refuses to read is not in it."""
        named = {task.reading.table.full_name for task in planned.tasks}
        pairs = tuple(tables for tables in planned.matched.pairs if tables.source.full_name in named)
        rings = {side: seen.ring for side, seen in planned.sides.items()}
        return cls(pairs, rings, {side: seen.schema for side, seen in planned.sides.items()})

    @classmethod
    def again(cls, planned: Planned, rings: Rings, schemas: Schemas) -> Looked:
        """Return the same tables as they are now, but for those that are gone."""
        found = []
        for tables in planned.matched.pairs:
            source = _table(schemas[Side.SOURCE], tables.source)
            target = _table(schemas[Side.TARGET], tables.target)
            if source is not None and target is not None:
                found.append(TablePair(source, target))
        return cls(tuple(found), rings, schemas)


def _table(schema: Schema, table: Table) -> Table | None:
    keyspace = schema.get(table.keyspace)
    return None if keyspace is None else keyspace.tables.get(table.name)


@dataclass(frozen=True)
class Recorded:
    """A table that is taken for equal because a ledger says so: `equal_us` is when, `age_s` how long ago.

    `keyspace` and `table` are the source's names, `target` is the full name in the target. `stands` is False if the
    ledger proves it no longer when all else has been looked at. `schema` is what is declared otherwise.
    """

    keyspace: str
    table: str
    target: str
    equal_us: int
    age_s: float
    stands: bool = True
    schema: tuple[SchemaDifference, ...] = ()

    @property
    def full_name(self) -> str:
        """`keyspace.table` of the source."""
        return f"{self.keyspace}.{self.table}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "keyspace": self.keyspace,
            "table": self.table,
            "target": self.target,
            "equal_at": iso_time(self.equal_us),
            "age": round(self.age_s, 3),
            "stands": self.stands,
            "schema": [each.as_json() for each in self.schema],
        }


@dataclass(frozen=True)
class Records:
    """What a ledger proves of comparisons that began no longer ago than `max_age_s`."""

    ledger: LedgerFile
    max_age_s: float

    def equal(self, looked: Looked, options: CompareOptions, now: ServerTime) -> dict[str, Recorded]:
        """Return the tables that were equal when they were last compared, by their name in the source.

        Only if they, their nodes and the terms were what they are, and if that is neither too old nor in the future.
        """
        # By the most advanced clock it is oldest.
        since_us = now.latest_us - round(self.max_age_s * 1e6)
        found: dict[str, Recorded] = {}
        with _readable(self.ledger):
            known = self.ledger.pairs(looked.rings[Side.SOURCE], looked.rings[Side.TARGET])
            for tables in looked.pairs:
                past = known.past(as_kept(tables, options), now.latest_us)
                where = placement(tables, looked.rings, looked.schemas)
                if past is not None and past.proves_equal(where, since_us, now.latest_us):
                    source, at_us = tables.source, past.compared_us
                    age_s = (now.latest_us - at_us) / 1e6
                    named = Recorded(source.keyspace, source.name, tables.target.full_name, at_us, age_s)
                    found[source.full_name] = named
        return found


@contextmanager
def _readable(ledger: LedgerFile) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        msg = f"the ledger {ledger.path} cannot be read ({error}), so it proves nothing; ask without --ledger"
        raise LedgerError(msg) from None
