"""The interface through which a check records what it read and found: the ledger implements it, or nobody does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from consistency.model.reading import Depth
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding
from consistency.results.range_findings import RangeFinding
from consistency.results.report import Report
from consistency.results.tree_report import TreeReport


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The scope of a run, before anything is read; `dc` is set if only the replicas of one DC are compared."""

    run_id: str
    started_us: int
    ring: Ring
    schema: Mapping[str, Keyspace]
    tables: tuple[Table, ...]
    names: tuple[str, ...] = ()
    dc: str | None = None


@dataclass(frozen=True, slots=True)
class RangeRead:
    """One leaf at the end of a run.

    `complete`: every replica was read and every differing row was judged. `clean`: the replicas agree too.
    `started_us` is when the read started; later writes may not have been seen.
    """

    token_range: TokenRange
    replicas: tuple[Node, ...]
    started_us: int
    complete: bool
    clean: bool


class Recorder(Protocol):
    """Records what a run read and found. Must not raise: a failed record is no reason to end a check."""

    @property
    def cluster_id(self) -> str:
        """The id of the cluster in this record after the run has started; empty if it has none."""

    def begin(self, facts: RunFacts) -> None:
        """A run starts."""

    def last_tried(self, table: Table, depth: Depth, ranges: Sequence[TokenRange]) -> Sequence[int]:
        """Return when each range, in ring order, was last read, in microseconds; 0 for never."""

    def found(self, finding: Finding, depth: Depth) -> None:
        """A row differs."""

    def found_range(self, finding: RangeFinding, depth: Depth) -> None:
        """Rows of one range differ that are counted and not listed."""

    def table_read(
        self,
        table: Table,
        depth: Depth,
        ranges: Sequence[RangeRead],
        *,
        non_owners: bool,
        trees: Sequence[TreeReport] = (),
    ) -> None:
        """A table's account is final: `ranges` are those that were reached, in ring order, and `trees` go over them.

        `non_owners` says whether every node was also searched for rows that it does not own (non-owners).
        """

    def end(self, report: Report) -> None:
        """The run is over."""


def known_as(recorder: Recorder | None, ring: Ring) -> str:
    """Return the cluster's id: the recorded one, else the one of a first sighting."""
    return (recorder.cluster_id if recorder is not None else "") or ring.cluster_id
