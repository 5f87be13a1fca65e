"""What the operator wants of a sync; it travels in the plan, so that apply decides as plan did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from consistency.checking.settle_window import DEFAULT_WINDOW_S
from consistency.cluster.wire import ALL, EACH_QUORUM, LOCAL_QUORUM, QUORUM
from consistency.comparing.terms import Compare, Terms
from consistency.model.sides import Side
from consistency.rows.classify import DEFAULT_MAX_SKEW_S

DEFAULT_MAX_DELETES = 1_000
"""Of so many rows something may be deleted, if nobody says how many."""


class Direction(str, Enum):
    """Which side gives its rows to the other."""

    TO_TARGET = "source-to-target"
    TO_SOURCE = "target-to-source"

    @property
    def giver(self) -> Side:
        """The side whose cells are written to the other; nothing is written to it."""
        return Side.SOURCE if self is Direction.TO_TARGET else Side.TARGET

    @property
    def taker(self) -> Side:
        """The side that is written to."""
        return self.giver.other


class Extra(str, Enum):
    """What to do with rows and cells that the taker alone holds."""

    KEEP = "keep"
    DELETE = "delete"


class Level(str, Enum):
    """How many replicas of the taker must acknowledge a write."""

    LOCAL_QUORUM = "local-quorum"
    QUORUM = "quorum"
    EACH_QUORUM = "each-quorum"
    ALL = "all"

    @property
    def code(self) -> int:
        """The level's number in the protocol."""
        return _CODES[self]


_CODES = {
    Level.LOCAL_QUORUM: LOCAL_QUORUM,
    Level.QUORUM: QUORUM,
    Level.EACH_QUORUM: EACH_QUORUM,
    Level.ALL: ALL,
}


@dataclass(frozen=True, slots=True)
class SyncPolicy:
    """The direction, what to do with what the taker alone holds, and by what rows are taken for the same.

    `terms` are those of the comparison. A row written to within the last `window_s` seconds is not judged: the write
    timeouts of both clusters together, as whoever writes to both may do so one after the other.
    """

    direction: Direction = Direction.TO_TARGET
    extra: Extra = Extra.KEEP
    terms: Terms = Terms()  # noqa: RUF009 - frozen
    window_s: float = 2 * DEFAULT_WINDOW_S
    max_skew_s: float = DEFAULT_MAX_SKEW_S

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "direction": self.direction.value,
            "extra": self.extra.value,
            "compare": self.terms.compare.value,
            "tolerated_us": self.terms.tolerated_us,
            "settle_s": self.window_s,
            "max_skew_s": self.max_skew_s,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SyncPolicy:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        window_s, skew_s = float(data["settle_s"]), float(data["max_skew_s"])
        if not (0 <= window_s < math.inf and 0 <= skew_s < math.inf):
            raise ValueError(window_s)
        terms = Terms(Compare(data["compare"]), int(data["tolerated_us"]))
        return cls(Direction(data["direction"]), Extra(data["extra"]), terms, window_s, skew_s)
