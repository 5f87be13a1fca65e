"""Who writes down what a check read and found, so that later runs know of it: the ledger, or nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from consistency.model.reading import Depth
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding
from consistency.results.report import Report, TreeReport


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run is about, before anything is read; `dc` is set where the replicas of one DC alone are compared."""

    run_id: str
    started_us: int
    ring: Ring
    schema: Mapping[str, Keyspace]
    tables: tuple[Table, ...]
    names: tuple[str, ...] = ()
    dc: str | None = None


@dataclass(frozen=True, slots=True)
class RangeRead:
    """One leaf as it stands at the end of a run.

    `complete`: every replica was read and every row that differed was judged. `clean`: all of them agree too.
    `started_us` is when the read began: what was written since may not have been seen.
    """

    token_range: TokenRange
    replicas: tuple[Node, ...]
    started_us: int
    complete: bool
    clean: bool


class Recorder(Protocol):
    """Told what a run read and found. Must not raise: what cannot be written down is no reason to end a check."""

    @property
    def cluster_id(self) -> str:
        """The id by which the cluster is known here once the run began; empty where it is not."""

    def begin(self, facts: RunFacts) -> None:
        """A run begins."""

    def last_tried(self, table: Table, depth: Depth, ranges: Sequence[TokenRange]) -> Sequence[int]:
        """Return when each range, in ring order, was last read, in microseconds; 0 for never."""

    def found(self, finding: Finding, depth: Depth) -> None:
        """A row differs."""

    def table_read(
        self,
        table: Table,
        depth: Depth,
        ranges: Sequence[RangeRead],
        *,
        strays: bool,
        trees: Sequence[TreeReport] = (),
    ) -> None:
        """A table's account is final: `ranges` are those that were reached, in ring order, and `trees` go over them.

        `strays` says whether every node was also searched for rows that it does not own.
        """

    def end(self, report: Report) -> None:
        """The run is over."""


def known_as(recorder: Recorder | None, ring: Ring) -> str:
    """Return the cluster's id: as it was remembered, else as whoever sees it for the first time would name it."""
    return (recorder.cluster_id if recorder is not None else "") or ring.cluster_id
