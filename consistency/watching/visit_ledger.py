"""What a watch keeps in the ledger: each visit is a run of it, with the cluster's lock held for as long as it takes."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from consistency.errors import LedgerError
from consistency.ledger import LatestReads, LedgerFile, RunRecorder, TableAge, open_ledger
from consistency.ledger.lock import one_run
from consistency.model.reading import Depth
from consistency.model.ring import Ring
from consistency.model.tokens import TokenRange
from consistency.watching.metrics import CleanPass


def clean_pass(age: TableAge, now_us: int) -> CleanPass:
    """Return the age of a table's oldest clean pass; endless where a range never had one."""
    endless = age.oldest_us is None or age.never
    oldest_s = math.inf if endless or age.oldest_us is None else (now_us - age.oldest_us) / 1e6
    return CleanPass(age.keyspace, age.table, oldest_s, age.gc_grace_s)


class Kept:
    """The ledger during one visit; without a file it knows nothing and keeps nothing."""

    def __init__(self, ledger: LedgerFile | None, ring: Ring) -> None:
        self._ledger = ledger
        self.ring = ring
        self.note = ledger.note if ledger is not None else ""
        """What was wrong with the file that was there before, in a line; empty where nothing was."""
        self.recorder: RunRecorder | None = ledger.recorder() if ledger is not None else None

    @property
    def problem(self) -> str:
        """Why this visit does not count in the ledger, in a line; empty where it does."""
        return self.recorder.problem if self.recorder is not None else ""

    @property
    def reached(self) -> tuple[TokenRange, ...] | None:
        """The ranges that this visit read; None where nobody kept account of them."""
        return self.recorder.reached if self.recorder is not None else None

    def read_until(self, depth: Depth | None, dc: str | None) -> Mapping[str, int]:
        """Return for each table when the range was read that was read longest ago; those with a range never read not.

        In microseconds of the servers' clock, whichever run read it.
        """
        if self._ledger is None or (cluster := self._cluster()) is None:
            return {}
        return self._ledger.past().read_until(cluster, depth, dc or "")

    def latest(self, full_name: str, depth: Depth, since_us: int) -> LatestReads | None:
        """Return what the latest reads of all of a table's ranges come to; None where nobody knows."""
        if self._ledger is None or self.problem or (cluster := self._cluster()) is None:
            return None
        return self._ledger.past().latest(cluster, full_name, depth, since_us)

    def states(self) -> Mapping[str, int]:
        """Return how many rows of this visit are new, still there, came back, or are gone."""
        if self._ledger is None or self.problem or (cluster := self._cluster()) is None:
            return {}
        runs = self._ledger.past().runs(cluster, most=1)
        return runs[0].states if runs else {}

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
    """Opens the ledger for one visit at a time, so that a check may run between two of them."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._ages: tuple[TableAge, ...] = ()

    @contextmanager
    def visit(self, ring: Ring) -> Iterator[Kept]:
        """Hold the cluster's lock and the ledger; LockedError where another run does."""
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
        """Return the age of every table's oldest clean pass, as of now by what the latest visit saw; any thread may."""
        now_us = time.time_ns() // 1000
        return tuple(clean_pass(age, now_us) for age in self._ages)
