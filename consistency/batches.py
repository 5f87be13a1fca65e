"""Rows that can be asked for together: of one partition, or of one clustering key in several partitions.

One request for many rows costs little more than one for a single row, on both ends of the wire.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from consistency import cql
from consistency.reader import Key
from consistency.reading import Reading
from consistency.wire import INT

MOST_KEYS = 50
"""Keys in one request: a small part of what a page holds, whatever the rows."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The keys that one statement reads, and the values to bind; a single key has its own statement."""

    keys: tuple[Key, ...]
    cql: str
    values: tuple[bytes, ...]


def batches(reading: Reading, keys: Sequence[Key]) -> Iterator[Batch]:
    """Yield statements that read exactly these rows and no others."""
    width = len(reading.table.partition_key)
    # The server refuses IN on clustering columns where a collection is selected.
    gathers = bool(reading.table.clustering) and not any(
        c.column.type.is_multicell for c in reading.statics + reading.regulars
    )
    by_partition: dict[Key, list[Key]] = defaultdict(list)
    for key in dict.fromkeys(keys):
        by_partition[key[:width]].append(key)
    lone: dict[Key, list[Key]] = defaultdict(list)
    for found in by_partition.values():
        if gathers and len(found) > 1:
            for part in _parts(found):
                wanted = _list([_clustering(key[width:]) for key in part])
                yield Batch(tuple(part), cql.select_rows_of_partition(reading), (*part[0][:width], wanted))
        else:
            for key in found:
                lone[key[: width - 1] + key[width:]].append(key)
    for found in lone.values():
        for part in _parts(found):
            if len(part) == 1:
                yield Batch((part[0],), cql.select_row(reading), part[0])
                continue
            wanted = _list([key[width - 1] for key in part])
            values = (*part[0][: width - 1], wanted, *part[0][width:])
            yield Batch(tuple(part), cql.select_row_of_partitions(reading), values)


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    return (keys[at : at + MOST_KEYS] for at in range(0, len(keys), MOST_KEYS))


def _clustering(values: Key) -> bytes:
    """Serialize one clustering key: as it is where it has one column, else as a tuple."""
    return values[0] if len(values) == 1 else b"".join(INT.pack(len(v)) + v for v in values)


def _list(values: Sequence[bytes]) -> bytes:
    return INT.pack(len(values)) + b"".join(INT.pack(len(v)) + v for v in values)
