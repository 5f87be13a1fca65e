"""What is asked of each row that is compared as arrays: one hash of all of it, and the rest as the numbers that it is.

A hash costs a server half as much as it takes to read a small row, a number that it sends as it is next to nothing. So
only what is no number of a fixed size has a hash of its own: a name with a text in it, times of a collection's
elements.
"""

from __future__ import annotations

from dataclasses import dataclass

from consistency.model.reading import CellColumn, Reading
from consistency.model.row_arrays import Shown
from consistency.model.schema import Column

_WIDTHS = {"tinyint": 1, "smallint": 2, "int": 4, "date": 4, "bigint": 8, "time": 8, "timestamp": 8} | dict.fromkeys(
    ("uuid", "timeuuid"), 16
)
"""The bytes of each value of a type that is compared by all of its bytes; an empty one has none."""


@dataclass(frozen=True, slots=True)
class HashedColumns:
    """What a server sends of a row, in this order: token, hash of the row, then what is named here.

    `key`: the clustering columns that are sent as they are, or else `hashed_key` says that the primary key is hashed; a
    row of a table without clustering columns has the token for a name. `elements_expire`, `elements_written`: columns
    whose times are hashed together. `expire`, `written`: columns whose times are sent, of `written` the newest.
    """

    key: tuple[Column, ...]
    hashed_key: bool
    elements_expire: tuple[CellColumn, ...]
    elements_written: tuple[CellColumn, ...]
    expire: tuple[CellColumn, ...]
    written: tuple[CellColumn, ...]

    @classmethod
    def of(cls, reading: Reading, shown: Shown) -> HashedColumns:
        """Return what is asked for a reading."""
        clustering = reading.table.clustering
        plain = all(column.type.name in _WIDTHS for column in clustering)
        kinds = shown is Shown.KINDS
        expire = [column for column in reading.regulars if kinds and column.ttl]
        written = tuple(column for column in reading.regulars if shown is not Shown.ROWS and column.writetime)
        return cls(
            clustering if plain else (),
            hashed_key=not plain,
            elements_expire=tuple(column for column in expire if column.column.type.is_multicell),
            elements_written=tuple(column for column in written if kinds and column.column.type.is_multicell),
            expire=tuple(column for column in expire if not column.column.type.is_multicell),
            written=written,
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """The bytes of each column of `key`."""
        return tuple(_WIDTHS[column.type.name] for column in self.key)
