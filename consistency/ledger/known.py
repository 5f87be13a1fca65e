"""What the ledger knows of a cluster's tables, and which part is still valid.

A clean pass is about the nodes that owned a range and the columns that the table had. If other nodes own the
range now, or the table was altered, the range is unchecked again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

from consistency.ledger.port import RunFacts
from consistency.ledger.roots import forget_trees
from consistency.ledger.spans import Span, owned_spans, still_owned
from consistency.model.ring import Arc, Replication
from consistency.model.schema import Table
from consistency.model.scope import choose_tables


def load_spans(db: sqlite3.Connection, tbl: int, depth: int, dc: str) -> list[Span]:
    """Return what is known of a table's ranges, in ring order."""
    rows = db.execute(
        "SELECT start, end, owners, tried_us, clean_us FROM spans"
        " WHERE tbl = ? AND depth = ? AND dc = ? ORDER BY start",
        (tbl, depth, dc),
    )
    return [Span(*row) for row in rows]


def insert_spans(db: sqlite3.Connection, tbl: int, depth: int, dc: str, spans: Sequence[Span]) -> None:
    """Record a table's ranges."""
    rows = ((tbl, depth, dc, s.start, s.end, s.owners, s.tried_us, s.clean_us) for s in spans)
    db.executemany("INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


class KnownTables:
    """The current tables of a cluster, compared with those that the ledger knows."""

    def __init__(self, db: sqlite3.Connection, cluster: int, facts: RunFacts) -> None:
        self._db = db
        self._cluster = cluster
        self._facts = facts
        self._arcs: dict[Replication, tuple[Arc, ...]] = {}

    def renewed(self) -> dict[str, int]:
        """Record every user table and every table in scope, forget dropped ones; return the numbers by name."""
        schema = self._facts.schema
        wanted = {t.full_name: t for t in (*choose_tables(schema, ()).tables, *self._facts.tables)}
        numbers = {name: self._renew(table) for name, table in wanted.items()}
        known = self._db.execute("SELECT id, keyspace, name FROM tables WHERE cluster = ?", (self._cluster,)).fetchall()
        for number, keyspace, name in known:
            exists = keyspace in schema and (name in schema[keyspace].tables or name in schema[keyspace].unreadable)
            if not exists:
                self._forget(number, "findings")
                self._forget(number, "spans")
                forget_trees(self._db, number)
                self._db.execute("DELETE FROM tables WHERE id = ?", (number,))
        return numbers

    def _renew(self, table: Table) -> int:
        replication = self._facts.schema[table.keyspace].replication
        placement = hashlib.sha256(f"{self._facts.ring.fingerprint} {replication}".encode()).hexdigest()[:32]
        row = self._db.execute(
            "SELECT id, table_id, fingerprint, placement FROM tables WHERE cluster = ? AND keyspace = ? AND name = ?",
            (self._cluster, table.keyspace, table.name),
        ).fetchone()
        if row is None:
            identity = (self._cluster, table.keyspace, table.name, table.table_id)
            entered = self._db.execute(
                "INSERT INTO tables (cluster, keyspace, name, table_id, fingerprint, placement, compared, gc_grace_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*identity, table.fingerprint, placement, self._compared(replication), table.gc_grace_seconds),
            )
            return int(entered.lastrowid or 0)
        number, table_id, fingerprint, placed = row
        if table_id != table.table_id:
            self._forget(number, "findings")
        if fingerprint != table.fingerprint or placed != placement:
            forget_trees(self._db, number)
        if fingerprint != table.fingerprint:
            self._forget(number, "spans")
        elif placed != placement:
            self._keep_what_is_still_owned(number, replication)
        self._db.execute(
            "UPDATE tables SET table_id = ?, fingerprint = ?, placement = ?, compared = ?, gc_grace_s = ? WHERE id = ?",
            (
                table.table_id,
                table.fingerprint,
                placement,
                self._compared(replication),
                table.gc_grace_seconds,
                number,
            ),
        )
        return int(number)

    def _compared(self, replication: Replication) -> bool:
        """Whether there is another replica to compare with."""
        return any(len(arc.replicas) > 1 for arc in self._of(replication))

    def _of(self, replication: Replication) -> tuple[Arc, ...]:
        if replication not in self._arcs:
            self._arcs[replication] = self._facts.ring.arcs(replication) if replication.replicated else ()
        return self._arcs[replication]

    def _keep_what_is_still_owned(self, number: int, replication: Replication) -> None:
        """Void the passes of ranges that other nodes own now, because those nodes were not compared."""
        layers = self._db.execute("SELECT DISTINCT depth, dc FROM spans WHERE tbl = ?", (number,)).fetchall()
        kept = []
        for depth, dc in layers:
            arcs = self._of(replication)
            if dc:
                arcs = tuple(Arc(tuple(n for n in a.replicas if n.dc == dc), a.ranges) for a in arcs)
            kept.append((depth, dc, still_owned(load_spans(self._db, number, depth, dc), owned_spans(arcs))))
        self._forget(number, "spans")
        for depth, dc, spans in kept:
            insert_spans(self._db, number, depth, dc, spans)

    def _forget(self, number: int, what: str) -> None:
        self._db.execute(f"DELETE FROM {what} WHERE tbl = ?", (number,))
