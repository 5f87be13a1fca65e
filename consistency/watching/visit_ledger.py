"""What a watch keeps in the ledger: each visit is one run, which holds the cluster's lock."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from consistency.errors import LedgerError
from consistency.ledger import LatestReads, LedgerFile, RunRecorder, TableAge, open_ledger
from consistency.ledger.lock import one_run
from consistency.ledger.spans import Span
from consistency.model.reading import Depth
from consistency.model.ring import Ring
from consistency.model.scope import is_named
from consistency.model.tokens import TokenRange
from consistency.watching.metrics import CleanPass


def clean_pass(age: TableAge, now_us: int) -> CleanPass:
    """Return the age of a table's oldest clean pass; infinite if a range never had one."""
    endless = age.oldest_us is None or age.never
    oldest_s = math.inf if endless or age.oldest_us is None else (now_us - age.oldest_us) / 1e6
    return CleanPass(age.keyspace, age.table, oldest_s, age.gc_grace_s)


@dataclass(frozen=True, slots=True)
class KnownTable:
    """What the ledger knows of a table: when its ranges were read, and how many rows each replica is behind in."""

    spans: Sequence[Span] = ()
    behind: Mapping[str, int] = field(default_factory=dict)


class Kept:
    """The ledger during one visit; without a file it is empty and records nothing."""

    def __init__(self, ledger: LedgerFile | None, ring: Ring) -> None:
        self._ledger = ledger
        self.ring = ring
        self.note = ledger.note if ledger is not None else ""
        """What was wrong with the previous file, in one line; empty if nothing was."""
        self.recorder: RunRecorder | None = ledger.recorder() if ledger is not None else None

    @property
    def problem(self) -> str:
        """Why this visit does not count in the ledger, in one line; empty if it does."""
        return self.recorder.problem if self.recorder is not None else ""

    @property
    def reached(self) -> tuple[TokenRange, ...] | None:
        """The ranges that this visit read; None if they were not recorded."""
        return self.recorder.reached if self.recorder is not None else None

    def read_until(self, depth: Depth | None, dc: str | None) -> Mapping[str, int]:
        """Return when each table's least recently read range was last read; tables with an unread range are left out.

        In microseconds of the servers' clock, for reads of any run.
        """
        if self._ledger is None or (cluster := self._cluster()) is None:
            return {}
        return self._ledger.past().read_until(cluster, depth, dc or "")

    def latest(self, full_name: str, depth: Depth, since_us: int) -> LatestReads | None:
        """Return a table by the latest read of each of its ranges; None if that is not known."""
        if self._ledger is None or self.problem or (cluster := self._cluster()) is None:
            return None
        return self._ledger.past().latest(cluster, full_name, depth, since_us)

    def states(self) -> Mapping[str, int]:
        """Return how many rows of this visit are new, still there, came back, or gone."""
        if self._ledger is None or self.problem or (cluster := self._cluster()) is None:
            return {}
        runs = self._ledger.past().runs(cluster, most=1)
        return runs[0].states if runs else {}

    def known(self, full_name: str) -> KnownTable | None:
        """Return what is known of a table, with its replicas by their names of now; None without a ledger."""
        if self._ledger is None or self.problem or (cluster := self._cluster()) is None:
            return None
        past, names = self._ledger.past(), {node.host_id: node.name for node in self.ring.nodes}
        behind = past.rows_by_replica(cluster, full_name)
        return KnownTable(past.spans(cluster, full_name), {names[h]: n for h, n in behind.items() if h in names})

    def ages(self) -> tuple[TableAge, ...]:
        """Return every table's age."""
        if self._ledger is None or (cluster := self._cluster()) is None:
            return ()
        return self._ledger.past().tables(cluster)

    def _cluster(self) -> int | None:
        if self._ledger is None:
            return None
        return self._ledger.past().of_nodes(self.ring.cluster, self.ring.host_ids)


class Keeper:
    """Opens the ledger for one visit at a time, so that a check may run between two visits.

    `names` are what the watch was told to look after; without any it is everything.
    """

    def __init__(self, path: Path | None = None, names: Sequence[str] = ()) -> None:
        self.path = path
        self._names = tuple(names)
        self._ages: tuple[TableAge, ...] = ()

    @contextmanager
    def visit(self, ring: Ring) -> Iterator[Kept]:
        """Hold the cluster's lock and the ledger; LockedError if another run holds the lock."""
        if self.path is None:
            yield Kept(None, ring)
            return
        try:
            with one_run(ring, self.path), open_ledger(self.path) as ledger:
                kept = Kept(ledger, ring)
                if kept.note or not self._ages:
                    self._ages = kept.ages()
                yield kept
                self._ages = kept.ages()
        except sqlite3.Error as error:
            msg = f"the ledger {self.path} cannot be read ({error}): this visit does not count; look at its disk"
            raise LedgerError(msg) from None

    def clean_passes(self) -> tuple[CleanPass, ...]:
        """Return the current age of the oldest clean pass of each table that is watched, by the latest visit.

        Any thread may call this.
        """
        now_us = time.time_ns() // 1000
        watched = (age for age in self._ages if is_named(self._names, age.keyspace, age.table))
        return tuple(clean_pass(age, now_us) for age in watched)
