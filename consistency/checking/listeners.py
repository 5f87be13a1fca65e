"""Who is told of each finding of a check, and what is kept of all of them: the first ones, and what they suggest."""

from __future__ import annotations

from collections.abc import Sequence

from consistency.checking.observer import Observer
from consistency.ledger.port import Recorder
from consistency.model.reading import Depth
from consistency.results.diagnosis import CauseCounter
from consistency.results.findings import Finding, FindingsWriter
from consistency.results.range_findings import RangeFinding
from consistency.results.report import TOP_FINDINGS


class Listeners:
    """Tells the findings file, the ledger if there is one, and whoever watches.

    `tokens` are those of the ring; none for a piece of a check, of which no likely cause is told.
    """

    def __init__(self, recorder: Recorder | None, observer: Observer, tokens: Sequence[int]) -> None:
        self._recorder = recorder
        self._observer = observer
        self._top: list[Finding] = []
        self.causes = CauseCounter(tokens)

    @property
    def top(self) -> tuple[Finding, ...]:
        """The first findings."""
        return tuple(self._top)

    def tell(self, found: Finding | RangeFinding, depth: Depth, writer: FindingsWriter) -> None:
        """Pass on a row that differs, or the rows of a range that are counted."""
        if isinstance(found, Finding):
            self.causes.add(found)
            if len(self._top) < TOP_FINDINGS:
                self._top.append(found)
            writer.write(found)
            self._observer.found(found)
            if self._recorder is not None:
                self._recorder.found(found, depth)
        else:
            writer.write_range(found)
            self._observer.found_range(found)
            if self._recorder is not None:
                self._recorder.found_range(found, depth)
