"""What bringing the replicas of a row together would do to it: it comes back, stays, or vanishes."""

from __future__ import annotations

from enum import Enum


class Forecast(str, Enum):
    """What a merge, or what a plan has decided, would do to a row."""

    RESTORE = "restore"
    UPDATE = "update"
    DELETE = "delete"
    UNKNOWN = "unknown"

    @property
    def sentence(self) -> str:
        """Say what the forecast means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Forecast.RESTORE: "comes back where it is missing: no replica that lacks it can hold its delete",
    Forecast.UPDATE: "stays, and becomes the same on all replicas",
    Forecast.DELETE: "is deleted",
    Forecast.UNKNOWN: "comes back where it is missing, or is deleted everywhere: CQL does not show whether a replica"
    " that lacks it holds its delete",
}
