"""Progress of planning and applying: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from consistency.results.figures import span
from repair.applying.outcomes import Tally
from repair.keeping.entries import Result

_LINE_EVERY_S = 10.0


class Ticker:
    """Says how many rows are done, how fast it goes, and how long it will still take."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = self._said = clock()
        self._before: int | None = None
        self._work = ""
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()

    def planned(self, done: int, total: int) -> None:
        """Take note of one more row planned."""
        self._tick("planned", done, total, "rows read and decided")

    def applied(self, tally: Tally) -> None:
        """Take note of one more row that has an outcome."""
        self._tick("applied", tally.done, tally.total, f"rows, {tally.results[Result.VERIFIED]:,} verified")

    def undone(self, tally: Tally) -> None:
        """Take note of one more row undone, or not."""
        self._tick("undone", tally.done, tally.total, f"rows, {tally.results[Result.UNDONE]:,} undone")

    def _tick(self, work: str, done: int, total: int, what: str) -> None:
        now = self._clock()
        if self._before is None or self._work != work:
            # Rows of an earlier run, or of other work, do not count for the rate.
            self._before, self._work, self._began = done - 1, work, now
        rate = (done - self._before) / max(now - self._began, 0.001)
        what = f"{what}, {rate:,.0f} rows/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=what)
        elif now - self._said >= _LINE_EVERY_S:
            self._said = now
            left = span((total - done) / max(rate, 0.001))
            self._console.print(Text(f"{done:,} of {total:,} {what}, about {left} left"), soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
