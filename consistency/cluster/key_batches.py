"""Rows that can be asked for together: of one partition, or of one clustering key in several partitions.

What has neither in common is asked for as every clustering key of a few in every partition of a few: most of what
that brings is not wanted, and costs less than a request for each row.

One request for many rows costs little more than one for a single row, on both ends of the wire.

Of partition keys of different bytes that are one value to their type, such as the decimals 1.0 and 1.00, a server reads
only the one that a list names first, though they are two partitions: no list names both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from consistency.cluster import selects
from consistency.cluster.packed_rows import packed
from consistency.cluster.port import Key
from consistency.cluster.wire import INT
from consistency.model.cqlbytes import MalformedValueError
from consistency.model.cqlorder import UnorderableTypeError, key_function
from consistency.model.cqltype import CqlType
from consistency.model.reading import CellColumn, Reading
from consistency.model.schema import Table

MOST_KEYS = 50
"""Keys in one request: a small part of what a page holds, whatever the rows."""
CROSSED = 8
"""Partitions, and clustering keys, that are crossed in one request: 64 rows for 8 cost about as much as 2 requests."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The keys that one statement is for, and the values to bind; a single key has its own statement.

    `crossed`: how many columns of a key name its partition, where every row of any of these partitions and any
    of these clustering keys is read.
    """

    keys: tuple[Key, ...]
    cql: str
    values: tuple[bytes, ...]
    crossed: int | None = None

    def expects(self, found: Iterable[tuple[bytes | None, ...]]) -> bool:
        """Whether the rows that were found all have names that were asked for, byte by byte."""
        if self.crossed is None:
            return set(self.keys).issuperset(found)
        partitions = {key[: self.crossed] for key in self.keys}
        rows = {key[self.crossed :] for key in self.keys}
        return all(key[: self.crossed] in partitions and key[self.crossed :] in rows for key in found)


def batches(reading: Reading, keys: Sequence[Key], *, page_rows: int = 0) -> Iterator[Batch]:
    """Yield statements that read these rows; `page_rows`: how many rows may be read at once, wanted or not."""
    width = len(reading.table.partition_key)
    last = reading.table.partition_key[-1].type
    gathers = takes_clustering_in(reading.table, reading.statics + reading.regulars)
    by_partition: dict[Key, list[Key]] = defaultdict(list)
    for key in dict.fromkeys(keys):
        by_partition[key[:width]].append(key)
    lone: dict[Key, list[Key]] = defaultdict(list)
    for found in by_partition.values():
        if gathers and len(found) > 1:
            for part in _parts(found):
                wanted = serialized_list([clustering_value(key[width:]) for key in part])
                yield Batch(tuple(part), selects.select_rows_of_partition(reading), (*part[0][:width], wanted))
        else:
            for key in found:
                lone[key[: width - 1] + key[width:]].append(key)
    crossed = CROSSED if gathers and page_rows >= CROSSED**2 else 1
    few: dict[Key, list[Key]] = defaultdict(list)
    for found in lone.values():
        if len(found) < crossed or len(found) == 1:
            few[found[0][: width - 1]] += found
            continue
        for part in _parts_apart(found, last, width - 1):
            if len(part) == 1:
                yield _cross(reading, part)
                continue
            wanted = serialized_list([key[width - 1] for key in part])
            values = (*part[0][: width - 1], wanted, *part[0][width:])
            yield Batch(tuple(part), selects.select_row_of_partitions(reading), values)
    for found in few.values():
        for part in _parts_apart(found, last, width - 1, crossed):
            yield _cross(reading, part)


def _cross(reading: Reading, keys: Sequence[Key]) -> Batch:
    """Ask for rows of different partitions and clustering keys, with what else lies where these cross."""
    if len(keys) == 1:
        return Batch((keys[0],), selects.select_row(reading), keys[0])
    width = len(reading.table.partition_key)
    partitions = serialized_list(list(dict.fromkeys(key[width - 1] for key in keys)))
    rows = serialized_list(list(dict.fromkeys(clustering_value(key[width:]) for key in keys)))
    values = (*keys[0][: width - 1], partitions, rows)
    return Batch(tuple(keys), selects.select_rows_of_partitions(reading), values, crossed=width)


def partition_lists(table: Table, partitions: Sequence[Key]) -> Iterator[tuple[bytes, ...]]:
    """Yield the values that name these partitions: the columns but for the last, and a list of that."""
    alike: dict[Key, list[Key]] = defaultdict(list)
    for key in partitions:
        alike[key[:-1]].append(key)
    for first, found in alike.items():
        for part in _parts_apart(found, table.partition_key[-1].type, -1):
            yield (*first, serialized_list([key[-1] for key in part]))


def _parts_apart(keys: Sequence[Key], kind: CqlType, at: int, most: int = MOST_KEYS) -> Iterator[Sequence[Key]]:
    """Cut keys into parts in which no two have different bytes of one value at a place, which is of this type."""
    for found in _apart(keys, kind, at) if kind.is_respelled else [keys]:
        yield from _parts(found, most)


def _apart(keys: Sequence[Key], kind: CqlType, at: int) -> Iterable[Sequence[Key]]:
    """Return the keys with the first spelling of each value, those with the second, and so on; or each by itself."""
    spellings: dict[Hashable, dict[bytes, int]] = defaultdict(dict)
    groups: dict[int, list[Key]] = defaultdict(list)
    try:
        value_of = key_function([(kind, False)])
        for key in keys:
            same = spellings[value_of([key[at]])]
            groups[same.setdefault(key[at], len(same))].append(key)
    except (UnorderableTypeError, MalformedValueError):  # nothing is known of what the servers take for one
        return [[key] for key in keys]
    return groups.values()


def _parts(keys: Sequence[Key], most: int = MOST_KEYS) -> Iterator[Sequence[Key]]:
    return (keys[at : at + most] for at in range(0, len(keys), most))


def takes_clustering_in(table: Table, columns: Iterable[CellColumn]) -> bool:
    """Whether a read of these columns may name several clustering keys: servers refuse that beside a collection."""
    return bool(table.clustering) and not any(c.column.type.is_multicell for c in columns)


def clustering_value(values: Key) -> bytes:
    """Serialize one clustering key as an element of IN: as it is where it has one column, else as a tuple."""
    return values[0] if len(values) == 1 else packed(values)


def serialized_list(values: Sequence[bytes]) -> bytes:
    """Serialize a list as it is bound to IN."""
    return INT.pack(len(values)) + packed(values)
