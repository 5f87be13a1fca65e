"""How a table is read: every combination of what the servers can, what the table is, and what was asked for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from consistency.cluster import selects
from consistency.cluster.table_reading import choose
from consistency.model.reading import Capabilities, Depth, Route
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from tests.simulation.values import make_table

NEW = Capabilities()
OLD = Capabilities(hashes=False, collection_times=False)
ANCIENT = Capabilities(hashes=False, arithmetic=False, collection_times=False, timed=False)
PAIRS = make_table("t", ("int", "text"), ("text", "int"))
MAPS = make_table("t", ("int",), ("int",), (), ("map<text, int>",))
STATIC_SETS = make_table("t", ("int",), ("int",), ("set<int>",), ("int",))
COUNTERS = replace(make_table("t", ("int",), ("int",), (), ("counter",)), is_counter=True)
V, C = Depth.VERSIONS, Depth.CONTENT
SERVER, CLIENT = Route.SERVER, Route.CLIENT
REFUSED = None


@pytest.mark.parametrize(
    ("table", "capabilities", "depth", "route", "wanted"),
    [
        (PAIRS, NEW, None, None, (C, SERVER)),
        (PAIRS, NEW, V, None, (V, SERVER)),
        (PAIRS, NEW, C, CLIENT, (C, CLIENT)),
        (PAIRS, NEW, None, CLIENT, (C, CLIENT)),
        (MAPS, NEW, V, SERVER, (V, SERVER)),
        (COUNTERS, NEW, None, None, (C, SERVER)),
        (COUNTERS, NEW, V, None, REFUSED),
        (COUNTERS, NEW, V, CLIENT, REFUSED),
        (PAIRS, OLD, None, None, (C, SERVER)),
        (PAIRS, OLD, V, SERVER, (V, SERVER)),
        (PAIRS, OLD, C, SERVER, (C, SERVER)),
        (PAIRS, OLD, V, CLIENT, (V, CLIENT)),
        (MAPS, OLD, None, None, (C, SERVER)),
        (MAPS, OLD, V, SERVER, (V, SERVER)),
        (STATIC_SETS, OLD, None, CLIENT, (C, CLIENT)),
        (COUNTERS, OLD, None, None, (C, SERVER)),
        (COUNTERS, OLD, V, SERVER, REFUSED),
        (PAIRS, ANCIENT, None, None, (C, CLIENT)),
        (PAIRS, ANCIENT, V, None, (V, CLIENT)),
        (PAIRS, ANCIENT, None, SERVER, REFUSED),
    ],
)
def test_depth_and_route_follow_from_servers_table_and_wish(
    table: Table,
    capabilities: Capabilities,
    depth: Depth | None,
    route: Route | None,
    wanted: tuple[Depth, Route] | None,
) -> None:
    """Values too, hashed by the servers if they can, and a refusal where a wish cannot be met."""
    choice = choose(table, capabilities, depth, route)
    if wanted is None:
        assert choice.reading is None
        assert "use --" in choice.refusal
    else:
        assert choice.reading is not None
        assert (choice.reading.depth, choice.route) == wanted


TABLES = (PAIRS, MAPS, STATIC_SETS, COUNTERS)
WISHES = list(itertools.product(TABLES, (NEW, OLD, ANCIENT), (None, V, C), (None, SERVER, CLIENT)))


@pytest.mark.parametrize(("table", "capabilities", "depth", "route"), WISHES)
def test_a_choice_keeps_to_the_wish_and_can_be_carried_out(
    table: Table, capabilities: Capabilities, depth: Depth | None, route: Route | None
) -> None:
    """Never another depth or route than asked for, and a server's digest always has its statement."""
    choice = choose(table, capabilities, depth, route)
    if choice.reading is None:
        assert choice.refusal
        return
    assert depth in (None, choice.reading.depth)
    assert route in (None, choice.route)
    if choice.route is SERVER:
        assert selects.hash_digest(choice.reading, TokenRange.full_ring(), "MD5")
