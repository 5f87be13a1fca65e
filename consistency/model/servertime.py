"""The servers' time: each clock's reading, the bounds of all, and the safe bound for each decision.

Clocks differ, and an answer takes time to arrive. So the time of a cluster is two instants: no server's clock is
before the first or after the second. Every decision that depends on time uses one `ServerTime` from start to end,
and names the bound that makes it careful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median_low

from consistency.model.ring import Node

TOLERATED_SKEW_S = 3.0
"""Clocks that differ by more than this are reported; chrony and NTP keep them within milliseconds."""


@dataclass(frozen=True, slots=True)
class ServerTime:
    """One instant, by the slowest and by the fastest of the servers' clocks."""

    earliest_us: int
    latest_us: int

    @classmethod
    def exactly(cls, now_us: int) -> ServerTime:
        """Return the time of servers whose clocks all show the same."""
        return cls(now_us, now_us)

    @property
    def expiry_s(self) -> int:
        """The instant to judge TTLs at, so that a cell that some server has already expired does not count as live."""
        return self.latest_us // 1_000_000

    def future_us(self, max_skew_s: float) -> int:
        """Return the write time after which a write lies in the future by every server's clock.

        A write time from a server whose clock is ahead is no client's mistake and must raise no alarm.
        """
        return self.latest_us + int(max_skew_s * 1e6)

    def in_flight_us(self, window_s: float) -> int:
        """Return the write time after which a write may still be in flight.

        If the slowest clock stamped it, it is younger than it looks.
        """
        return self.earliest_us - int(window_s * 1e6)

    def purged_us(self, gc_grace_s: int) -> int:
        """Return the write time before which a write may have been deleted and its delete purged.

        The slowest clock may have stamped the delete and the fastest one purges it: a row that may be older than
        gc_grace by any clock is not brought back without being asked.
        """
        return self.latest_us + (self.latest_us - self.earliest_us) - gc_grace_s * 1_000_000

    @property
    def writable_us(self) -> int:
        """The newest write time that a write of ours may carry; it lies in no server's future."""
        return self.earliest_us


@dataclass(frozen=True, slots=True)
class ClockReading:
    """How far a server's clock is ahead of a common one; `uncertainty_us` is half of the request's duration."""

    node: Node
    offset_us: int
    uncertainty_us: int = 0

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most that the clock is ahead."""
        return self.offset_us - self.uncertainty_us, self.offset_us + self.uncertainty_us


@dataclass(frozen=True, slots=True)
class Astray:
    """A server whose clock surely differs from the others, by how many seconds; below 0 if it is behind."""

    node: Node
    by_s: float

    def __str__(self) -> str:
        return f"{self.node} is {_span(abs(self.by_s))} {'ahead' if self.by_s > 0 else 'behind'}"


def astray(readings: Sequence[ClockReading], tolerated_s: float = TOLERATED_SKEW_S) -> list[Astray]:
    """Return the servers whose clocks differ from the median clock, worst first; empty if all agree.

    A difference within the uncertainty of the readings is no skew. If two clocks differ by more than the tolerance,
    at least one of them differs from the median by more than half of it.
    """
    if len(readings) < 2:
        return []
    surely_us = max(r.bounds[0] for r in readings) - min(r.bounds[1] for r in readings)
    if surely_us <= tolerated_s * 1e6:
        return []
    middle_us = median_low(r.offset_us for r in readings)
    away = [Astray(r.node, (r.offset_us - middle_us) / 1e6) for r in readings]
    return sorted((a for a in away if abs(a.by_s) > tolerated_s / 2), key=lambda a: (-abs(a.by_s), a.node.name))


def iso_time(us: int) -> str:
    """Return a moment as reports and files have it: UTC, to the second."""
    return datetime.fromtimestamp(us / 1e6, tz=timezone.utc).isoformat(timespec="seconds")


def skew_sentence(readings: Sequence[ClockReading]) -> str:
    """Return whose clock differs from the others and by how much; empty if all agree."""
    found = astray(readings)
    if not found:
        return ""
    who = "; ".join(map(str, found[:_NAMED]))
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"the servers' clocks differ: {who}{more}, compared with the median of {len(readings)}"


_NAMED = 8


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
