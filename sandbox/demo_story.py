"""What the demo writes and damages: one table, one row for every kind of damage, and the expected findings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

KEYSPACE = "demo"
ROWS = 100_000
_PER_BATCH = 100

SCHEMA = (
    f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = {{'class': 'NetworkTopologyStrategy', 'dc1': 3}}",
    f"""
    CREATE TABLE IF NOT EXISTS {KEYSPACE}.orders (
        shop int, id int, note text static, buyer text, cents bigint, tags map<text, text>, PRIMARY KEY (shop, id))
    """,
)
UNSAFE = """
    CREATE KEYSPACE IF NOT EXISTS demo_unsafe
    WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
"""
"""A keyspace that breaks the rules of replication, for the audit."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A write that reaches only one node, and the kind and key of its expected finding."""

    node: int
    cql: str
    says: str
    kind: str
    key: dict[str, int] = field(default_factory=dict)


def batches(base_us: int) -> Iterator[str]:
    """Yield the statements that write the table: unlogged batches of one partition each."""
    for shop in range(ROWS // _PER_BATCH):
        inserts = [
            f"INSERT INTO {KEYSPACE}.orders (shop, id, note, buyer, cents, tags) VALUES ({shop}, {i}, 'shop {shop}',"
            f" 'buyer {shop * _PER_BATCH + i:06d}', {shop * 7 + i}, {{'paid': 'yes'}})"
            for i in range(_PER_BATCH)
        ]
        yield f"BEGIN UNLOGGED BATCH USING TIMESTAMP {base_us} {'; '.join(inserts)}; APPLY BATCH"


def damages(base_us: int) -> tuple[Damage, ...]:
    """Return one of every kind of damage."""
    table = f"{KEYSPACE}.orders"
    at, later = f"USING TIMESTAMP {base_us}", f"USING TIMESTAMP {base_us + 1}"
    future = f"USING TIMESTAMP {time.time_ns() // 1000 + 30 * 86_400_000_000}"

    def row(shop: int, order: int) -> str:
        return f"WHERE shop = {shop} AND id = {order}"

    return (
        Damage(1, f"DELETE FROM {table} {later} {row(11, 1)}", "loses a row", "missing", {"shop": 11, "id": 1}),
        Damage(
            2,
            f"INSERT INTO {table} (shop, id, buyer) VALUES (22, 500, 'only here') {at}",
            "gets a row that the others do not",
            "missing",
            {"shop": 22, "id": 500},
        ),
        Damage(
            3,
            f"UPDATE {table} {later} SET cents = 1 {row(33, 3)}",
            "alone has the newest version of a cell",
            "stale",
            {"shop": 33, "id": 3},
        ),
        Damage(
            1,
            f"UPDATE {table} {later} SET tags['paid'] = 'no' {row(44, 4)}",
            "alone has a newer element of a map",
            "stale",
            {"shop": 44, "id": 4},
        ),
        Damage(
            2, f"UPDATE {table} {later} SET note = 'new' WHERE shop = 55", "has another static", "stale", {"shop": 55}
        ),
        Damage(
            3,
            f"UPDATE {table} {at} SET buyer = 'somebody else' {row(66, 6)}",
            "holds another value of the same write time",
            "tie",
            {"shop": 66, "id": 6},
        ),
        Damage(
            1,
            f"UPDATE {table} {at} AND TTL 864000 SET cents = {77 * 7 + 7} {row(77, 7)}",
            "holds the same value, but it will expire",
            "expiry",
            {"shop": 77, "id": 7},
        ),
        Damage(
            2,
            f"INSERT INTO {table} (shop, id, buyer) VALUES (88, 900, 'deleted long ago') USING TIMESTAMP 1000000",
            "brings back a row older than gc_grace_seconds",
            "zombie_suspect",
            {"shop": 88, "id": 900},
        ),
        Damage(
            3,
            f"UPDATE {table} {future} SET cents = 2 {row(99, 9)}",
            "takes a write from a clock a month ahead",
            "future_write_time",
            {"shop": 99, "id": 9},
        ),
    )
