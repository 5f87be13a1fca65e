"""Types read from system_schema's text and printed back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.model.cqltype import (
    NATIVE,
    RESERVED,
    CqlType,
    UnknownTypeError,
    UserType,
    parse_type,
    quote_identifier,
)

UDTS = {
    "address": UserType("address", ("street", "Zip code"), ("text", "frozen<list<int>>")),
    "Case Udt": UserType("Case Udt", ("a",), ("frozen<address>",)),
    'q"t': UserType('q"t', ("a",), ("int",)),
    "loop": UserType("loop", ("again",), ("frozen<loop>",)),
    "odd": UserType("odd", ("a", "b"), ("int",)),
    "stale": UserType("stale", ("a",), ("frozen<gone>",)),
}
BOUNDED = settings(derandomize=True, max_examples=200, deadline=None)

NAMES = st.sampled_from(
    [*sorted(NATIVE), "address", '"Case Udt"', '"q""t"', "'org.apache.cassandra.db.marshal.It''s(a=>B)'"]
)
TYPES = st.recursive(
    NAMES,
    lambda inner: st.one_of(
        inner.map("list<{}>".format),
        inner.map("set<{}>".format),
        inner.map("frozen<{}>".format).filter(lambda text: "frozen<frozen" not in text),
        st.tuples(inner, inner).map(lambda two: "map<{}, {}>".format(*two)),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: f"tuple<{', '.join(some)}>"),
        st.tuples(inner, st.integers(1, 2000)).map(lambda two: "vector<{}, {}>".format(*two)),
    ),
    max_leaves=6,
)


@BOUNDED
@given(TYPES)
def test_a_type_is_printed_as_it_was_read(text: str) -> None:
    """Shows that parsing loses nothing of the spelling, for every form the grammar has."""
    assert parse_type(text, UDTS).cql == text


@BOUNDED
@given(TYPES)
def test_blanks_between_tokens_do_not_matter(text: str) -> None:
    """Shows that only the tokens count."""
    if "'" in text:
        return
    spaced = text.replace("<", " < ").replace(">", " > ").replace(", ", ",")
    assert parse_type(spaced, UDTS) == parse_type(text, UDTS)


def test_a_user_type_brings_its_fields() -> None:
    """Shows that a user type nested in a user type is resolved, with field names as they are."""
    outer = parse_type('frozen<"Case Udt">', UDTS)
    address = CqlType(
        "udt",
        (CqlType("text"), CqlType("list", (CqlType("int"),), frozen=True)),
        frozen=True,
        fields=("street", "Zip code"),
        label="address",
    )
    assert outer == CqlType("udt", (address,), frozen=True, fields=("a",), label="Case Udt")


@pytest.mark.parametrize(
    ("text", "multicell", "collection"),
    [
        ("list<int>", True, True),
        ("frozen<list<int>>", False, True),
        ("map<text, frozen<set<int>>>", True, True),
        ("address", True, False),
        ("frozen<address>", False, False),
        ("tuple<int, text>", False, False),
        ("vector<float, 3>", False, False),
        ("text", False, False),
        ("'a.B'", False, False),
    ],
)
def test_what_is_stored_as_several_cells(text: str, multicell: bool, collection: bool) -> None:
    """Shows which column types have one write time per element."""
    parsed = parse_type(text, UDTS)
    assert (parsed.is_multicell, parsed.is_collection) == (multicell, collection)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends too early"),
        ("int>", "after its end"),
        ("list<int", "ends too early"),
        ("list<int, text>", "gives list 2 parameters instead of 1"),
        ("map<int>", "gives map 1 parameters instead of 2"),
        ("int<text>", "takes none"),
        ("vector<float>", "without a positive dimension"),
        ("vector<float, 0>", "without a positive dimension"),
        ("vector<float, x>", "not a number"),
        ("vector<float, 3, 4>", "lacks a '>'"),
        ("nosuch", "neither native nor in this keyspace"),
        ('"int"', "neither native nor in this keyspace"),
        ("frozen<stale>", "neither native nor in this keyspace"),
        ("loop", "contains itself"),
        ("odd", "differ in number"),
        ("list<;>", "cannot be read from character 5"),
        ("<int>", "where a type should be"),
    ],
)
def test_text_that_is_no_type_is_refused(text: str, reason: str) -> None:
    """Shows that each way of being wrong is named, with the text at fault."""
    with pytest.raises(UnknownTypeError, match=reason):
        parse_type(text, UDTS)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("plain_1", "plain_1"),
        ("Upper", '"Upper"'),
        ("1st", '"1st"'),
        ("_a", '"_a"'),
        ("two words", '"two words"'),
        ('say "x"', '"say ""x"""'),
        ("select", '"select"'),
        ("key", "key"),
        ("é", '"é"'),
        ("a\n", '"a\n"'),
        ("", '""'),
    ],
)
def test_identifiers_are_quoted_only_where_they_must_be(name: str, quoted: str) -> None:
    """Shows the rule of quoting: lower-case words that are not reserved stay bare."""
    assert quote_identifier(name) == quoted


def test_reserved_words_are_quoted() -> None:
    """Shows that no reserved word is left bare."""
    assert all(quote_identifier(word) == f'"{word}"' for word in RESERVED)
