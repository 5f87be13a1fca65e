"""A likely cause of differences, as a value: `diagnosis` finds it, the report carries it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class CauseKind(str, Enum):
    """What probably happened, as a word for scripts."""

    MISSED_WRITES = "missed_writes"
    MISSED_DELETES = "missed_deletes"
    LAGGING_REPLICA = "lagging_replica"
    HOLDS_NOTHING = "holds_nothing"
    JOINED_WITHOUT_STREAMING = "joined_without_streaming"
    REPLICATION_RAISED = "replication_raised"
    TORN_WRITES = "torn_writes"
    TIED_CLOCKS = "tied_clocks"
    FUTURE_CLOCK = "future_clock"
    ODD_WRITE_TIMES = "odd_write_times"
    OLD_COPY = "old_copy"
    NO_CLEANUP = "no_cleanup"


@dataclass(frozen=True, slots=True)
class Cause:
    """One likely cause: the sentence, how many rows it speaks of, and the replicas it names. It holds no key."""

    kind: CauseKind
    sentence: str
    rows: int
    replicas: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "cause": self.kind.value,
            "sentence": self.sentence,
            "rows": self.rows,
            "replicas": list(self.replicas),
        }
