"""The roots and leaf hashes of the Merkle trees of earlier runs: a table that nobody changed has the same tomorrow."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from consistency.ledger.spans import owners_id
from consistency.results.tree_report import TreeReport

CREATE = """
CREATE TABLE roots (
  tbl INTEGER NOT NULL, scheme TEXT NOT NULL, dc TEXT NOT NULL, owners INTEGER NOT NULL, hosts TEXT NOT NULL,
  root BLOB, leaves INTEGER NOT NULL, changed INTEGER NOT NULL, since_us INTEGER NOT NULL, read_us INTEGER NOT NULL,
  PRIMARY KEY (tbl, scheme, dc, owners)) WITHOUT ROWID;
CREATE TABLE leaf_hashes (
  tbl INTEGER NOT NULL, scheme TEXT NOT NULL, dc TEXT NOT NULL, owners INTEGER NOT NULL, start INTEGER NOT NULL,
  end INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (tbl, scheme, dc, owners, start)) WITHOUT ROWID;
"""
"""The tables; a root is null where replicas differed when they were last read."""


@dataclass(frozen=True, slots=True)
class KnownTree:
    """One replica set's tree as it was last read whole.

    `replicas` are host ids. `root` is None if they had none in common. `changed` leaves had another hash than when
    they were read before. Times in microseconds: `since_us` is when this root was first seen, with no other since.
    """

    replicas: tuple[str, ...]
    scheme: str
    root: bytes | None
    leaves: int
    changed: int
    since_us: int
    read_us: int


def enter_trees(db: sqlite3.Connection, tbl: int, dc: str, trees: Sequence[TreeReport], now_us: int) -> None:
    """Enter the trees of a table that were read whole; of one that was not, nothing is said."""
    for tree in trees:
        if all(tree.roots.values()):
            _enter(db, (tbl, tree.scheme, dc, owners_id(tree.replicas)), tree, now_us)


def _enter(db: sqlite3.Connection, place: tuple[int, str, str, int], tree: TreeReport, now_us: int) -> None:
    where = "WHERE tbl = ? AND scheme = ? AND dc = ? AND owners = ?"
    known = db.execute(f"SELECT root, since_us FROM roots {where}", place).fetchone()
    same = known is not None and tree.root is not None and known[0] == tree.root
    before = set(db.execute(f"SELECT start, end, hash FROM leaf_hashes {where}", place))
    leaves = {(token_range.start, token_range.end, digest) for token_range, digest in tree.agreed}
    changed = 0 if known is None else tree.leaves - len(leaves & before)
    hosts = ",".join(node.host_id for node in tree.replicas)
    since_us = known[1] if same else now_us
    db.execute(
        "INSERT OR REPLACE INTO roots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*place, hosts, tree.root, tree.leaves, changed, since_us, now_us),
    )
    if leaves != before:
        db.execute(f"DELETE FROM leaf_hashes {where}", place)
        rows = ((*place, *leaf) for leaf in sorted(leaves))
        db.executemany("INSERT INTO leaf_hashes VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def forget_trees(db: sqlite3.Connection, tbl: int) -> None:
    """Forget a table's trees: it was dropped or altered, or its ranges have other replicas."""
    for name in ("roots", "leaf_hashes"):
        db.execute(f"DELETE FROM {name} WHERE tbl = ?", (tbl,))


def known_trees(db: sqlite3.Connection, tbl: int) -> tuple[KnownTree, ...]:
    """Return a table's trees over the replicas of all DCs, of the scheme that was read last."""
    rows = db.execute(
        "SELECT hosts, scheme, root, leaves, changed, since_us, read_us FROM roots WHERE tbl = ? AND dc = ''"
        " ORDER BY owners",
        (tbl,),
    ).fetchall()
    trees = [KnownTree(tuple(hosts.split(",")), *rest) for hosts, *rest in rows]
    newest = max(trees, key=lambda tree: tree.read_us, default=None)
    return tuple(tree for tree in trees if newest is not None and tree.scheme == newest.scheme)
