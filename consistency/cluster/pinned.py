"""Statements to one pinned node: proven to be answered by itself, tried again within bounds."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from consistency.cluster.connection import Connection
from consistency.cluster.locality import TraceEvent, TracesLeft, proves_local
from consistency.cluster.throttle import Politeness, Turn
from consistency.cluster.wire import ALL, LOCAL_ONE, LOCAL_QUORUM, NODE_LOCAL, ONE, OWN, Page, Statement
from consistency.errors import (
    LevelForbidden,
    NotProvenLocal,
    ReplicaError,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooFewReplicas,
)
from consistency.model.reading import Locality, RawRow
from consistency.model.ring import Node

_TRACE_POLLS = 60
_LOCAL_ATTEMPTS, _AFTER_NONE = 12, 3
"""So many reads to prove one answer, and so many where the last one of the node could not be proven."""
_LEVELS = {Locality.NODE_LOCAL: NODE_LOCAL, Locality.QUORUM: LOCAL_QUORUM}
"""The consistency level at which a node's answer is known to be what was asked for, whatever a trace says."""
_SMALL_READS = 50
_SNITCH_UPDATES_S = 0.15
"""The servers' dynamic_snitch_update_interval, 100 ms, and half as much again."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How hard the cluster is asked.

    `lanes`: digest queries at once per node (at most one per spelling of the algorithm). `streams`: row
    reads at once per node. Of both, `politeness` allows less while others work with the cluster. Page sizes are
    in rows; `page_bytes` bounds the memory one page takes.
    """

    lanes: int = 4
    streams: int = 4
    page_rows: int = 5_000
    page_bytes: int = 16 * 1024 * 1024
    digest_page_rows: int = 50_000
    timeout_s: float = 30.0
    probe_timeout_s: float = 5.0
    attempts: int = 4
    down_for_s: float = 10.0
    politeness: Politeness = field(default_factory=Politeness)
    reader: int = 0
    """The number of this reader, from 0, among the `readers` that read the cluster together."""
    readers: int = 1


class PinnedAccess:
    """Asks nodes one by one, each in the way that shows its answers to be its own."""

    def __init__(self, connection: Connection, localities: Mapping[Node, Locality], limits: ReadLimits) -> None:
        self.connection = connection
        self.limits = limits
        self._traces = TracesLeft()
        self._localities = localities
        self._left_alone: dict[Node, tuple[float, str]] = {}
        self._unproven: set[Node] = set()

    def locality(self, node: Node) -> Locality:
        """Say how answers of this node are known to be its own."""
        return self._localities[node]

    def traced(self, node: Node) -> bool:
        """Whether a trace must prove each answer of this node to be its own."""
        return self._localities[node] is Locality.TRACED

    @property
    def traces(self) -> TracesLeft:
        """What proofs by trace have left on the servers so far."""
        return replace(self._traces)

    def paged_by_itself(self, node: Node, statement: Statement, rows: int) -> None:
        """Take note of how many rows a server read for one answer, in pages of the size that was asked for."""
        if self.traced(node) and rows >= statement.page_size:
            self._traces.add_further_pages()

    def answers(self, node: Node) -> bool:
        """Whether the node is not known to have been silent or gone a moment ago."""
        return self._left_alone.get(node, (0.0, ""))[0] <= time.monotonic()

    def _leave_alone(self, node: Node, reason: str) -> None:
        """Ask a node nothing for a while: asking one that does not answer takes long each time."""
        self._left_alone[node] = time.monotonic() + self.limits.down_for_s, reason

    async def _tell_slow_from_silent(self, node: Node) -> None:
        """After a timeout, ask the node something easy: one that does not answer that is not busy."""
        easy = Statement("SELECT key FROM system.local", timeout_s=self.limits.probe_timeout_s)
        try:
            await self.connection.execute(node, easy)
        except ReplicaError as error:
            reason = "connected but silent: it does not even answer a read of system.local"
            self._leave_alone(node, reason)
            raise ReplicaUnavailable(reason, node) from error

    async def ask(self, node: Node, statement: Statement, turn: Turn | None = None) -> Page:
        """Run a statement so that the answer is this node's own; `turn` learns how long its proof was waited for."""
        if (level := _LEVELS.get(self._localities[node])) is not None:
            return await self.retrying(node, replace(statement, consistency=level))
        return (await self._proven(node, statement, turn or Turn()))[0]

    async def ask_traced(self, node: Node, statement: Statement) -> tuple[Page, list[TraceEvent]]:
        """Run a statement so that the answer is this node's own; return with it what a trace tells of how it was read.

        No events where the trace did not end in time.
        """
        if self.traced(node):
            return await self._proven(node, statement, Turn())
        statement = replace(statement, consistency=NODE_LOCAL, trace=True)
        self._traces.add(statement)
        page = await self.retrying(node, statement)
        return page, await self._trace(node, page.trace_id) or []

    async def _proven(self, node: Node, statement: Statement, turn: Turn) -> tuple[Page, list[TraceEvent]]:
        statement = replace(statement, consistency=LOCAL_ONE, trace=True)
        attempts = _AFTER_NONE if node in self._unproven else _LOCAL_ATTEMPTS
        for attempt in range(attempts):
            self._traces.add(statement)
            page = await self.retrying(node, statement)
            answered = time.monotonic()
            events = await self._trace(node, page.trace_id)
            turn.idle_s += time.monotonic() - answered
            if events is not None and proves_local(events, node.broadcast):
                self._unproven.discard(node)
                return page, events
            await self._recommend_to_itself(node, attempt)
        self._unproven.add(node)
        reason = f"{attempts} reads in turn were not shown to be its own; allow NODE_LOCAL on the servers"
        raise NotProvenLocal(reason, node)

    async def _recommend_to_itself(self, node: Node, attempt: int) -> None:
        """Have a coordinator prefer its own replica, after it has preferred another one.

        Its dynamic snitch compares the median times of recent reads, and a digest of many rows makes it look slow
        to itself. Small reads of a table that only it can answer make it look as fast as it is: of 20 digests of a
        table of 50,000 rows, 5 to 12 were its own at the first attempt, and 20 after 50 such reads.
        """
        small = Statement("SELECT key FROM system.local WHERE key = 'local'", timeout_s=self.limits.probe_timeout_s)
        with suppress(ReplicaError):  # the next attempt finds out what is wrong
            for _ in range(_SMALL_READS):
                await self.connection.execute(node, small)
        await asyncio.sleep(_SNITCH_UPDATES_S + min(0.02 * attempt, 0.5))

    async def _trace(self, node: Node, trace_id: bytes | None) -> list[TraceEvent] | None:
        """Return a finished trace's events, or None if it did not finish in time.

        The coordinator writes its events in order and the duration last, so a trace that has its duration
        has all of the coordinator's events. Reading at ALL finds them whichever replica holds them.
        """
        if trace_id is None:
            return None
        session = Statement("SELECT duration FROM system_traces.sessions WHERE session_id = ?", (trace_id,), ALL)
        events = Statement(
            "SELECT activity, source, source_port FROM system_traces.events WHERE session_id = ?",
            (trace_id,),
            ALL,
        )
        for poll in range(_TRACE_POLLS):
            await asyncio.sleep(min(0.005 * (poll + 1), 0.1))
            try:
                found = (await self.connection.execute(node, session)).rows()
                if found and found[0][0] is not None:
                    return [_event(row) for row in (await self.connection.execute(node, events)).rows()]
            except ReplicaRefused:
                raise  # a lasting one, and no answer could ever be proven
            except ReplicaUnavailable:
                session, events = replace(session, consistency=ONE), replace(events, consistency=ONE)
            except ReplicaError:
                continue
        return None

    async def retrying(self, node: Node, statement: Statement) -> Page:
        """Run a statement, trying again while the node is overloaded or away, then fail fast for a while."""
        if not self.answers(node):
            reason = f"did not answer a moment ago: {self._left_alone[node][1]}"
            raise ReplicaUnavailable(reason, node)
        try:
            page = await self._attempts(node, statement)
        except TooFewReplicas:
            raise  # it answered: whom it lacks are others
        except ReplicaUnavailable as error:
            self._leave_alone(node, error.reason)
            raise
        except ReplicaTimeout:
            await self._tell_slow_from_silent(node)
            raise
        self._left_alone.pop(node, None)
        return page

    async def _attempts(self, node: Node, statement: Statement) -> Page:
        """Run a statement until it is answered or tried often enough.

        The first time without tenacity, which costs more than a small request does.
        """
        try:
            return await self.connection.execute(node, statement)
        except ReplicaError as error:
            failed = [error]

        async def attempt() -> Page:
            if failed:
                raise failed.pop()
            return await self.connection.execute(node, statement)

        attempts = AsyncRetrying(
            retry=retry_if_exception(_passing),
            stop=stop_after_attempt(self.limits.attempts),
            wait=wait_random_exponential(multiplier=0.2, max=3.0),
            reraise=True,
        )
        try:
            page: Page = await attempts(attempt)
        except ReplicaError as error:
            error.repeated = attempts.statistics["attempt_number"] > 1
            raise
        return page


async def probe(connection: Connection, node: Node, forced: Locality | None) -> Locality | ReplicaError:
    """Find out how a node can be read; the error if it does not answer."""
    attempts = AsyncRetrying(
        retry=retry_if_exception(_passing),
        stop=stop_after_attempt(4),
        wait=wait_random_exponential(multiplier=0.2, max=1.0),
        reraise=True,
    )
    ask = Statement("SELECT key FROM system.local", consistency=NODE_LOCAL, timeout_s=10.0)
    try:
        if forced in (Locality.TRACED, Locality.QUORUM):
            ask = replace(ask, consistency=OWN)
        await attempts(connection.execute, node, ask)
    except ReplicaRefused as error:
        if forced is Locality.NODE_LOCAL:
            if isinstance(error, LevelForbidden):
                raise
            msg = (
                f"{node} refuses NODE_LOCAL: start it with -Dcassandra.enable_nodelocal_queries=true, "
                "or use --locality traced"
            )
            raise ReplicaRefused(msg) from None
        return Locality.TRACED
    except ReplicaError as error:
        return error
    return forced or Locality.NODE_LOCAL


def _passing(error: BaseException) -> bool:
    """Whether asking again may help: overload, a lost connection, or an error inside the server.

    The last is what a disturbed mask_hash looks like when it does not merely give a wrong hash.
    """
    return isinstance(error, ReplicaOverloaded | ReplicaUnavailable) or type(error) is ReplicaError


def _event(row: RawRow) -> TraceEvent:
    activity, source, port = row
    address = str(ipaddress.ip_address(source or b""))
    return TraceEvent((activity or b"").decode("utf-8", "replace"), f"{address}:{int.from_bytes(port or b'', 'big')}")
