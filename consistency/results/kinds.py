"""The kinds of difference, each with its sentence."""

from __future__ import annotations

from enum import Enum


class Kind(str, Enum):
    """What is wrong; a damaged row gives one finding, of its gravest kind."""

    MISSING = "missing"
    STALE = "stale"
    TIE = "tie"
    EXPIRY = "expiry"
    ZOMBIE_SUSPECT = "zombie_suspect"
    FUTURE_WRITE_TIME = "future_write_time"
    NON_OWNER = "non_owner"

    @property
    def sentence(self) -> str:
        """Say what the kind means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Kind.MISSING: "a replica lacks a row that others hold: it never arrived, or was deleted there",
    Kind.STALE: "a replica holds an older version of a cell",
    Kind.TIE: "replicas hold different values, and no write time tells which is newer",
    Kind.EXPIRY: "the same value expires at different times",
    Kind.ZOMBIE_SUSPECT: "a minority holds a row older than gc_grace_seconds: its delete may be purged elsewhere",
    Kind.FUTURE_WRITE_TIME: "a write time lies in the future: a client's clock was wrong",
    Kind.NON_OWNER: "a node holds a row whose token range it does not own",
}
