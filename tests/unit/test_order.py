"""Sort keys against independent statements of what Cassandra's comparators do."""

from __future__ import annotations

import math
import struct
import time
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.model.cqlbytes import MalformedValueError
from consistency.model.cqlorder import UnorderableTypeError, key_function, sort_key
from consistency.model.cqltype import UserType, parse_type
from tests.support.encoding import join_decimal, minimal_bytes

UDTS = {"pair": UserType("pair", ("x", "y"), ("int", "text"))}
BOUNDED = settings(derandomize=True, max_examples=200, deadline=None)


def h(digits: str) -> bytes:
    """Read hex, blanks allowed."""
    return bytes.fromhex(digits)


def sized(*parts: bytes | None) -> bytes:
    """Join components as a tuple does."""
    return b"".join(struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part for part in parts)


def listed(*parts: bytes) -> bytes:
    """Join elements as a list does."""
    return struct.pack(">i", len(parts)) + sized(*parts)


def int4(number: int) -> bytes:
    """Encode an int."""
    return struct.pack(">i", number)


# Each row strictly ascending; the server agrees, see tests/cluster/test_order_on_server.py.
ASCENDING: dict[str, list[bytes]] = {
    "ascii": [b"", b"\0", b"A", b"Aa", b"a"],
    "text": [b"", b"a", b"a\0", b"ab", "é".encode(), "\uffff".encode(), "\U0001f600".encode()],
    "blob": [b"", b"\0", b"\x7f", b"\x80", b"\xff", b"\xff\0"],
    "tinyint": [h("80"), h("ff"), h("00"), h("7f")],
    "smallint": [h("8000"), h("ffff"), h("0000"), h("7fff")],
    "int": [b"", int4(-(2**31)), int4(-1), int4(0), int4(1), int4(2**31 - 1)],
    "bigint": [b"", *(struct.pack(">q", number) for number in (-(2**63), -1, 0, 1, 2**63 - 1))],
    "timestamp": [b"", h("8000000000000000"), h("ffffffffffffffff"), h("0000000000000000")],
    "date": [h("00000000"), h("7fffffff"), h("80000000"), h("ffffffff")],
    "time": [h("0000000000000000"), h("00004e94914effff"), h("ffffffffffffffff")],
    "boolean": [b"", h("00"), h("01")],
    "inet": [b"", h("01020304"), h("01020304000000000000000000000000"), h("ff000001")],
    "varint": [b"", minimal_bytes(-(2**80)), *map(h, ("ff7f", "80", "ff", "00", "7f", "0080", "7fff"))],
    "decimal": [
        b"",
        *(join_decimal(unscaled, 1) for unscaled in (-20, -12, -10, -1, 0, 1, 10, 12, 20, 100)),
    ],
    "uuid": [
        b"",
        h("00000000000000000000000000000000"),  # version 0, the nil UUID
        h("ffffffff 0000 1000 0000000000000000"),  # version 1 by time: low part last
        h("00000000 0001 1000 7f00000000000000"),
        h("00000000 0001 1000 8000000000000000"),  # unsigned here, signed in a timeuuid
        h("00000000 0000 1001 0000000000000000"),
        h("00000000 0000 4000 0000000000000000"),
        h("00000001 0000 4000 0000000000000000"),
        h("80000000 0000 4000 0000000000000000"),
        h("00000000 0000 7000 0000000000000000"),
    ],
    "timeuuid": [
        b"",
        h("ffffffff 0000 1000 0000000000000000"),
        h("00000000 0001 1000 8000000000000000"),
        h("00000000 0001 1000 ff00000000000000"),
        h("00000000 0001 1000 0080000000000000"),
        h("00000000 0001 1000 0000000000000000"),
        h("00000000 0001 1000 007f000000000000"),
        h("00000000 0000 1001 0000000000000000"),
    ],
    "frozen<list<int>>": [
        listed(),
        listed(b""),
        listed(int4(-1)),
        listed(int4(1)),
        listed(int4(1), int4(-5)),
        listed(int4(2)),
    ],
    "frozen<map<text, int>>": [
        listed(),
        listed(b"a", int4(1)),
        listed(b"a", int4(1), b"b", int4(0)),
        listed(b"a", int4(2)),
    ],
    "tuple<int, text>": [
        b"",
        sized(None, None),
        sized(None, b""),
        sized(None, b"a"),
        sized(b"", b"z"),
        sized(int4(-1), b"z"),
        sized(int4(1)),
        sized(int4(1), b""),
        sized(int4(1), b"a"),
    ],
    "frozen<pair>": [sized(None, b"b"), sized(int4(0)), sized(int4(0), b"")],
    "vector<float, 2>": [
        h("ff800000 00000000"),
        h("80000000 3f800000"),
        h("00000000 bf800000"),
        h("7fc00000 00000000"),
    ],
    "vector<text, 2>": [h("00 00"), h("00 0161"), h("0161 00"), h("026161 00")],
    "frozen<list<frozen<tuple<blob, int>>>>": [
        listed(sized(None, int4(1))),
        listed(sized(b"a", None)),
        listed(sized(b"a", int4(0))),
    ],
}  # fmt: skip


def count_fixed(text: str, row: list[bytes]) -> list[bytes]:
    """Halve the count of a map, which is of its pairs: `listed` counted keys and values."""
    if not text.startswith("frozen<map"):
        return row
    return [struct.pack(">i", struct.unpack(">i", raw[:4])[0] // 2) + raw[4:] for raw in row]


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("text", ASCENDING)
def test_values_order_as_the_server_orders_them(text: str, descending: bool) -> None:
    """Shows the order of the values that a plain comparison of bytes or numbers would get wrong."""
    cql_type = parse_type(text, UDTS)
    row = count_fixed(text, ASCENDING[text])
    keys = [sort_key(cql_type, raw, descending=descending) for raw in row]
    for one, after in pairwise(reversed(keys) if descending else keys):
        assert one < after
        assert after > one
        assert one != after
    assert sorted(keys) == (keys[::-1] if descending else keys)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("decimal", [join_decimal(10, 1), join_decimal(1, 0), join_decimal(1000, 3), h("00000000 00 01")]),
        ("decimal", [join_decimal(0, 0), join_decimal(0, 5), join_decimal(0, -(2**31))]),
        ("decimal", [join_decimal(-120, 1), join_decimal(-12, 0)]),
        ("varint", [h("01"), h("0001")]),
        ("varint", [h("ff"), h("ffff")]),
        ("boolean", [h("01"), h("02"), h("ff")]),
        ("float", [h("7fc00000"), h("ffc00000"), h("7f800001")]),
        ("double", [h("7ff8000000000000"), h("fff0000000000001")]),
        ("tuple<int, text>", [sized(int4(1)), sized(int4(1), None)]),
        ("tuple<int, decimal>", [sized(int4(1), join_decimal(10, 1)), sized(int4(1), join_decimal(1, 0))]),
        ("empty", [b"", b""]),
    ],
)
def test_values_the_comparator_calls_equal_have_one_key(text: str, same: list[bytes]) -> None:
    """Shows that different bytes of one value are one clustering key, as they are one row on the server."""
    for descending in (False, True):
        keys = {sort_key(parse_type(text, {}), raw, descending=descending) for raw in same}
        assert len(keys) == 1


def sign(number: Any) -> int:
    """Return -1, 0 or 1."""
    return (number > 0) - (number < 0)


def compared(text: str, one: bytes, other: bytes) -> int:
    """Compare by sort key and check that the descending key says the opposite."""
    cql_type = parse_type(text, {})
    up = [sort_key(cql_type, raw) for raw in (one, other)]
    down = [sort_key(cql_type, raw, descending=True) for raw in (one, other)]
    result = (up[0] > up[1]) - (up[0] < up[1])
    assert (down[0] < down[1]) - (down[0] > down[1]) == result
    return result


UNSCALED = st.integers(-1100, 1100) | st.integers()


@BOUNDED
@given(UNSCALED, st.integers(-30, 30), UNSCALED, st.integers(-30, 30))
def test_decimals_order_as_exact_fractions(one: int, one_scale: int, other: int, other_scale: int) -> None:
    """Shows that the key, which never computes a power of ten, agrees with exact arithmetic."""
    expected = sign(one * Fraction(10) ** -one_scale - other * Fraction(10) ** -other_scale)
    assert compared("decimal", join_decimal(one, one_scale), join_decimal(other, other_scale)) == expected


def test_huge_decimals_cost_little() -> None:
    """Shows that neither a huge exponent nor 100,000 digits blow up: squared costs would take minutes."""
    started_s = time.process_time()
    huge = join_decimal(7**120_000, 0)
    assert compared("decimal", join_decimal(1, -(2**31)), join_decimal(9, 2**31 - 1)) == 1
    assert compared("decimal", huge, join_decimal(7**120_000 + 1, 0)) == -1
    assert compared("decimal", huge, join_decimal(7**120_000 * 10, 1)) == 0
    assert time.process_time() - started_s < 5


@BOUNDED
@given(st.integers(), st.integers())
def test_varints_order_as_integers(one: int, other: int) -> None:
    """Shows numeric order whatever the lengths and signs."""
    assert compared("varint", minimal_bytes(one), minimal_bytes(other)) == sign(one - other)


@BOUNDED
@given(st.floats(), st.floats())
def test_doubles_order_as_in_java(one: float, other: float) -> None:
    """Shows Double.compare: -0.0 before 0.0, NaN last and equal to itself."""

    def java(number: float) -> tuple[bool, float, float]:
        return (True, 0.0, 0.0) if math.isnan(number) else (False, number, math.copysign(1, number))

    expected = (java(one) > java(other)) - (java(one) < java(other))
    assert compared("double", struct.pack(">d", one), struct.pack(">d", other)) == expected


@BOUNDED
@given(st.binary(max_size=6), st.binary(max_size=6))
def test_descending_bytes_are_ascending_bytes_reversed(one: bytes, other: bytes) -> None:
    """Shows that complementing handles prefixes and the bytes at both ends."""
    assert compared("blob", one, other) == (one > other) - (one < other)


@BOUNDED
@given(*[st.lists(st.lists(st.integers(0, 2), max_size=3), max_size=3)] * 2)
def test_nested_lists_order_as_lists(one: list[list[int]], other: list[list[int]]) -> None:
    """Shows element by element comparison at every depth, the shorter first, both ways round."""
    raws = [listed(*(listed(*map(int4, inner)) for inner in value)) for value in (one, other)]
    assert compared("frozen<list<frozen<list<int>>>>", *raws) == (one > other) - (one < other)


def test_rows_order_column_by_column_each_its_own_way() -> None:
    """Shows a key of four columns, mixed directions, with a static-only row's nulls before everything."""
    columns = [
        (parse_type(text, {}), down) for text, down in (("int", True), ("text", False), ("text", True), ("uuid", True))
    ]
    key = key_function(columns)
    rows: list[list[bytes | None]] = [
        [None, None, None, None],
        [int4(2), b"a", b"b", b"\0" * 16],
        [int4(2), b"a", b"", b"\0" * 16],
        [int4(2), b"a", b"", b""],
        [int4(2), b"b", b"", b""],
        [int4(1), b"", b"", b""],
        [b"", b"", b"", b""],
    ]
    shuffled = [rows[at] for at in (3, 6, 0, 5, 1, 4, 2)]
    assert sorted(shuffled, key=key) == rows


@pytest.mark.parametrize("text", ["'a.b.C'", "frozen<list<'a.b.C'>>", "duration", "counter"])
def test_a_type_without_a_known_order_is_refused_when_the_key_is_built(text: str) -> None:
    """Shows that a scan cannot start on an order that would be a guess."""
    with pytest.raises(UnorderableTypeError, match="not known"):
        key_function([(parse_type(text, {}), False)])


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("int", h("00")),
        ("uuid", h("00")),
        ("float", h("0000000000000000")),
        ("decimal", h("00000000")),
        ("frozen<list<int>>", h("00000002 00000004 00000001")),
        ("frozen<list<int>>", h("7fffffff")),
        ("frozen<list<int>>", h("00000000 00")),
        ("tuple<int>", sized(int4(1), int4(2))),
        ("tuple<int>", h("00000004 00")),
        ("vector<int, 2>", h("00000001")),
        ("vector<text, 2>", h("00 05")),
        ("vector<text, 2>", h("00 00 00")),
    ],
)
def test_bytes_that_are_no_value_are_named_as_such(text: str, raw: bytes) -> None:
    """Shows that damage raises the one error a reader of a replica expects, without the value in it."""
    with pytest.raises(MalformedValueError) as caught:
        sort_key(parse_type(text, {}), raw)
    assert raw.hex() not in str(caught.value)
