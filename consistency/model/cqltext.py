"""Raw cell bytes as JSON, as text for a person, and as CQL literals that write the same bytes again.

Text follows cqlsh (5.0), with two differences: numbers keep full precision, and bytes that are not a value of
their type are shown as `0x` and hex digits instead of raising. Text whose bytes are not UTF-8 is shown that way
too; only there can a real text look the same.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from consistency.errors import ReplicaError
from consistency.model.cqlbytes import (
    MalformedValueError,
    join_decimal,
    join_duration,
    minimal_bytes,
    split_decimal,
    split_duration,
    split_map,
    split_sequence,
    split_tuple,
    split_vector,
)
from consistency.model.cqlscalars import INTEGER_FORMATS, MALFORMED, OPAQUE, SCALAR_TEXT, float_text, hex_text
from consistency.model.cqltype import quote_identifier, quote_string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from consistency.model.cqltype import CqlType

    Leaf = Callable[[CqlType, bytes | None], str]


class NoLiteralError(ReplicaError):
    """These bytes have no CQL literal: a collection or tuple that is damaged or empty."""


_STRINGS = frozenset({"ascii", "text", "varchar"})
_QUOTED_INSIDE = frozenset({*_STRINGS, "inet", "timestamp"})

# json.dumps refuses an integer beyond the interpreter's limit on digits (4300 unless changed).
_JSON_INTEGER_BITS = 8192


def to_json(cql_type: CqlType, raw: bytes | None) -> Any:
    """Return a value in its JSON form.

    Integers, booleans, strings, finite floats (a 32-bit one by its shortest digits), and lists and vectors of
    those are native JSON. Null is None. Everything else, damaged bytes included, is the text of to_text without
    its escapes. Never raises.
    """
    if raw is None:
        return None
    native = _native(cql_type, raw)
    return _text_or_hex(cql_type, raw) if native is None else native


def to_text(cql_type: CqlType, raw: bytes | None) -> str:
    r"""Return a value as text for a terminal. Never raises.

    Every character that is not plainly visible (controls, ESC, line ends, bidi marks, unusual spaces) is escaped
    as in `\x1b` or `\u202e`, and the backslash is doubled, so no value can move the cursor or reorder the line.
    """
    return visible("null" if raw is None else _text_or_hex(cql_type, raw))


def to_literal(cql_type: CqlType, raw: bytes | None) -> str:
    """Return a CQL literal (4.0 and later) that stores these bytes again.

    If the usual spelling would store other bytes, as for an empty int, a padded varint or an IPv4 address
    in IPv6 form, it is a `blobAs...` call, which CQL takes in the same places. A user type written before
    fields were added gets its missing fields as null, and the server sorts a set. Raises NoLiteralError.
    """
    if raw is None:
        return "null"
    try:
        return _literal(cql_type, raw)
    except MALFORMED:
        msg = f"A value of type {cql_type.cql} has no CQL literal."
        raise NoLiteralError(msg) from None


def visible(text: str) -> str:
    """Return the text with every character that is not plainly visible escaped, and backslashes doubled."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode("ascii")


def _native(cql_type: CqlType, raw: bytes) -> Any:
    """Return the exact JSON value, or None if there is none."""
    try:
        if cql_type.name in ("list", "vector"):
            return _native_list(cql_type, raw)
        if cql_type.name in _STRINGS:
            return _string(cql_type, raw)
        return _native_number(cql_type.name, raw)
    except MALFORMED:
        return None


def _native_number(name: str, raw: bytes) -> Any:
    if name in INTEGER_FORMATS:
        return struct.unpack(INTEGER_FORMATS[name], raw)[0]
    if name == "boolean":
        return {b"\0": False, b"\1": True}.get(raw)
    if name in ("float", "double"):
        number = float(float_text(name, raw))
        return number if math.isfinite(number) else None
    if name == "varint" and raw:
        number = int.from_bytes(raw, "big", signed=True)
        return number if number.bit_length() < _JSON_INTEGER_BITS else None
    return None


def _native_list(cql_type: CqlType, raw: bytes) -> list[Any] | None:
    (element,) = cql_type.args
    values = []
    for part in _parts(cql_type, raw):
        value = None if part is None else _native(element, part)
        if value is None:
            return None
        values.append(value)
    return values


def _text_or_hex(cql_type: CqlType, raw: bytes) -> str:
    try:
        return _text(cql_type, raw)
    except MALFORMED:
        return hex_text(raw)


def _text(cql_type: CqlType, raw: bytes) -> str:
    if cql_type.args:
        return _composite(cql_type, raw, _text_inside)
    return _string(cql_type, raw) if cql_type.name in _STRINGS else SCALAR_TEXT[cql_type.name](raw)


def _text_inside(cql_type: CqlType, raw: bytes | None) -> str:
    if raw is None:
        return "null"
    text = _text(cql_type, raw)
    return quote_string(text) if cql_type.name in _QUOTED_INSIDE else text


def _literal(cql_type: CqlType, raw: bytes) -> str:
    if cql_type.args:
        return _composite(cql_type, raw, _literal_inside)
    if cql_type.name in OPAQUE:
        return hex_text(raw)
    try:
        literal = _plain_literal(cql_type, raw)
    except MALFORMED:
        literal = None
    return f"blobAs{cql_type.name.capitalize()}({hex_text(raw)})" if literal is None else literal


def _literal_inside(cql_type: CqlType, raw: bytes | None) -> str:
    return "null" if raw is None else _literal(cql_type, raw)


def _plain_literal(cql_type: CqlType, raw: bytes) -> str | None:
    """Return the usual spelling of a scalar, or None if the server would store other bytes for it."""
    name = cql_type.name
    if name in _STRINGS:
        return quote_string(_string(cql_type, raw))
    if name == "timestamp":
        return str(struct.unpack(">q", raw)[0])
    if name == "date":
        return str(struct.unpack(">I", raw)[0])
    if name in _CANONICAL and not _CANONICAL[name](raw):
        return None
    text = SCALAR_TEXT[name](raw)
    return quote_string(text) if name in ("inet", "time") else text


def _is_canonical_decimal(raw: bytes) -> bool:
    unscaled, scale = split_decimal(raw)
    # BigDecimal's parser takes no exponent near the limits of 32 bits, so stay far inside them.
    return abs(scale) < 10**9 and join_decimal(unscaled, scale) == raw


_CANONICAL: dict[str, Callable[[bytes], bool]] = {
    "varint": lambda raw: minimal_bytes(int.from_bytes(raw, "big", signed=True)) == raw,
    "decimal": _is_canonical_decimal,
    "duration": lambda raw: join_duration(*split_duration(raw)) == raw,
    # InetAddress turns an IPv4 address in IPv6 form into four bytes.
    "inet": lambda raw: not (len(raw) == 16 and raw.startswith(b"\0" * 10 + b"\xff\xff")),
}


def _parts(cql_type: CqlType, raw: bytes) -> list[bytes | None]:
    if cql_type.name == "vector":
        return [*split_vector(cql_type, raw)]
    if cql_type.name in ("list", "set"):
        return split_sequence(raw)
    if cql_type.name == "map":
        return split_map(raw)
    if not raw:
        raise MalformedValueError("A tuple has no bytes.")
    return split_tuple(raw, len(cql_type.args))


def _composite(cql_type: CqlType, raw: bytes, leaf: Leaf) -> str:
    """Return a composite value with its parts rendered by `leaf`; CQL and cqlsh spell the frame in the same way."""
    parts = _parts(cql_type, raw)
    name, args = cql_type.name, cql_type.args
    if name == "map":
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return _braced(f"{leaf(args[0], key)}: {leaf(args[1], value)}" for key, value in pairs)
    if name == "udt":
        parts += [None] * (len(args) - len(parts))
        named = zip(cql_type.fields, args, parts, strict=True)
        return _braced(f"{quote_identifier(field)}: {leaf(arg, part)}" for field, arg, part in named)
    if name == "tuple":
        return f"({', '.join(leaf(arg, part) for arg, part in zip(args, parts, strict=False))})"
    inner = (leaf(args[0], part) for part in parts)
    return _braced(inner) if name == "set" else f"[{', '.join(inner)}]"


def _braced(inner: Iterable[str]) -> str:
    return "{" + ", ".join(inner) + "}"


def _string(cql_type: CqlType, raw: bytes) -> str:
    return raw.decode("ascii" if cql_type.name == "ascii" else "utf-8")
