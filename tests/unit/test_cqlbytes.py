"""The encodings that the driver's own encoders can be asked about."""

from __future__ import annotations

import sys

import pytest
from cassandra.cqltypes import DecimalType, DurationType, IntegerType
from cassandra.util import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.model.cqlbytes import (
    MalformedValueError,
    digits,
    fixed_bytes,
    read_vint,
    split_decimal,
    split_duration,
    split_map,
    split_vector,
)
from consistency.model.cqltype import parse_type
from tests.support.encoding import join_decimal, join_duration, minimal_bytes

BOUNDED = settings(derandomize=True, max_examples=300, deadline=None)
INT32 = st.integers(0, 2**31 - 1)


@BOUNDED
@given(st.integers())
def test_varints_are_encoded_as_the_driver_does(number: int) -> None:
    """Shows that minimal_bytes is the form that servers and drivers write."""
    assert minimal_bytes(number) == IntegerType.serialize(number, 5)


@BOUNDED
@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_taken_apart_and_put_together(number: object) -> None:
    """Shows that both directions agree with the driver's encoding of a decimal."""
    raw = DecimalType.serialize(number, 5)
    assert join_decimal(*split_decimal(raw)) == raw


@BOUNDED
@given(INT32, INT32, st.integers(0, 2**63 - 1), st.booleans())
def test_durations_are_taken_apart_and_put_together(months: int, days: int, nanos: int, negative: bool) -> None:
    """Shows that vints of every length agree with the driver, of both signs."""
    parts = tuple(-part if negative else part for part in (months, days, nanos))
    raw = DurationType.serialize(Duration(*parts), 5)
    assert split_duration(raw) == parts
    assert join_duration(*parts) == raw


@pytest.mark.parametrize(
    ("raw", "number", "end"),
    [
        ("00", 0, 1),
        ("7f", 127, 1),
        ("8080", 128, 2),
        ("bfff", 16383, 2),
        ("c04000", 16384, 3),
        ("ff" * 9, 2**64 - 1, 9),
    ],
)
def test_vints_of_each_kind(raw: str, number: int, end: int) -> None:
    """Shows where each length of vint begins."""
    assert read_vint(bytes.fromhex(raw), 0) == (number, end)
    with pytest.raises(MalformedValueError):
        read_vint(bytes.fromhex(raw)[:-1], 0)


@pytest.mark.parametrize("bits", [1, 8191, 8192, 8193, 50_000])
def test_digits_beyond_the_interpreters_limit(bits: int) -> None:
    """Shows that long numbers convert exactly although str() refuses them."""
    number = (1 << bits) - 3
    limit = sys.get_int_max_str_digits()
    text = digits(number)
    sys.set_int_max_str_digits(0)
    try:
        assert text == str(number)
    finally:
        sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("float", 4),
        ("uuid", 16),
        ("boolean", 1),
        ("smallint", None),
        ("date", None),
        ("text", None),
        ("vector<int, 3>", 12),
    ],
)
def test_which_sizes_a_vector_leaves_out(text: str, size: int | None) -> None:
    """Shows that short integers and dates carry a length inside a vector, as Cassandra writes them."""
    assert fixed_bytes(parse_type(text, {})) == size


def test_composites_are_split() -> None:
    """Shows a map with a null in it, and a vector of vectors."""
    assert split_map(bytes.fromhex("00000001 00000001 61 ffffffff")) == [b"a", None]
    vectors = parse_type("vector<vector<int, 1>, 2>", {})
    assert split_vector(vectors, bytes(range(8))) == [bytes(range(4)), bytes(range(4, 8))]
