"""How a row is named: by its token and the server's own bytes of its key, in memory and in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from consistency.cluster.port import Key
from consistency.errors import InternalError, UsageError
from consistency.model.cqltext import to_json
from consistency.model.layout import token_in
from consistency.model.reading import RawRow, Reading
from consistency.model.schema import Column, Table
from consistency.results.findings import Finding


@dataclass(frozen=True, slots=True)
class RowName:
    """Which row: its token and serialized primary key; a static row is named by its partition key alone."""

    token: int
    key: Key
    static: bool = False

    def columns(self, table: Table) -> tuple[Column, ...]:
        """Return the columns that `key` holds."""
        return table.partition_key if self.static else table.primary_key


Identity = tuple[str, str, tuple[tuple[str, str], ...]]
"""Keyspace, table and key."""


@dataclass(frozen=True, slots=True)
class RowRef:
    """Which row: table, token and the serialized key, column by column, as the findings file has it.

    `key` is the same as people read it, empty if nobody told; what is acted on is `key_hex`.
    """

    keyspace: str
    table: str
    token: int
    key_hex: Mapping[str, str]
    key: Mapping[str, object] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, finding: Finding) -> RowRef:
        """Return which row a finding is about."""
        return cls(finding.keyspace, finding.table, finding.token, finding.key_hex, finding.key)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "keyspace": self.keyspace,
            "table": self.table,
            "token": self.token,
            "key": dict(self.key),
            "key_hex": dict(self.key_hex),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RowRef:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        key_hex = {str(name): bytes.fromhex(text).hex() for name, text in data["key_hex"].items()}
        return cls(str(data["keyspace"]), str(data["table"]), int(data["token"]), key_hex, dict(data.get("key", {})))

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"

    @property
    def identity(self) -> Identity:
        """What tells the row from others, in any file and on any night."""
        return self.keyspace, self.table, tuple(sorted(self.key_hex.items()))


def row_name(table: Table, ref: RowRef) -> RowName:
    """Address the row by the server's own bytes; a key without clustering columns names the static row."""
    partition = [c.name for c in table.partition_key]
    static = bool(table.statics) and set(ref.key_hex) == set(partition)
    wanted = partition if static else [c.name for c in table.primary_key]
    if set(ref.key_hex) != set(wanted):
        msg = f"{table.full_name} has another primary key than when it was checked; run the check again"
        raise UsageError(msg)
    return RowName(ref.token, tuple(bytes.fromhex(ref.key_hex[n]) for n in wanted), static)


def row_ref(table: Table, name: RowName) -> RowRef:
    """Return what a findings file calls the row: the opposite of `row_name`."""
    pairs = list(zip(name.columns(table), name.key, strict=True))
    key_hex = {column.name: raw.hex() for column, raw in pairs}
    return RowRef(table.keyspace, table.name, name.token, key_hex, {c.name: to_json(c.type, raw) for c, raw in pairs})


def name_in(reading: Reading, raw: RawRow) -> RowName:
    """Name the raw row: the row of the table that it is, or the static row where it has nothing else."""
    static = not reading.has_row(raw)
    return RowName(token_in(raw), named_key(raw[reading.layout.partition if static else reading.layout.key]), static)


def named_key(cells: Sequence[bytes | None]) -> Key:
    """Return a primary key by which the row can be asked for, or raise InternalError if CQL has none."""
    key = tuple(part for part in cells if part is not None)
    if len(key) != len(cells):
        raise InternalError("a row lacks a clustering column (COMPACT STORAGE) and cannot be asked for in CQL")
    return key
