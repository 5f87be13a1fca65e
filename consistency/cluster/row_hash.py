"""The hash of a row that a server computes itself: in which form, for which table, on which version.

From 5.0 on servers have a function for it, mask_hash. 4.0 and 4.1 have none, but a type hint makes one value of all
that is read of a row: a tuple of blobs, whatever the types of the columns. If the partition key is one blob or text,
token() hashes that value. For any other table there is arithmetic: the row as one number leaves a remainder by a prime,
and a long constant leaves one by that remainder. Why no rule makes two rows or two sums of rows alike, and how likely
chance does: docs/design/0023.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from consistency.cluster.natives import native
from consistency.model.reading import Capabilities, CellColumn, Reading, Route
from consistency.model.schema import Table

HASH_SPELLINGS = ("MD5", "Md5", "mD5", "md5")
"""One algorithm, four names.

The server keeps one MessageDigest per spelling for the whole JVM, and two concurrent queries that share one
corrupt each other. Java does not care about case, the server's map of digests does.
"""

_TEXT = frozenset(("text", "varchar"))

PRIME = 78224602097776731345030391786953681683
"""Drawn at random among the primes of 126 bits of which half, rounded down, is prime too.

So no power of 256 that could matter leaves 1: numbers that change places within a row change the remainder.
"""
DIVIDEND = int(
    "4273742637515083814877285215243130473795566819945499663104962743357121057756548043820434854230939717"
    "787974742314738355794526709927379585136012009219770762646245898679029405477308984539556479744"
)
"""Drawn at random: 640 bits, so many that its remainders by four divisors are as independent as four draws."""

_FIXED = 2**126
"""Added to the remainder of a row by itself, so that each takes 16 bytes: pages of them are faster to take apart."""


class Form(str, Enum):
    """How a server hashes a row: to 128 bits, to the 64 of a token, or to 126."""

    MASK_HASH = "mask_hash"
    MURMUR3 = "murmur3"
    REMAINDER = "remainder"


def form_of(table: Table, capabilities: Capabilities) -> Form | None:
    """Return the form in which every node can hash the rows of a table; None before 4.0."""
    if capabilities.hashes:
        return Form.MASK_HASH
    if not capabilities.arithmetic:
        return None
    # A part of a composite key is limited to 65,535 bytes, which a row is not.
    key = table.partition_key[0].type.name if len(table.partition_key) == 1 else ""
    if key == "blob" or (key in _TEXT and capabilities.unchecked_text):
        return Form.MURMUR3
    return Form.REMAINDER


def scheme(reading: Reading, route: Route) -> str:
    """Name what digests are made of, where and how: those of different schemes cannot be compared."""
    form = form_of(reading.table, reading.capabilities)
    how = f"/{form.value}" if route is Route.SERVER and form else ""
    return f"{reading.depth.value}/{route.value}{how}"


def summed_hash(reading: Reading, spelling: str) -> str:
    """Return the number that a row adds to a digest; `spelling` is the lane's of the algorithm, if there is one."""
    form, terms = _form(reading), _row_terms(reading, spelling)
    if form is Form.MASK_HASH:
        return native("blob_as_varint", _mask_hash(terms, spelling))
    # A sum of bigints would wrap around; that of varints does not, and adds up like the others.
    return f"cast({_token(reading.table, terms)} as varint)" if form is Form.MURMUR3 else _remainder(terms)


def row_hash(reading: Reading, spelling: str) -> str:
    """Return the hash of a row by itself, of which all of a form take the same number of bytes."""
    return hash_of(reading, _row_terms(reading, spelling), spelling)


def hash_of(reading: Reading, terms: Sequence[str], spelling: str) -> str:
    """Return the hash of some terms of a row together, in the table's form; all take the same number of bytes."""
    form = _form(reading)
    if form is Form.MASK_HASH:
        return _mask_hash(terms, spelling)
    if form is Form.MURMUR3:
        return _token(reading.table, terms)
    return f"{_remainder(terms)} + (varint){_FIXED}"


def fixed_part(reading: Reading) -> int:
    """Return what the hash of a row by itself is larger by than the number that it adds to a digest."""
    return _FIXED if _form(reading) is Form.REMAINDER else 0


def hash_bytes(reading: Reading) -> int:
    """Return how many bytes the hash of a row by itself has."""
    return 8 if _form(reading) is Form.MURMUR3 else 16


def cell_terms(column: CellColumn) -> list[str]:
    """Return what is read of a column, as terms of a SELECT: value, write time, TTL."""
    name = column.column.quoted
    out = [name] if column.value else []
    if column.writetime:
        out.append(f"writetime({name})")
    if column.ttl:
        out.append(f"ttl({name})")
    return out


def hashed_cell(reading: Reading, term: str, column: CellColumn, spelling: str) -> str:
    """Return what stands for a term of a column among those that are hashed together.

    mask_hash takes nothing of a collection into a tuple but its hash; a tuple of blobs takes every type.
    """
    masked = _form(reading) is Form.MASK_HASH and column.column.type.is_multicell
    return native("mask_hash", term, f"'{spelling}'") if masked else term


def _form(reading: Reading) -> Form:
    form = form_of(reading.table, reading.capabilities)
    if form is None:
        msg = f"{reading.table.full_name}: servers before Cassandra 4.0 cannot hash its rows"
        raise ValueError(msg)
    return form


def _row_terms(reading: Reading, spelling: str) -> list[str]:
    """Return all that is read of a row: its primary key, then the terms of its columns."""
    terms = [key.quoted for key in reading.table.primary_key]
    for column in reading.statics + reading.regulars:
        terms += [hashed_cell(reading, term, column, spelling) for term in cell_terms(column)]
    return terms


def _mask_hash(terms: Sequence[str], algorithm: str) -> str:
    # A tuple of one would be read as a term in brackets.
    value = f"({', '.join(terms)})" if len(terms) > 1 else terms[0]
    return native("mask_hash", value, f"'{algorithm}'")


def _token(table: Table, terms: Sequence[str]) -> str:
    is_blob = table.partition_key[0].type.name == "blob"
    value = _one_value(terms)
    return native("token", value if is_blob else native("blobAsVarchar", value))


def _remainder(terms: Sequence[str]) -> str:
    return f"(varint){DIVIDEND} % ({native('blobAsVarint', _one_value(terms))} % (varint){PRIME})"


def _one_value(terms: Sequence[str]) -> str:
    """Return terms as one blob: each part with its length, a null with a length of its own."""
    # 0x01 in front: read as a number it does not begin with zeros, which would not count.
    parts = ["0x01", *terms]
    return f"(tuple<{', '.join(['blob'] * len(parts))}>)({', '.join(parts)})"
