"""A trace proves that one replica answered alone, or it proves nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import cast

import pytest

from consistency.cluster.connection import Connection
from consistency.cluster.locality import TraceEvent, proves_local
from consistency.cluster.pinned import PinnedAccess, ReadLimits
from consistency.cluster.wire import Page, Statement
from consistency.errors import NotProvenLocal
from consistency.model.reading import Locality
from consistency.model.ring import Node

HERE, THERE = "127.0.0.2:7000", "127.0.0.1:7000"
LOCAL = [
    "Parsing SELECT a FROM k.b WHERE pk=5",
    "Preparing statement",
    "Executing single-partition query on b",
    "Acquiring sstable references",
    "Read 4 live rows and 0 tombstone cells",
]
SCAN = ["Computing ranges to query", "Executing seq scan across 2 sstables for (max(0), max(100)]"]


def events(*activities: str, source: str = HERE) -> list[TraceEvent]:
    """Make events of one node."""
    return [TraceEvent(activity, source) for activity in activities]


@pytest.mark.parametrize("activities", [LOCAL, SCAN])
def test_a_read_on_the_pinned_node_alone_is_proven(activities: list[str]) -> None:
    """The read executed there, and nothing was asked of another node."""
    assert proves_local(events(*activities), HERE)


@pytest.mark.parametrize(
    "activity",
    [
        "Enqueuing request to Full(127.0.0.1/127.0.0.1:7000,(-3843,12337])",
        "Sending RANGE_REQ message to /127.0.0.1:7000 message size 113 bytes",
        "Sending READ_REQ message to /127.0.0.1:7000 message size 98 bytes",
        "reading digest from 127.0.0.1/127.0.0.1:7000",
        "reading data from /127.0.0.1:7000",
    ],
)
def test_a_read_that_asked_another_node_is_not(activity: str) -> None:
    """Even where the pinned node executed a read of its own as well."""
    assert not proves_local(events(*LOCAL, activity), HERE)


def test_any_event_of_another_node_spoils_the_proof() -> None:
    """Also of a node on the same address with another port."""
    assert not proves_local(events(*LOCAL) + events("RANGE_REQ message received", source=THERE), HERE)
    assert not proves_local(events(*LOCAL, source="127.0.0.2:7001"), HERE)


def test_a_trace_without_an_executed_read_proves_nothing() -> None:
    """An empty or partial trace is no proof, nor is the server's own look at its peers."""
    assert not proves_local([], HERE)
    assert not proves_local(events("Parsing SELECT", "Preparing statement"), HERE)
    assert not proves_local(events("Executing single-partition query on peers_v2"), HERE)


class TwoFaced:
    """A connection whose pinned node answers with another replica's rows, and says so in its trace, but for one try."""

    def __init__(self, honest_try: int) -> None:
        self.tries = 0
        self._honest_try = honest_try

    async def execute(self, node: Node, statement: Statement) -> Page:
        """Answer a read, or describe the trace of the last one."""
        honest = self.tries == self._honest_try
        if "sessions" in statement.cql:
            return page((5).to_bytes(4, "big"))
        if "events" in statement.cql:
            source = "127.0.0.2" if honest else "127.0.0.1"
            return page(b"Executing seq scan across 1 sstables", ip_address(source).packed, (7000).to_bytes(4, "big"))
        if not statement.trace:
            return self.small_read(statement)
        self.tries += 1
        return replace(page(b"own" if self.tries == self._honest_try else b"foreign"), trace_id=b"0" * 16)

    def small_read(self, statement: Statement) -> Page:
        """Answer a read that no trace has to prove."""
        assert "system.local" in statement.cql
        return page(b"local")


class SlowToItself(TwoFaced):
    """A connection whose pinned node asks another replica until small reads have made it look fast to itself."""

    def __init__(self, reads: int) -> None:
        super().__init__(-1)
        self._reads = reads

    def small_read(self, statement: Statement) -> Page:
        """Count it."""
        self._reads -= 1
        if self._reads == 0:
            self._honest_try = self.tries + 1
        return super().small_read(statement)


def page(*cells: bytes) -> Page:
    """Return a page of one row."""
    return Page(1, len(cells), b"".join(len(cell).to_bytes(4, "big") + cell for cell in cells))


PINNED = Node("host", "127.0.0.2", 9042, "dc1", "r1", (1,), "4.1.10", broadcast=HERE)


@pytest.mark.parametrize("honest_try", [1, 4])
def test_what_another_replica_answered_is_thrown_away(honest_try: int) -> None:
    """Asked again until the trace shows the pinned node alone: never the other one's rows."""
    connection = TwoFaced(honest_try)
    access = PinnedAccess(cast("Connection", connection), {PINNED: Locality.TRACED}, ReadLimits())
    answer = asyncio.run(access.ask(PINNED, Statement("SELECT v FROM k.t")))
    assert answer.rows() == [(b"own",)]
    assert connection.tries == honest_try


def test_a_node_that_prefers_another_replica_is_brought_to_prefer_its_own() -> None:
    """A long digest makes a replica look slow to its own snitch: fifty small reads come before the next attempt."""
    connection = SlowToItself(50)
    access = PinnedAccess(cast("Connection", connection), {PINNED: Locality.TRACED}, ReadLimits())
    answer = asyncio.run(access.ask(PINNED, Statement("SELECT v FROM k.t")))
    assert answer.rows() == [(b"own",)]
    assert connection.tries == 2


def test_a_node_that_never_answers_for_itself_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many tries the read is an error that says what to allow, not an answer."""
    monkeypatch.setattr("consistency.cluster.pinned._LOCAL_ATTEMPTS", 3)
    access = PinnedAccess(cast("Connection", TwoFaced(-1)), {PINNED: Locality.TRACED}, ReadLimits())
    with pytest.raises(NotProvenLocal, match="NODE_LOCAL"):
        asyncio.run(access.ask(PINNED, Statement("SELECT v FROM k.t")))


def test_a_node_that_could_not_be_proven_is_asked_less_often_until_it_is() -> None:
    """One that is a replica no more is so for every range: 12 reads for the first one, then 3 for each."""
    connection = TwoFaced(-1)
    access = PinnedAccess(cast("Connection", connection), {PINNED: Locality.TRACED}, ReadLimits())

    async def three() -> list[int]:
        told = []
        for _ in range(3):
            before = connection.tries
            with suppress(NotProvenLocal):
                await access.ask(PINNED, Statement("SELECT v FROM k.t"))
            told.append(connection.tries - before)
            if len(told) == 2:
                connection._honest_try = connection.tries + 1
        before, connection._honest_try = connection.tries, -1
        with suppress(NotProvenLocal):
            await access.ask(PINNED, Statement("SELECT v FROM k.t"))
        return [*told, connection.tries - before]

    assert asyncio.run(three()) == [12, 3, 1, 12]
