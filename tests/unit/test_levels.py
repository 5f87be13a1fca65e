"""Where a guardrail forbids a level, another of the same effect is asked at, and none that makes servers write."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import cassandra
import pytest

from consistency.cluster.connection import Connection
from consistency.cluster.driver import Dialer, translate
from consistency.cluster.driver_errors import connect_error
from consistency.cluster.levels import Levels, forbidden
from consistency.cluster.settings import ConnectionSettings
from consistency.cluster.wire import ALL, LOCAL_ONE, LOCAL_QUORUM, NODE_LOCAL, ONE, OWN, QUORUM, Page, Statement
from consistency.errors import LevelForbidden
from consistency.model.ring import Node

NODE = Node("id-1", "10.0.0.1", 9042, "dc1", "r1", (1,), "5.0.8")
BOTH = (
    "Guardrail read_consistency_levels violated: Provided values [ONE] are not allowed for read consistency levels"
    " (disallowed values are: [ONE, LOCAL_ONE])"
)
LOCAL = BOTH.replace("[ONE]", "[LOCAL_ONE]").replace("[ONE, LOCAL_ONE]", "[LOCAL_ONE]")


class Guarded:
    """A server, and the dialer to it, that forbids some levels in its own words."""

    def __init__(self, *names: str) -> None:
        self.levels = Levels()
        self.names = names
        self.asked: list[int] = []
        self.host_id, self.place, self.usable = "id-1", ("10.0.0.1", 9042), True
        self.protocol_version, self.logged_in = 5, False
        self.contact_points = (self.place,)
        self.settings = ConnectionSettings((self.place,))

    async def dial(self, _: object) -> Guarded:
        return self

    def _refuse(self, level: int) -> None:
        self.asked.append(level)
        name = {ONE: "ONE", LOCAL_ONE: "LOCAL_ONE", LOCAL_QUORUM: "LOCAL_QUORUM", ALL: "ALL"}.get(level, "QUORUM")
        if name in self.names:
            text = BOTH.replace("[ONE]", f"[{name}]").replace("[ONE, LOCAL_ONE]", f"[{', '.join(self.names)}]")
            raise cassandra.InvalidRequest(text)

    async def page(self, statement: Statement, _: int) -> Page:
        self._refuse(statement.consistency)
        return Page(0, 0, b"")

    async def decoded(self, _: str, level: int, *__: object) -> tuple[list[dict[str, Any]], None]:
        self._refuse(level)
        return [{}], None


def asked(guarded: Guarded, *levels: int) -> list[int]:
    """Ask for each of these levels over one connection; return those that were asked at."""

    async def run() -> None:
        connection = Connection(cast("Dialer", guarded))
        await connection.meet()
        for level in levels:
            await connection.execute(NODE, Statement("SELECT", consistency=level))

    asyncio.run(run())
    return guarded.asked


def test_what_a_node_holds_itself_is_read_at_any_level() -> None:
    """Each refusal is heard once; its words name every level that is forbidden."""
    assert asked(Guarded("ONE", "LOCAL_ONE"), OWN, OWN) == [ONE, LOCAL_QUORUM, LOCAL_QUORUM]
    assert asked(Guarded("ONE", "LOCAL_ONE", "LOCAL_QUORUM", "QUORUM"), OWN) == [ONE, ALL]


def test_one_replica_is_never_replaced_by_several() -> None:
    """Rows of users are read at ONE for LOCAL_ONE, and at nothing higher: a quorum would repair them."""
    assert asked(Guarded("LOCAL_ONE"), LOCAL_ONE) == [LOCAL_ONE, ONE]
    for level in (ONE, LOCAL_ONE, ALL, QUORUM):
        guarded = Guarded("ONE", "LOCAL_ONE", "ALL", "QUORUM")
        with pytest.raises(LevelForbidden, match=r"guardrail read_consistency_levels forbids .*_disallowed.*superuser"):
            asked(guarded, level)
        assert guarded.asked == [level]


def test_select_asks_at_another_level_too() -> None:
    """System tables are read for what the node holds itself."""
    guarded = Guarded("ONE")

    async def run() -> list[Any]:
        connection = Connection(cast("Dialer", guarded))
        await connection.meet()
        return await connection.select(NODE, "SELECT key FROM system.local")

    assert asyncio.run(run()) == [{}]
    assert guarded.asked == [ONE, LOCAL_ONE]


def test_requests_under_way_at_once_all_find_the_level() -> None:
    """A refusal that another request has learned from already is no reason to give up."""
    guarded = Guarded("ONE")

    async def run() -> None:
        connection = Connection(cast("Dialer", guarded))
        await connection.meet()
        statement = Statement("SELECT", consistency=OWN)
        refusal = translate(NODE, cassandra.InvalidRequest(BOTH))
        refusal.__cause__ = cassandra.InvalidRequest(BOTH)
        for _ in range(2):
            connection._learn_level(cast("LevelForbidden", refusal), statement.consistency)

    asyncio.run(run())


def test_a_refused_level_is_named_where_nobody_else_answers() -> None:
    """The first question of all may be refused: the line says by what, and does not ask whether Cassandra runs."""
    said = str(connect_error(ConnectionSettings((("h", 9042),)), BOTH, login=False, unknown_host=False))
    assert "guardrail read_consistency_levels forbids ONE" in said
    assert "running" not in said


def test_a_connection_closed_at_once_names_the_limit() -> None:
    """A server that allows no more connections closes them: it runs."""
    reset = ConnectionResetError(104, "Connection reset by peer")
    said = str(connect_error(ConnectionSettings((("h", 9042),)), reset, login=False, unknown_host=False))
    assert "native_transport_max_concurrent_connections_per_ip" in said
    assert "running" not in said


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        (BOTH, {ONE, LOCAL_ONE}),
        (LOCAL, {LOCAL_ONE}),
        (BOTH.replace("[ONE, LOCAL_ONE]", "[NODE_LOCAL, ANY]").replace("[ONE]", "[NODE_LOCAL]"), {NODE_LOCAL}),
        ("Guardrail page_size violated: aborted", set()),
        ("line 1:0 no viable alternative", set()),
    ],
)
def test_levels_are_told_by_the_guardrails_words(text: str, levels: set[int]) -> None:
    """They tell the levels; others' words tell none."""
    assert forbidden(text) == levels
    assert isinstance(translate(NODE, cassandra.InvalidRequest(text)), LevelForbidden) == bool(levels)


def test_a_statement_asks_for_what_the_node_holds_unless_told_otherwise() -> None:
    """The default is safe: it is never a level of several replicas while one of a single replica is allowed."""
    assert replace(Statement("SELECT")).consistency == OWN
    assert Levels().of(OWN) == ONE
