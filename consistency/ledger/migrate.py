"""Upgrades a ledger of an earlier version to this schema, in place and in one transaction.

1 to 2: replicas are known by host id instead of `address:port`, which may belong to another node tomorrow. The old
file does not say which node had an address: rows keep the address, marked, until they are found again. Clusters
get an id.
2 to 3: the roots and leaf hashes of Merkle trees are kept.
3 to 4: parts of runs are kept.
4 to 5: comparisons of two clusters are kept.
5 to 6: and where the rows lay that were compared. Of earlier comparisons that is not known, so they prove nothing now.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

from consistency.ledger.clusters import id_of_hosts
from consistency.ledger.roots import CREATE


def migrate(db: sqlite3.Connection, to: int) -> None:
    """Upgrade the file to schema `to` if there are steps for it; a kill in the middle leaves it unchanged."""
    if _version(db) == to or _version(db) not in _STEPS:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        while (version := _version(db)) != to and version in _STEPS:  # another process may have upgraded it first
            _STEPS[version](db)
            db.execute(f"PRAGMA user_version = {version + 1}")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _by_host_id(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE clusters ADD COLUMN short TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE hosts ADD COLUMN address TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE hosts ADD COLUMN present INTEGER NOT NULL DEFAULT 1")
    for number, name in db.execute("SELECT id, name FROM clusters").fetchall():
        db.execute("UPDATE clusters SET short = ? WHERE id = ?", (id_of_hosts(db, number, name), number))
    db.execute("ALTER TABLE replica_sets RENAME TO by_name")
    db.execute(
        "CREATE TABLE replica_sets (id INTEGER PRIMARY KEY, hosts TEXT NOT NULL, by_address INTEGER NOT NULL,"
        " UNIQUE (hosts, by_address))"
    )
    db.execute("INSERT INTO replica_sets SELECT id, names, names <> '' FROM by_name")
    db.execute("DROP TABLE by_name")


PARTS = """
CREATE TABLE parts (
  run TEXT NOT NULL, of INTEGER NOT NULL, number INTEGER NOT NULL, id TEXT NOT NULL, started_us INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (run, of, number));
CREATE TABLE merged (part TEXT PRIMARY KEY, run TEXT NOT NULL) WITHOUT ROWID;
"""
"""Accounts of parts (part_account.py, compressed), and the parts of runs that were merged whole."""


COMPARED = """
CREATE TABLE pairs (
  id INTEGER PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL, source_hosts TEXT NOT NULL,
  target_hosts TEXT NOT NULL);
CREATE TABLE compared (
  pair INTEGER NOT NULL, keyspace TEXT NOT NULL, name TEXT NOT NULL, target TEXT NOT NULL, terms TEXT NOT NULL,
  identity TEXT NOT NULL, compared_us INTEGER NOT NULL, equal_us INTEGER, verdict TEXT NOT NULL,
  PRIMARY KEY (pair, keyspace, name, target, terms)) WITHOUT ROWID;
"""
"""Pairs of clusters, and the latest comparison of each pair of their tables (pairs.py)."""

PLACED = "ALTER TABLE compared ADD COLUMN placement TEXT NOT NULL DEFAULT ''"


def _with_roots(db: sqlite3.Connection) -> None:
    for statement in CREATE.split(";"):
        db.execute(statement)


def _with_parts(db: sqlite3.Connection) -> None:
    for statement in PARTS.split(";"):
        db.execute(statement)


def _with_comparisons(db: sqlite3.Connection) -> None:
    for statement in COMPARED.split(";"):
        db.execute(statement)


def _with_placements(db: sqlite3.Connection) -> None:
    db.execute(PLACED)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


_STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = MappingProxyType(
    {1: _by_host_id, 2: _with_roots, 3: _with_parts, 4: _with_comparisons, 5: _with_placements}
)
"""The step from each schema to the next."""
