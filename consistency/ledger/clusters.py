"""The clusters that a ledger knows, told apart by their nodes because many are called Test Cluster."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from consistency.model.identity import cluster_id, sharing_most
from consistency.model.ring import Ring


@dataclass(frozen=True, slots=True)
class KnownCluster:
    """One cluster: its number in the file, its name and id for people, and the nodes it had when last seen.

    `nodes` are `address:port`, or the first digits of the host id if the address was never recorded.
    """

    number: int
    name: str
    cluster_id: str
    nodes: tuple[str, ...] = ()


def find_cluster(db: sqlite3.Connection, name: str, host_ids: Collection[str]) -> int | None:
    """Return the number of the cluster of this name that shares most of these nodes; None if none shares any.

    Nodes that it had when last seen count first: of two clusters of one node, the later one wins.
    """
    present: dict[int, set[str]] = defaultdict(set)
    ever: dict[int, set[str]] = defaultdict(set)
    for number, host_id, here in db.execute(
        "SELECT id, host_id, present FROM clusters JOIN hosts ON cluster = id WHERE name = ? ORDER BY id DESC", (name,)
    ):
        ever[int(number)].add(host_id)
        if here:
            present[int(number)].add(host_id)
    found = sharing_most(present, host_ids)
    return sharing_most(ever, host_ids) if found is None else found


def renew_cluster(db: sqlite3.Connection, ring: Ring) -> int:
    """Record a cluster, or its current nodes and addresses; return its number."""
    number = find_cluster(db, ring.cluster, ring.host_ids)
    if number is None:
        row = (ring.cluster, ring.cluster_id)
        number = int(db.execute("INSERT INTO clusters (name, short) VALUES (?, ?)", row).lastrowid or 0)
    db.execute("UPDATE hosts SET present = 0 WHERE cluster = ?", (number,))
    db.executemany(
        "INSERT INTO hosts (cluster, host_id, address, present) VALUES (?, ?, ?, 1)"
        " ON CONFLICT (cluster, host_id) DO UPDATE SET address = excluded.address, present = 1",
        [(number, node.host_id, node.name) for node in ring.nodes],
    )
    return number


def read_clusters(db: sqlite3.Connection) -> tuple[KnownCluster, ...]:
    """Return every cluster, the one with the newest run first."""
    nodes: dict[int, list[str]] = defaultdict(list)
    for number, host_id, address in db.execute(
        "SELECT cluster, host_id, address FROM hosts WHERE present ORDER BY address, host_id"
    ):
        nodes[int(number)].append(str(address) or f"{host_id[:8]}...")
    rows = db.execute(
        "SELECT c.id, c.name, c.short FROM clusters c LEFT JOIN runs r ON r.cluster = c.id"
        " GROUP BY c.id ORDER BY max(r.number) DESC"
    )
    return tuple(KnownCluster(int(n), str(name), str(short), tuple(nodes[int(n)])) for n, name, short in rows)


def id_of_hosts(db: sqlite3.Connection, number: int, name: str) -> str:
    """Return the id of a cluster that was recorded before clusters had ids."""
    hosts = [host for (host,) in db.execute("SELECT host_id FROM hosts WHERE cluster = ?", (number,))]
    return cluster_id(name, hosts)
