"""Clients that write at QUORUM for as long as a test wants them to."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import final

from cassandra import ConsistencyLevel, DriverException

from tests.support.cluster import RunningCluster

_PAUSE_S = 0.005


@final
class Writers:
    """Writes rows of some keys over and over; what a cluster in motion refuses is counted and tried anew."""

    def __init__(self, cluster: RunningCluster, cql: str, keys: Sequence[int], *, threads: int = 2) -> None:
        self.written = self.refused = 0
        self._keys = keys
        self._stop = threading.Event()
        self._session = cluster.session
        self._statement = self._session.prepare(cql)
        self._statement.consistency_level = ConsistencyLevel.QUORUM
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._stop.is_set():
            try:
                self._session.execute(self._statement, (dice.choice(self._keys),))
                self.written += 1
            except DriverException:
                self.refused += 1
            time.sleep(_PAUSE_S)
