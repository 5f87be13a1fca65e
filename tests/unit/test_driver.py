"""What the driver raises becomes our errors: the right kind, one line, the node named, nothing quoted."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import cassandra
import pytest
from cassandra import protocol
from cassandra.query import SimpleStatement

from consistency.driver import Connection, translate
from consistency.errors import (
    PageTooLarge,
    ReplicaError,
    ReplicaOverloaded,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooFewReplicas,
    TooMuchToScan,
)
from consistency.ring import Node
from consistency.settings import ConnectionSettings
from consistency.waiting import at_most, until
from consistency.wire import Statement

NODE = Node("host", "10.0.0.1", 9042, "dc1", "r1", (1,), "5.0.8")


def server_error(text: str) -> protocol.ServerError:
    """Return the error frame a server sends when an exception reaches the coordinator."""
    return protocol.ServerError(0x0000, text, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            server_error("org.apache.cassandra.db.filter.TombstoneOverwhelmingException: Scanned over 100001 tombstones"
                         " during query 'SELECT canary' (last scanned row partion key was ((canary), 1))"),
            TooMuchToScan,
        ),
        (server_error("Scanned over 100001 tombstones during query 'SELECT canary'; query aborted"), TooMuchToScan),
        (server_error("Query canary attempted to read 9 bytes but max allowed is 1; query aborted"), TooMuchToScan),
        (server_error("java.lang.NullPointerException: canary"), ReplicaError),
        (protocol.OverloadedErrorMessage(0x1001, "canary", None), ReplicaOverloaded),
        (cassandra.ReadTimeout("canary"), ReplicaTimeout),
        (cassandra.OperationTimedOut(), ReplicaTimeout),
        (cassandra.ReadFailure("canary", error_code_map={"10.0.0.1": 1}), TooMuchToScan),
        (cassandra.ReadFailure("canary", error_code_map={"10.0.0.1": 0}), ReplicaError),
        (cassandra.Unavailable("canary"), TooFewReplicas),
        (ConnectionResetError("canary"), ReplicaUnavailable),
        (ValueError("canary"), ReplicaError),
    ],
)  # fmt: skip
def test_each_error_becomes_ours_and_quotes_nothing(error: Exception, kind: type[ReplicaError]) -> None:
    """Also of a read from a node's own storage, which fails with the bare exception of the server."""
    ours = translate(NODE, error)
    assert type(ours) is kind
    assert str(ours).startswith("10.0.0.1:9042: ")
    assert "canary" not in str(ours)
    assert "\n" not in str(ours)


def test_a_silent_node_is_asked_about_the_ring_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver calls a frozen node up: whoever waited for it once need not wait for it again."""
    hosts = [
        SimpleNamespace(endpoint=SimpleNamespace(address=f"10.0.0.{n}", port=9042), is_up=n != 2) for n in (1, 2, 3)
    ]
    cluster = SimpleNamespace(metadata=SimpleNamespace(all_hosts=lambda: hosts))
    connection = Connection(ConnectionSettings(()), cluster, None, None, None)

    async def silent(*_: object) -> None:
        raise ReplicaTimeout("did not answer within 30 s")

    async def well(*_: object) -> str:
        return "answer"

    def order() -> list[str]:
        return [address for address, _ in connection.known_hosts()]

    assert order() == ["10.0.0.1", "10.0.0.3", "10.0.0.2"]
    monkeypatch.setattr("consistency.driver._result", silent)
    with pytest.raises(ReplicaTimeout):
        asyncio.run(connection._answer(NODE, None, 30.0))
    assert order() == ["10.0.0.3", "10.0.0.1", "10.0.0.2"]
    monkeypatch.setattr("consistency.driver._result", well)
    asyncio.run(connection._answer(NODE, None, 30.0))
    assert order() == ["10.0.0.1", "10.0.0.3", "10.0.0.2"]


def test_what_blocks_is_left_behind_after_its_time() -> None:
    """A thread that waits for a silent node holds nobody up; one that ends is noticed at once."""
    forever = threading.Event()
    started = time.monotonic()
    assert not asyncio.run(at_most(0.05, forever.wait))
    assert time.monotonic() - started < 2
    forever.set()
    assert asyncio.run(at_most(30, lambda: None))
    assert time.monotonic() - started < 4


def test_looking_again_has_an_end() -> None:
    """What does not come to be is given up."""
    assert until(lambda: True, 0)
    assert not until(lambda: False, 0.02)


def test_a_guardrail_on_page_sizes_is_learned_and_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request is refused, and every later one asks for what is allowed; what is never allowed is refused."""
    refused = cassandra.InvalidRequest(
        "Guardrail page_size violated: Aborting query for table t, page size 5000 exceeds fail threshold of 2000."
    )
    asked: list[int] = []
    most = 2_000
    connection = Connection(ConnectionSettings(()), None, None, None, None)

    async def answer(_node: Node, future: SimpleNamespace, *_: object) -> SimpleNamespace:
        await asyncio.sleep(0)
        if future.rows > most:
            raise translate(NODE, refused)
        return SimpleNamespace(current_rows=[], paging_state=None)

    def submit(_session: object, _node: Node, bound: SimpleStatement, *_: object) -> SimpleNamespace:
        asked.append(bound.fetch_size)
        return SimpleNamespace(rows=bound.fetch_size, get_query_trace_ids=list)

    monkeypatch.setattr("consistency.driver._result", answer)
    monkeypatch.setattr(connection, "_submit", submit)

    async def two_at_once() -> None:
        ask = Statement("SELECT key FROM system.local")
        await asyncio.gather(connection.execute(NODE, ask), connection.execute(NODE, ask))

    asyncio.run(two_at_once())
    asyncio.run(connection.select(NODE, "SELECT * FROM system.peers_v2"))
    assert asked == [5_000, 5_000, 2_000, 2_000, 2_000]
    most = 0
    with pytest.raises(PageTooLarge, match="page size 5000 exceeds"):
        asyncio.run(connection.execute(NODE, Statement("SELECT key FROM system.local")))
