"""Which replica answered? Asking one coordinator at LOCAL_ONE does not say; its trace does.

Measured on a fresh cluster: at LOCAL_ONE the coordinator reads another replica until the dynamic snitch has
warmed up, and a checker that trusts it compares a replica with itself. So where NODE_LOCAL is not allowed
every answer is traced, and thrown away unless the trace is whole, shows the read executing on the pinned
node, and shows nothing asked of any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consistency.cluster.wire import Statement
from consistency.model.reading import RawRow

_EXECUTED = re.compile(r"^(Executing (seq scan|single-partition query|read)|Scanning index|Querying)")
_ASKED_ANOTHER = re.compile(
    r"^(Enqueuing request to|Sending \w+_REQ\w* message to|reading (data|digest) from|speculating)"
)
_COUNTED = re.compile(r"^Read \d+ live (?:rows )?and (\d+) tombstone cells")
_READS_OF_OUR_OWN = ("Executing single-partition query on peers_v2",)


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One line of system_traces.events: what happened, on which node (`address:port` between nodes)."""

    activity: str
    source: str


@dataclass(frozen=True, slots=True)
class TracedPartition:
    """One replica's rows of a partition, and how many tombstones it met when it read them.

    Counted are deletes of rows, of ranges and of cells, and expired cells; not the delete of the partition, nor what is
    older than gc_grace_seconds.
    """

    rows: tuple[RawRow, ...]
    tombstones: int


@dataclass(slots=True)
class TracesLeft:
    """What proofs by trace leave in system_traces: so many sessions, of which some hold a key or part of one."""

    sessions: int = 0
    with_keys: int = 0

    @property
    def sentence(self) -> str:
        """Say what is left and for how long; nothing if nothing is."""
        if not self.sessions:
            return ""
        count = "1 traced query stays" if self.sessions == 1 else f"{self.sessions:,} traced queries stay"
        keys = f"and in {self.with_keys:,} of them a key or part of one" if self.with_keys else "no key"
        return f"{count} in system_traces for a day (the servers' trace_type_query_ttl): tokens of rows, {keys}"

    def as_json(self) -> dict[str, int]:
        """Return the JSON form."""
        return {"sessions": self.sessions, "with_keys": self.with_keys}

    @classmethod
    def from_json(cls, data: Mapping[str, int]) -> TracesLeft:
        """Read the JSON form; KeyError if it is not valid."""
        return cls(data["sessions"], data["with_keys"])

    def __add__(self, other: TracesLeft) -> TracesLeft:
        return TracesLeft(self.sessions + other.sessions, self.with_keys + other.with_keys)

    def __sub__(self, earlier: TracesLeft) -> TracesLeft:
        return TracesLeft(self.sessions - earlier.sessions, self.with_keys - earlier.with_keys)

    def add(self, statement: Statement) -> None:
        """Count a statement that is traced.

        What it binds stays in its session, and we bind keys alone; of a further page the trace names the partition.
        """
        self.sessions += 1
        self.with_keys += bool(statement.values or statement.paging_state)

    def add_further_pages(self) -> None:
        """Count a traced query that its server paged through by itself: each further page names a partition."""
        self.with_keys += 1


def tombstones_in(events: Iterable[TraceEvent]) -> int | None:
    """Return how many tombstones a read met, by its trace; None if the trace does not tell."""
    found = [_COUNTED.match(event.activity) for event in events]
    counts = [int(match[1]) for match in found if match is not None]
    return sum(counts) if counts else None


def proves_local(events: Iterable[TraceEvent], broadcast: str) -> bool:
    """Say whether a finished trace shows that the read was executed by the node at `broadcast`, and only there."""
    executed = False
    for event in events:
        if event.source != broadcast or _ASKED_ANOTHER.match(event.activity):
            return False
        if _EXECUTED.match(event.activity) and not event.activity.startswith(_READS_OF_OUR_OWN):
            executed = True
    return executed
