"""Ask the servers what bears on time: what each clock shows, and how long a write may be under way."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Sequence

from consistency.cluster.connection import Connection
from consistency.errors import ReplicaError
from consistency.model.ring import Node
from consistency.model.servertime import ClockReading

DEFAULT_WRITE_TIMEOUT_S = 2.0
"""Cassandra's own default of write_request_timeout."""

_ASKED_MOST = 3
_EXACT_ENOUGH_US = 50_000
"""A clock is asked again where the answer took longer: a pause of the server or of ours lies in it."""
_TICK_US = 1_000
"""The servers tell whole milliseconds, rounded down."""
_TIMEOUT_S = 10.0
_NOW = "SELECT toUnixTimestamp(now()) AS ms FROM system.local"

_SETTINGS = {"write_request_timeout": "", "write_request_timeout_in_ms": "ms"}
"""By its name from 4.1 on and in 4.0, with the unit that a bare number has.

It is what counts for counters and lightweight transactions too: the leader of the one and the commit of the other
send their result to the replicas as ordinary writes. What their own timeouts limit comes before that, when no
replica has anything that another lacks.
"""
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+)\s*([a-zµ]*)")


async def read_clocks(connection: Connection, nodes: Iterable[Node]) -> tuple[ClockReading, ...]:
    """Read every server's clock against our monotonic one; a server that does not answer has no reading."""
    readings = await asyncio.gather(*(_read_clock(connection, node) for node in nodes))
    return tuple(reading for reading in readings if reading is not None)


async def _read_clock(connection: Connection, node: Node) -> ClockReading | None:
    best: ClockReading | None = None
    for _ in range(_ASKED_MOST):
        sent_us = time.monotonic_ns() // 1000
        try:
            rows = await connection.select(node, _NOW, timeout_s=_TIMEOUT_S)
        except ReplicaError:
            return best
        read = reading_of(node, int(rows[0]["ms"]), sent_us, time.monotonic_ns() // 1000)
        if best is None or read.uncertainty_us < best.uncertainty_us:
            best = read
        if best.uncertainty_us <= _EXACT_ENOUGH_US:
            break
    return best


def reading_of(node: Node, told_ms: int, sent_us: int, received_us: int) -> ClockReading:
    """Return what an answer says of a server's clock: it was read somewhere between the question and the answer."""
    middle_us = (sent_us + received_us) // 2
    half_us = (received_us - sent_us + 1) // 2
    return ClockReading(node, told_ms * 1000 + _TICK_US // 2 - middle_us, half_us + _TICK_US // 2)


async def longest_write_s(connection: Connection, nodes: Sequence[Node]) -> float | None:
    """Return how long a write may be under way on the most patient node; None if no node tells.

    A node that does not tell is taken to have Cassandra's default.
    """
    times = await asyncio.gather(*(_write_timeout_s(connection, node) for node in nodes))
    if all(seconds is None for seconds in times):
        return None
    return max(DEFAULT_WRITE_TIMEOUT_S if seconds is None else seconds for seconds in times)


async def _write_timeout_s(connection: Connection, node: Node) -> float | None:
    names = ", ".join(f"'{name}'" for name in _SETTINGS)
    query = f"SELECT name, value FROM system_views.settings WHERE name IN ({names})"
    try:
        rows = await connection.select(node, query, timeout_s=_TIMEOUT_S)
    except ReplicaError:
        return None  # not allowed to read it, or the node is away
    told = (seconds(str(row["value"]), _SETTINGS.get(row["name"], "")) for row in rows)
    return next((value for value in told if value is not None), None)


def seconds(text: str, unit: str = "") -> float | None:
    """Return a duration of cassandra.yaml in seconds (`2s`, `2000ms`; in 4.0 `2000`); None if it is none."""
    match = _DURATION.fullmatch(text.strip().lower())
    factor = _UNITS_S.get(match[2] or unit) if match else None
    return None if match is None or factor is None else int(match[1]) * factor
