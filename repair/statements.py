"""Every statement the repairer sends: identifiers quoted, values and times bound as bytes.

Deletes and writes carry the write time of what they act on, never a new one (undo excepted), so that each
is idempotent and none can win over anything newer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from consistency.batches import serialized_list
from consistency.cqltype import quote_identifier
from consistency.reading import CellColumn
from consistency.schema import Column
from repair.atoms import Atom, Path
from repair.evidence import Evidence

_LONG = struct.Struct(">q")
_INT = struct.Struct(">i")


Assigned = tuple[Column, "bytes | None"]
"""A column and the value it is given; None deletes it."""


@dataclass(frozen=True, slots=True)
class Write:
    """One statement with its bound values; `now_s` is the instant from which its TTL counts."""

    cql: str
    values: tuple[bytes | None, ...]
    now_s: int | None = None


def merging_read(rows: Sequence[Evidence]) -> Write:
    """Return the read that makes the servers merge these rows, and nothing but them.

    Several rows have all of their key in common but for the last column of the partition key. The limit, which they
    do not reach, is there as a read with room for more than a page is paged: one partition after the other.

    Static columns are left out of a row's read, as they would be merged with it. A static row is read with an
    empty IN of clustering keys: SELECT DISTINCT would also merge the partition's first row.
    """
    evidence, limit, values = rows[0], "", rows[0].name.key
    table = evidence.table
    columns = [c.column.quoted for c in evidence.columns]
    if evidence.name.static:
        # A clustering column among those selected is what makes the server accept the IN.
        wanted = [*columns, table.clustering[0].quoted]
        where = [_equals(table.partition_key), *(f"{c.quoted} IN ()" for c in table.clustering)]
    else:
        wanted = columns or [c.quoted for c in table.primary_key]
        where = [_equals(table.primary_key)]
    if len(rows) > 1:
        *alike, last = table.partition_key
        where = [f"{c.quoted} = ?" for c in alike] + [f"{last.quoted} IN ?"]
        where += [f"{c.quoted} = ?" for c in table.clustering]
        at = len(alike)
        values = (*values[:at], serialized_list([row.name.key[at] for row in rows]), *values[at + 1 :])
        limit = f" LIMIT {len(rows) + 1}"
    return Write(f"SELECT {', '.join(wanted)} FROM {table.quoted} WHERE {' AND '.join(where)}{limit}", values)


def write_cell(evidence: Evidence, column: CellColumn, path: Path, atom: Atom) -> Write | None:
    """Return the UPDATE that writes one cell with its own write time and expiry; None where it has expired.

    A TTL of 0 is sent with a cell that does not expire: the table's default would apply otherwise. An UPDATE
    leaves no row marker, so none is made up where there was none.
    """
    expired = atom.expires is not None and atom.expires <= evidence.now_us // 1_000_000
    if expired or atom.writetime is None:
        return None
    target, values = _assignment(column.column, path, atom.value)
    key = evidence.name.key
    where = _equals(_key_columns(evidence))
    text = f"UPDATE {evidence.table.quoted} USING TIMESTAMP ? AND TTL ? SET {target} WHERE {where}"
    return Write(text, (_LONG.pack(atom.writetime), _ttl(evidence, atom.expires), *values, *key), _now_s(evidence))


def delete_cell(evidence: Evidence, column: CellColumn, path: Path, writetime: int) -> Write:
    """Return the DELETE of one cell at a write time."""
    target, values = _element(column.column, path)
    where = _equals(_key_columns(evidence))
    text = f"DELETE {target} FROM {evidence.table.quoted} USING TIMESTAMP ? WHERE {where}"
    # The element is bound before the timestamp: markers are numbered as they stand in the text.
    return Write(text, (*values, _LONG.pack(writetime), *evidence.name.key))


def delete_row(evidence: Evidence, writetime: int) -> Write:
    """Return the DELETE of the row at a write time; nothing newer in it is touched."""
    text = f"DELETE FROM {evidence.table.quoted} USING TIMESTAMP ? WHERE {_equals(evidence.table.primary_key)}"
    return Write(text, (_LONG.pack(writetime), *evidence.name.key))


def write_marker(evidence: Evidence, writetime: int) -> Write:
    """Return the INSERT of a row's key alone at a write time."""
    return put_row(evidence, (), writetime, None)


def put_row(evidence: Evidence, cells: Sequence[Assigned], writetime: int, expires: int | None) -> Write:
    """Return the INSERT that writes a row anew, nulls as deletes."""
    table = evidence.table
    columns = [*table.primary_key, *(column for column, _ in cells)]
    names, marks = ", ".join(c.quoted for c in columns), ", ".join("?" for _ in columns)
    text = f"INSERT INTO {table.quoted} ({names}) VALUES ({marks}) USING TIMESTAMP ? AND TTL ?"
    values = (*evidence.name.key, *(value for _, value in cells), _LONG.pack(writetime), _ttl(evidence, expires))
    return Write(text, values, _now_s(evidence))


def put_cells(evidence: Evidence, cells: Sequence[Assigned], writetime: int, expires: int | None) -> Write:
    """Return the UPDATE that writes whole columns anew, nulls as deletes: for undo alone."""
    names = ", ".join(f"{column.quoted} = ?" for column, _ in cells)
    where = _equals(_key_columns(evidence))
    text = f"UPDATE {evidence.table.quoted} USING TIMESTAMP ? AND TTL ? SET {names} WHERE {where}"
    values = (_LONG.pack(writetime), _ttl(evidence, expires), *(value for _, value in cells), *evidence.name.key)
    return Write(text, values, _now_s(evidence))


def _ttl(evidence: Evidence, expires: int | None) -> bytes:
    """Return the TTL that ends at `expires`; 0 for never, as the table's default would apply otherwise."""
    return _INT.pack(0 if expires is None else expires - evidence.now_us // 1_000_000)


def _now_s(evidence: Evidence) -> int | None:
    return evidence.now_us // 1_000_000 if evidence.reading.capabilities.timed else None


def _assignment(column: Column, path: Path, value: bytes) -> tuple[str, tuple[bytes, ...]]:
    if path is None:
        return f"{column.quoted} = ?", (value,)
    if column.type.name == "set":
        return f"{column.quoted} = {column.quoted} + ?", (_INT.pack(1) + _INT.pack(len(path)) + path,)
    target, values = _element(column, path)
    return f"{target} = ?", (*values, value)


def _element(column: Column, path: Path) -> tuple[str, tuple[bytes, ...]]:
    """Return how CQL addresses an element, with what is bound for it."""
    if path is None:
        return column.quoted, ()
    if column.type.name == "udt":
        return f"{column.quoted}.{quote_identifier(column.type.fields[int.from_bytes(path, 'big')])}", ()
    return f"{column.quoted}[?]", (path,)


def _key_columns(evidence: Evidence) -> tuple[Column, ...]:
    return evidence.table.partition_key if evidence.name.static else evidence.table.primary_key


def _equals(columns: Sequence[Column]) -> str:
    return " AND ".join(f"{c.quoted} = ?" for c in columns)
