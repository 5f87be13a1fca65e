"""Runs the aggregates of the scanner's own digest statements, as selects.py writes them, over simulated rows.

The select list of those statements happens to be valid Python once the functions are there, so that a column
left out of a statement, or a null that takes a whole sum with it, shows here as it would on a server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, SimpleNamespace
from typing import Any

import xxhash

from consistency.cluster import selects
from consistency.cluster.hashed_columns import HashedColumns
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
    """A number that may be null: null in, null out. `size`: the bytes of a bigint or an int as a blob."""

    __slots__ = ("size", "value")

    def __init__(self, value: int | None, size: int = 0) -> None:
        self.value = value
        self.size = size

    def __add__(self, other: Number) -> Number:
        return Number(None if self.value is None or other.value is None else self.value + other.value)

    def __mod__(self, other: Number) -> Number:
        if self.value is None or other.value is None:
            return Number(None)
        assert self.value >= 0 < other.value, "Java and Python differ on remainders of negative numbers"
        return Number(self.value % other.value)

    def __repr__(self) -> str:
        return repr(self.value)


def _number(raw: bytes | None) -> Number:
    return Number(None, 0) if raw is None else Number(int.from_bytes(raw, "big", signed=True), len(raw))


def _token(*arguments: Held) -> Number:
    parts = [a.value for a in arguments]
    return Number(None) if None in parts else Number(token_of([part or b"" for part in parts]), 8)


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
    return Number(max(times, default=None), 8)


def _tuple(one: int, *parts: Held | Number) -> Held:
    """Return the bytes of a tuple of blobs: 0x01 and what follows it."""
    blobs = [one.to_bytes(1, "big"), *map(_blob, parts)]
    return Held(b"".join(b"\xff" * 4 if blob is None else len(blob).to_bytes(4, "big") + blob for blob in blobs))


def _blob(part: Held | Number) -> bytes | None:
    if isinstance(part, Held) or part.value is None:
        return part.value  # type: ignore[return-value]
    return part.value.to_bytes(part.size, "big", signed=True)


FUNCTIONS = {
    "writetime": lambda held: _number(held.writetime),
    "maxwritetime": _newest,
    "ttl": lambda held: _number(held.ttl),
    "tuple_of_blobs": _tuple,
    "varint": Number,
    # The bare name of one of these may be another function of the table's keyspace.
    "system": SimpleNamespace(
        token=_token,
        mask_hash=_mask_hash,
        blob_as_varint=lambda raw: Number(int.from_bytes(raw, "big", signed=True)),
        blobAsVarint=lambda held: Number(int.from_bytes(held.value, "big", signed=True)),
        blobAsVarchar=lambda held: held,
        sum=lambda number: number,
    ),
}
_SPELLED = (
    (re.compile(r"\(tuple<[blob, ]*>\)"), "tuple_of_blobs"),
    (re.compile(r"\(varint\)(\d+)"), r"varint(\1)"),
    (re.compile(r"cast\((.*) as varint\)"), r"(\1)"),
    (re.compile(r" AS hash$"), ""),
)
"""Type hints, casts and names of CQL, and what says the same in Python."""


def _python(terms: str) -> str:
    for cql, python in _SPELLED:
        terms = cql.sub(python, terms)
    return terms


@lru_cache(maxsize=256)
def _compiled(reading: Reading) -> CodeType:
    statement = selects.hash_digest(reading, TokenRange.full_ring(), "MD5")
    terms = statement.removeprefix("SELECT count(*), ").rsplit(" FROM ", 1)[0]
    return compile(_python(terms), "<digest statement>", "eval")


def server_digest(reading: Reading, raws: Sequence[RawRow]) -> Digest:
    """Return the digest that the scanner's statement gives over these rows."""
    code = _compiled(reading)
    total = sum(eval(code, FUNCTIONS | _names(reading, raw)).value or 0 for raw in raws)
    return Digest(len(raws), (total % 2**160).to_bytes(20, "big"))


@lru_cache(maxsize=256)
def _compiled_hash(reading: Reading) -> CodeType:
    statement = selects.hash_rows(reading, TokenRange.full_ring(), "MD5")
    columns = statement.removeprefix("SELECT ").rsplit(" FROM ", 1)[0]
    return compile(f"({_python(columns)},)[-1]", "<hash statement>", "eval")


def row_hash(reading: Reading, raw: RawRow) -> bytes:
    """Return the hash that the scanner's statement gives for this row."""
    hashed = eval(_compiled_hash(reading), FUNCTIONS | _names(reading, raw))
    if isinstance(hashed, Number):
        return _written(hashed) or b""
    assert isinstance(hashed, bytes)
    return hashed


@lru_cache(maxsize=256)
def _compiled_columns(reading: Reading, asked: HashedColumns) -> CodeType:
    statement = selects.hashed_rows(reading, TokenRange.full_ring(), "MD5", asked)
    columns = statement.removeprefix("SELECT ").rsplit(" FROM ", 1)[0]
    return compile(f"({_python(columns)},)", "<hashed columns statement>", "eval")


def hashed_columns(reading: Reading, raws: Sequence[RawRow], asked: HashedColumns) -> Page:
    """Return the page that the scanner's statement gives for these rows."""
    code = _compiled_columns(reading, asked)
    rows = [[_sent(cell) for cell in eval(code, FUNCTIONS | _names(reading, raw))] for raw in raws]
    body = b"".join(INT.pack(-1) if cell is None else INT.pack(len(cell)) + cell for row in rows for cell in row)
    return Page(len(raws), len(rows[0]) if rows else 0, body)


def _sent(cell: Held | Number | bytes) -> bytes | None:
    if isinstance(cell, Number):
        return _written(cell)
    return cell.value if isinstance(cell, Held) else cell


def _written(number: Number) -> bytes | None:
    return None if number.value is None else number.value.to_bytes(number.size or 16, "big", signed=True)


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
