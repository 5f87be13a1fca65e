"""The ledger: what earlier runs read and found, in one SQLite file. It never holds a key or a value.

    with open_ledger(Path("shop.ledger")) as ledger:
        report = await run_check(reader, clock, options, recorder=ledger.recorder())
        past = ledger.past()

`open_ledger(path)`       creates or opens a file; `ledger.note` is a line if a damaged one was moved aside
`ledger.recorder()`       a Recorder for one `run_check`; `problem` is a line if the file could not be written.
With `CheckOptions.run_time_s` the run starts with the least recently read ranges.
`ledger.past()`           frozen answers: runs, ages of tables against gc_grace_seconds, rows that differ
`ledger.repaired(...)`    rows that were repaired; if they are found again, they came back
`ledger.ended(report)`    how a run with a repair ended

What is kept, and what makes it void:

    spans      each token range of each table and depth: when it was last read (`tried`) and last read on all
               replicas with all of them agreeing (`clean`), as the start of that read. Void if other nodes own
               the range or the table was altered. A run limited to one DC has its own spans, never clean for all.
    findings   each row that differs, by a keyed hash of its key: new, still there, came back, gone. It is gone
               once its range was read completely, at no lesser depth, and it was not found; or repaired.
    runs       when, how long, verdict, exit code, coverage, findings by kind. A run without an end was killed.
    compared   each pair of tables of two clusters: when it was last compared, and last equal. Void if one was altered.
    parts      the account of each part of a run that is split, until it is merged to one run; it enters nothing else.

store.py the file · migrate.py files of earlier versions · clusters.py · known.py tables · spans.py ranges ·
recorder.py one run in · part_account.py, parts.py parts of a run · past.py answers out · pairs.py comparisons ·
latest.py a table that is read in slices
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from consistency.ledger.clusters import KnownCluster
from consistency.ledger.latest import LatestReads
from consistency.ledger.pairs import ComparedPair, PairsLedger, PastComparison
from consistency.ledger.part_account import PartAccount
from consistency.ledger.parts import (
    PartRecorder,
    forget_part,
    has_run,
    keep_part,
    kept_parts,
    mark_merged,
    merged_whole,
)
from consistency.ledger.past import Behind, Past, PastRun, TableAge
from consistency.ledger.recorder import RunRecorder, mark_ended, mark_repaired
from consistency.ledger.store import Store
from consistency.model.part import Part
from consistency.model.ring import Ring
from consistency.results.report import Report


class LedgerFile:
    """An open ledger; close it, or use it in a `with`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._store.path

    @property
    def note(self) -> str:
        """What was wrong with the previous file, in one line; empty if nothing was."""
        return self._store.note

    def recorder(self) -> RunRecorder:
        """Return the writer of one run."""
        return RunRecorder(self._store)

    def part_recorder(self, part: Part, run_name: str, terms: Mapping[str, Any]) -> PartRecorder:
        """Return what keeps one part of a run; `terms` are the options that all its parts must share.

        An older account of the part is forgotten now, not when the new one is there.
        """
        forget_part(self._store, part, run_name)
        return PartRecorder(part, run_name, terms, lambda account: keep_part(self._store, account))

    def parts(self) -> list[PartAccount]:
        """Return the accounts of parts that it keeps, the oldest first."""
        return kept_parts(self._store)

    def has_run(self, run_id: str) -> bool:
        """Whether it has the end of a run."""
        return has_run(self._store, run_id)

    def merged_whole(self) -> dict[str, str]:
        """Return the parts of runs that were merged whole, each with the id of its run."""
        return merged_whole(self._store)

    def mark_merged(self, run_id: str, part_ids: Iterable[str]) -> None:
        """Note that these are all parts of a run that it has."""
        mark_merged(self._store, run_id, list(part_ids))

    def pairs(self, source: Ring, target: Ring) -> PairsLedger:
        """Return what it knows of comparisons of two clusters."""
        return PairsLedger(self._store, source, target)

    def past(self) -> Past:
        """Return the reader of earlier runs."""
        return Past(self._store)

    def repaired(self, run_id: str, rows: Iterable[tuple[str, str, Mapping[str, str]]]) -> int:
        """Record that rows (keyspace, table, key as hex) of a run are proven to agree now; return how many it knew.

        If a later run finds one of them again, it came back.
        """
        return mark_repaired(self._store, run_id, rows)

    def ended(self, report: Report) -> None:
        """Record the verdict and exit code of a run after its repair."""
        mark_ended(self._store, report)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> LedgerFile:  # noqa: PYI034 - Self is 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_ledger(path: Path, *, create: bool = True, shared: bool = False) -> LedgerFile:
    """Open or create a ledger; a damaged file is moved aside and everything counts as unchecked.

    One that is created as `shared` can lie on a network's file system, where others read it once it is closed.

    Without `create` a missing or damaged file is a LedgerError (exit code 3). A whole file that is not a ledger of
    ours is a UsageError.
    """
    return LedgerFile(Store.open(path, create=create, shared=shared))


__all__ = [
    "Behind",
    "ComparedPair",
    "KnownCluster",
    "LatestReads",
    "LedgerFile",
    "PairsLedger",
    "PartAccount",
    "PartRecorder",
    "Past",
    "PastComparison",
    "PastRun",
    "RunRecorder",
    "TableAge",
    "open_ledger",
]
