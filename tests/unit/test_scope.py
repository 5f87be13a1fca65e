"""Names as people type them, resolved to tables; a slip of the finger gets a suggestion."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consistency.errors import UsageError
from consistency.model.ring import Replication
from consistency.model.schema import Keyspace
from consistency.model.scope import choose_tables, parse_name
from tests.simulation.values import make_table

TWO = Replication("NetworkTopologyStrategy", (("dc1", 2),))
LOCAL = Replication("LocalStrategy", ())


def a_keyspace(name: str, *tables: str, replication: Replication = TWO) -> Keyspace:
    """Make a keyspace of tables."""
    return Keyspace(name, replication, {t: make_table(t, ("int",), keyspace=name) for t in tables})


SHOP = a_keyspace("shop", "orders", "items")
VIEW = replace(make_table("by_day", ("int",), keyspace="shop"), view_of="orders")
SCHEMA = {
    "shop": replace(SHOP, tables={**SHOP.tables, "by_day": VIEW}, unreadable={"odd": "UnknownTypeError: x"}),
    "Shop": a_keyspace("Shop", "Orders"),
    "my.ks": a_keyspace("my.ks", 'a"b'),
    "system": a_keyspace("system", "local", replication=LOCAL),
    "system_auth": a_keyspace("system_auth", "roles"),
    "private": a_keyspace("private", "t", replication=LOCAL),
}


def names(*typed: str, views: bool = False) -> list[str]:
    """Resolve and name the tables."""
    return [t.full_name for t in choose_tables(SCHEMA, typed, views=views).tables]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ks", ("ks", None)),
        ("ks.t", ("ks", "t")),
        ('"Ks"."T"', ("Ks", "T")),
        ('"my.ks"', ("my.ks", None)),
        ('"my.ks".t', ("my.ks", "t")),
        ('ks."a""b"', ("ks", 'a"b')),
        ("Ks.T", ("Ks", "T")),
    ],
)
def test_names_are_read_with_and_without_quotes(text: str, wanted: tuple[str, str | None]) -> None:
    """Quotes are optional, a quote is doubled, a dot inside quotes is a letter."""
    assert parse_name(text) == wanted


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", '"a', 'a"b"'])
def test_what_is_no_name_is_refused(text: str) -> None:
    """A usage error of one line that says how a dot is typed."""
    with pytest.raises(UsageError, match=r"KEYSPACE\.TABLE"):
        parse_name(text)


def test_without_names_everything_is_checked_that_is_not_cassandras_own() -> None:
    """Replicated keyspaces of users; views and unreadable tables are named, not forgotten."""
    scope = choose_tables(SCHEMA, [])
    assert [t.full_name for t in scope.tables] == ["Shop.Orders", 'my.ks.a"b', "shop.items", "shop.orders"]
    assert set(scope.not_checked) == {"shop.by_day"}
    assert set(scope.unreadable) == {"shop.odd"}
    assert "system_auth" not in scope.keyspaces


def test_what_is_named_is_checked() -> None:
    """A keyspace, a table, a view, a system keyspace, each table once however often it was named."""
    assert names("shop") == ["shop.items", "shop.orders"]
    assert names("shop", views=True) == ["shop.by_day", "shop.items", "shop.orders"]
    assert names("shop.orders", "shop.orders") == ["shop.orders"]
    assert names("shop.orders", "shop") == names("shop", "shop.orders") == ["shop.items", "shop.orders"]
    assert names("shop.by_day") == ["shop.by_day"]
    assert names("system_auth") == ["system_auth.roles"]
    assert names('"my.ks"."a""b"') == ['my.ks.a"b']


def test_a_keyspace_without_replicas_is_left_out_with_the_reason() -> None:
    """Naming it is no error, and not silently ignored either."""
    scope = choose_tables(SCHEMA, ["private"])
    assert scope.tables == ()
    assert "one copy on each node" in scope.not_checked["private"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shpo", "did you mean 'shop'"),
        ("SHOP", "did you mean"),
        ("shop.order", "did you mean 'orders'"),
        ("shop.ORDERS", "did you mean 'orders'"),
        ("zzz", "there is no keyspace 'zzz'$"),
        ("shop.zzz", "there is no table 'zzz' in keyspace 'shop'$"),
    ],
)
def test_a_name_that_does_not_exist_is_a_usage_error_with_a_suggestion(text: str, words: str) -> None:
    """What comes close is offered, in the case in which it is stored; nothing is offered where nothing does."""
    with pytest.raises(UsageError, match=words):
        choose_tables(SCHEMA, [text])
