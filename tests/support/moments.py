"""Something that happens while a check runs, at a moment that is the same in every run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from consistency.checking.leaves import LeafResult
from consistency.checking.observer import Silent
from consistency.results.findings import Finding


class Moment(Silent):
    """Does something once, when the n-th leaf came back or the n-th finding was made: the scan waits meanwhile."""

    def __init__(self, act: Callable[[], Any], *, leaf: int = 0, finding: int = 0) -> None:
        self._act = act
        self._leaf, self._finding = leaf, finding
        self.leaves = self._findings = 0
        self.took_s = 0.0
        self.done = False

    def leaf_digested(self, result: LeafResult) -> None:
        self.leaves += 1
        self._now(self.leaves == self._leaf)

    def found(self, finding: Finding) -> None:
        self._findings += 1
        self._now(self._findings == self._finding)

    def _now(self, due: bool) -> None:
        if due and not self.done:
            self.done = True
            started = time.monotonic()
            self._act()
            self.took_s += time.monotonic() - started
