"""Every SELECT that is sent: identifiers quoted, values bound, token bounds written as the numbers they are."""

from __future__ import annotations

from collections.abc import Sequence

from consistency.cluster.hashed_columns import HashedColumns
from consistency.cluster.natives import native
from consistency.cluster.row_hash import cell_terms, hash_of, hashed_cell, row_hash, summed_hash
from consistency.model.reading import CellColumn, Reading
from consistency.model.schema import Column, Table
from consistency.model.tokens import MIN_TOKEN, TokenRange

_HASH = "hash"
"""What a hash is called in an answer: by default it would be the expression, with every column's name, in each page."""


def token_of(table: Table) -> str:
    """Return the token of the partition key, as a term of what is selected."""
    return native("token", *(column.quoted for column in table.partition_key))


def _token_where(table: Table) -> str:
    """Return the same as a part of a condition, where it is syntax and takes no keyspace."""
    return f"token({_names(table.partition_key)})"


def select_rows(reading: Reading, token_range: TokenRange, mark: bytes | None = None) -> str:
    """Read the rows of a token range in ring order; with a mark that is the last cell of each."""
    marked = "" if mark is None else f", (blob)0x{mark.hex()} AS mark"
    where = in_range(reading.table, token_range)
    return f"SELECT {_columns(reading)}{marked} FROM {reading.table.quoted} WHERE {where}"


def select_row(reading: Reading) -> str:
    """Read one row by its bound primary key."""
    return f"SELECT {_columns(reading)} FROM {reading.table.quoted} WHERE {equals(reading.table.primary_key)}"


def select_rows_of_partition(reading: Reading) -> str:
    """Read rows of one partition: its key is bound, then the list of clustering keys."""
    table = reading.table
    where = f"{equals(table.partition_key)} AND {in_clustering(table)}"
    return f"SELECT {_columns(reading)} FROM {table.quoted} WHERE {where}"


def select_row_of_partitions(reading: Reading) -> str:
    """Read the rows of one clustering key in several partitions.

    Bound are the partition key but for its last column, the list of its last columns, and the clustering key.
    """
    table = reading.table
    where = in_partitions(table)
    if table.clustering:
        where = f"{where} AND {equals(table.clustering)}"
    return f"SELECT {_columns(reading)} FROM {table.quoted} WHERE {where}"


def select_rows_of_partitions(reading: Reading) -> str:
    """Read the rows of several clustering keys, as a list, in each of several partitions."""
    table = reading.table
    where = f"{in_partitions(table)} AND {in_clustering(table)}"
    return f"SELECT {_columns(reading)} FROM {table.quoted} WHERE {where}"


def select_static(reading: Reading) -> str:
    """Read one partition's static row by its bound partition key."""
    return f"{_distinct(reading)} WHERE {equals(reading.table.partition_key)}"


def select_rows_at(reading: Reading, token: int) -> str:
    """Read the rows of the partitions of one token: a range read, which names no key and makes no server write."""
    return f"SELECT {_columns(reading)} FROM {reading.table.quoted} WHERE {_at(reading.table, token)}"


def select_row_at(reading: Reading, token: int) -> str:
    """Read the rows of one token by their bound clustering key: a range read all the same.

    The servers look the clustering key up in each partition, so ALLOW FILTERING costs nothing here.
    """
    where = f"{_at(reading.table, token)} AND {equals(reading.table.clustering)}"
    return f"SELECT {_columns(reading)} FROM {reading.table.quoted} WHERE {where} ALLOW FILTERING"


def select_statics_at(reading: Reading, token: int) -> str:
    """Read the static rows of the partitions of one token."""
    return f"{_distinct(reading)} WHERE {_at(reading.table, token)}"


def count_rows(table: Table, token_range: TokenRange) -> str:
    """Count the rows of a token range."""
    return f"SELECT count(*) FROM {table.quoted} WHERE {in_range(table, token_range)}"


def hash_digest(reading: Reading, token_range: TokenRange, spelling: str, *, newest: bool = False) -> str:
    """Count the rows of a range and sum their hashes; `spelling` is the lane's of the algorithm.

    The sum does not depend on order or paging, and a range's digest is the sum of its parts'. With `newest`
    the newest write time of each column follows.
    """
    return _aggregate(reading.table, _digest_terms(reading, spelling, newest=newest), token_range)


def hash_rows(reading: Reading, token_range: TokenRange, spelling: str) -> str:
    """Read each row's token, primary key and hash, in ring order."""
    return f"{_hashes(reading, spelling)} WHERE {in_range(reading.table, token_range)}"


def hash_rows_of_partitions(reading: Reading, spelling: str) -> str:
    """Read the same of every row in several partitions; bound as for `select_row_of_partitions`, without a row."""
    return f"{_hashes(reading, spelling)} WHERE {in_partitions(reading.table)}"


def hashed_rows(reading: Reading, token_range: TokenRange, spelling: str, asked: HashedColumns) -> str:
    """Read each row's token and hash, then what else is asked of it, in the order of HashedColumns."""
    table = reading.table
    token = token_of(table)
    terms = [token, row_hash(reading, spelling), *(column.quoted for column in asked.key)]
    if asked.hashed_key:
        terms.append(hash_of(reading, [column.quoted for column in table.primary_key], spelling))
    for columns, what in ((asked.elements_expire, "ttl"), (asked.elements_written, "writetime")):
        cells = [hashed_cell(reading, f"{what}({c.column.quoted})", c, spelling) for c in columns]
        if cells:
            # With the token, as some forms hash no term by itself.
            terms.append(hash_of(reading, [token, *cells], spelling))
    terms += [f"ttl({c.column.quoted})" for c in asked.expire] + list(map(newest_of, asked.written))
    return f"SELECT {', '.join(terms)} FROM {table.quoted} WHERE {in_range(table, token_range)}"


def newest_of(column: CellColumn) -> str:
    """Return what tells the newest write time of a column in a row."""
    return f"{'maxwritetime' if column.column.type.is_multicell else 'writetime'}({column.column.quoted})"


def partition_digests(reading: Reading, token_range: TokenRange, spelling: str, *, newest: bool = False) -> str:
    """Count the rows of each partition in a range and sum their hashes.

    With `newest` the newest write time of each column follows. The server pages through the rows as it does for a
    range's digest, and takes as long.
    """
    table = reading.table
    key = _names(table.partition_key)
    terms = [token_of(table), key, *_digest_terms(reading, spelling, newest=newest)]
    return f"{_aggregate(table, terms, token_range)} GROUP BY {key}"


def _hashes(reading: Reading, spelling: str) -> str:
    table = reading.table
    hashed = f"{row_hash(reading, spelling)} AS {_HASH}"
    return f"SELECT {token_of(table)}, {_names(table.primary_key)}, {hashed} FROM {table.quoted}"


def _digest_terms(reading: Reading, spelling: str, *, newest: bool) -> list[str]:
    terms = ["count(*)", f"{native('sum', summed_hash(reading, spelling))} AS {_HASH}"]
    return terms + (newest_terms(reading) if newest else [])


def newest_times(reading: Reading, token_range: TokenRange) -> str:
    """Read the newest write time of each column in a range."""
    return _aggregate(reading.table, newest_terms(reading), token_range)


def newest_terms(reading: Reading) -> list[str]:
    """Return the aggregates that tell each column's newest write time; none if no column has one."""
    return [native("max", newest_of(column)) for column in reading.statics + reading.regulars if column.writetime]


def _aggregate(table: Table, terms: Sequence[str], token_range: TokenRange) -> str:
    return f"SELECT {', '.join(terms)} FROM {table.quoted} WHERE {in_range(table, token_range)}"


def _columns(reading: Reading) -> str:
    table = reading.table
    cells = [text for column in reading.statics + reading.regulars for text in cell_terms(column)]
    return ", ".join([token_of(table), _names(table.primary_key), *cells])


def _distinct(reading: Reading) -> str:
    cells = [text for column in reading.statics for text in cell_terms(column)]
    parts = [token_of(reading.table), _names(reading.table.partition_key), *cells]
    return f"SELECT DISTINCT {', '.join(parts)} FROM {reading.table.quoted}"


def _names(columns: Sequence[Column]) -> str:
    return ", ".join(c.quoted for c in columns)


def equals(columns: Sequence[Column]) -> str:
    """Return the condition that names columns, whose values are bound."""
    return " AND ".join(f"{c.quoted} = ?" for c in columns)


def in_partitions(table: Table) -> str:
    """Return the condition that names several partitions: bound are the key but for its last column, a list of that."""
    *first, last = table.partition_key
    return " AND ".join([*([equals(first)] if first else []), f"{last.quoted} IN ?"])


def in_clustering(table: Table) -> str:
    """Return the condition that names several clustering keys, a list of which is bound."""
    names = _names(table.clustering)
    return f"({names}) IN ?" if len(table.clustering) > 1 else f"{names} IN ?"


def _at(table: Table, token: int) -> str:
    return f"{_token_where(table)} >= {token} AND {_token_where(table)} <= {token}"


def in_range(table: Table, token_range: TokenRange) -> str:
    """Return the condition that a row lies in a token range."""
    token = _token_where(table)
    upper = f"{token} <= {token_range.end}"
    return upper if token_range.start == MIN_TOKEN else f"{token} > {token_range.start} AND {upper}"
