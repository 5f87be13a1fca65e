"""What a watch of two clusters knows of every pair of tables now, as the end of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from consistency.comparing.matching import Matched
from consistency.ledger import PastComparison
from consistency.model.ring import Ring
from consistency.model.sides import Side
from consistency.results.verdict import Verdict
from consistency.watching.metrics import RunEnd, WatchFigures
from consistency.watching.target_end import TargetEnd, TargetTable
from consistency.watching.visit_board import VisitBoard


class TargetBoard(VisitBoard):
    """The latest comparison of every pair in scope; `run_end` is always replaced as a whole: any thread may read it.

    After a restart it knows again when a pair was last equal, and nothing else: how many rows differ is said by a
    comparison of this watch alone.
    """

    def __init__(self, extra_labels: Mapping[str, str] | None = None) -> None:
        super().__init__(extra_labels)
        self._seen: dict[str, TargetTable] = {}
        self._prints: dict[str, tuple[str, str]] = {}
        self._clusters: Mapping[Side, tuple[str, str]] = {}
        self._comparisons = dict.fromkeys((Verdict.CONSISTENT, Verdict.UNKNOWN, Verdict.DIVERGENT), 0)

    @property
    def known(self) -> TargetEnd:
        """Everything, as it is now."""
        tables = tuple(self._seen[name] for name in sorted(self._seen))
        return TargetEnd(tables, self._clusters, dict(self._comparisons))

    @property
    def tables(self) -> int:
        """The number of pairs in scope, and of tables without a counterpart."""
        return len(self._seen)

    @property
    def divergent_rows(self) -> int:
        """The rows that differ between the clusters, by the latest comparison of each pair."""
        return sum(table.differing for table in self._seen.values())

    def now(self) -> RunEnd | None:
        """Return `run_end`; any thread may call this."""
        return self.run_end

    def in_scope(
        self, rings: Mapping[Side, Ring], matched: Matched, past: Callable[[str], PastComparison | None]
    ) -> None:
        """Record which pairs exist; `past` tells of a pair, by its name in the source, what the ledger knows.

        What was compared before a table was altered or made anew says nothing of it now.
        """
        self._clusters = {side: (ring.cluster, ring.cluster_id) for side, ring in rings.items()}
        seen: dict[str, TargetTable] = {}
        for pair in matched.pairs:
            name, target = pair.source.full_name, pair.target.full_name
            before = self._seen.get(name)
            known = past(name)
            equal_s = known.equal_us / 1e6 if known is not None and known.equal_us is not None else None
            prints = (pair.source.fingerprint, pair.target.fingerprint)
            anew = self._prints.get(name) != prints or before is None or before.target != target
            lost = known is None and before is not None and before.verdict is Verdict.CONSISTENT
            self._prints[name] = prints
            if before is None or anew or lost:
                before = TargetTable(pair.source.keyspace, pair.source.name, target)
            seen[name] = replace(before, last_equal_s=equal_s)
        for name, reason in matched.lacking.items():
            keyspace, _, table = name.partition(".")
            seen[name] = TargetTable(keyspace, table, "", reason=reason)
        self._seen = seen
        self._publish_again()

    def compared(self, table: TargetTable, seconds: float, exit_code: int) -> None:
        """Record a comparison."""
        self._seen[table.full_name] = table
        self._comparisons[table.verdict] += 1
        self._enter(seconds, exit_code)

    def failed(self, full_name: str | None, reason: str, seconds: float, exit_code: int) -> None:
        """Record a visit without a result: of its table nothing is known but when it was last equal."""
        if full_name is not None and (seen := self._seen.get(full_name)) is not None:
            fresh = TargetTable(seen.keyspace, seen.table, seen.target, reason=reason)
            self._seen[full_name] = replace(fresh, last_equal_s=seen.last_equal_s)
        self._comparisons[Verdict.UNKNOWN] += 1
        self._enter(seconds, exit_code)

    def forget(self) -> None:
        """Forget every comparison, because the ledger that they rest on is lost."""
        self._seen.clear()

    def _run_end(self, ended_at: float, seconds: float, exit_code: int, figures: WatchFigures) -> RunEnd:
        labels = self._extra_labels
        return RunEnd(ended_at, seconds, exit_code, extra_labels=labels, watch=figures, target=self.known)
