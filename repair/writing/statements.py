"""Every statement the repairer sends: identifiers quoted, values and times bound as bytes.

Deletes and writes carry the write time of what they act on, never a new one (undo excepted), so that each
is idempotent and none can win over anything newer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from consistency.cluster.key_batches import clustering_value, serialized_list
from consistency.cluster.natives import native
from consistency.cluster.selects import equals, in_clustering, in_partitions, in_range
from consistency.model.cqltype import quote_identifier
from consistency.model.reading import CellColumn
from consistency.model.schema import Column, Table
from consistency.model.tokens import TokenRange
from consistency.rows.cells import Atom, AtomName, Path
from consistency.rows.evidence import Evidence

_LONG = struct.Struct(">q")
_INT = struct.Struct(">i")


Assigned = tuple[Column, "bytes | None"]
"""A column and the value it is given; None deletes it."""


@dataclass(frozen=True, slots=True)
class Write:
    """One statement with its bound values; `now_s` is the instant from which its TTL counts.

    `once`: a text that is hardly met again and not worth the servers' memory. `page_rows`: how many rows a server takes
    at once of what it reads for one answer; None: as ever.
    """

    cql: str
    values: tuple[bytes | None, ...]
    now_s: int | None = None
    once: bool = False
    page_rows: int | None = None


def merging_read(rows: Sequence[Evidence]) -> Write:
    """Return the read that makes the servers merge these rows, and nothing but them.

    Several rows are of one partition, or have all of their key in common but for the last column of the partition key.
    The limit, which they do not reach, is there as a read with room for more than a page is paged: one partition after
    the other.

    Static columns are left out of a row's read, as they would be merged with it. A static row is read with an
    empty IN of clustering keys: SELECT DISTINCT would also merge the partition's first row.
    """
    evidence, values = rows[0], rows[0].name.key
    table = evidence.table
    width = len(table.partition_key)
    columns = [c.column.quoted for c in evidence.columns]
    if evidence.name.static:
        # A clustering column among those selected is what makes the server accept the IN.
        columns = [*columns, table.clustering[0].quoted]
        where = [equals(table.partition_key), *(f"{c.quoted} IN ()" for c in table.clustering)]
    elif len(rows) == 1:
        where = [equals(table.primary_key)]
    elif len({row.name.key[:width] for row in rows}) == 1:
        where = [equals(table.partition_key), in_clustering(table)]
        values = (*values[:width], serialized_list([clustering_value(row.name.key[width:]) for row in rows]))
    else:
        where = [in_partitions(table), *([equals(table.clustering)] if table.clustering else [])]
        lasts = serialized_list([row.name.key[width - 1] for row in rows])
        values = (*values[: width - 1], lasts, *values[width:])
    wanted = ", ".join(columns or [c.quoted for c in table.primary_key])
    limit = f" LIMIT {len(rows) + 1}" if len(rows) > 1 else ""
    return Write(f"SELECT {wanted} FROM {table.quoted} WHERE {' AND '.join(where)}{limit}", values)


def merging_read_by_token(evidence: Evidence) -> Write:
    """Return the read of one row that has the servers compare its copies themselves, and not digests of them.

    Of a partition that is named a coordinator reads one copy, and digests of the others: these leave out when a cell
    expires, so copies that differ in nothing else are not merged. Of a range of tokens it reads every copy. The servers
    look the clustering key up, so ALLOW FILTERING costs nothing here.
    """
    table = evidence.table
    where = in_range(table, TokenRange.at(evidence.name.token))
    columns = [c.column.quoted for c in evidence.columns]
    if not table.clustering:
        return Write(f"SELECT {', '.join(columns)} FROM {table.quoted} WHERE {where}", (), once=True)
    if evidence.name.static:
        columns = [*columns, table.clustering[0].quoted]
        named, values = " AND ".join(f"{c.quoted} IN ()" for c in table.clustering), evidence.name.key[:0]
    else:
        named, values = equals(table.clustering), evidence.name.key[len(table.partition_key) :]
    text = f"SELECT {', '.join(columns)} FROM {table.quoted} WHERE {where} AND {named} ALLOW FILTERING"
    return Write(text, values, once=True)


def merging_range_read(table: Table, token_range: TokenRange, page_rows: int) -> Write:
    """Return the read that makes the servers merge all rows of a token range, page by page, and sends none of them.

    Every regular column is counted, as a server merges only the columns that a read asks for.
    """
    counted = table.regulars or table.partition_key
    columns = ", ".join(native("count", column.quoted) for column in counted)
    text = f"SELECT {columns} FROM {table.quoted} WHERE {in_range(table, token_range)}"
    return Write(text, (), once=True, page_rows=page_rows)


def write_cells(evidence: Evidence, cells: Mapping[AtomName, Atom]) -> list[Write]:
    """Return what writes these cells of one row, each with its own write time and expiry, in as few requests as can be.

    Cells of one time and expiry share an UPDATE. Where there are several, one batch holds them: all of them are of one
    partition, so each replica applies them as one mutation, whole or not at all. Only what is larger than a server
    takes in one goes in several. Expired cells are left out.

    A TTL of 0 is sent with a cell that does not expire: the table's default would apply otherwise. An UPDATE leaves no
    row marker, so none is made up where there was none.
    """
    now_s = evidence.when.expiry_s
    units = [
        (atom.writetime, atom.expires, place, path, atom.value)
        for (place, path), atom in cells.items()
        if atom.writetime is not None and (atom.expires is None or atom.expires > now_s)
    ]
    units.sort(key=lambda unit: (unit[0], unit[1] or 0, unit[2]))
    return [_written(evidence, part) for part in _parts(evidence, units)]


_Unit = tuple[int, "int | None", int, Path, bytes]
"""Write time, expiry, the column's place, the element within it, the value."""
_MOST_BYTES = 12 * 1024 * 1024
"""Of one mutation: what a server takes by default is a third more (max_mutation_size, and the size of a request)."""
_MOST_MARKERS = 60_000
"""Values of one request: their number is sent in 16 bits."""
_OF_A_CELL = 34
"""Bytes that a cell takes in a mutation, or in a request, besides its path and value, at most."""


def _parts(evidence: Evidence, units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
    part: list[_Unit] = []
    size = markers = 0
    keys = len(evidence.name.key) + 2
    for unit in units:
        takes = _OF_A_CELL + len(unit[3] or b"") + len(unit[4])
        if part and (size + takes > _MOST_BYTES or markers + keys + 1 > _MOST_MARKERS):
            yield part
            part, size, markers = [], 0, 0
        if not part or part[-1][:2] != unit[:2]:
            markers += keys + 1
        elif part[-1][2] != unit[2] or evidence.columns[unit[2]].column.type.name == "udt":
            markers += 1  # the elements of a set or map are one value
        part.append(unit)
        size += takes
    if part:
        yield part


def _written(evidence: Evidence, units: Sequence[_Unit]) -> Write:
    groups = groupby(units, key=lambda unit: (unit[0], unit[1]))
    return batch([_update(evidence, time, expires, list(group)) for (time, expires), group in groups])


def _update(evidence: Evidence, writetime: int, expires: int | None, units: Sequence[_Unit]) -> Write:
    targets: list[str] = []
    values: list[bytes | None] = []
    for place, group in groupby(units, key=lambda unit: unit[2]):
        column = evidence.columns[place].column
        for target, value in _assignments(column, [(path, value) for _, _, _, path, value in group]):
            targets.append(target)
            values.append(value)
    where = equals(evidence.name.columns(evidence.table))
    text = f"UPDATE {evidence.table.quoted} USING TIMESTAMP ? AND TTL ? SET {', '.join(targets)} WHERE {where}"
    return Write(text, (_LONG.pack(writetime), _ttl(evidence, expires), *values, *evidence.name.key), _now_s(evidence))


def batch(writes: Sequence[Write]) -> Write:
    """Return one statement for several of one partition, which is one mutation; a single one stays as it is."""
    if len(writes) == 1:
        return writes[0]
    text = "".join(f"{write.cql}; " for write in writes)
    values = tuple(value for write in writes for value in write.values)
    now_s = next((write.now_s for write in writes if write.now_s is not None), None)
    return Write(f"BEGIN UNLOGGED BATCH {text}APPLY BATCH", values, now_s, once=True)


def batches(writes: Sequence[Write]) -> list[Write]:
    """Return as few statements as can be for any number of small ones of one partition."""
    out: list[Write] = []
    part: list[Write] = []
    markers = 0
    for write in writes:
        if part and markers + len(write.values) > _MOST_MARKERS:
            out.append(batch(part))
            part, markers = [], 0
        part.append(write)
        markers += len(write.values)
    return [*out, batch(part)] if part else out


def delete_cell(evidence: Evidence, column: CellColumn, path: Path, writetime: int) -> Write:
    """Return the DELETE of one cell at a write time."""
    target, values = _element(column.column, path)
    where = equals(evidence.name.columns(evidence.table))
    text = f"DELETE {target} FROM {evidence.table.quoted} USING TIMESTAMP ? WHERE {where}"
    # The element is bound before the timestamp: markers are numbered as they stand in the text.
    return Write(text, (*values, _LONG.pack(writetime), *evidence.name.key))


def delete_row(evidence: Evidence, writetime: int) -> Write:
    """Return the DELETE of the row at a write time; nothing newer in it is touched."""
    text = f"DELETE FROM {evidence.table.quoted} USING TIMESTAMP ? WHERE {equals(evidence.table.primary_key)}"
    return Write(text, (_LONG.pack(writetime), *evidence.name.key))


def write_marker(evidence: Evidence, writetime: int, expires: int | None = None) -> Write:
    """Return the INSERT of a row's key alone at a write time."""
    return put_row(evidence, (), writetime, expires)


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
    where = equals(evidence.name.columns(evidence.table))
    text = f"UPDATE {evidence.table.quoted} USING TIMESTAMP ? AND TTL ? SET {names} WHERE {where}"
    values = (_LONG.pack(writetime), _ttl(evidence, expires), *(value for _, value in cells), *evidence.name.key)
    return Write(text, values, _now_s(evidence))


def _ttl(evidence: Evidence, expires: int | None) -> bytes:
    """Return the TTL that ends at `expires`; 0 for never, as the table's default would apply otherwise."""
    return _INT.pack(0 if expires is None else expires - evidence.when.expiry_s)


def _now_s(evidence: Evidence) -> int | None:
    return evidence.when.expiry_s if evidence.reading.capabilities.timed else None


def _assignments(column: Column, cells: Sequence[tuple[Path, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield what sets these cells of a column; elements of a set or map are added all at once."""
    kind = column.type.name
    if cells[0][0] is None:
        yield f"{column.quoted} = ?", cells[0][1]
    elif kind == "set":
        yield f"{column.quoted} = {column.quoted} + ?", serialized_list([path or b"" for path, _ in cells])
    elif kind == "map":
        parts = b"".join(_sized(part) for path, value in cells for part in (path or b"", value))
        yield f"{column.quoted} = {column.quoted} + ?", _INT.pack(len(cells)) + parts
    else:
        for path, value in cells:
            yield f"{_element(column, path)[0]} = ?", value


def _sized(part: bytes) -> bytes:
    return _INT.pack(len(part)) + part


def _element(column: Column, path: Path) -> tuple[str, tuple[bytes, ...]]:
    """Return how CQL addresses an element, with what is bound for it."""
    if path is None:
        return column.quoted, ()
    if column.type.name == "udt":
        return f"{column.quoted}.{quote_identifier(column.type.fields[int.from_bytes(path, 'big')])}", ()
    return f"{column.quoted}[?]", (path,)
