"""The parts of a run in a ledger: each as an account of its own, until all of them are put together to one run.

A part enters no span and no finding: what it read counts in a ledger once the parts are merged, as one run. A ledger
holds the newest account of each part of each run.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from consistency.errors import UsageError
from consistency.ledger.part_account import PartAccount
from consistency.ledger.port import RangeRead, RunFacts
from consistency.ledger.store import Store
from consistency.ledger.table_account import TableRead
from consistency.model.part import Part
from consistency.model.reading import Depth
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding
from consistency.results.range_findings import RangeFinding
from consistency.results.report import Report
from consistency.results.tree_report import TreeReport

_KEPT_US = 30 * 86_400 * 1_000_000
"""Parts are forgotten after this long."""


class PartRecorder:
    """A check's Recorder of one part: collects the account, and hands it over at the end of the run."""

    cluster_id = ""

    def __init__(self, part: Part, run_name: str, terms: Mapping[str, Any], keep: Callable[[PartAccount], str]) -> None:
        self._part = part
        self._run_name = run_name
        self._terms = terms
        self._keep = keep
        self._facts: RunFacts | None = None
        self._reads: list[TableRead] = []
        self.problem = ""
        """Why the account could not be kept, in one line."""

    def begin(self, facts: RunFacts) -> None:
        """Note the run."""
        self._facts = facts

    def last_tried(self, table: Table, depth: Depth, ranges: Sequence[TokenRange]) -> Sequence[int]:  # noqa: ARG002
        """Return that nothing was read before: a part reads all of its ranges."""
        return [0] * len(ranges)

    def found(self, finding: Finding, depth: Depth) -> None:
        """Do nothing: the findings file has the row."""

    def found_range(self, finding: RangeFinding, depth: Depth) -> None:
        """Do nothing: the findings file has the range."""

    def table_read(
        self,
        table: Table,
        depth: Depth,
        ranges: Sequence[RangeRead],
        *,
        non_owners: bool,
        trees: Sequence[TreeReport] = (),  # noqa: ARG002 - the report has them
    ) -> None:
        """Note what was read of a table."""
        self._reads.append(TableRead(table, depth, tuple(ranges), non_owners))

    def end(self, report: Report) -> None:
        """Hand the account over."""
        if self._facts is not None:
            account = PartAccount(self._part, self._run_name, self._terms, self._facts, report, tuple(self._reads))
            self.problem = self._keep(account)


def keep_part(store: Store, account: PartAccount) -> str:
    """Keep an account instead of an older one of the same part; return in one line why it could not be, or nothing."""
    body = zlib.compress(account.as_text().encode(), level=1)
    row = (account.run_name, account.part.of, account.part.number, account.part_id, account.facts.started_us, body)
    try:
        with store.transaction() as db:
            db.execute("DELETE FROM parts WHERE started_us < ?", (account.facts.started_us - _KEPT_US,))
            db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", row)
    except sqlite3.Error as error:
        return f"the ledger {store.path} could not be written ({error}): this part does not count in it"
    return ""


def forget_part(store: Store, part: Part, run_name: str) -> None:
    """Forget a part's account, as the part is now read anew: if that is killed, an older reading must not stand for it.

    A ledger that cannot be written has its problem told at the end of the run.
    """
    row = (run_name, part.of, part.number)
    with suppress(sqlite3.Error), store.transaction() as db:
        db.execute("DELETE FROM parts WHERE run = ? AND of = ? AND number = ?", row)


def kept_parts(store: Store) -> list[PartAccount]:
    """Return all accounts of a ledger, the oldest first; UsageError if one cannot be read."""
    try:
        bodies = [body for (body,) in store.db.execute("SELECT body FROM parts ORDER BY started_us, number")]
        return [PartAccount.from_text(zlib.decompress(body).decode()) for body in bodies]
    except (sqlite3.Error, zlib.error, UnicodeDecodeError, UsageError) as error:
        msg = f"{store.path}: {error}; run this part again"
        raise UsageError(msg) from None


def merged_whole(store: Store) -> dict[str, str]:
    """Return the parts that belong to runs which were merged whole, each with the id of its run."""
    return dict(store.db.execute("SELECT part, run FROM merged"))


def mark_merged(store: Store, run_id: str, part_ids: Collection[str]) -> None:
    """Note that these parts are all parts of one run, which this ledger has now."""
    with store.transaction() as db:
        db.executemany("INSERT OR REPLACE INTO merged VALUES (?, ?)", [(part, run_id) for part in part_ids])


def has_run(store: Store, run_id: str) -> bool:
    """Whether the ledger has the end of a run."""
    found = store.db.execute("SELECT 1 FROM runs WHERE id = ? AND exit_code IS NOT NULL", (run_id,))
    return found.fetchone() is not None
