"""Native CQL values as text, from their raw bytes, the way cqlsh prints them but at full precision.

Each function takes only bytes, and raises MalformedValueError, struct.error, ValueError or OverflowError on
bytes that are not a value of the type (`MALFORMED`).
"""

from __future__ import annotations

import datetime as dt
import math
import socket
import struct
import uuid
from typing import TYPE_CHECKING

from consistency.model.cqlbytes import MalformedValueError, digits, split_decimal, split_duration

if TYPE_CHECKING:
    from collections.abc import Callable

MALFORMED = (MalformedValueError, struct.error, ValueError, OverflowError)
"""The errors that bytes of the wrong shape raise."""

INTEGER_FORMATS = {"tinyint": ">b", "smallint": ">h", "int": ">i", "bigint": ">q", "counter": ">q"}
OPAQUE = frozenset({"blob", "custom", "empty"})
"""Types whose values are opaque bytes to us and are shown in hex."""

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  UTC throughout, the zone is written out by hand
_EPOCH_DAY = 1 << 31  # SimpleDateType stores the epoch as 2^31
_DAY_NS = 86_400 * 10**9
_DURATION_UNITS_NS = (
    ("h", 3_600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1),
)  # fmt: skip


def hex_text(raw: bytes) -> str:
    """Return bytes as CQL writes a blob."""
    return "0x" + raw.hex()


def _signed(number: int) -> str:
    return "-" + digits(-number) if number < 0 else digits(number)


def _varint(raw: bytes) -> str:
    if not raw:
        raise MalformedValueError("A varint has no bytes.")
    return _signed(int.from_bytes(raw, "big", signed=True))


def _boolean(raw: bytes) -> str:
    return ("false", "true")[(b"\0", b"\1").index(raw)]


def float_text(name: str, raw: bytes) -> str:
    """Return the shortest digits that read back as the same float; a NaN with a payload is malformed."""
    form, nan = (">f", b"\x7f\xc0\0\0") if name == "float" else (">d", b"\x7f\xf8" + b"\0" * 6)
    number: float = struct.unpack(form, raw)[0]
    if math.isnan(number):
        if raw != nan:
            raise MalformedValueError("A NaN other than the one that CQL writes.")
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return _shortest_float32(number, raw) if name == "float" else repr(number)


def _shortest_float32(number: float, raw: bytes) -> str:
    for precision in range(1, 9):
        candidate = float(f"{number:.{precision}g}")
        # Near the largest float a candidate can round up beyond what 32 bits hold.
        if abs(candidate) < 3.4028236e38 and struct.pack(">f", candidate) == raw:
            return repr(candidate)
    return repr(float(f"{number:.9g}"))


def _decimal(raw: bytes) -> str:
    """Spell a decimal as BigDecimal.toString does, which keeps its scale; decimal.Decimal does the same."""
    unscaled, scale = split_decimal(raw)
    sign, text = "-" if unscaled < 0 else "", digits(abs(unscaled))
    exponent = len(text) - 1 - scale
    if scale == 0:
        return sign + text
    if scale > 0 and exponent >= -6:
        text = text.rjust(scale + 1, "0")
        return f"{sign}{text[:-scale]}.{text[-scale:]}"
    point = "." if len(text) > 1 else ""
    return f"{sign}{text[0]}{point}{text[1:]}E{exponent:+d}"


def _timestamp(raw: bytes) -> str:
    instant = _EPOCH + dt.timedelta(milliseconds=struct.unpack(">q", raw)[0])
    return instant.isoformat(sep=" ", timespec="microseconds") + "+0000"


def _date(raw: bytes) -> str:
    """Return the date, or outside the years 1 to 9999 the number of days since 1970-01-01."""
    days = struct.unpack(">I", raw)[0] - _EPOCH_DAY
    try:
        return (_EPOCH + dt.timedelta(days=days)).date().isoformat()
    except OverflowError:
        return str(days)


def _time(raw: bytes) -> str:
    nanoseconds: int = struct.unpack(">q", raw)[0]
    if not 0 <= nanoseconds < _DAY_NS:
        raise MalformedValueError("A time outside the day.")
    seconds, fraction = divmod(nanoseconds, 10**9)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:09}"


def _duration(raw: bytes) -> str:
    """Spell a duration in units from years to nanoseconds, as cqlsh does; zero as `0ns`."""
    months, days, nanoseconds = parts = split_duration(raw)
    negative = min(parts) < 0
    limits = ((months, 31), (days, 31), (nanoseconds, 63))
    if (negative and max(parts) > 0) or any(abs(part) >> bits for part, bits in limits):
        raise MalformedValueError("A duration with mixed signs or beyond its limits.")
    years, months = divmod(abs(months), 12)
    amounts = [("y", years), ("mo", months), ("d", abs(days))]
    rest = abs(nanoseconds)
    for unit, size in _DURATION_UNITS_NS:
        amount, rest = divmod(rest, size)
        amounts.append((unit, amount))
    spelled = "".join(f"{amount}{unit}" for unit, amount in amounts if amount)
    return ("-" if negative else "") + (spelled or "0ns")


def _inet(raw: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


def _integer(form: str) -> Callable[[bytes], str]:
    return lambda raw: str(struct.unpack(form, raw)[0])


SCALAR_TEXT: dict[str, Callable[[bytes], str]] = {
    **{name: _integer(form) for name, form in INTEGER_FORMATS.items()},
    **dict.fromkeys(OPAQUE, hex_text),
    "varint": _varint,
    "boolean": _boolean,
    "float": lambda raw: float_text("float", raw),
    "double": lambda raw: float_text("double", raw),
    "decimal": _decimal,
    "timestamp": _timestamp,
    "date": _date,
    "time": _time,
    "duration": _duration,
    "inet": _inet,
    "uuid": _uuid,
    "timeuuid": _uuid,
}
