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
FOLDABLE = make_table("t", ("int", "text"), ("text", "int"))
UNFOLDABLE = make_table("t", ("int",), ("text",))
MAPS = make_table("t", ("int",), ("int",), (), ("map<text, int>",))
STATIC_SETS = make_table("t", ("int",), ("int",), ("set<int>",), ("int",))
COUNTERS = replace(make_table("t", ("int",), ("int",), (), ("counter",)), is_counter=True)
V, C = Depth.VERSIONS, Depth.CONTENT
SERVER, CLIENT = Route.SERVER, Route.CLIENT
REFUSED = None


@pytest.mark.parametrize(
    ("table", "capabilities", "depth", "route", "wanted"),
    [
        (FOLDABLE, NEW, None, None, (C, SERVER)),
        (FOLDABLE, NEW, V, None, (V, SERVER)),
        (FOLDABLE, NEW, C, CLIENT, (C, CLIENT)),
        (FOLDABLE, NEW, None, CLIENT, (C, CLIENT)),
        (UNFOLDABLE, NEW, None, None, (C, SERVER)),
        (MAPS, NEW, V, SERVER, (V, SERVER)),
        (COUNTERS, NEW, None, None, (C, SERVER)),
        (COUNTERS, NEW, V, None, REFUSED),
        (COUNTERS, NEW, V, CLIENT, REFUSED),
        (FOLDABLE, OLD, None, None, (V, SERVER)),
        (FOLDABLE, OLD, V, SERVER, (V, SERVER)),
        (FOLDABLE, OLD, C, None, (C, CLIENT)),
        (FOLDABLE, OLD, C, SERVER, REFUSED),
        (FOLDABLE, OLD, V, CLIENT, (V, CLIENT)),
        (UNFOLDABLE, OLD, None, None, (C, CLIENT)),
        (UNFOLDABLE, OLD, V, None, (V, CLIENT)),
        (UNFOLDABLE, OLD, None, SERVER, REFUSED),
        (MAPS, OLD, None, None, (C, CLIENT)),
        (MAPS, OLD, V, SERVER, REFUSED),
        (STATIC_SETS, OLD, None, None, (C, CLIENT)),
        (COUNTERS, OLD, None, None, (C, CLIENT)),
        (COUNTERS, OLD, None, SERVER, REFUSED),
    ],
)
def test_depth_and_route_follow_from_servers_table_and_wish(
    table: Table,
    capabilities: Capabilities,
    depth: Depth | None,
    route: Route | None,
    wanted: tuple[Depth, Route] | None,
) -> None:
    """The deepest the servers can digest themselves, the client for the rest, a refusal where a wish cannot be met."""
    choice = choose(table, capabilities, depth, route)
    if wanted is None:
        assert choice.reading is None
        assert "use --" in choice.refusal
    else:
        assert choice.reading is not None
        assert (choice.reading.depth, choice.route) == wanted


TABLES = (FOLDABLE, UNFOLDABLE, MAPS, STATIC_SETS, COUNTERS)
WISHES = list(itertools.product(TABLES, (NEW, OLD), (None, V, C), (None, SERVER, CLIENT)))


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
        build = selects.hash_digest if capabilities.hashes else None
        everything = TokenRange.full_ring()
        assert build(choice.reading, everything, "MD5") if build else selects.sum_digest(choice.reading, everything)
