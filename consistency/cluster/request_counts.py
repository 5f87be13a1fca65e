"""How many requests we sent to each node and had answered: by this process, and by others that read with it.

A node that answers more than these has other work to do, and is asked less (throttle.py).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

_SLOT = struct.Struct("=qq")


class RequestCounts:
    """Of this process alone; with `readers` that share nothing but do about as much, each counts for all of them."""

    def __init__(self, readers: int = 1) -> None:
        self._sent, self._answered = Counter[str](), Counter[str]()
        self._readers = readers

    def count_sent(self, host_id: str) -> None:
        """Count a request."""
        self._sent[host_id] += 1

    def count_answered(self, host_id: str) -> None:
        """Count that it was answered, or given up."""
        self._answered[host_id] += 1

    def sent(self, host_id: str) -> int:
        """Return how many requests all of us have sent to a node."""
        return self._sent[host_id] * self._readers

    def answered(self, host_id: str) -> int:
        """Return how many of these were answered."""
        return self._answered[host_id] * self._readers


class SharedCounts(RequestCounts):
    """Of several processes on one machine, in a file that they share: each writes its own slots and reads all."""

    def __init__(self, path: Path, host_ids: Collection[str], reader: int, readers: int) -> None:
        super().__init__()
        self._places = {host_id: place for place, host_id in enumerate(sorted(host_ids))}
        size = max(1, len(self._places)) * _SLOT.size
        with path.open("r+b") as file:
            os.ftruncate(file.fileno(), size * readers)
            self._memory = mmap.mmap(file.fileno(), size * readers)
        self._own = size * reader
        self._starts: Sequence[int] = range(0, size * readers, size)

    def count_sent(self, host_id: str) -> None:
        """Count a request."""
        self._add(host_id, 1, 0)

    def count_answered(self, host_id: str) -> None:
        """Count that it was answered, or given up."""
        self._add(host_id, 0, 1)

    def sent(self, host_id: str) -> int:
        """Return how many requests all of us have sent to a node."""
        return self._total(host_id)[0]

    def answered(self, host_id: str) -> int:
        """Return how many of these were answered."""
        return self._total(host_id)[1]

    def _add(self, host_id: str, sent: int, answered: int) -> None:
        if (place := self._places.get(host_id)) is not None:
            at = self._own + place * _SLOT.size
            before = _SLOT.unpack_from(self._memory, at)
            _SLOT.pack_into(self._memory, at, before[0] + sent, before[1] + answered)

    def _total(self, host_id: str) -> tuple[int, int]:
        if (place := self._places.get(host_id)) is None:
            return 0, 0
        found = [_SLOT.unpack_from(self._memory, start + place * _SLOT.size) for start in self._starts]
        return sum(sent for sent, _ in found), sum(answered for _, answered in found)
