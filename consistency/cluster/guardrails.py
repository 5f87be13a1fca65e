"""What the servers' guardrails forbid our role, found out without reading or writing any data; a refusal as a value.

`system_views.settings` shows what is configured, not whom it binds: superusers are free, and many roles may not read
it. So each node is asked by requests that do nothing: a read of system.local, an empty batch, and a delete that names
no key, which a server refuses for that alone once every guardrail has let it pass. The settings tell the rest.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consistency.cluster.connection import Connection
from consistency.cluster.wire import ALL, QUORUM, Statement
from consistency.errors import (
    ReplicaError,
    ReplicaForbidden,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooFewReplicas,
)
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.write_times import minute_text

_TIMEOUT_S = 10.0
_LONG = struct.Struct(">q")
_ANCIENT_US, _FAR_US = 1, 2**62
_GUARDRAIL = re.compile(r"Guardrail (\w+) violated:? ?([^\"]*)")
_BOUND = re.compile(r"(before|after) the (?:minimum|maximum) allowable (?:failure )?threshold (-?\d+)")
_TIMES_FORBIDDEN = re.compile(r"[Uu]ser provided timestamps|Guardrail user_timestamps\w*")
_DURATION = re.compile(r"(\d+)\s*(us|ms|s|m|h|d)")
_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_FAIL_BOUNDS = {"minimum_timestamp_fail_threshold": -1, "maximum_timestamp_fail_threshold": 1}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a server did not do for us, and why.

    `rule` is the guardrail or the permission that forbids it, empty if it is none of these. `passes`: whether
    asking again later may help. `certain`: whether nothing at all was done, as the server refused before it began.
    """

    text: str
    rule: str = ""
    passes: bool = False
    certain: bool = False

    @classmethod
    def of(cls, error: ReplicaError) -> Refusal:
        """Describe an error as a value; what was tried before and failed may have been done all the same."""
        said = re.search(_GUARDRAIL, _whole(error))
        rule = said[1] if said else "permission" if isinstance(error, ReplicaForbidden) else ""
        passing = ReplicaUnavailable | ReplicaOverloaded | ReplicaTimeout
        certain = isinstance(error, ReplicaRefused | TooFewReplicas) and not error.repeated
        return cls(_sentence(error), rule, isinstance(error, passing), certain)


@dataclass(frozen=True, slots=True)
class Guardrails:
    """What one node, asked as a coordinator, forbids our role: nothing, as far as is known, where nothing is said.

    `reads` and `writes` hold the refusal of a consistency level. Write times outside of `oldest_us` to `newest_us` are
    refused, and all of ours where `times` says so.
    """

    reads: Mapping[int, str] = field(default_factory=dict)
    writes: Mapping[int, str] = field(default_factory=dict)
    oldest_us: int | None = None
    newest_us: int | None = None
    times: str = ""
    name: str = ""

    def forbids_times(self, times: Sequence[int]) -> str:
        """Say why writes of these times are refused; empty if they are not.

        Servers look at the time of a single statement, not at those of a batch (measured on 5.0.8): the rule is the
        operator's, so it is kept for both.
        """
        if self.times or not times:
            return self.times
        if self.oldest_us is not None and min(times) < self.oldest_us:
            return (
                f"{self.name}: the guardrail minimum_timestamp (minimum_timestamp_fail_threshold) forbids writes older"
                f" than {minute_text(self.oldest_us)}"
            )
        if self.newest_us is not None and max(times) > self.newest_us:
            return (
                f"{self.name}: the guardrail maximum_timestamp (maximum_timestamp_fail_threshold) forbids writes newer"
                f" than {minute_text(self.newest_us)}"
            )
        return ""


NO_GUARDRAILS = Guardrails()


async def read_guardrails(connection: Connection, nodes: Sequence[Node], table: Table) -> dict[Node, Guardrails]:
    """Find out what each node forbids our role to do with a table's rows."""
    found = await asyncio.gather(*(_of_node(connection, node, table) for node in nodes))
    return dict(zip(nodes, found, strict=True))


async def _of_node(connection: Connection, node: Node, table: Table) -> Guardrails:
    reads = await _refused(connection, node, "SELECT key FROM system.local", (ALL,))
    writes = await _refused(connection, node, "BEGIN UNLOGGED BATCH APPLY BATCH", (ALL, QUORUM))
    # Where a level is forbidden that is said before the time is looked at.
    level = next((each for each in (QUORUM, ALL) if each not in writes), None)
    oldest, newest, times = None, None, ""
    if level is not None:
        oldest, times = await _bound(connection, node, table, _ANCIENT_US, level)
        if not times:
            newest, _ = await _bound(connection, node, table, _FAR_US, level)
    return Guardrails(reads, writes, oldest, newest, times, str(node))


async def _refused(connection: Connection, node: Node, cql: str, levels: Sequence[int]) -> dict[int, str]:
    """Return the refusal of each level that is refused; of a node that is away nothing is known."""
    found = {}
    for level in levels:
        try:
            await connection.execute(node, Statement(cql, consistency=level, timeout_s=_TIMEOUT_S))
        except ReplicaRefused as error:
            found[level] = _sentence(error)
        except ReplicaError:
            continue
    return found


async def _bound(connection: Connection, node: Node, table: Table, time_us: int, level: int) -> tuple[int | None, str]:
    """Return the bound that a write of this time would break, or why no time of ours is taken at all.

    The statement names no key, so that it is refused by every server: by the guardrail first, if there is one.
    """
    where = " AND ".join(f"{c.quoted} = ?" for c in table.partition_key)
    text = f"DELETE FROM {table.quoted} USING TIMESTAMP ? WHERE {where}"
    nothing = (None,) * len(table.partition_key)
    try:
        await connection.execute(
            node, Statement(text, (_LONG.pack(time_us), *nothing), consistency=level, timeout_s=_TIMEOUT_S)
        )
    except ReplicaForbidden:
        return await _configured(connection, node, time_us), ""
    except ReplicaRefused as error:
        said = _whole(error)
        if found := _BOUND.search(said):
            return int(found[2]), ""
        return None, _sentence(error) if _TIMES_FORBIDDEN.search(said) else ""
    except ReplicaError:
        pass
    return None, ""


async def _configured(connection: Connection, node: Node, time_us: int) -> int | None:
    """Return the bound that the settings tell, for a role that may not write here itself."""
    wanted, sign = next((n, s) for n, s in _FAIL_BOUNDS.items() if (s < 0) == (time_us == _ANCIENT_US))
    try:
        rows = await connection.select(
            node, f"SELECT value FROM system_views.settings WHERE name = '{wanted}'", timeout_s=_TIMEOUT_S
        )
    except ReplicaError:
        return None
    match = _DURATION.fullmatch(str(rows[0]["value"]).strip().lower()) if rows else None
    return None if match is None else time.time_ns() // 1000 + sign * int(match[1]) * _UNITS_US[match[2]]


def _whole(error: ReplicaError) -> str:
    """Return all that the server said: our own message is cut short."""
    return str(error.__cause__ or error)


def _sentence(error: ReplicaError) -> str:
    """Say which rule of which server is in the way."""
    said = _GUARDRAIL.search(_whole(error))
    if said is None:
        return str(error)
    return f"{error.node}: the guardrail {said[1]} forbids it: {said[2].rstrip(' .')[:160]}"
