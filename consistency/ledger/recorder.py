"""Writes one run into the ledger in batches while it runs, so that memory stays bounded and a kill loses little.

Clean passes count only after the run has ended, because a killed run did not check whether the ring or a table
changed meanwhile. The findings of a killed run are kept.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from consistency.errors import LedgerError
from consistency.ledger.clusters import renew_cluster
from consistency.ledger.known import KnownTables, insert_spans, load_spans
from consistency.ledger.port import RangeRead, RunFacts
from consistency.ledger.roots import enter_trees
from consistency.ledger.spans import Span, last_tried, overlay, owners_id
from consistency.ledger.store import Store
from consistency.model.ownership import overlap
from consistency.model.reading import Depth
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange, merged
from consistency.results.findings import Finding, State
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding
from consistency.results.report import Report
from consistency.results.tree_report import TreeReport

BATCH = 2_000
KEPT_S = 400 * 86_400
"""Runs, and rows that agree again, are forgotten after this long."""
KEPT_RUNS = 20_000
"""The most runs that are kept: a watch makes many every day."""

DEPTH_RANKS = {Depth.VERSIONS: 0, Depth.CONTENT: 1}
OPEN_STATES = ("new", "still there", "came back")
OPEN_LIST = ", ".join(f"'{state}'" for state in OPEN_STATES)

_REMEMBER = """
INSERT INTO findings VALUES (:tbl, :hash, :kind, :depth, :token, :behind, 'new', 0, :now, :now, :run)
ON CONFLICT (tbl, hash) DO UPDATE SET
  state = CASE WHEN run = excluded.run THEN state WHEN state IN ('gone', 'repaired') THEN 'came back'
          ELSE 'still there' END,
  times_back = times_back + (run <> excluded.run AND state IN ('gone', 'repaired')),
  kind = excluded.kind, depth = excluded.depth, token = excluded.token, behind = excluded.behind,
  last_us = excluded.last_us, run = excluded.run
"""
_RENAME = """
UPDATE OR IGNORE findings SET hash = :hash WHERE tbl = :tbl AND hash = :by_address AND kind = 'non_owner'
"""
"""A copy on a non-owner that an earlier version recorded under the node's address is now known by the host id."""
_FORGET = f"""
UPDATE findings SET state = 'gone' WHERE tbl = ? AND token > ? AND token <= ? AND depth <= ? AND run <> ?
  AND state IN ({OPEN_LIST}) AND (kind <> 'non_owner' OR ?)
"""


class RunRecorder:
    """The ledger as a check's Recorder. `problem` says in one line why it stopped writing; empty if it did not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.problem = ""
        self.cluster_id = ""
        """The id of the cluster in the ledger; empty before the run starts."""
        self.reached: tuple[TokenRange, ...] = ()
        """The ranges that were reached of the last recorded table."""
        self._key = bytes(store.db.execute("SELECT key FROM secret").fetchone()[0])
        self._run = 0
        self._tables: dict[str, int] = {}
        self._dc = ""
        self._now_us = 0
        self._batch: list[dict[str, Any]] = []
        self._behind: dict[tuple[str, bool], int] = {}
        self._gone = 0
        self._counted: dict[str, list[TokenRange]] = defaultdict(list)

    def _safely(self, write: Callable[[], None]) -> None:
        if self.problem:
            return
        try:
            write()
        except sqlite3.Error as error:
            path = self._store.path
            self.problem = f"the ledger {path} could not be written ({error}): this run does not count in it"

    def begin(self, facts: RunFacts) -> None:
        """Record the run, and void earlier passes of ranges and tables that changed since."""
        self._safely(lambda: self._begin(facts))

    def _begin(self, facts: RunFacts) -> None:
        self._dc, self._now_us = facts.dc or "", facts.started_us
        with self._store.transaction() as db:
            cluster = renew_cluster(db, facts.ring)
            (self.cluster_id,) = db.execute("SELECT short FROM clusters WHERE id = ?", (cluster,)).fetchone()
            scope = " ".join(facts.names)
            row = (facts.run_id, cluster, scope, facts.started_us)
            entered = db.execute("INSERT INTO runs (id, cluster, scope, started_us) VALUES (?, ?, ?, ?)", row)
            self._run = int(entered.lastrowid or 0)
            self._tables = KnownTables(db, cluster, facts).renewed()

    def last_tried(self, table: Table, depth: Depth, ranges: Sequence[TokenRange]) -> Sequence[int]:
        """Return when each range was last read; 0 if the ledger does not know."""
        found: list[int] = []
        self._safely(lambda: found.extend(last_tried(self._spans(table, depth), ranges)))
        return found or [0] * len(ranges)

    def found(self, finding: Finding, depth: Depth) -> None:
        """Record a differing row by a keyed hash of its key; a copy on a non-owner is a separate fact."""
        if self.problem:
            return
        views = finding.replicas
        non_owner = finding.kind is Kind.NON_OWNER
        hosts = {name: view.host_id or name for name, view in views.items()}
        behind = sorted(hosts[name] for name, view in views.items() if view.state is not State.CURRENT)
        self._remember(
            {
                "table": f"{finding.keyspace}.{finding.table}",
                "hash": row_hash(self._key, finding.key_hex, ",".join(hosts.values()) if non_owner else ""),
                "by_address": row_hash(self._key, finding.key_hex, ",".join(views)) if non_owner else None,
                "kind": finding.kind.value,
                "depth": DEPTH_RANKS[depth],
                "token": finding.token,
                "hosts": (",".join(behind), not all(view.host_id for view in views.values())),
            }
        )

    def found_range(self, finding: RangeFinding, depth: Depth) -> None:
        """Record that rows of a range differ, as one fact: which rows it was not told.

        So nothing is known of rows in this range that an earlier run listed, and they stay as they were.
        """
        if self.problem:
            return
        self._counted[finding.full_name].append(finding.token_range)
        lacking = sorted(view.host_id for view in finding.replicas.values() if view.missing or view.stale)
        self._remember(
            {
                "table": finding.full_name,
                "hash": row_hash(self._key, {"": str(finding.token_range)}),
                "by_address": None,
                "kind": max(finding.kinds, key=finding.kinds.__getitem__).value,
                "depth": DEPTH_RANKS[depth],
                "token": finding.token_range.end,
                "hosts": (",".join(lacking), False),
            }
        )

    def _remember(self, row: dict[str, Any]) -> None:
        self._batch.append(row)
        if len(self._batch) >= BATCH:
            self._safely(self._flush)

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        with self._store.transaction() as db:
            for row in batch:
                row.update(tbl=self._tables[row["table"]], behind=self._set(db, *row.pop("hosts")))
                row.update(now=self._now_us, run=self._run)
            db.executemany(_RENAME, [row for row in batch if row["by_address"]])
            db.executemany(_REMEMBER, batch)

    def _set(self, db: sqlite3.Connection, hosts: str, by_address: bool) -> int:  # noqa: FBT001
        """Return the number of a set of replicas; addresses are never taken for host ids."""
        known = (hosts, by_address and bool(hosts))
        if known not in self._behind:
            db.execute("INSERT OR IGNORE INTO replica_sets (hosts, by_address) VALUES (?, ?)", known)
            found = db.execute("SELECT id FROM replica_sets WHERE hosts = ? AND by_address = ?", known).fetchone()
            self._behind[known] = int(found[0])
        return self._behind[known]

    def table_read(
        self,
        table: Table,
        depth: Depth,
        ranges: Sequence[RangeRead],
        *,
        non_owners: bool,
        trees: Sequence[TreeReport] = (),
    ) -> None:
        """Record what was read of a table, and which rows no longer differ."""
        self._safely(lambda: self._table_read(table, depth, ranges, trees, non_owners))

    def _table_read(
        self,
        table: Table,
        depth: Depth,
        ranges: Sequence[RangeRead],
        trees: Sequence[TreeReport],
        non_owners: bool,  # noqa: FBT001
    ) -> None:
        self._flush()
        read = [
            Span(
                r.token_range.start,
                r.token_range.end,
                owners_id(r.replicas),
                r.started_us,
                r.started_us if r.clean else 0,
            )
            for r in ranges
        ]
        spans = overlay(self._spans(table, depth), read)
        tbl, rank = self._tables[table.full_name], DEPTH_RANKS[depth]
        self.reached = merged(r.token_range for r in ranges)
        counted = merged(self._counted[table.full_name])
        known = (r.token_range for r in ranges if r.complete and not overlap(r.token_range, counted))
        covered = merged(known) if not self._dc else ()
        with self._store.transaction() as db:
            db.execute("DELETE FROM spans WHERE tbl = ? AND depth = ? AND dc = ?", (tbl, rank, self._dc))
            insert_spans(db, tbl, rank, self._dc, spans)
            enter_trees(db, tbl, self._dc, trees, self._now_us)
            for piece in covered:
                gone = db.execute(_FORGET, (tbl, piece.start, piece.end, rank, self._run, non_owners))
                self._gone += gone.rowcount

    def _spans(self, table: Table, depth: Depth) -> list[Span]:
        return load_spans(self._store.db, self._tables[table.full_name], DEPTH_RANKS[depth], self._dc)

    def end(self, report: Report) -> None:
        """End the run with its figures."""
        self._safely(lambda: self._end(report))

    def _end(self, report: Report) -> None:
        self._flush()
        with self._store.transaction() as db:
            states = Counter(
                dict(db.execute("SELECT state, count(*) FROM findings WHERE run = ? GROUP BY state", (self._run,)))
            )
            coverage = report.coverage
            db.execute(
                "UPDATE runs SET seconds = ?, verdict = ?, exit_code = ?, interrupted = ?, planned = ?, completed = ?,"
                " skipped = ?, failed = ?, fresh = ?, still = ?, back = ?, gone = ? WHERE number = ?",
                (
                    report.seconds,
                    report.verdict.value,
                    int(report.exit_code),
                    report.interrupted,
                    coverage.planned,
                    coverage.completed,
                    coverage.skipped,
                    coverage.failed,
                    *(states[state] for state in OPEN_STATES),
                    self._gone,
                    self._run,
                ),
            )
            kinds = [(self._run, kind, count) for kind, count in report.findings_by_kind.items()]
            db.executemany("INSERT INTO run_findings VALUES (?, ?, ?)", kinds)
            _prune(db, self._now_us - KEPT_S * 1_000_000, self._run - KEPT_RUNS)


def mark_repaired(store: Store, run_id: str, rows: Iterable[tuple[str, str, Mapping[str, str]]]) -> int:
    """Record rows (keyspace, table, key as hex) of a run that agree now; return how many were known."""
    try:
        return _mark_repaired(store, run_id, rows)
    except sqlite3.Error as error:
        msg = f"the ledger {store.path} could not be written ({error}): it does not know what was repaired"
        raise LedgerError(msg) from None


def mark_ended(store: Store, report: Report) -> None:
    """Record the verdict and the exit code of a run after its repair; its findings stay as they are."""
    try:
        with store.transaction() as db:
            db.execute(
                "UPDATE runs SET verdict = ?, exit_code = ?, interrupted = ? WHERE id = ?",
                (report.verdict.value, int(report.exit_code), report.interrupted, report.run_id),
            )
    except sqlite3.Error as error:
        msg = f"the ledger {store.path} could not be written ({error}): it does not know how the repair ended"
        raise LedgerError(msg) from None


def _mark_repaired(store: Store, run_id: str, rows: Iterable[tuple[str, str, Mapping[str, str]]]) -> int:
    secret = bytes(store.db.execute("SELECT key FROM secret").fetchone()[0])
    found = store.db.execute(
        "SELECT keyspace, name, t.id FROM tables t JOIN runs r USING (cluster) WHERE r.id = ?", (run_id,)
    )
    tables = {(keyspace, name): number for keyspace, name, number in found}
    known = ((tables[k, t], row_hash(secret, key)) for k, t, key in rows if (k, t) in tables)
    with store.transaction() as db:
        marked = db.executemany(
            f"UPDATE findings SET state = 'repaired' WHERE tbl = ? AND hash = ? AND state IN ({OPEN_LIST})", known
        )
        return max(0, marked.rowcount)


def row_hash(secret: bytes, key_hex: Mapping[str, str], non_owner: str = "") -> bytes:
    """Return a row's identity: a hash of its key with the ledger's own secret, which does not reveal the key."""
    hashed = hashlib.blake2b(key=secret, digest_size=16)
    for name, text in sorted(key_hex.items()):
        hashed.update(f"{len(name)}:{name}{len(text)}:{text}".encode())
    hashed.update(f"|{non_owner}".encode())
    return hashed.digest()


def _prune(db: sqlite3.Connection, before_us: int, before_run: int) -> None:
    db.execute("DELETE FROM findings WHERE state IN ('gone', 'repaired') AND last_us < ?", (before_us,))
    old = (before_us, before_run)
    db.execute(
        "DELETE FROM run_findings WHERE run IN (SELECT number FROM runs WHERE started_us < ? OR number < ?)", old
    )
    db.execute("DELETE FROM runs WHERE started_us < ? OR number < ?", old)
