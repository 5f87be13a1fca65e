"""What comparisons of two clusters have shown before: for each pair of tables when it was last compared, and equal.

A pair of clusters is known again by their names and a node on either side, whatever other nodes came or went. What was
equal before a table was altered or made anew says nothing of it now.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass

from consistency.ledger.store import Store
from consistency.model.ring import Ring
from consistency.model.schema import Table
from consistency.results.verdict import Verdict

_APART_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """A table of the source, its counterpart in the target, and what is compared of them (`terms`, any text)."""

    source: Table
    target: Table
    terms: str

    @property
    def name(self) -> tuple[str, str, str, str]:
        """Keyspace and table of the source, the target's table, and the terms."""
        return self.source.keyspace, self.source.name, self.target.full_name, self.terms

    @property
    def identity(self) -> str:
        """What changes when either table is altered, or made anew."""
        return hashlib.sha256(f"{self.source.fingerprint} {self.target.fingerprint}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class PastComparison:
    """When a pair of tables was last compared and last equal, as the start of that comparison (microseconds).

    `placement` tells where the rows lay that were compared last; it is empty if that is not known.
    """

    compared_us: int
    equal_us: int | None
    verdict: Verdict
    placement: str = ""

    def is_before(self, now_us: int) -> bool:
        """Whether all of it was before a time. Clocks of servers may be so far apart that it looks a little later."""
        return max(self.compared_us, self.equal_us or 0) <= now_us + _APART_US

    def proves_equal(self, placement: str, since_us: int, now_us: int) -> bool:
        """Whether the last comparison found the tables equal, began between two times, and read the replicas of now.

        What is later than now was told by a wrong clock, and its true age is not known.
        """
        found = self.verdict is Verdict.CONSISTENT and self.equal_us == self.compared_us
        return found and placement == self.placement and since_us <= self.compared_us <= now_us


class PairsLedger:
    """The comparisons of one pair of clusters in an open ledger."""

    def __init__(self, store: Store, source: Ring, target: Ring) -> None:
        self._store = store
        self._source = source
        self._target = target

    def past(self, pair: ComparedPair, now_us: int) -> PastComparison | None:
        """Return what is known of a pair of tables; None if it never was compared as it is now.

        `now_us` is the servers' time: what was compared after it, by a clock that was wrong, is not known.
        """
        number = self._number(self._store.db)
        if number is None:
            return None
        row = self._store.db.execute(
            "SELECT compared_us, equal_us, verdict, placement FROM compared WHERE pair = ? AND keyspace = ?"
            " AND name = ? AND target = ? AND terms = ? AND identity = ?",
            (number, *pair.name, pair.identity),
        ).fetchone()
        if row is None:
            return None
        try:
            equal_us = None if row[1] is None else int(row[1])
            known = PastComparison(int(row[0]), equal_us, Verdict(row[2]), str(row[3]))
        except (TypeError, ValueError):
            raise _damaged() from None
        return known if known.is_before(now_us) else None

    def record(self, pair: ComparedPair, compared_us: int, verdict: Verdict, placement: str = "") -> PastComparison:
        """Record a comparison that has ended; return what is known of its tables now."""
        with self._store.transaction() as db:
            before = self.past(pair, compared_us)
            equal_us = before.equal_us if before is not None else None
            equal_us = compared_us if verdict is Verdict.CONSISTENT else equal_us
            known = PastComparison(compared_us, equal_us, verdict, placement)
            db.execute(
                "INSERT OR REPLACE INTO compared (pair, keyspace, name, target, terms, identity, compared_us, equal_us,"
                " verdict, placement) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self._renewed(db), *pair.name, pair.identity, compared_us, equal_us, verdict.value, placement),
            )
        return known

    def _number(self, db: sqlite3.Connection) -> int | None:
        """Return the newest pair of clusters of these names that shares a node with either side."""
        rows = db.execute(
            "SELECT id, source_hosts, target_hosts FROM pairs WHERE source = ? AND target = ? ORDER BY id DESC",
            (self._source.cluster, self._target.cluster),
        )
        for number, of_source, of_target in rows:
            try:
                known = (set(json.loads(of_source)), set(json.loads(of_target)))
                found = int(number)
            except (TypeError, ValueError):
                raise _damaged() from None
            if known[0] & self._source.host_ids and known[1] & self._target.host_ids:
                return found
        return None

    def _renewed(self, db: sqlite3.Connection) -> int:
        """Record the pair, or the nodes that it has now; return its number."""
        number = self._number(db)
        hosts = tuple(json.dumps(sorted(ring.host_ids)) for ring in (self._source, self._target))
        if number is None:
            row = (self._source.cluster, self._target.cluster, *hosts)
            insert = "INSERT INTO pairs (source, target, source_hosts, target_hosts) VALUES (?, ?, ?, ?)"
            return int(db.execute(insert, row).lastrowid or 0)
        db.execute("UPDATE pairs SET source_hosts = ?, target_hosts = ? WHERE id = ?", (*hosts, number))
        return number


def _damaged() -> sqlite3.DatabaseError:
    """Return the error of a row that SQLite reads and that nobody can have written."""
    return sqlite3.DatabaseError("what it holds of two clusters is damaged")
