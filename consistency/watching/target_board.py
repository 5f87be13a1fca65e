"""What a watch of two clusters knows of every pair of tables now, as the end of one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from consistency.comparing.matching import Matched
from consistency.ledger import PastComparison
from consistency.model.ring import Ring
from consistency.model.sides import Side
from consistency.results.verdict import ExitCode, Verdict
from consistency.watching.metrics import RunEnd, WatchFigures
from consistency.watching.target_end import TargetEnd, TargetTable


class TargetBoard:
    """The latest comparison of every pair in scope; `run_end` is always replaced as a whole: any thread may read it.

    After a restart it knows again when a pair was last equal, and nothing else: how many rows differ is said by a
    comparison of this watch alone.
    """

    def __init__(self, extra_labels: Mapping[str, str] | None = None) -> None:
        self._extra_labels = dict(extra_labels or {})
        self._seen: dict[str, TargetTable] = {}
        self._prints: dict[str, tuple[str, str]] = {}
        self._clusters: Mapping[Side, tuple[str, str]] = {}
        self._comparisons = dict.fromkeys((Verdict.CONSISTENT, Verdict.UNKNOWN, Verdict.DIVERGENT), 0)
        self._rounds = 0
        self._hook_failures = 0
        self._last = (0.0, 0.0, int(ExitCode.INCOMPLETE))
        self.run_end: RunEnd | None = None

    @property
    def known(self) -> TargetEnd:
        """Everything, as it is now."""
        tables = tuple(self._seen[name] for name in sorted(self._seen))
        return TargetEnd(tables, self._clusters, dict(self._comparisons))

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
        if self.run_end is not None:
            self._publish()  # not only when the next comparison has ended, which may take hours

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

    def waited(self, seconds: float, exit_code: int) -> None:
        """Record that another run held the lock, or that there is nothing to compare; what is known stays."""
        self._enter(seconds, exit_code)

    def forget(self) -> None:
        """Forget every comparison, because the ledger that they rest on is lost."""
        self._seen.clear()

    def round_done(self, rounds: int) -> None:
        """Record the number of complete rounds."""
        self._rounds = rounds
        self._publish()

    def hook_failed(self) -> None:
        """Count a hook that could not be notified."""
        self._hook_failures += 1
        self._publish()

    def _enter(self, seconds: float, exit_code: int) -> None:
        self._last = (time.time(), seconds, int(exit_code))
        self._publish()

    def _publish(self) -> None:
        ended_at, seconds, code = self._last
        figures = WatchFigures(self._rounds, self._hook_failures)
        self.run_end = RunEnd(
            ended_at, seconds, code, extra_labels=self._extra_labels, watch=figures, target=self.known
        )
