"""Raw cell bytes as JSON, and as text for a person; and names in a sentence.

Text follows cqlsh (5.0), with two differences: numbers keep full precision, and bytes that are not a value of
their type are shown as `0x` and hex digits instead of raising. Text whose bytes are not UTF-8 is shown that way
too; only there can a real text look the same.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from consistency.model.cqlbytes import (
    MalformedValueError,
    split_map,
    split_sequence,
    split_tuple,
    split_vector,
)
from consistency.model.cqlscalars import INTEGER_FORMATS, MALFORMED, SCALAR_TEXT, float_text, hex_text
from consistency.model.cqltype import quote_identifier, quote_string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from consistency.model.cqltype import CqlType

    Leaf = Callable[[CqlType, bytes | None], str]


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


def visible(text: str) -> str:
    """Return the text with every character that is not plainly visible escaped, and backslashes doubled."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode("ascii")


def some_of(names: Sequence[str], most: int) -> str:
    """Return the first names for a sentence, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
        return _composite(cql_type, raw)
    return _string(cql_type, raw) if cql_type.name in _STRINGS else SCALAR_TEXT[cql_type.name](raw)


def _text_inside(cql_type: CqlType, raw: bytes | None) -> str:
    if raw is None:
        return "null"
    text = _text(cql_type, raw)
    return quote_string(text) if cql_type.name in _QUOTED_INSIDE else text


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


def _composite(cql_type: CqlType, raw: bytes) -> str:
    parts = _parts(cql_type, raw)
    name, args = cql_type.name, cql_type.args
    if name == "map":
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return _braced(f"{_text_inside(args[0], key)}: {_text_inside(args[1], value)}" for key, value in pairs)
    if name == "udt":
        parts += [None] * (len(args) - len(parts))
        named = zip(cql_type.fields, args, parts, strict=True)
        return _braced(f"{quote_identifier(field)}: {_text_inside(arg, part)}" for field, arg, part in named)
    if name == "tuple":
        return f"({', '.join(_text_inside(arg, part) for arg, part in zip(args, parts, strict=False))})"
    inner = (_text_inside(args[0], part) for part in parts)
    return _braced(inner) if name == "set" else f"[{', '.join(inner)}]"


def _braced(inner: Iterable[str]) -> str:
    return "{" + ", ".join(inner) + "}"


def _string(cql_type: CqlType, raw: bytes) -> str:
    return raw.decode("ascii" if cql_type.name == "ascii" else "utf-8")
