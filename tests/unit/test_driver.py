"""What the driver raises becomes our errors: the right kind, one line, the node named, nothing quoted."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace

import cassandra
import pytest
from cassandra import protocol

from consistency.cluster.driver import Channel, translate
from consistency.cluster.waits import at_most, in_thread, left_behind
from consistency.cluster.wire import Page, Statement
from consistency.errors import (
    ReplicaError,
    ReplicaOverloaded,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooFewReplicas,
    TooMuchToScan,
)
from consistency.model.ring import Node

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
        (server_error("org.apache.cassandra.io.sstable.CorruptSSTableException: Corrupted: /canary"), ReplicaError),
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


def test_a_corrupt_sstable_is_named_where_the_server_does() -> None:
    """In the words of a node's own storage, of either exception; of any other failure nobody says it."""
    for name in ("sstable.CorruptSSTableException: Corrupted: /a", "compress.CorruptBlockException: (/a): corruption"):
        assert "an SSTable there is corrupt" in str(translate(NODE, server_error(f"org.apache.cassandra.io.{name}")))
    assert "corrupt" not in str(translate(NODE, server_error("java.lang.NullPointerException")))


@pytest.mark.parametrize(
    ("said", "grant"),
    [
        ("SELECT permission on <table shop.orders>", "GRANT SELECT ON TABLE shop.orders TO checker"),
        ("MODIFY permission on <keyspace Shop>", 'GRANT MODIFY ON KEYSPACE "Shop" TO checker'),
    ],
)
def test_a_right_that_our_role_lacks_is_named_with_its_grant(said: str, grant: str) -> None:
    """As a statement that an administrator can run; the server's own words where they are others."""
    words = f'Error from server: code=2100 [Unauthorized] message="User checker has no {said} or any of its parents"'
    assert str(translate(NODE, cassandra.Unauthorized(words))).endswith(grant)
    other = translate(NODE, cassandra.Unauthorized("You do not have access to this datacenter"))
    assert str(other) == "10.0.0.1:9042: You do not have access to this datacenter"


def test_what_blocks_is_left_behind_after_its_time() -> None:
    """A thread that waits for a silent node holds nobody up; one that ends is noticed at once."""
    forever = threading.Event()
    started = time.monotonic()
    assert not asyncio.run(at_most(0.05, forever.wait))
    assert time.monotonic() - started < 10
    forever.set()
    assert asyncio.run(at_most(30, lambda: None))
    assert time.monotonic() - started < 25


def test_what_does_not_end_when_it_is_cancelled_is_left_behind() -> None:
    """A task that ends by itself when it is cancelled is not."""

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def beside(task: Callable[[], Coroutine[None, None, None]]) -> bool:
        running = asyncio.create_task(task())
        await asyncio.sleep(0)
        left = await left_behind(0.05)
        assert running.done() is not left
        return left

    assert asyncio.run(beside(stubborn))
    assert not asyncio.run(beside(lambda: asyncio.sleep(60)))


class Wire:
    """A driver's connection in memory: answers each message with what a test says, or not at all."""

    def __init__(self, *answers: object) -> None:
        self.lock = threading.Lock()
        self.in_flight, self.orphaned_request_ids = 0, set[int]()
        self.is_closed = self.is_defunct = False
        self.authenticator, self.protocol_version = None, 5
        self.sent: list[object] = []
        self._requests: dict[int, object] = {}
        self._answers = list(answers)
        self._ids = iter(range(1000))

    def get_request_id(self) -> int:
        return next(self._ids)

    def send_msg(self, message: object, request_id: int, arrived: Callable[[object], None], decoder: object) -> None:
        self.sent.append(message)
        self._requests[request_id] = arrived
        answer = self._answers.pop(0)
        if answer is not None:
            threading.Thread(target=lambda: (self._requests.pop(request_id), arrived(answer))).start()


def rows(*parsed: object) -> SimpleNamespace:
    """Return a RESULT message of one page."""
    return SimpleNamespace(parsed_rows=list(parsed), column_names=["a"], paging_state=b"more", trace_id=None)


def prepared(name: bytes) -> SimpleNamespace:
    """Return the answer to a PREPARE message."""
    return SimpleNamespace(query_id=name, result_metadata_id=b"r")


def test_a_page_keeps_the_bytes_of_the_server() -> None:
    """Rows are not decoded; of no rows there are no bytes."""
    wire = Wire(rows((2, 1, b"two")), rows())
    channel = Channel(("h", 1), wire, "id")
    assert asyncio.run(channel.page(Statement("SELECT a FROM t"), 10)) == Page(2, 1, b"two", b"more")
    assert asyncio.run(channel.page(Statement("SELECT a FROM t"), 10)).row_count == 0
    assert wire.in_flight == 0


class Frames(Wire):
    """A wire whose answers are the bodies of RESULT messages, read as the driver has the caller read them."""

    def send_msg(self, message: object, request_id: int, arrived: Callable[[object], None], decoder: object) -> None:
        body = self._answers.pop(0)
        read = decoder(5, {}, 0, 0, protocol.ResultMessage.opcode, body, None, None)  # type: ignore[operator]
        self._answers.insert(0, read)
        super().send_msg(message, request_id, arrived, decoder)


def text(value: str) -> bytes:
    """Return a text as the native protocol writes it."""
    return struct.pack(">H", len(value.encode())) + value.encode()


def described(*types: bytes) -> bytes:
    """Return what a RESULT message says of columns that have these types, one after the other."""
    columns = b"".join(text(f"c{number}") + kind for number, kind in enumerate(types))
    return struct.pack(">ii", 1, len(types)) + text("ks") + text("t") + columns


ADDR = "org.apache.cassandra.db.marshal.UserType(ks,61646472,73747265:org.apache.cassandra.db.marshal.UTF8Type)"
TYPES = (
    struct.pack(">H", 0) + text(f"org.apache.cassandra.db.marshal.VectorType({ADDR} , 2)"),
    struct.pack(">HHH", 0x21, 0x0D, 0x22) + struct.pack(">H", 0) + text("no.such.Class(1,2:3)"),
    struct.pack(">H", 0x30) + text("ks") + text("addr") + struct.pack(">H", 2)
    + text("def") + struct.pack(">HH", 0x20, 0x09) + text("é") + struct.pack(">HHHH", 0x31, 2, 0x0D, 0x09),
    struct.pack(">H", 0x7FFF),
)  # fmt: skip
"""Types that the driver cannot read (a vector of a UDT whose name is digits in hexadecimal), and nested ones."""


def test_a_type_that_the_driver_cannot_read_hides_no_row() -> None:
    """It would drop the connection, and every table that is read over it would be unknown. Of statements too."""
    found = struct.pack(">i", 2) + described(*TYPES) + struct.pack(">i", 1) + b"a row"
    bound = struct.pack(">iii", 1, len(TYPES), 0) + described(*TYPES)[8:]
    ready = struct.pack(">i", 4) + text("one") + text("r") + bound + described(*TYPES)
    asked = Statement("SELECT * FROM t WHERE k = ?", (b"k",))
    page = asyncio.run(Channel(("h", 1), Frames(ready, found), "id").page(asked, 10))
    assert page == Page(1, len(TYPES), b"a row")


def test_a_statement_that_the_server_forgot_is_prepared_again() -> None:
    """It drops prepared statements when the schema changes; values are bound as the bytes that they are."""
    gone = protocol.PreparedQueryNotFound(0x2500, "gone", b"one")
    wire = Wire(prepared(b"one"), gone, prepared(b"two"), rows((1, 1, b"x")))
    page = asyncio.run(Channel(("h", 1), wire, "id").page(Statement("SELECT a FROM t WHERE k = ?", (b"k",)), 10))
    assert page.body == b"x"
    assert [type(message).__name__ for message in wire.sent] == [
        "PrepareMessage", "ExecuteMessage", "PrepareMessage", "ExecuteMessage",
    ]  # fmt: skip
    assert (wire.sent[-1].query_id, wire.sent[-1].query_params) == (b"two", [b"k"])  # type: ignore[attr-defined]


def test_an_answer_that_does_not_come_keeps_its_stream_to_itself() -> None:
    """Its id is not used again before the server has answered after all: the answer would be taken for another one."""
    wire = Wire(None)
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(Channel(("h", 1), wire, "id").page(Statement("SELECT a FROM t", timeout_s=0.01), 10))
    assert wire.orphaned_request_ids == {0}
    assert not wire._requests


def test_a_cancel_is_not_forgotten_for_an_answer_that_comes_with_it() -> None:
    """A loop that asks again and again would otherwise go on, and the run never end."""
    wire = Wire(None)

    async def both() -> bool:
        asking = asyncio.create_task(Channel(("h", 1), wire, "id").page(Statement("SELECT a FROM t"), 10))
        await asyncio.sleep(0)
        wire._requests.pop(0)(rows((2, 1, b"two")))  # type: ignore[operator]
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        return asking.cancelled()

    assert asyncio.run(both())


def test_what_the_server_refuses_is_raised() -> None:
    """As the driver's own exception, where it has one."""
    wire = Wire(protocol.UnauthorizedErrorMessage(0x2100, "no", None))
    with pytest.raises(cassandra.Unauthorized):
        asyncio.run(Channel(("h", 1), wire, "id").decoded("SELECT a FROM t", 1, 10, None, 5.0))


def test_what_a_thread_brings_too_late_is_given_back() -> None:
    """A connection that was made for nobody would stay open."""
    left: list[str] = []
    may_end = threading.Event()

    async def given_up() -> None:
        task = asyncio.create_task(in_thread(lambda: (may_end.wait(10) and "late") or "never", left.append))
        await asyncio.sleep(0.01)
        task.cancel()
        may_end.set()
        for _ in range(500):
            await asyncio.sleep(0.01)
            if left:
                return

    asyncio.run(given_up())
    assert left == ["late"]
