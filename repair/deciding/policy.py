"""What the operator allows a repair to do; it travels in the plan, so that apply decides as plan did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from consistency.checking.settle_window import DEFAULT_WINDOW_S
from consistency.rows.classify import DEFAULT_MAX_SKEW_S


class Zombies(str, Enum):
    """What to do with rows whose delete may have been purged elsewhere."""

    QUARANTINE = "quarantine"
    RESTORE = "restore"
    PURGE = "purge"


class Require(str, Enum):
    """How many of a row's replicas must be readable before anything is decided about it.

    `quorum` is over all data centres, as Cassandra's QUORUM; `each-quorum` one in each of them.
    """

    QUORUM = "quorum"
    EACH_QUORUM = "each-quorum"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's choices, with defaults that cannot bring anything back or take anything away."""

    zombies: Zombies = Zombies.QUARANTINE
    require: Require = Require.QUORUM
    max_skew_s: float = DEFAULT_MAX_SKEW_S
    settle_s: float | None = None
    """None: as the servers' write timeout asks; a plan names what that came to."""

    @property
    def window_s(self) -> float:
        """For how many seconds after its newest write a row is not judged."""
        return DEFAULT_WINDOW_S if self.settle_s is None else self.settle_s

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "zombies": self.zombies.value,
            "require": self.require.value,
            "max_skew_s": self.max_skew_s,
            "settle_s": self.window_s,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        skew_s, settle_s = float(data["max_skew_s"]), float(data["settle_s"])
        if not (0 <= skew_s < math.inf and 0 <= settle_s < math.inf):
            raise ValueError(skew_s)
        return cls(Zombies(data["zombies"]), Require(data["require"]), skew_s, settle_s)
