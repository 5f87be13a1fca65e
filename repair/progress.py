"""Progress of an apply: one line that is redrawn on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time

from rich.console import Console

from repair.applying import Tally
from repair.journal import Result

_LIVE_S, _PLAIN_S = 0.2, 10.0


class Ticker:
    """Says how many rows are done, how many of them are verified, and how fast it goes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = self._said = time.monotonic()
        self._before: int | None = None
        self._open = False

    def tick(self, tally: Tally) -> None:
        """Take note of one more row."""
        now = time.monotonic()
        if self._before is None:
            self._before = tally.done - 1  # rows of an earlier run do not count for the rate
        live = self._console.is_terminal
        if now - self._said < (_LIVE_S if live else _PLAIN_S):
            return
        self._said = now
        rate = (tally.done - self._before) / max(now - self._began, 0.001)
        line = f"{tally.done} of {tally.total} rows, {tally.results[Result.VERIFIED]} verified, {rate:.0f} rows/s"
        self._console.print(("\r" if live else "") + line, end="" if live else "\n")
        self._open = live

    def close(self) -> None:
        """End the line."""
        if self._open:
            self._console.print()
