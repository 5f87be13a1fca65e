"""Keyspaces and tables as system_schema describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from consistency.errors import SchemaError
from consistency.model.cqltype import CqlType, UserType, parse_type, quote_identifier
from consistency.model.ring import Replication

SYSTEM_KEYSPACES = frozenset(
    {"system", "system_schema", "system_auth", "system_distributed", "system_traces", "system_views",
     "system_virtual_schema", "system_cluster_metadata", "system_metadata"}
)  # fmt: skip
"""Cassandra's own; `check` leaves them out unless they are named, `audit` judges the replicated ones."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `kind` is partition_key, clustering, static or regular as in system_schema.columns."""

    name: str
    kind: str
    position: int
    type: CqlType
    reversed: bool = False
    masked: bool = False

    @property
    def quoted(self) -> str:
        """The name as CQL needs it."""
        return quote_identifier(self.name)


@dataclass(frozen=True)
class Table:
    """One table or materialized view, with its columns in the order of reading."""

    keyspace: str
    name: str
    table_id: str
    columns: tuple[Column, ...]
    gc_grace_seconds: int = 864000
    read_repair: str = "BLOCKING"
    speculative_retry: str = "99P"
    compaction: str = ""
    default_ttl: int = 0
    is_counter: bool = False
    view_of: str | None = None
    params: tuple[tuple[str, str], ...] = field(default=())
    indexes: tuple[str, ...] = ()
    """Its secondary indexes, as people read them."""
    dropped: tuple[str, ...] = ()
    """Columns that were dropped, and when: one of that name that was added since holds nothing of what they held."""

    @property
    def full_name(self) -> str:
        """`keyspace.table`, for people."""
        return f"{self.keyspace}.{self.name}"

    @property
    def quoted(self) -> str:
        """`keyspace.table`, for CQL."""
        return f"{quote_identifier(self.keyspace)}.{quote_identifier(self.name)}"

    @cached_property
    def partition_key(self) -> tuple[Column, ...]:
        """The partition key's columns in order."""
        return self._of("partition_key")

    @cached_property
    def clustering(self) -> tuple[Column, ...]:
        """The clustering columns in order."""
        return self._of("clustering")

    @cached_property
    def statics(self) -> tuple[Column, ...]:
        """Static columns by name."""
        return self._of("static")

    @cached_property
    def regulars(self) -> tuple[Column, ...]:
        """Regular columns by name."""
        return self._of("regular")

    @property
    def primary_key(self) -> tuple[Column, ...]:
        """Partition key, then clustering columns."""
        return self.partition_key + self.clustering

    @cached_property
    def respelled(self) -> bool:
        """Whether Cassandra can take clustering keys of different bytes for the same key."""
        return any(c.type.is_respelled for c in self.clustering)

    @property
    def copies_on_read(self) -> bool:
        """Whether a read of one partition may make servers write, by read repair after a speculative retry."""
        return self.read_repair != "NONE" and self.speculative_retry not in {"NEVER", "NONE"}

    @cached_property
    def fingerprint(self) -> str:
        """A fingerprint of the columns; it changes when what a digest covers can change."""
        text = "\n".join(
            f"{c.name}\0{c.kind}\0{c.position}\0{c.type.cql}\0{c.reversed}"
            + ("\0masked" if c.masked else "")
            + "".join(f"\0{fields}" for fields in c.type.fields_of_user_types)
            for c in self.columns
        )
        text += "".join(f"\ndropped {column}" for column in self.dropped)
        return hashlib.sha256(f"{self.table_id}\n{text}".encode()).hexdigest()[:32]

    def column(self, name: str) -> Column:
        """Return one column by name."""
        for column in self.columns:
            if column.name == name:
                return column
        msg = f"{self.full_name} has no column {name}"
        raise SchemaError(msg)

    def _of(self, kind: str) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.kind == kind)


@dataclass(frozen=True)
class Keyspace:
    """One keyspace with its tables and views by name."""

    name: str
    replication: Replication
    tables: Mapping[str, Table]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Tables that could not be described, with the reason; they are reported, never left out."""


Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SchemaRows:
    """Decoded rows of system_schema, a list per system table."""

    keyspaces: Rows
    tables: Rows
    columns: Rows
    views: Rows
    types: Rows
    masks: Rows = ()
    indexes: Rows = ()
    dropped: Rows = ()


_KIND_ORDER = {"partition_key": 0, "clustering": 1, "static": 2, "regular": 3}


def build_schema(rows: SchemaRows) -> dict[str, Keyspace]:
    """Put the rows of system_schema together into keyspaces."""
    keyspaces: dict[str, Keyspace] = {}
    for row in rows.keyspaces:
        name = row["keyspace_name"]
        tables, unreadable = _tables(name, rows)
        keyspaces[name] = Keyspace(name, Replication.parse(row["replication"]), tables, unreadable)
    return keyspaces


def _tables(keyspace: str, rows: SchemaRows) -> tuple[dict[str, Table], dict[str, str]]:
    udts = {
        r["type_name"]: UserType(r["type_name"], tuple(r["field_names"]), tuple(r["field_types"]))
        for r in _in(keyspace, rows.types)
    }
    masked = {(r["table_name"], r["column_name"]) for r in _in(keyspace, rows.masks)}
    columns: dict[str, list[Mapping[str, Any]]] = {}
    for row in _in(keyspace, rows.columns):
        columns.setdefault(row["table_name"], []).append(row)
    tables: dict[str, Table] = {}
    unreadable: dict[str, str] = {}
    described = [(r, r["table_name"], None) for r in _in(keyspace, rows.tables)]
    described += [(r, r["view_name"], r["base_table_name"]) for r in _in(keyspace, rows.views)]
    for row, name, base in described:
        try:
            built = _columns(name, _visible(row, columns.get(name, [])), udts, masked)
        except Exception as error:  # noqa: BLE001 - one odd table must not hide the others; it becomes unknown
            unreadable[name] = f"{type(error).__name__}: {error}"
            continue
        indexes = tuple(sorted(_index(r) for r in _in(keyspace, rows.indexes) if r["table_name"] == name))
        dropped = tuple(
            sorted(
                f"{r['column_name']} {r['dropped_time']}"
                for r in _in(keyspace, rows.dropped)
                if r["table_name"] == name
            )
        )
        tables[name] = replace(_table(keyspace, name, base, row, built), indexes=indexes, dropped=dropped)
    return tables, unreadable


def _index(row: Mapping[str, Any]) -> str:
    """Return an index in words: its name, what it is of, and its class where it is no ordinary one."""
    options = dict(row.get("options") or {})
    how = str(options.get("class_name", "")).rsplit(".", 1)[-1]
    return f"{row['index_name']} on {options.get('target', '?')}" + (f" ({how})" if how else "")


def _in(keyspace: str, rows: Rows) -> Iterable[Mapping[str, Any]]:
    return (r for r in rows if r["keyspace_name"] == keyspace)


def _visible(table: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the columns as CQL shows them; a static COMPACT STORAGE table has two hidden ones.

    Such a table has neither flag; its columns are stored as statics with a hidden `column1` and `value`.
    """
    flags = table.get("flags")
    if flags is None or {"compound", "dense"} & set(flags):
        return rows
    kept = [r for r in rows if r["kind"] in {"partition_key", "static"}]
    return [{**r, "kind": "regular"} if r["kind"] == "static" else r for r in kept]


def _columns(
    table: str,
    rows: Sequence[Mapping[str, Any]],
    udts: Mapping[str, UserType],
    masked: set[tuple[str, str]],
) -> tuple[Column, ...]:
    columns = [
        Column(
            name=r["column_name"],
            kind=r["kind"],
            position=r["position"],
            type=parse_type(r["type"], udts),
            reversed=r["clustering_order"] == "desc",
            masked=(table, r["column_name"]) in masked,
        )
        for r in rows
        if r["kind"] in _KIND_ORDER and r["type"] != "empty"
    ]
    return tuple(sorted(columns, key=lambda c: (_KIND_ORDER[c.kind], max(c.position, 0), c.name)))


def _table(keyspace: str, name: str, base: str | None, row: Mapping[str, Any], columns: tuple[Column, ...]) -> Table:
    compaction = (row.get("compaction") or {}).get("class", "")
    return Table(
        keyspace=keyspace,
        name=name,
        table_id=str(row["id"]),
        columns=columns,
        gc_grace_seconds=row["gc_grace_seconds"],
        read_repair=(row.get("read_repair") or "BLOCKING").upper(),
        speculative_retry=(row.get("speculative_retry") or "99P").upper(),
        compaction=compaction.rsplit(".", 1)[-1],
        default_ttl=row.get("default_time_to_live") or 0,
        is_counter="counter" in (row.get("flags") or ()),
        view_of=base,
    )
