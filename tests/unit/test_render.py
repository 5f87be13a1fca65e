"""Values as JSON, as text and as literals, for ordinary and for hostile bytes."""

from __future__ import annotations

import datetime as dt
import json
import struct
import unicodedata
import uuid
from decimal import Decimal
from typing import Any

import pytest
from cassandra.cqltypes import DateType, DecimalType
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.model.cqltext import to_json, to_text, visible
from consistency.model.cqltype import NATIVE, UserType, parse_type
from tests.support.encoding import join_decimal, join_duration, minimal_bytes

UDTS = {"pair": UserType("pair", ("x", "Y z"), ("int", "text"))}
BOUNDED = settings(derandomize=True, max_examples=300, deadline=None)
COMPOSITES = [
    "list<int>",
    "set<text>",
    "map<text, uuid>",
    "tuple<int, text>",
    "pair",
    "vector<float, 2>",
    "vector<text, 2>",
    "list<frozen<map<text, frozen<list<decimal>>>>>",
    "'a.B'",
]
ALL_TYPES = [*sorted(NATIVE), *COMPOSITES]
UUID = uuid.UUID("0fe7f8a4-0000-11ee-be56-0242ac120002")
MAPPED = bytes(10) + bytes([255, 255, 1, 2, 3, 4])  # an IPv4 address in IPv6 form


def h(digits: str) -> bytes:
    """Read hex, blanks allowed."""
    return bytes.fromhex(digits)


def sized(*parts: bytes | None) -> bytes:
    """Join components as a tuple does."""
    return b"".join(struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part for part in parts)


def listed(*parts: bytes, count: int | None = None) -> bytes:
    """Join elements as a list does; a map passes its count of pairs."""
    return struct.pack(">i", len(parts) if count is None else count) + sized(*parts)


def int4(number: int) -> bytes:
    """Encode an int."""
    return struct.pack(">i", number)


def long8(number: int) -> bytes:
    """Encode a bigint."""
    return struct.pack(">q", number)


# type, bytes, JSON, text (None: the same), literal (None: the text)
EXAMPLES: list[tuple[str, bytes, Any, str | None, str | None]] = [
    ("tinyint", h("80"), -128, "-128"),
    ("smallint", h("7fff"), 32767, "32767"),
    ("int", int4(-5), -5, "-5"),
    ("bigint", long8(-(2**63)), -(2**63), "-9223372036854775808"),
    ("counter", long8(7), 7, "7"),
    ("varint", minimal_bytes(-(10**30)), -(10**30), str(-(10**30))),
    ("varint", h("0001"), 1, "1"),
    ("boolean", h("01"), True, "true"),
    ("boolean", h("00"), False, "false"),
    ("boolean", h("02"), "0x02", None),
    ("text", "it's é".encode(), "it's é", None),
    ("text", b"a\0\n\x1b[2J", "a\0\n\x1b[2J", r"a\x00\n\x1b[2J"),
    ("text", "\u202eab\\".encode(), "\u202eab\\", r"\u202eab\\"),
    ("text", h("c080"), "0xc080", None),
    ("text", b"", "", None),
    ("ascii", b"a'", "a'", None),
    ("ascii", h("e9"), "0xe9", None),
    ("blob", b"", "0x", None),
    ("blob", h("00ff"), "0x00ff", None),
    ("int", b"", "0x", None),
    ("int", h("0001"), "0x0001", None),
    ("float", struct.pack(">f", 0.1), 0.1, "0.1"),
    ("float", h("7f7fffff"), 3.4028235e38, "3.4028235e+38"),
    ("float", h("00000001"), 1e-45, "1e-45"),
    ("float", h("7fc00000"), "NaN", None),
    ("float", h("ffc00000"), "0xffc00000", None),
    ("double", struct.pack(">d", 0.1 + 0.2), 0.30000000000000004, "0.30000000000000004"),
    ("double", struct.pack(">d", -0.0), -0.0, "-0.0"),
    ("double", struct.pack(">d", float("inf")), "Infinity", None),
    ("double", struct.pack(">d", float("-inf")), "-Infinity", None),
    ("decimal", join_decimal(-100, 2), "-1.00", None),
    ("decimal", join_decimal(1, 10), "1E-10", None),
    ("decimal", join_decimal(12, -5), "1.2E+6", None),
    ("decimal", join_decimal(12, -(2**31)), "1.2E+2147483649", None),
    ("decimal", h("00000000 0005"), "5", None),
    ("uuid", UUID.bytes, str(UUID), None),
    ("timeuuid", UUID.bytes, str(UUID), None),
    ("uuid", b"", "0x", None),
    ("inet", h("7f000001"), "127.0.0.1", None),
    ("inet", h("20010db8000000000000000000000001"), "2001:db8::1", None),
    ("inet", MAPPED, "::ffff:1.2.3.4", None),
    ("timestamp", long8(1704067200123), "2024-01-01 00:00:00.123000+0000", None),
    ("timestamp", long8(-62135596800000), "0001-01-01 00:00:00.000000+0000", None),
    ("timestamp", long8(253402300800000), "0x0000e677d21fdc00", None),
    ("date", struct.pack(">I", (1 << 31) + 19723), "2024-01-01", None),
    ("date", h("00000000"), "-2147483648", None),
    ("date", h("ffffffff"), "2147483647", None),
    ("time", long8(12 * 3600 * 10**9 + 1), "12:00:00.000000001", None),
    ("time", long8(86400 * 10**9 - 1), "23:59:59.999999999", None),
    ("time", long8(-1), "0xffffffffffffffff", None),
    ("duration", join_duration(1, 2, 3 * 3600 * 10**9), "1mo2d3h", None),
    ("duration", join_duration(-14, 0, -1_001_001), "-1y2mo1ms1us1ns", None),
    ("duration", join_duration(0, 0, 0), "0ns", None),
    ("duration", join_duration(1, -1, 0), "0x020100", None),
    ("'a.B'", h("00ff"), "0x00ff", None),
    ("empty", b"", "0x", None),
    ("list<int>", listed(int4(1), int4(2)), [1, 2], "[1, 2]"),
    ("list<text>", listed(b"a'\n"), ["a'\n"], r"['a''\n']"),
    ("list<uuid>", listed(UUID.bytes), f"[{UUID}]", None),
    ("list<float>", listed(h("7fc00000"), h("3f800000")), "[NaN, 1.0]", None),
    ("list<int>", listed(b""), "0x0000000100000000", None),
    ("list<int>", listed(), [], "[]"),
    ("list<frozen<list<boolean>>>", listed(listed(b"\1")), [[True]], "[[true]]"),
    ("set<int>", listed(int4(1), int4(2)), "{1, 2}", None),
    ("map<text, int>", listed(b"a", int4(1), b"b", int4(2), count=2), "{'a': 1, 'b': 2}", None),
    (
        "map<inet, timestamp>",
        listed(h("01020304"), long8(0), count=1),
        "{'1.2.3.4': '1970-01-01 00:00:00.000000+0000'}",
        None,
    ),
    ("tuple<int, text>", sized(int4(1), b"a"), "(1, 'a')", None),
    ("tuple<int, text>", sized(int4(1), None), "(1, null)", None),
    ("tuple<int, text>", sized(int4(1)), "(1)", None),
    ("pair", sized(int4(1), b"b"), "{x: 1, \"Y z\": 'b'}", None),
    ("pair", sized(int4(1)), '{x: 1, "Y z": null}', None),
    ("vector<float, 2>", h("3f800000 3fc00000"), [1.0, 1.5], "[1.0, 1.5]"),
    ("vector<smallint, 2>", h("02 0001 02 ffff"), [1, -1], "[1, -1]"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "raw", "as_json", "as_text"), EXAMPLES)
def test_values_are_shown_as_cqlsh_shows_them(text: str, raw: bytes, as_json: Any, as_text: str | None) -> None:
    """Shows each type's two forms, with the odd values whose forms differ."""
    cql_type = parse_type(text, UDTS)
    shown = as_json if as_text is None else as_text
    found = to_json(cql_type, raw)
    assert (found, type(found)) == (as_json, type(as_json))
    assert to_text(cql_type, raw) == shown


@pytest.mark.parametrize("text", ALL_TYPES)
def test_null_is_null(text: str) -> None:
    """Shows both forms of a missing cell."""
    cql_type = parse_type(text, UDTS)
    assert (to_json(cql_type, None), to_text(cql_type, None)) == (None, "null")


@pytest.mark.parametrize("text", ALL_TYPES)
def test_no_bytes_make_rendering_fail(text: str) -> None:
    """Shows that any bytes at all give JSON that dumps and text that a terminal can take, for every type."""
    cql_type = parse_type(text, UDTS)

    @settings(BOUNDED, max_examples=100)
    @given(st.binary(max_size=24))
    def check(raw: bytes) -> None:
        json.dumps(to_json(cql_type, raw), allow_nan=False)
        assert to_text(cql_type, raw).isprintable()

    check()


@BOUNDED
@given(st.text())
def test_nothing_invisible_reaches_the_terminal(text: str) -> None:
    """Shows that escapes leave only plain characters, and that no two values look the same."""
    shown = visible(text)
    assert all(unicodedata.category(character)[0] != "C" for character in shown)
    assert not set(shown) & {"\u2028", "\u2029", "\xa0"}
    plain = shown.encode("ascii", "backslashreplace").decode("unicode_escape")
    assert plain == text


@BOUNDED
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_is_shown_by_digits_that_read_back(number: float) -> None:
    """Shows that the digits give the same 32 bits again and never more than nine."""
    raw = struct.pack(">f", number)
    shown = to_json(parse_type("float", {}), raw)
    assert struct.pack(">f", shown) == raw
    assert len(Decimal(repr(shown)).normalize().as_tuple().digits) <= 9


@BOUNDED
@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_spelled_as_python_spells_them(number: Decimal) -> None:
    """Shows scale and exponent against an independent implementation of the same rule."""
    shown = to_json(parse_type("decimal", {}), DecimalType.serialize(number, 5))
    assert shown == str(number or abs(number))


@BOUNDED
@given(st.datetimes())
def test_timestamps_agree_with_the_driver(moment: dt.datetime) -> None:
    """Shows every representable millisecond against the driver's own decoding."""
    raw = DateType.serialize(moment.replace(microsecond=0), 5)
    decoded = DateType.deserialize(raw, 5)
    expected = decoded.isoformat(sep=" ", timespec="microseconds") + "+0000"
    assert to_json(parse_type("timestamp", {}), raw) == expected


def test_numbers_of_any_length_are_shown() -> None:
    """Shows that 10,000 digits pass although json.dumps and str() refuse such an integer."""
    raw = minimal_bytes(-(10**10_000))
    varint = parse_type("varint", {})
    assert to_json(varint, raw) == to_text(varint, raw) == "-1" + "0" * 10_000
    json.dumps(to_json(varint, raw))
