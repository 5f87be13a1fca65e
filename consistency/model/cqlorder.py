"""Sort keys for raw cell bytes: Python objects in the server's order of clustering values.

Each function follows the class of org.apache.cassandra.db.marshal that it names (4.0 to 5.0 agree). Two
values that the comparator calls equal, such as the decimals 1.0 and 1.00, have equal keys. A descending
column needs no wrapper: its keys are negated, or complemented, at the source (ReversedType).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from consistency.errors import SchemaError
from consistency.model.cqlbytes import (
    MalformedValueError,
    digits,
    split_decimal,
    split_map,
    split_sequence,
    split_tuple,
    split_vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from consistency.model.cqltype import CqlType

    CellKey = Callable[[bytes | None], Any]
    RowKey = Callable[[Sequence[bytes | None]], tuple[Any, ...]]


class UnorderableTypeError(SchemaError):
    """The server's order of this type is not known here (a custom type), or it has none."""


class _Edge:
    """A key before (rank < 0) or after (rank > 0) every ordinary key of any type; edges are ordered by rank."""

    __slots__ = ("rank",)

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __lt__(self, other: object) -> bool:
        return self.rank < _rank(other)

    def __le__(self, other: object) -> bool:
        return self.rank <= _rank(other)

    def __gt__(self, other: object) -> bool:
        return self.rank > _rank(other)

    def __ge__(self, other: object) -> bool:
        return self.rank >= _rank(other)

    def __eq__(self, other: object) -> bool:
        return self.rank == _rank(other)

    def __hash__(self) -> int:
        return hash(self.rank)

    def __repr__(self) -> str:
        return f"_Edge({self.rank})"


def _rank(key: object) -> int:
    return key.rank if isinstance(key, _Edge) else 0


# ClusteringComparator puts a null clustering value first, in a descending column too.
_NULL = _Edge(-3)
# By direction (1 ascending, -1 descending): an empty value, a null inside a tuple, a sequence's end.
_EMPTY = {1: _Edge(-1), -1: _Edge(1)}
_NULL_INSIDE = {1: _Edge(-2), -1: _Edge(2)}
_END: dict[int, tuple[Any, ...]] = {1: (), -1: (_Edge(3),)}

_COMPLEMENT = bytes(255 - byte for byte in range(256))
_NINES = str.maketrans("0123456789", "9876543210")


def key_function(columns: Sequence[tuple[CqlType, bool]]) -> RowKey:
    """Return a function from a row's raw clustering values to its sort key.

    `columns` are (type, descending), in the order of the values. The function takes as many cells as there
    are columns, `None` for the null of a static-only row; it raises MalformedValueError on bytes that are not a
    value of the type. Raises UnorderableTypeError here if a type has no known order.
    """
    keys = tuple(_cell_key(cql_type, -1 if descending else 1) for cql_type, descending in columns)
    return _checked(_row_key(keys))


def sort_key(cql_type: CqlType, raw: bytes | None, *, descending: bool = False) -> Any:
    """Return the sort key of one value; for many rows build a key_function once instead."""
    return key_function([(cql_type, descending)])([raw])[0]


def _row_key(keys: tuple[CellKey, ...]) -> RowKey:
    # One and two columns are by far the most common and a comprehension would double their cost.
    if len(keys) == 1:
        (only,) = keys
        return lambda row: (only(row[0]),)
    if len(keys) == 2:
        first, second = keys
        return lambda row: (first(row[0]), second(row[1]))
    return lambda row: tuple([key(raw) for key, raw in zip(keys, row, strict=True)])


def _checked(row_key: RowKey) -> RowKey:
    def checked(row: Sequence[bytes | None]) -> tuple[Any, ...]:
        try:
            return row_key(row)
        except struct.error:
            raise MalformedValueError("A clustering value's length does not fit its type.") from None

    return checked


@lru_cache(maxsize=1024)
def _cell_key(cql_type: CqlType, sign: int) -> CellKey:
    """Return the key function of one type; `sign` is 1 for ascending, -1 for descending."""
    name = cql_type.name
    if name in _INTEGER_FORMATS:
        return _integer(_INTEGER_FORMATS[name], sign)
    if name in _SIMPLE:
        return _SIMPLE[name](sign)
    if name in ("list", "set", "map"):
        return _sequence(cql_type, sign)
    if name in ("tuple", "udt"):
        return _tuple(cql_type, sign)
    if name == "vector":
        return _vector(cql_type, sign)
    msg = f"The server's order of the type {cql_type.cql} is not known."
    raise UnorderableTypeError(msg)


def _absent(raw: bytes | None, sign: int) -> _Edge:
    """Return the key of a null or of an empty value, which comes first in every type that allows it."""
    return _NULL if raw is None else _EMPTY[sign]


def _bytes(sign: int) -> CellKey:
    """Compare unsigned bytes; a prefix comes before longer values (ComparisonType.BYTE_ORDER)."""
    if sign > 0:
        return lambda raw: _NULL if raw is None else raw
    # Complemented bytes as characters, ended by one above them all, so longer values come first.
    return lambda raw: _NULL if raw is None else raw.translate(_COMPLEMENT).decode("latin-1") + "\u0100"


_INTEGER_FORMATS = {
    "tinyint": ">b",  # ByteType
    "smallint": ">h",  # ShortType
    "int": ">i",  # Int32Type
    "bigint": ">q",  # LongType
    "timestamp": ">q",  # TimestampType: milliseconds, compared as LongType does
}


def _integer(form: str, sign: int) -> CellKey:
    unpack = struct.Struct(form).unpack
    if sign > 0:
        return lambda raw: unpack(raw)[0] if raw else _absent(raw, 1)
    return lambda raw: -unpack(raw)[0] if raw else _absent(raw, -1)


def _varint(sign: int) -> CellKey:
    """Compare numerically; padding bytes do not count (IntegerType)."""
    return lambda raw: sign * int.from_bytes(raw, "big", signed=True) if raw else _absent(raw, sign)


def _float(form: str, infinity: int) -> Callable[[int], CellKey]:
    """Compare as Java does: -0.0 before 0.0, all NaN equal and last (FloatType, DoubleType).

    `form` reads the bits as a signed integer, `infinity` are the bits of +Infinity.
    """
    unpack = struct.Struct(form).unpack
    magnitude = (1 << (8 * struct.calcsize(form) - 1)) - 1

    def of_sign(sign: int) -> CellKey:
        def key(raw: bytes | None) -> Any:
            if not raw:
                return _absent(raw, sign)
            bits: int = unpack(raw)[0]
            if bits < 0:
                bits ^= magnitude
            if not ~infinity <= bits <= infinity:
                bits = magnitude
            return sign * bits

        return key

    return of_sign


def _boolean(sign: int) -> CellKey:
    """Any byte but zero is true (BooleanType)."""
    return lambda raw: sign * (raw != b"\0") if raw else _absent(raw, sign)


def _empty(_sign: int) -> CellKey:
    """All values are equal (EmptyType)."""
    return lambda raw: _NULL if raw is None else 0


def _decimal(sign: int) -> CellKey:
    """Compare numerically, ignoring the scale, as BigDecimal.compareTo (DecimalType).

    The key is (sign, decimal exponent, digits): no power of ten is ever computed, so a huge exponent is free.
    """

    def key(raw: bytes | None) -> Any:
        if not raw:
            return _absent(raw, sign)
        unscaled, scale = split_decimal(raw)
        if not unscaled:
            return (0, 0, "")
        text = digits(abs(unscaled))
        exponent = len(text) - scale
        if (unscaled > 0) == (sign > 0):
            return (1, exponent, text.rstrip("0"))
        # Of two negative numbers with the same first digits the longer one is smaller: ":" is above "9".
        return (-1, -exponent, text.rstrip("0").translate(_NINES) + ":")

    return key


_unpack_uuid = struct.Struct(">QQ").unpack


def _time_first(high: int) -> int:
    """Reorder the first 8 bytes of a version 1 UUID to version, time high, mid, low."""
    return (high & 0xFFFF) << 48 | (high & 0xFFFF0000) << 16 | high >> 32


def _uuid(sign: int) -> CellKey:
    """By version; within version 1 by time, else unsigned; then the last 8 bytes unsigned (UUIDType)."""

    def key(raw: bytes | None) -> Any:
        if not raw:
            return _absent(raw, sign)
        high, low = _unpack_uuid(raw)
        version = high >> 12 & 0xF
        if version == 1:
            high = _time_first(high)
        return sign * (version << 128 | high << 64 | low)

    return key


def _timeuuid(sign: int) -> CellKey:
    """By time, then the last 8 bytes each as a signed byte (AbstractTimeUUIDType, CASSANDRA-8730)."""

    def key(raw: bytes | None) -> Any:
        if not raw:
            return _absent(raw, sign)
        high, low = _unpack_uuid(raw)
        return sign * (_time_first(high) << 64 | low ^ 0x8080808080808080)

    return key


_SIMPLE: dict[str, Callable[[int], CellKey]] = {
    "ascii": _bytes,
    "text": _bytes,
    "varchar": _bytes,
    "blob": _bytes,
    "inet": _bytes,
    "date": _bytes,  # SimpleDateType: days, with the epoch at 2^31
    "time": _bytes,
    "varint": _varint,
    "decimal": _decimal,
    "boolean": _boolean,
    "float": _float(">i", 0x7F800000),
    "double": _float(">q", 0x7FF0000000000000),
    "uuid": _uuid,
    "timeuuid": _timeuuid,
    "empty": _empty,
}


def _sequence(cql_type: CqlType, sign: int) -> CellKey:
    """Element by element, a map's key then its value, the shorter one first (ListType, SetType, MapType)."""
    elements = [_cell_key(arg, sign) for arg in cql_type.args]
    split = split_map if cql_type.name == "map" else split_sequence
    end = _END[sign]

    def key(raw: bytes | None) -> Any:
        if not raw:
            return _absent(raw, sign)
        parts = split(raw)
        return (*_inside(elements * (len(parts) // len(elements)), parts, sign), *end)

    return key


def _tuple(cql_type: CqlType, sign: int) -> CellKey:
    """Component by component, null first; trailing nulls count as missing (TupleType, UserType)."""
    elements = [_cell_key(arg, sign) for arg in cql_type.args]
    arity, end = len(elements), _END[sign]

    def key(raw: bytes | None) -> Any:
        if not raw:
            return _absent(raw, sign)
        parts = split_tuple(raw, arity)
        while parts and parts[-1] is None:
            parts.pop()
        return (*_inside(elements, parts, sign), *end)

    return key


def _vector(cql_type: CqlType, sign: int) -> CellKey:
    """Element by element; all vectors of a type are equally long (VectorType)."""
    element = _cell_key(cql_type.args[0], sign)

    def key(raw: bytes | None) -> Any:
        if not raw:
            return _absent(raw, sign)
        return tuple([element(part) for part in split_vector(cql_type, raw)])

    return key


def _inside(elements: Iterable[CellKey], parts: Sequence[bytes | None], sign: int) -> list[Any]:
    """Return the keys of the parts; there may be fewer parts than elements."""
    null = _NULL_INSIDE[sign]
    return [null if part is None else key(part) for key, part in zip(elements, parts, strict=False)]
