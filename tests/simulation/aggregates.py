"""Runs the aggregates of the scanner's own digest statements, as selects.py writes them, over simulated rows.

The select list of those statements happens to be valid Python once the functions are there, so that a column
left out of a statement, or a null that takes a whole sum with it, shows here as it would on a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

import xxhash

from consistency.cluster import selects
from consistency.cluster.wire import INT, Page
from consistency.model.reading import CellColumn, RawRow, Reading
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from tests.simulation.storage import token_of


@dataclass(frozen=True, slots=True)
class Held:
    """What a column name stands for in one row."""

    value: bytes | None
    writetime: bytes | None = None
    ttl: bytes | None = None

    def __repr__(self) -> str:
        return repr(self.value)


class Number:
    """A bigint that may be null: null in, null out."""

    __slots__ = ("value",)

    def __init__(self, value: int | None) -> None:
        self.value = value

    def __add__(self, other: Number | int) -> Number:
        right = other.value if isinstance(other, Number) else other
        return Number(None if self.value is None or right is None else self.value + right)

    def __mul__(self, other: Number | int) -> Number:
        right = other.value if isinstance(other, Number) else other
        return Number(None if self.value is None or right is None else self.value * right)

    def __repr__(self) -> str:
        return repr(self.value)


def _number(raw: bytes | None) -> Number:
    return Number(None if raw is None else int.from_bytes(raw, "big", signed=True))


def _token(*arguments: Held) -> Number:
    parts = [a.value for a in arguments]
    return Number(None) if None in parts else Number(token_of([part or b"" for part in parts]))


def _mask_hash(value: Any, algorithm: str) -> bytes | None:
    # Collections arrive as Held, their write times as raw bytes wrapped in a Number; repr tells all of it.
    if isinstance(value, Held) and value.value is None:
        return None
    return xxhash.xxh3_128_digest(repr(value).encode())


def _newest(held: Held) -> Number:
    """Return the newest of a collection's write times."""
    raw = held.writetime
    if raw is None:
        return Number(None)
    times, at = [], 4
    for _ in range(INT.unpack_from(raw)[0]):
        length = INT.unpack_from(raw, at)[0]
        at += 4
        if length > 0:
            times.append(int.from_bytes(raw[at : at + length], "big", signed=True))
        at += max(length, 0)
    return Number(max(times, default=None))


FUNCTIONS = {
    "token": _token,
    "writetime": lambda held: _number(held.writetime),
    "maxwritetime": _newest,
    "ttl": lambda held: _number(held.ttl),
    "mask_hash": _mask_hash,
    "blob_as_varint": lambda raw: Number(int.from_bytes(raw, "big", signed=True)),
    "sum": lambda number: number,
}


@lru_cache(maxsize=256)
def _compiled(reading: Reading) -> CodeType:
    everything = TokenRange.full_ring()
    if reading.capabilities.hashes:
        statement = selects.hash_digest(reading, everything, "MD5")
    else:
        statement = selects.sum_digest(reading, everything)
    head, _, rest = statement.partition("SELECT count(*), ")
    assert not head
    return compile(f"({rest.rsplit(' FROM ', 1)[0]},)", "<digest statement>", "eval")


def server_digest(reading: Reading, raws: Sequence[RawRow]) -> Digest:
    """Return the digest that the scanner's statement gives over these rows."""
    code = _compiled(reading)
    sums: list[int] = []
    for raw in raws:
        numbers = eval(code, FUNCTIONS | _names(reading, raw))
        sums = sums or [0] * len(numbers)
        sums = [total + (number.value or 0) for total, number in zip(sums, numbers, strict=True)]
    if reading.capabilities.hashes:
        return Digest(len(raws), (sum(sums) % 2**160).to_bytes(20, "big"))
    return Digest(len(raws), b"".join((total % 2**64).to_bytes(8, "big") for total in sums))


@lru_cache(maxsize=256)
def _compiled_hash(reading: Reading) -> CodeType:
    statement = selects.hash_rows(reading, TokenRange.full_ring(), "MD5")
    columns = statement.removeprefix("SELECT ").rsplit(" FROM ", 1)[0]
    return compile(f"({columns},)[-1]", "<hash statement>", "eval")


def row_hash(reading: Reading, raw: RawRow) -> bytes:
    """Return the hash that the scanner's statement gives for this row."""
    hashed: bytes = eval(_compiled_hash(reading), FUNCTIONS | _names(reading, raw))
    return hashed


@lru_cache(maxsize=256)
def _compiled_timed(reading: Reading) -> CodeType:
    statement = selects.hash_rows_timed(reading, TokenRange.full_ring(), "MD5")
    columns = statement.removeprefix("SELECT ").rsplit(" FROM ", 1)[0]
    return compile(f"({columns},)", "<timed hash statement>", "eval")


def timed_hashes(reading: Reading, raws: Sequence[RawRow]) -> Page:
    """Return the page that the scanner's statement gives for these rows."""
    code = _compiled_timed(reading)
    body, width = bytearray(), 5 + len(selects.row_times(reading))
    for raw in raws:
        for cell in eval(code, FUNCTIONS | _names(reading, raw)):
            written = _bigint(cell) if isinstance(cell, Number) else cell
            body += INT.pack(-1) if written is None else INT.pack(len(written)) + written
    return Page(len(raws), width, bytes(body))


def _bigint(number: Number) -> bytes | None:
    return None if number.value is None else number.value.to_bytes(8, "big", signed=True)


def _names(reading: Reading, raw: RawRow) -> dict[str, Held]:
    names = {c.name: Held(part) for c, part in zip(reading.table.primary_key, raw[reading.layout.key], strict=True)}
    at = reading.layout.statics.start
    for column in reading.statics + reading.regulars:
        names[column.column.name] = _held(column, raw, at)
        at += column.width
    return names


def _held(column: CellColumn, raw: RawRow, at: int) -> Held:
    value = raw[at] if column.value else None
    at += column.value
    writetime = raw[at] if column.writetime else None
    at += column.writetime
    return Held(value, writetime, raw[at] if column.ttl else None)
