"""Reading one replica by pages: cut to what rows weigh, shrunk where the server gives up, and never without an end."""

from __future__ import annotations

import asyncio
import re
from typing import cast

import pytest

from consistency.cluster.connection import Connection
from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.pinned import PinnedAccess, ReadLimits
from consistency.cluster.throttle import Politeness
from consistency.cluster.wire import Page, Statement
from consistency.errors import ReplicaError, ReplicaTimeout, ReplicaUnavailable, SchemaError, TooMuchToScan
from consistency.model.reading import Capabilities, Depth, Locality, Reading, Route
from consistency.model.ring import MURMUR3, Node, Ring
from consistency.model.tokens import TokenRange
from tests.unit.fake_cluster import nodes, table

EVERYTHING = TokenRange.full_ring()


class Server:
    """Holds rows of one size, and gives up on a page of more than so many; counts what it was asked."""

    protocol_version = 5

    def __init__(self, rows: int, row_bytes: int, most: int, error: type[ReplicaError] = TooMuchToScan) -> None:
        self.rows, self.row_bytes, self.most, self.error = rows, row_bytes, most, error
        self.pages: list[int] = []
        self.sampled: list[int] = []
        self.down: set[str] = set()

    async def execute(self, node: Node, statement: Statement) -> Page:
        """Answer one page."""
        if "system.local" in statement.cql:
            return Page(0, 1, b"")
        size = statement.page_size
        if limit := re.search(r"LIMIT (\d+)", statement.cql):
            self.sampled.append(int(limit[1]))
            count = min(int(limit[1]), self.rows)
            return Page(count, 1, bytes(count * self.row_bytes))
        self.pages.append(size)
        if size > self.most:
            msg = f"{node}: too much"
            raise self.error(msg)
        if "max(" in statement.cql:
            return Page(1, 1, (1).to_bytes(8, "big").rjust(12, b"\0"))
        start = int.from_bytes(statement.paging_state or b"", "big")
        count = min(size, self.rows - start)
        more = (start + count).to_bytes(4, "big") if start + count < self.rows else None
        return Page(count, 1, bytes(count * self.row_bytes), more)

    async def select(self, node: Node, cql: str, **_: object) -> list[dict[str, object]]:
        """Describe nothing, or be down."""
        if node.name in self.down:
            msg = f"{node}: down"
            raise ReplicaUnavailable(msg)
        if "schema_version" in cql:
            return [{"schema_version": "one"}]
        return []


class Hasher(Server):
    """Counts no rows and hashes them to nothing, by whatever range it is asked for."""

    def __init__(self) -> None:
        super().__init__(0, 0, 0)
        self.ranges: list[str] = []

    async def execute(self, node: Node, statement: Statement) -> Page:
        """Answer one aggregate: a count of 0, the sum of nothing."""
        if "sum(" not in statement.cql:
            return await super().execute(node, statement)
        self.ranges.append(statement.cql.split(" WHERE ")[1])
        return Page(1, 2, b"\0\0\0\x08" + bytes(8) + b"\xff\xff\xff\xff")


def reader_of(server: Server, *, guard: float | None = None, locality: Locality = Locality.NODE_LOCAL) -> CqlReader:
    """Return a reader of a cluster of such servers; with a guard, others are taken to work until it is known."""
    ring = Ring("test", MURMUR3, nodes())
    limits = ReadLimits(politeness=Politeness(guard=guard))
    return CqlReader(cast("Connection", server), ring, dict.fromkeys(ring.nodes, locality), limits)


def client_digest(server: Server) -> int:
    """Digest everything on the client and return how many rows that were."""
    reading = Reading(table(), Depth.CONTENT, Capabilities())
    return asyncio.run(reader_of(server).digest(nodes()[0], reading, Route.CLIENT, EVERYTHING, 1_700_000_000)).rows


@pytest.mark.parametrize("error", [TooMuchToScan, ReplicaTimeout])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_a_page_that_is_too_much_is_asked_for_in_smaller_ones(error: type[ReplicaError], most: int) -> None:
    """Down to one row if it must be: every row is read once."""
    server = Server(rows=500, row_bytes=100, most=most, error=error)
    assert client_digest(server) == 500
    assert min(server.pages) <= most


def test_a_row_that_is_too_much_alone_is_given_up() -> None:
    """After the page of one row there is no smaller one: an error, not a loop."""
    server = Server(rows=5, row_bytes=100, most=0)
    with pytest.raises(TooMuchToScan):
        client_digest(server)
    assert server.pages[-1] == 1
    assert len(server.pages) < 12


def test_the_first_page_is_cut_to_what_a_row_weighs() -> None:
    """One row is looked at before ten are, and of rows of 8 MB no page holds two."""
    heavy = Server(rows=10, row_bytes=8_000_000, most=10**6)
    assert client_digest(heavy) == 10
    assert heavy.sampled == [1]
    assert set(heavy.pages) == {1}
    light = Server(rows=10, row_bytes=100, most=10**6)
    assert client_digest(light) == 10
    assert light.sampled == [1, 10]


def test_the_schema_is_read_from_whoever_answers() -> None:
    """One node down or silent is no reason to disbelieve what the others tell; all of them are one clear line."""
    server = Server(0, 0, 0)
    server.down = {node.name for node in nodes()[:2]}
    assert asyncio.run(reader_of(server).schema()) == {}
    server.down = {node.name for node in nodes()}
    with pytest.raises(SchemaError, match="no node would describe the schema"):
        asyncio.run(reader_of(server).schema())


def test_a_client_digest_is_of_the_bytes_that_came() -> None:
    """Other bytes, another digest; the same bytes in other pages, the same one."""
    reading = Reading(table(), Depth.CONTENT, Capabilities())

    def digest(server: Server) -> bytes:
        return asyncio.run(reader_of(server).digest(nodes()[0], reading, Route.CLIENT, EVERYTHING, 1)).value

    assert digest(Server(8, 100, 100)) == digest(Server(8, 100, 3)) != digest(Server(8, 101, 100))


@pytest.mark.parametrize(
    ("guard", "locality", "whole"),
    [(None, Locality.NODE_LOCAL, True), (1.3, Locality.NODE_LOCAL, False), (1.3, Locality.TRACED, True)],
)
def test_while_others_work_a_server_digests_in_pieces(
    guard: float | None, locality: Locality, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a leaf in one query where nobody does, or where each query takes a trace to prove."""
    server = Hasher()
    monkeypatch.setattr(PinnedAccess, "ask", lambda _, node, statement, _turn: server.execute(node, statement))
    reading = Reading(table(), Depth.CONTENT, Capabilities())
    reader = reader_of(server, guard=guard, locality=locality)
    asyncio.run(reader.digest(nodes()[0], reading, Route.SERVER, EVERYTHING, 1_700_000_000))
    assert (len(server.ranges) == 1) is whole


def test_while_others_work_pages_are_small() -> None:
    """Each holds a node up as long as it takes to read it."""
    reading = Reading(table(), Depth.CONTENT, Capabilities())
    server = Server(rows=2_000, row_bytes=100, most=10**6)
    digest = reader_of(server, guard=1.3).digest(nodes()[0], reading, Route.CLIENT, EVERYTHING, 1_700_000_000)
    assert asyncio.run(digest).rows == 2_000
    assert max(server.pages) <= 2_000 // 3
