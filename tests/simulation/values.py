"""Columns of the simulated tables: seeded values, how they are serialized, and how the server orders them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from consistency.model.cqltype import parse_type
from consistency.model.ring import Replication
from consistency.model.schema import Column, Keyspace, Table

_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")


def int_bytes(value: int) -> bytes:
    """Serialize an int."""
    return _INT.pack(value)


def long_bytes(value: int) -> bytes:
    """Serialize a bigint."""
    return _LONG.pack(value)


def sized(parts: Sequence[bytes | None]) -> bytes:
    """Serialize a list of values: their count, then each behind its length; null has the length -1."""
    out = [_INT.pack(-1) if part is None else _INT.pack(len(part)) + part for part in parts]
    return _INT.pack(len(parts)) + b"".join(out)


@dataclass(frozen=True)
class Scalar:
    """How a type's values are drawn, serialized and compared; the comparison is Python's own, not the scanner's."""

    cql: str
    draw: Callable[[random.Random], Any]
    to_bytes: Callable[[Any], bytes]
    order: Callable[[bytes], Any]


def _text(rng: random.Random) -> str:
    return "".join(rng.choice("abAZ ~é") for _ in range(rng.randrange(1, 5)))


SCALARS: dict[str, Scalar] = {
    "int": Scalar(
        "int", lambda rng: rng.randrange(-50, 50), int_bytes, lambda raw: _INT.unpack(raw)[0] if raw else -(2**31) - 1
    ),
    "bigint": Scalar(
        "bigint", lambda rng: rng.randrange(-(2**40), 2**40), long_bytes, lambda raw: _LONG.unpack(raw)[0]
    ),
    "text": Scalar("text", _text, lambda value: str(value).encode(), lambda raw: raw),
    "boolean": Scalar("boolean", lambda rng: rng.random() < 0.5, lambda value: bytes([value]), lambda raw: raw),
    "varint": Scalar(
        "varint",
        lambda rng: rng.choice([0, 1, -1, 127, 128, -128, -129, 10**12, -(10**12), rng.randrange(-999, 999)]),
        lambda value: value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True),
        lambda raw: int.from_bytes(raw, "big", signed=True),
    ),
}


def draw_bytes(rng: random.Random, name: str) -> bytes:
    """Draw a value of a type and serialize it."""
    scalar = SCALARS[name]
    return scalar.to_bytes(scalar.draw(rng))


class Reversed:
    """Orders the other way round, for a descending clustering column."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: Reversed) -> bool:
        return bool(other.key < self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reversed) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def clustering_order(table: Table) -> Callable[[Sequence[bytes]], tuple[Any, ...]]:
    """Return the server's order of a table's clustering values."""
    rules = [(SCALARS[c.type.name].order, c.reversed) for c in table.clustering]
    return lambda raw: tuple(
        Reversed(order(part)) if descending else order(part)
        for (order, descending), part in zip(rules, raw, strict=False)
    )


PARTITION_KEYS = (("int",), ("text",), ("bigint",), ("int", "text"), ("text", "bigint"))
CLUSTERINGS = ((), (), ("int",), ("text",), ("varint",), ("int", "text"), ("boolean", "int"))
REGULARS = ("int", "text", "bigint", "map<text, int>", "set<int>", "list<text>", "frozen<list<int>>")


def column(name: str, kind: str, position: int, cql: str, *, descending: bool = False) -> Column:
    """Return one column."""
    return Column(name, kind, position, parse_type(cql, {}), descending)


def make_table(
    name: str,
    partition: Sequence[str],
    clustering: Sequence[str | tuple[str, bool]] = (),
    statics: Sequence[str] = (),
    regulars: Sequence[str] = ("int",),
    gc_grace_seconds: int = 864_000,
    keyspace: str = "ks",
) -> Table:
    """Return a table of columns p0.., c0.., s0.., v0..; a clustering column may be (type, descending)."""
    placed = [c if isinstance(c, tuple) else (c, False) for c in clustering]
    columns = [column(f"p{i}", "partition_key", i, cql) for i, cql in enumerate(partition)]
    columns += [
        column(f"c{i}", "clustering", i, cql, descending=descending) for i, (cql, descending) in enumerate(placed)
    ]
    columns += [column(f"s{i}", "static", -1, cql) for i, cql in enumerate(statics)]
    columns += [column(f"v{i}", "regular", -1, cql) for i, cql in enumerate(regulars)]
    return Table(keyspace, name, f"id-of-{name}", tuple(columns), gc_grace_seconds=gc_grace_seconds)


def draw_table(rng: random.Random, name: str) -> Table:
    """Draw a table of any shape: keys of one or two columns, statics, collections, or no regular column at all."""
    clustering = rng.choice(CLUSTERINGS)
    statics = [rng.choice(REGULARS) for _ in range(rng.choice((0, 1, 1, 2)))] if clustering else []
    regulars = [rng.choice(REGULARS) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    return make_table(
        name,
        rng.choice(PARTITION_KEYS),
        [(cql, rng.random() < 0.3) for cql in clustering],
        statics,
        regulars,
        gc_grace_seconds=rng.choice((600, 864_000)),
    )


def keyspace(name: str, replication: Replication, tables: Sequence[Table]) -> Keyspace:
    """Return a keyspace of these tables."""
    return Keyspace(name, replication, {table.name: table for table in tables})
