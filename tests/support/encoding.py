"""The encodings of values that the checker only takes apart, the other way round."""

from __future__ import annotations


def join_decimal(unscaled: int, scale: int) -> bytes:
    """Encode a decimal as Cassandra does, the unscaled part in as few bytes as possible."""
    return scale.to_bytes(4, "big", signed=True) + minimal_bytes(unscaled)


def minimal_bytes(number: int) -> bytes:
    """Encode a varint as Cassandra does: two's complement in as few bytes as possible, at least one."""
    bits = (number if number >= 0 else ~number).bit_length()
    return number.to_bytes(bits // 8 + 1, "big", signed=True)


def join_duration(months: int, days: int, nanoseconds: int) -> bytes:
    """Encode a duration as Cassandra does."""
    return b"".join(_write_vint((part << 1) ^ (part >> 63)) for part in (months, days, nanoseconds))


def _write_vint(number: int) -> bytes:
    extra = max(0, (number.bit_length() - 1) // 7)
    if extra >= 8:
        return b"\xff" + number.to_bytes(8, "big")
    ones = (0xFF << (8 - extra)) & 0xFF
    return (number | ones << (8 * extra)).to_bytes(extra + 1, "big")
