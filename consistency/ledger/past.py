"""What the ledger knows of earlier runs, as frozen values; nothing here writes."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from consistency.errors import LedgerError
from consistency.ledger.clusters import KnownCluster, find_cluster, read_clusters
from consistency.ledger.known import load_spans
from consistency.ledger.latest import LatestReads, latest_reads, read_until
from consistency.ledger.recorder import DEPTH_RANKS, OPEN_LIST, OPEN_STATES
from consistency.ledger.roots import KnownTree, known_trees
from consistency.ledger.spans import Span, age, together
from consistency.ledger.store import Store
from consistency.model.reading import Depth
from consistency.results.verdict import Coverage


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run; `ended` is False if it was killed or is still running, and then only its start is known.

    `states` counts the differing rows by state, and those that differed before and no longer do (`gone`).
    """

    run_id: str
    scope: str
    started_us: int
    ended: bool
    seconds: float = 0.0
    verdict: str = ""
    exit_code: int | None = None
    interrupted: bool = False
    coverage: Coverage = Coverage()  # noqa: RUF009 - it is frozen
    findings_by_kind: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableAge:
    """How long ago a table's ranges were clean.

    `oldest_us`: the oldest of the ranges' last clean passes; None if no range was ever clean. `never`: the part of
    the ring that was never clean, from 0 to 1. `tried_us`: when the least recently read range was read, clean or
    not; 0 if a part was never read. A watch starts with the least. `states` counts the rows that differed when last
    read; `came_back` those of them that had agreed, or were repaired, in between.
    """

    keyspace: str
    table: str
    gc_grace_s: int
    oldest_us: int | None
    never: float
    ranges: int
    tried_us: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    came_back: int = 0
    trees: tuple[KnownTree, ...] = ()
    """Its Merkle trees as they were last read whole, one of each replica set."""

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"

    @property
    def unchanged_since_us(self) -> int | None:
        """When a run first saw the roots that the newest runs see; None if they are new or replicas differ."""
        found = [tree.since_us for tree in self.trees if tree.root is not None and tree.since_us < tree.read_us]
        return max(found) if found and len(found) == len(self.trees) else None

    @property
    def differing(self) -> int:
        """The rows that differed when they were last read."""
        return sum(self.states.get(state, 0) for state in OPEN_STATES)


@dataclass(frozen=True, slots=True)
class Behind:
    """A row that differed when last read and was not current on these replicas, by host id.

    `by_address`: an earlier version recorded it, and `replicas` are addresses that may belong to other nodes by now.
    """

    keyspace: str
    table: str
    token: int
    replicas: frozenset[str]
    by_address: bool = False


class Past:
    """Answers from one ledger; `cluster` is a name, needed only if the file knows several clusters."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db

    def clusters(self) -> tuple[tuple[int, str], ...]:
        """Return number and name of every cluster, the one with the newest run first."""
        return tuple((known.number, known.name) for known in self.known_clusters())

    def known_clusters(self) -> tuple[KnownCluster, ...]:
        """Return every cluster with its id and the nodes it had when last seen, the one with the newest run first."""
        return read_clusters(self._db)

    def of_nodes(self, cluster: str, host_ids: Collection[str]) -> int | None:
        """Return the number of the cluster of this name that shares most of these nodes; None if none shares any."""
        return find_cluster(self._db, cluster, host_ids)

    def runs(self, cluster: int, most: int = 1000) -> tuple[PastRun, ...]:
        """Return the runs, newest first."""
        rows = self._rows(
            "SELECT * FROM runs WHERE cluster = ? ORDER BY number DESC LIMIT ?",
            (cluster, most),
        )
        kinds: dict[int, dict[str, int]] = defaultdict(dict)
        for row in self._rows("SELECT f.* FROM run_findings f JOIN runs ON number = run WHERE cluster = ?", (cluster,)):
            kinds[row["run"]][row["kind"]] = row["count"]
        return tuple(_run(row, kinds[row["number"]]) for row in rows)

    def tables(self, cluster: int) -> tuple[TableAge, ...]:
        """Return every table that has replicas to compare, by name."""
        rows = self._rows("SELECT * FROM tables WHERE cluster = ? AND compared ORDER BY keyspace, name", (cluster,))
        return tuple(self._table(row) for row in list(rows))

    def _table(self, row: sqlite3.Row) -> TableAge:
        found = age([load_spans(self._db, row["id"], rank, "") for rank in DEPTH_RANKS.values()])
        counts = self._db.execute("SELECT state, count(*) FROM findings WHERE tbl = ? GROUP BY state", (row["id"],))
        back = self._db.execute(
            f"SELECT count(*) FROM findings WHERE tbl = ? AND times_back > 0 AND state IN ({OPEN_LIST})", (row["id"],)
        )
        return TableAge(
            keyspace=row["keyspace"],
            table=row["name"],
            gc_grace_s=row["gc_grace_s"],
            oldest_us=found.oldest_us,
            never=found.never,
            ranges=found.ranges,
            tried_us=found.tried_us,
            states=dict(counts),
            came_back=int(back.fetchone()[0]),
            trees=known_trees(self._db, row["id"]),
        )

    def read_until(self, cluster: int, depth: Depth | None, dc: str) -> Mapping[str, int]:
        """Return when each table's least recently read range was last read; tables with an unread range are left out.

        By name, in microseconds. Without a depth, reads of every depth count; with a DC, reads of its replicas alone.
        """
        rows = list(self._rows("SELECT id, keyspace, name FROM tables WHERE cluster = ? AND compared", (cluster,)))
        found = {f"{row['keyspace']}.{row['name']}": read_until(self._db, row["id"], depth, dc) for row in rows}
        return {name: tried_us for name, tried_us in found.items() if tried_us}

    def latest(self, cluster: int, full_name: str, depth: Depth, since_us: int) -> LatestReads | None:
        """Return a table by the latest read of each of its ranges; reads before `since_us` are late."""
        number = self._number(cluster, full_name)
        return None if number is None else latest_reads(self._db, number, depth, since_us)

    def spans(self, cluster: int, full_name: str) -> list[Span]:
        """Return when each range of a table was last read and last clean, at any depth; in the order of the ring."""
        number = self._number(cluster, full_name)
        return [] if number is None else together([load_spans(self._db, number, r, "") for r in DEPTH_RANKS.values()])

    def rows_by_replica(self, cluster: int, full_name: str) -> Mapping[str, int]:
        """Count the rows of a table that differed when last read, by the host id of each replica that is behind."""
        rows = self._rows(
            "SELECT hosts, count(*) AS rows FROM findings f JOIN replica_sets s ON s.id = f.behind"
            f" WHERE tbl = ? AND state IN ({OPEN_LIST}) AND hosts <> '' AND NOT by_address GROUP BY hosts",
            (self._number(cluster, full_name),),
        )
        counts: Counter[str] = Counter()
        for row in rows:
            for host_id in row["hosts"].split(","):
                counts[host_id] += row["rows"]
        return counts

    def _number(self, cluster: int, full_name: str) -> int | None:
        rows = self._rows(
            "SELECT id FROM tables WHERE cluster = ? AND keyspace || '.' || name = ?", (cluster, full_name)
        )
        row = rows.fetchone()
        return None if row is None else int(row["id"])

    def behind(self, cluster: int) -> Iterator[Behind]:
        """Yield the rows that differed when last read because a replica was behind; not copies on non-owners."""
        rows = self._rows(
            "SELECT keyspace, name, token, hosts, by_address FROM findings f JOIN tables t ON t.id = f.tbl"
            f" JOIN replica_sets s ON s.id = f.behind WHERE cluster = ? AND state IN ({OPEN_LIST})"
            " AND hosts <> '' AND kind <> 'non_owner'",
            (cluster,),
        )
        for row in rows:
            hosts = frozenset(row["hosts"].split(","))
            where = (row["keyspace"], row["name"], row["token"])
            yield Behind(*where, hosts, by_address=bool(row["by_address"]))

    def _rows(self, sql: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            cursor = self._db.cursor()
            cursor.row_factory = sqlite3.Row
            return cursor.execute(sql, values)
        except sqlite3.Error as error:
            msg = f"the ledger {self._store.path} cannot be read ({error}): nothing counts as checked"
            raise LedgerError(msg) from None


def _run(row: sqlite3.Row, kinds: Mapping[str, int]) -> PastRun:
    start = {"run_id": row["id"], "scope": row["scope"], "started_us": row["started_us"]}
    if row["verdict"] is None:
        return PastRun(**start, ended=False)
    return PastRun(
        **start,
        ended=True,
        seconds=row["seconds"],
        verdict=row["verdict"],
        exit_code=row["exit_code"],
        interrupted=bool(row["interrupted"]),
        coverage=Coverage(row["planned"], row["completed"], row["skipped"], row["failed"]),
        findings_by_kind=kinds,
        states={"new": row["fresh"], "still there": row["still"], "came back": row["back"], "gone": row["gone"]},
    )
