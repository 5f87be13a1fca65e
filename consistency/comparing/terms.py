"""What two clusters must have in common: values, write times too, or expiries too, and how exactly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from consistency.model.reading import Cell, Depth, Times
from consistency.results.pair_findings import PairHeader, PairKind
from consistency.rows.cells import Atom


class Compare(str, Enum):
    """What is compared of every row; each includes those before it."""

    VALUES = "values"
    WRITETIMES = "writetimes"
    EXPIRIES = "expiries"

    @property
    def depth(self) -> Depth:
        """What is read and digested for it."""
        return _DEPTHS[self]


_DEPTHS = {Compare.VALUES: Depth.VALUES, Compare.WRITETIMES: Depth.WRITETIMES, Compare.EXPIRIES: Depth.CONTENT}


@dataclass(frozen=True, slots=True)
class Terms:
    """What is compared; write times may be `tolerated_us` microseconds apart."""

    compare: Compare = Compare.WRITETIMES
    tolerated_us: int = 0

    @classmethod
    def of(cls, header: PairHeader) -> Terms:
        """Return by what the rows of a findings file were compared."""
        return cls(Compare(header.compare), round(header.tolerate_writetime_s * 1e6))

    def unlike(self, one: Cell | Atom | None, other: Cell | Atom | None) -> PairKind | None:
        """Say how two versions of a cell, or of a whole column, differ; None if they do not. No cell is None."""
        if _value(one) != _value(other):
            return PairKind.VALUE
        if one is None or other is None or self.compare is Compare.VALUES:
            return None
        if not self._near(_written(one), _written(other)):
            return PairKind.WRITETIME
        if self.compare is Compare.EXPIRIES and one.expires != other.expires:
            return PairKind.EXPIRY
        return None

    def _near(self, one: Times, other: Times) -> bool:
        """Whether write times are as close as they must be: of a collection each of its elements'."""
        if one == other:
            return True
        if isinstance(one, int) and isinstance(other, int):
            return abs(one - other) <= self.tolerated_us
        if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
            return all(self._near(mine, theirs) for mine, theirs in zip(one, other, strict=True))
        return False


def _value(version: Cell | Atom | None) -> bytes | None:
    return None if version is None else version.value


def _written(version: Cell | Atom) -> Times:
    return version.writetimes if isinstance(version, Cell) else version.writetime
