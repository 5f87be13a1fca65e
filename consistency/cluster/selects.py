"""Every SELECT that is sent: identifiers quoted, values bound, token bounds written as the numbers they are."""

from __future__ import annotations

from collections.abc import Sequence

from consistency.model.cqltype import quote_identifier
from consistency.model.reading import CellColumn, Depth, Reading
from consistency.model.schema import Column, Table
from consistency.model.tokens import MIN_TOKEN, TokenRange

HASH_SPELLINGS = ("MD5", "Md5", "mD5", "md5")
"""One algorithm, four names.

The server keeps one MessageDigest per spelling for the whole JVM, and two concurrent queries that share one
corrupt each other. Java does not care about case, the server's map of digests does.
"""


_MOST_FACTORS = 3
"""Tokens of a row that are multiplied: the third is there four times."""


def token_of(table: Table) -> str:
    """Return `token(...)` of the partition key."""
    return f"token({_names(table.partition_key)})"


def select_rows(reading: Reading, token_range: TokenRange) -> str:
    """Read the rows of a token range in ring order."""
    return f"SELECT {_columns(reading)} FROM {reading.table.quoted} WHERE {_in_range(reading.table, token_range)}"


def select_row(reading: Reading) -> str:
    """Read one row by its bound primary key."""
    return f"SELECT {_columns(reading)} FROM {reading.table.quoted} WHERE {_equals(reading.table.primary_key)}"


def select_rows_of_partition(reading: Reading) -> str:
    """Read rows of one partition: its key is bound, then the list of clustering keys."""
    table = reading.table
    where = f"{_equals(table.partition_key)} AND {_in_clustering(table)}"
    return f"SELECT {_columns(reading)} FROM {table.quoted} WHERE {where}"


def select_row_of_partitions(reading: Reading) -> str:
    """Read the rows of one clustering key in several partitions.

    Bound are the partition key but for its last column, the list of its last columns, and the clustering key.
    """
    table = reading.table
    where = _in_partitions(table)
    if table.clustering:
        where = f"{where} AND {_equals(table.clustering)}"
    return f"SELECT {_columns(reading)} FROM {table.quoted} WHERE {where}"


def select_rows_of_partitions(reading: Reading) -> str:
    """Read the rows of several clustering keys, as a list, in each of several partitions."""
    table = reading.table
    where = f"{_in_partitions(table)} AND {_in_clustering(table)}"
    return f"SELECT {_columns(reading)} FROM {table.quoted} WHERE {where}"


def select_static(reading: Reading) -> str:
    """Read one partition's static row by its bound partition key."""
    return f"{_distinct(reading)} WHERE {_equals(reading.table.partition_key)}"


def select_rows_at(reading: Reading, token: int) -> str:
    """Read the rows of the partitions of one token: a range read, which names no key and makes no server write."""
    return f"SELECT {_columns(reading)} FROM {reading.table.quoted} WHERE {_at(reading.table, token)}"


def select_row_at(reading: Reading, token: int) -> str:
    """Read the rows of one token by their bound clustering key: a range read all the same.

    The servers look the clustering key up in each partition, so ALLOW FILTERING costs nothing here.
    """
    where = f"{_at(reading.table, token)} AND {_equals(reading.table.clustering)}"
    return f"SELECT {_columns(reading)} FROM {reading.table.quoted} WHERE {where} ALLOW FILTERING"


def select_statics_at(reading: Reading, token: int) -> str:
    """Read the static rows of the partitions of one token."""
    return f"{_distinct(reading)} WHERE {_at(reading.table, token)}"


def count_rows(table: Table, token_range: TokenRange) -> str:
    """Count the rows of a token range."""
    return f"SELECT count(*) FROM {table.quoted} WHERE {_in_range(table, token_range)}"


def hash_digest(reading: Reading, token_range: TokenRange, algorithm: str, *, newest: bool = False) -> str:
    """Count the rows of a range and sum their hashes (Cassandra 5.0: mask_hash).

    The sum does not depend on order or paging, and a range's digest is the sum of its parts'. With `newest`
    the newest write time of each column follows.
    """
    terms = ["count(*)", f"sum(blob_as_varint({_row_hash(reading, algorithm)}))"]
    return _aggregate(reading.table, terms + (newest_terms(reading) if newest else []), token_range)


def hash_rows(reading: Reading, token_range: TokenRange, algorithm: str) -> str:
    """Read each row's token, primary key and hash (Cassandra 5.0), in ring order."""
    table = reading.table
    columns = f"{token_of(table)}, {_names(table.primary_key)}, {_row_hash(reading, algorithm)}"
    return f"SELECT {columns} FROM {table.quoted} WHERE {_in_range(table, token_range)}"


def hash_rows_of_partitions(reading: Reading, algorithm: str) -> str:
    """Read the same of every row in several partitions; bound as for `select_row_of_partitions`, without a row."""
    table = reading.table
    columns = f"{token_of(table)}, {_names(table.primary_key)}, {_row_hash(reading, algorithm)}"
    return f"SELECT {columns} FROM {table.quoted} WHERE {_in_partitions(table)}"


def hash_rows_timed(reading: Reading, token_range: TokenRange, algorithm: str) -> str:
    """Read each row's token, the hashes of HashedRows, and the newest write time of each column."""
    table = reading.table
    keys = _hashed([column.quoted for column in table.primary_key], algorithm)
    ttls = [_cell_hashed(f"ttl({c.column.quoted})", c, algorithm) for c in reading.regulars if c.ttl]
    expiries = _hashed([token_of(table), *ttls], algorithm)
    timed = [c for c in reading.regulars if c.writetime and c.column.type.is_multicell]
    written = [_cell_hashed(f"writetime({c.column.quoted})", c, algorithm) for c in timed]
    ages = _hashed([token_of(table), *written], algorithm)
    columns = ", ".join([token_of(table), keys, _row_hash(reading, algorithm), expiries, ages, *row_times(reading)])
    return f"SELECT {columns} FROM {table.quoted} WHERE {_in_range(table, token_range)}"


def row_times(reading: Reading) -> list[str]:
    """Return what tells the newest write time of each regular column of a row."""
    return [
        f"{'maxwritetime' if column.column.type.is_multicell else 'writetime'}({column.column.quoted})"
        for column in reading.regulars
        if column.writetime
    ]


def partition_digests(reading: Reading, token_range: TokenRange, algorithm: str, *, newest: bool = False) -> str:
    """Count the rows of each partition in a range and sum their hashes (Cassandra 5.0).

    With `newest` the newest write time of each column follows. The server pages through the rows as it does for a
    range's digest, and takes as long.
    """
    table = reading.table
    key = _names(table.partition_key)
    terms = [token_of(table), key, "count(*)", f"sum(blob_as_varint({_row_hash(reading, algorithm)}))"]
    terms += newest_terms(reading) if newest else []
    return f"{_aggregate(table, terms, token_range)} GROUP BY {key}"


def _row_hash(reading: Reading, algorithm: str) -> str:
    """Return the hash of all that is read of a row."""
    parts = [column.quoted for column in reading.table.primary_key]
    for column in reading.statics + reading.regulars:
        parts.extend(_cell_hashed(text, column, algorithm) for text in _cell(column))
    return _hashed(parts, algorithm)


def _cell_hashed(text: str, column: CellColumn, algorithm: str) -> str:
    """Return what stands for a cell in a tuple that is hashed: of a collection its own hash."""
    return f"mask_hash({text}, '{algorithm}')" if column.column.type.is_multicell else text


def _hashed(parts: Sequence[str], algorithm: str) -> str:
    # A tuple of one would be read as a term in brackets.
    term = f"({', '.join(parts)})" if len(parts) > 1 else parts[0]
    return f"mask_hash({term}, '{algorithm}')"


def newest_times(reading: Reading, token_range: TokenRange) -> str:
    """Read the newest write time of each column in a range."""
    return _aggregate(reading.table, newest_terms(reading), token_range)


def newest_terms(reading: Reading) -> list[str]:
    """Return the aggregates that tell each column's newest write time; none where no column has one."""
    return [
        f"max({'maxwritetime' if column.column.type.is_multicell else 'writetime'}({column.column.quoted}))"
        for column in reading.statics + reading.regulars
        if column.writetime
    ]


def _aggregate(table: Table, terms: Sequence[str], token_range: TokenRange) -> str:
    return f"SELECT {', '.join(terms)} FROM {table.quoted} WHERE {_in_range(table, token_range)}"


def sum_digest(reading: Reading, token_range: TokenRange, *, newest: bool = False) -> str:
    """Count the rows of a range and sum weighed write times, a sum per column (any version, depth versions).

    A null drops out of its own sum only, which is why columns are never added inside one; a write time of 0 does
    not, for it is doubled and one is added. A static column is weighed by its partition's token: the clustering of
    a partition that holds statics alone is null.
    """
    table = reading.table
    weight = folded_token(table)
    if weight is None or reading.depth is not Depth.VERSIONS:
        msg = f"{table.full_name}: no sum digest covers its clustering columns"
        raise ValueError(msg)
    sums = [f"sum({token_of(table)})"]
    if table.clustering:
        sums.append(f"sum({weight})")
    own = _odd(token_of(table))
    sums.extend(f"sum({_odd(text)} * {own})" for column in reading.statics for text in _cell(column))
    sums.extend(f"sum({_odd(text)} * {weight})" for column in reading.regulars for text in _cell(column))
    return _aggregate(table, ["count(*)", *sums, *(newest_terms(reading) if newest else [])], token_range)


def folded_token(table: Table) -> str | None:
    """Return an expression that mixes the whole primary key into one bigint, None where it cannot be built.

    token() takes any columns of the partition key's types, so clustering columns of those types can be
    passed through it; a column of another type cannot.

    The weight is the product of such tokens, each made odd (2t + 1, so that no factor swallows another) and raised to
    a power of its own: 1, 2, 4. No two rows then have the same product, whatever keys they share or swap, and the
    sums of two different sets of rows are equal by chance alone. A sum of tokens would be equal wherever keys are
    exchanged: (1, 1) and (2, 2) have the tokens of (1, 2) and (2, 1).
    """
    own = list(table.partition_key)
    left = list(table.clustering)
    terms = [token_of(table)]
    while left:
        arguments: list[Column] = []
        placed: list[Column] = []
        for key in own:
            fit = next((c for c in left if c not in placed and c.type == key.type), None)
            arguments.append(fit or key)
            if fit:
                placed.append(fit)
        if not placed:
            return None
        left = [c for c in left if c not in placed]
        terms.append(f"token({_names(arguments)})")
    if len(terms) > _MOST_FACTORS:
        return None
    factors = [_odd(term) for i, term in enumerate(terms) for _ in range(2**i)]
    return f"({' * '.join(factors)})" if len(factors) > 1 else factors[0]


def _odd(number: str) -> str:
    return f"({number} * 2 + 1)"


def _columns(reading: Reading) -> str:
    table = reading.table
    cells = [text for column in reading.statics + reading.regulars for text in _cell(column)]
    return ", ".join([token_of(table), _names(table.primary_key), *cells])


def _distinct(reading: Reading) -> str:
    cells = [text for column in reading.statics for text in _cell(column)]
    parts = [token_of(reading.table), _names(reading.table.partition_key), *cells]
    return f"SELECT DISTINCT {', '.join(parts)} FROM {reading.table.quoted}"


def _cell(column: CellColumn) -> list[str]:
    name = column.column.quoted
    out = [name] if column.value else []
    if column.writetime:
        out.append(f"writetime({name})")
    if column.ttl:
        out.append(f"ttl({name})")
    return out


def _names(columns: Sequence[Column]) -> str:
    return ", ".join(c.quoted for c in columns)


def _equals(columns: Sequence[Column]) -> str:
    return " AND ".join(f"{c.quoted} = ?" for c in columns)


def _in_partitions(table: Table) -> str:
    *first, last = table.partition_key
    return " AND ".join([*([_equals(first)] if first else []), f"{last.quoted} IN ?"])


def _in_clustering(table: Table) -> str:
    names = _names(table.clustering)
    return f"({names}) IN ?" if len(table.clustering) > 1 else f"{names} IN ?"


def _at(table: Table, token: int) -> str:
    return f"{token_of(table)} >= {token} AND {token_of(table)} <= {token}"


def _in_range(table: Table, token_range: TokenRange) -> str:
    token = token_of(table)
    upper = f"{token} <= {token_range.end}"
    return upper if token_range.start == MIN_TOKEN else f"{token} > {token_range.start} AND {upper}"


def grant_select(table: Table, role: str) -> str:
    """Return the GRANT that lets a role read the table."""
    return f"GRANT SELECT ON TABLE {table.quoted} TO {quote_identifier(role)};"
