"""The bytes of a cell: splits the native protocol's encodings into parts, without interpreting them.

Integers are big-endian. A null component is `None`. Each function raises MalformedValueError when the
bytes do not have the shape the type demands.
"""

from __future__ import annotations

import decimal
import struct
from typing import TYPE_CHECKING

from consistency.errors import ReplicaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consistency.model.cqltype import CqlType

# AbstractType.valueLengthIfFixed of Cassandra 5.0: in a vector these have no length before each element.
# Cassandra itself leaves out tinyint, smallint, date, time and inet.
_FIXED_BYTES = {
    "boolean": 1, "int": 4, "float": 4, "bigint": 8, "double": 8, "timestamp": 8, "uuid": 16, "timeuuid": 16,
    "empty": 0,
}  # fmt: skip

_int32 = struct.Struct(">i")

# Below this many bits str() is fast and under the interpreter's limit on digits; above, it is quadratic.
_PLAIN_STR_BITS = 8192
_EXACT = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.Inexact])


class MalformedValueError(ReplicaError):
    """A replica returned bytes that are not a value of the column's type. The message never holds them."""


def split_sequence(raw: bytes) -> list[bytes | None]:
    """Return the elements of a list or a set."""
    return _sized(raw, 4, _count(raw))


def split_map(raw: bytes) -> list[bytes | None]:
    """Return the keys and values of a map, alternating: key, value, key, value."""
    return _sized(raw, 4, 2 * _count(raw))


def split_tuple(raw: bytes, arity: int) -> list[bytes | None]:
    """Return a tuple's or user type's components; fewer than `arity` if fields were added since."""
    parts: list[bytes | None] = []
    at = 0
    while at < len(raw):
        part, at = _sized_one(raw, at)
        parts.append(part)
    if len(parts) > arity:
        raise MalformedValueError("A tuple holds more components than its type.")
    return parts


def split_vector(cql_type: CqlType, raw: bytes) -> list[bytes]:
    """Return the elements of a vector: bare if their size is fixed, else with a vint length each (VectorType)."""
    (element,), count = cql_type.args, cql_type.dimension or 0
    size = fixed_bytes(element)
    if size is not None:
        if len(raw) != size * count:
            raise MalformedValueError("A vector's length does not fit its type.")
        return [raw[at * size : (at + 1) * size] for at in range(count)]
    parts = []
    at = 0
    for _ in range(count):
        size, at = read_vint(raw, at)
        if at + size > len(raw):
            raise MalformedValueError("A vector is cut short.")
        parts.append(raw[at : at + size])
        at += size
    if at != len(raw):
        raise MalformedValueError("A vector has bytes after its end.")
    return parts


def fixed_bytes(cql_type: CqlType) -> int | None:
    """Return the size in bytes of every value of this type inside a vector, None if sizes vary."""
    if cql_type.name == "vector":
        size = fixed_bytes(cql_type.args[0])
        return None if size is None else size * (cql_type.dimension or 0)
    return _FIXED_BYTES.get(cql_type.name)


def split_decimal(raw: bytes) -> tuple[int, int]:
    """Return (unscaled, scale) of a decimal: the number is unscaled x 10^-scale (DecimalSerializer)."""
    if len(raw) < 5:
        raise MalformedValueError("A decimal is cut short.")
    return int.from_bytes(raw[4:], "big", signed=True), _int32.unpack_from(raw)[0]


def split_duration(raw: bytes) -> tuple[int, int, int]:
    """Return (months, days, nanoseconds) of a duration: three zigzag vints (DurationSerializer)."""
    at = 0
    parts = []
    for _ in range(3):
        zigzag, at = read_vint(raw, at)
        parts.append((zigzag >> 1) ^ -(zigzag & 1))
    if at != len(raw):
        raise MalformedValueError("A duration has bytes after its end.")
    months, days, nanoseconds = parts
    return months, days, nanoseconds


def read_vint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned vint at offset `at` and the offset after it.

    VIntCoding: as many leading ones in the first byte as bytes follow it, the rest is the number.
    """
    if at >= len(raw):
        raise MalformedValueError("A vint is missing.")
    first = raw[at]
    extra = 8 - (~first & 0xFF).bit_length()
    end = at + 1 + extra
    if end > len(raw):
        raise MalformedValueError("A vint is cut short.")
    high = first & (0xFF >> extra)
    return high << (8 * extra) | int.from_bytes(raw[at + 1 : end], "big"), end


def digits(number: int) -> str:
    """Return the decimal digits of a number >= 0 of any size, in less than quadratic time."""
    if number.bit_length() < _PLAIN_STR_BITS:
        return str(number)
    return str(_to_decimal(number, number.bit_length(), {}))


def _to_decimal(number: int, bits: int, powers: dict[int, decimal.Decimal]) -> decimal.Decimal:
    """Convert by halves: libmpdec multiplies huge numbers fast, the interpreter's own conversion does not."""
    if bits <= 256:
        return decimal.Decimal(number)
    half = bits // 2
    if half not in powers:
        powers[half] = _EXACT.power(2, half)
    high = _to_decimal(number >> half, bits - half, powers)
    low = _to_decimal(number & ((1 << half) - 1), half, powers)
    return _EXACT.fma(high, powers[half], low)


def _count(raw: bytes) -> int:
    if len(raw) < 4:
        raise MalformedValueError("A collection is cut short.")
    count: int = _int32.unpack_from(raw)[0]
    # Each element takes at least 4 bytes, so a higher count is damage and must not start a loop.
    if not 0 <= count <= len(raw) // 4:
        raise MalformedValueError("A collection's count does not fit its length.")
    return count


def _sized(raw: bytes, at: int, count: int) -> list[bytes | None]:
    parts = []
    for _ in range(count):
        part, at = _sized_one(raw, at)
        parts.append(part)
    if at != len(raw):
        raise MalformedValueError("A collection has bytes after its end.")
    return parts


def _sized_one(raw: bytes, at: int) -> tuple[bytes | None, int]:
    """Return the bytes after the 4-byte length at `at`, and the offset after them; a negative length is null."""
    if at + 4 > len(raw):
        raise MalformedValueError("A length is cut short.")
    size = _int32.unpack_from(raw, at)[0]
    at += 4
    if size < 0:
        return None, at
    if at + size > len(raw):
        raise MalformedValueError("A component is cut short.")
    return raw[at : at + size], at + size


def partition_bytes(key: Sequence[bytes | None]) -> bytes:
    """Serialize a partition key as DecoratedKey holds it (CompositeType if it has several columns)."""
    if len(key) == 1:
        return key[0] or b""
    return b"".join(len(part or b"").to_bytes(2, "big") + (part or b"") + b"\0" for part in key)
