"""What a watch, or a comparison, of two clusters keeps: when each pair of tables was last compared and last equal."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from consistency.comparing.opening import Pair, ring_of
from consistency.comparing.preparing import CompareOptions
from consistency.comparing.recording import begin
from consistency.errors import LedgerError, UsageError
from consistency.ledger import ComparedPair, PairsLedger, PastComparison, open_ledger
from consistency.ledger.lock import one_run
from consistency.model.ring import Ring
from consistency.model.sides import Side
from consistency.results.comparison import Comparison
from consistency.results.verdict import Verdict


class PairsKept:
    """The ledger during one visit; without a file what was compared since the watch began."""

    def __init__(self, pairs: PairsLedger | None, memory: dict[ComparedPair, PastComparison], note: str) -> None:
        self._pairs = pairs
        self._memory = memory
        self.note = note
        """What was wrong with the previous file, in one line; empty if nothing was."""
        self.problem = ""
        """Why this visit is not in the ledger, in one line; empty if it is."""

    def past(self, pair: ComparedPair, now_us: int) -> PastComparison | None:
        """Return what is known of a pair of tables as they are now; nothing that was later than the servers' time."""
        if self._pairs is not None:
            return self._pairs.past(pair, now_us)
        known = self._memory.get(pair)
        return known if known is not None and known.is_before(now_us) else None

    def record(
        self, pair: ComparedPair, compared_us: int, verdict: Verdict, placement: str = ""
    ) -> PastComparison | None:
        """Record a comparison that has ended; return what is known now, of before where it could not be written."""
        if self._pairs is not None:
            try:
                return self._pairs.record(pair, compared_us, verdict, placement)
            except sqlite3.OperationalError as error:
                self.problem = f"the comparison could not be recorded ({error}): make room on the ledger's disk"
                return self.past(pair, compared_us)
        before = self.past(pair, compared_us)
        equal_us = before.equal_us if before is not None else None
        equal_us = compared_us if verdict is Verdict.CONSISTENT else equal_us
        known = PastComparison(compared_us, equal_us, verdict, placement)
        self._memory[pair] = known
        return known


async def recorded(
    pair: Pair,
    options: CompareOptions,
    ledger: Path,
    compare: Callable[[], Awaitable[Comparison]],
    warn: Callable[[str], object],
) -> tuple[Comparison, bool]:
    """Compare, and have the ledger hold the result; return it, and whether the ledger does.

    Raises UsageError for a sample, which is not entered, and LockedError if another run holds the lock of a cluster.
    """
    if options.sample is not None:
        raise UsageError("a ledger keeps what whole tables were found to be, a sample is not entered: leave out one")
    rings = {cluster.side: await ring_of(cluster) for cluster in pair}
    with PairsKeeper(ledger).visit(rings) as kept:
        if kept.note:
            warn(kept.note)
        begun = await begin(pair, options)
        result = await compare()
        begun.enter(result, kept)
        if kept.problem:
            warn(kept.problem)
    return result, not kept.problem


class PairsKeeper:
    """Opens the ledger for one visit at a time, and holds the locks of both clusters beside it meanwhile."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._memory: dict[ComparedPair, PastComparison] = {}

    @contextmanager
    def visit(self, rings: Mapping[Side, Ring]) -> Iterator[PairsKept]:
        """Hold the locks and the ledger; LockedError if another run holds one of the locks."""
        source, target = rings[Side.SOURCE], rings[Side.TARGET]
        if self.path is None:
            yield PairsKept(None, self._memory, "")
            return
        try:
            with ExitStack() as held:
                held.enter_context(one_run(source, self.path))
                # Else it is one cluster under two names of tables, or one made from the other's disks: one lock.
                if source.cluster != target.cluster or source.host_ids.isdisjoint(target.host_ids):
                    held.enter_context(one_run(target, self.path))
                ledger = held.enter_context(open_ledger(self.path))
                yield PairsKept(ledger.pairs(source, target), self._memory, ledger.note)
        except sqlite3.Error as error:
            msg = f"the ledger {self.path} cannot be read ({error}): this visit does not count; look at its disk"
            raise LedgerError(msg) from None
