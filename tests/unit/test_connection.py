"""Statements reach the node that they are for: an address that another node answers at proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from consistency.cluster.connection import Connection
from consistency.cluster.driver import Dialer
from consistency.cluster.levels import Levels
from consistency.cluster.settings import ConnectionSettings, Place
from consistency.cluster.wire import Page, Statement
from consistency.errors import ConnectError, PageTooLarge, ReplicaUnavailable, WrongNode
from consistency.model.ring import Node

ONE, TWO, THREE = (Node(f"id-{n}", f"10.0.0.{n}", 9042, "dc1", "r1", (n,), "5.0.8") for n in (1, 2, 3))
READ = Statement("SELECT v FROM k.t")


class Line:
    """A channel in memory; it knows who answers and what was asked."""

    logged_in = False
    protocol_version = 5

    def __init__(self, net: Net, place: Place, host_id: str) -> None:
        self.net, self.place, self.host_id = net, place, host_id
        self.usable = True

    async def page(self, statement: Statement, page_rows: int) -> Page:
        self.net.asked.append((self.host_id, page_rows))
        await asyncio.sleep(0)
        if page_rows > self.net.most or not self.net.most:
            raise PageTooLarge("too large a page", self.net.most)
        return Page(1, 1, self.host_id.encode())

    async def decoded(self, cql: str, *_: object) -> tuple[list[dict[str, Any]], None]:
        return [dict(row) for row in self.net.peers.get(self.host_id, ())], None

    def close(self) -> None:
        self.usable = False


class Net:
    """Who answers where; what is not there refuses."""

    def __init__(self, answering: Mapping[Place, str | Callable[[], str]], **settings: Any) -> None:
        self.answering = dict(answering)
        self.settings = ConnectionSettings(tuple(self.answering), **settings)
        self.contact_points = self.settings.contact_points
        self.levels = Levels()
        self.peers: dict[str, list[Mapping[str, Any]]] = {}
        self.dialled: list[Place] = []
        self.lines: list[Line] = []
        self.asked: list[tuple[str, int]] = []
        self.most = 2**31

    def translate_address(self, address: str) -> str:
        return address

    async def dial(self, place: Place) -> Line:
        self.dialled.append(place)
        await asyncio.sleep(0)
        if place not in self.answering:
            raise ConnectionRefusedError(111, "Connection refused")
        who = self.answering[place]
        self.lines.append(Line(self, place, who if isinstance(who, str) else who()))
        return self.lines[-1]

    def close(self) -> None:
        pass


async def opened(net: Net, *points: Place) -> Connection:
    """Return a connection that has met its contact points."""
    net.contact_points = points
    connection = Connection(cast("Dialer", net))
    await connection.meet()
    return connection


def test_a_contact_point_serves_to_discover_and_nodes_are_reached_at_their_own_addresses() -> None:
    """The node that answers at a balancer is asked on that connection only until its own address is known."""
    balancer = ("lb", 9042)
    turn = iter(["id-1", "id-2", "id-3", "id-1"] * 5)
    net = Net({balancer: lambda: next(turn), ("10.0.0.2", 9042): "id-2", ("10.0.0.3", 9042): "id-3"})

    async def run() -> list[bytes]:
        connection = await opened(net, balancer)
        for node in (ONE, TWO, THREE):
            connection.heard(node.host_id, node.address, node.port)
        return [(await connection.execute(node, READ)).body for node in (ONE, TWO, THREE, ONE)]

    assert asyncio.run(run()) == [b"id-1", b"id-2", b"id-3", b"id-1"]


def test_an_answer_of_another_node_is_never_taken() -> None:
    """Where a node's address leads to another one, the node is unread, and the line says who answers and what to do."""
    net = Net({("10.0.0.1", 9042): "id-1", ("10.0.0.2", 9042): "id-1"})

    async def run() -> None:
        connection = await opened(net, ("10.0.0.1", 9042))
        connection.heard("id-2", "10.0.0.2", 9042)
        await connection.execute(TWO, READ)

    with pytest.raises(
        WrongNode, match=r"another node answers at 10\.0\.0\.2:9042, host id id-1; .*connection\.addresses"
    ):
        asyncio.run(run())
    assert ("id-1", 5000) not in net.asked


def test_a_connection_that_is_lost_is_dialled_again_and_asked_again_who_answers() -> None:
    """The node may have exchanged its address with another one meanwhile: each is then found at its new place."""
    net = Net({("10.0.0.1", 9042): "id-1", ("10.0.0.2", 9042): "id-2", ("10.0.0.3", 9042): "id-3"})

    async def run() -> list[bytes]:
        connection = await opened(net, *net.contact_points)
        before = [(await connection.execute(node, READ)).body for node in (ONE, TWO)]
        net.answering |= {("10.0.0.1", 9042): "id-2", ("10.0.0.2", 9042): "id-1"}
        for line in net.lines[:2]:
            line.usable = False
        here = {"host_id": "id-1", "native_address": "10.0.0.2", "native_port": 9042}
        there = {"host_id": "id-2", "native_address": "10.0.0.1", "native_port": 9042}
        net.peers["id-3"] = [here, there]
        return before + [(await connection.execute(node, READ)).body for node in (ONE, TWO)]

    assert asyncio.run(run()) == [b"id-1", b"id-2", b"id-1", b"id-2"]


def test_a_node_that_cannot_be_reached_is_not_dialled_at_every_request() -> None:
    """The error is told again for a moment; requests that come together dial once."""
    net = Net({("10.0.0.1", 9042): "id-1"})

    async def run() -> None:
        connection = await opened(net, ("10.0.0.1", 9042))
        connection.heard("id-2", "10.0.0.2", 9042)
        asked = (connection.execute(TWO, READ) for _ in range(20))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} == {ReplicaUnavailable}
        assert "10.0.0.2:9042: connection refused" in str(answers[0])

    asyncio.run(run())
    assert net.dialled.count(("10.0.0.2", 9042)) == 1


@pytest.mark.parametrize("name", ["id-2", "10.0.0.2:9042", "10.0.0.2"])
def test_a_map_says_where_nodes_are_reached_that_have_private_addresses(name: str) -> None:
    """By host id, by address and port, or by address alone; a port that is left out is the node's own."""
    net = Net({("a", 1): "id-1", ("tunnel", 9042): "id-2"}, addresses={name: ("tunnel", 0)})

    async def run() -> bytes:
        connection = await opened(net, ("a", 1))
        connection.heard("id-2", "10.0.0.2", 9042)
        return (await connection.execute(TWO, READ)).body

    assert asyncio.run(run()) == b"id-2"


def test_no_contact_point_that_answers_is_an_error_and_one_is_enough() -> None:
    """Its line names the hosts as they were typed."""
    net = Net({("10.0.0.1", 9042): "id-1"})
    asyncio.run(opened(net, ("gone", 9042), ("10.0.0.1", 9042)))
    with pytest.raises(ConnectError, match=r"no node answers at 10\.0\.0\.1:9042: Connection refused"):
        asyncio.run(opened(net, ("gone", 9042)))


def test_a_guardrail_on_page_sizes_is_learned_and_kept_to() -> None:
    """The first request is refused, and every later one asks for what is allowed; what is never allowed is refused."""
    net = Net({("10.0.0.1", 9042): "id-1"})
    net.most = 2_000

    async def run() -> None:
        connection = await opened(net, ("10.0.0.1", 9042))
        await asyncio.gather(connection.execute(ONE, READ), connection.execute(ONE, READ))
        await connection.execute(ONE, READ)
        assert sorted(rows for _, rows in net.asked) == [2_000, 2_000, 2_000, 5_000, 5_000]
        net.most = 0
        with pytest.raises(PageTooLarge, match="too large a page"):
            await connection.execute(ONE, READ)

    asyncio.run(run())


def test_a_node_met_by_name_is_found_again_after_a_restart() -> None:
    """As by its address: also where it tells an address that is not to be reached from here."""
    for reachable in (True, False):
        net = Net({("db.example", 9042): "id-1", **({("10.0.0.1", 9042): "id-1"} if reachable else {})})

        async def run(net: Net = net) -> list[bytes]:
            connection = await opened(net, ("db.example", 9042))
            connection.heard("id-1", "10.0.0.1", 9042)
            before = await connection.execute(ONE, READ)
            net.lines[-1].usable = False
            return [before.body, (await connection.execute(ONE, READ)).body]

        assert asyncio.run(run()) == [b"id-1", b"id-1"]
