"""What time it is for the servers: each clock as it was read, the bounds of them all, and which bound is safe for what.

No two clocks are alike, and an answer takes a moment to arrive. So the time of a cluster is two instants: no
server's clock shows an earlier one than the first or a later one than the second. Every decision that depends on
time is made by one `ServerTime` from its first look to its last, and names the bound that makes it careful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from consistency.model.ring import Node

TOLERATED_SKEW_S = 3.0
"""Servers' clocks that are further apart than this are reported: chrony and NTP keep them within milliseconds."""


@dataclass(frozen=True, slots=True)
class ServerTime:
    """One instant, by the slowest and by the most advanced of the servers' clocks."""

    earliest_us: int
    latest_us: int

    @classmethod
    def exactly(cls, now_us: int) -> ServerTime:
        """Return the time of servers whose clocks all show the same."""
        return cls(now_us, now_us)

    @property
    def expiry_s(self) -> int:
        """The instant to judge TTLs at: what some server may already have expired must not be taken for live."""
        return self.latest_us // 1_000_000

    def future_us(self, max_skew_s: float) -> int:
        """Return the write time after which a write lies in the future, by every server's clock.

        What a server whose clock is ahead stamped is no client's mistake: it must raise no alarm.
        """
        return self.latest_us + int(max_skew_s * 1e6)

    def in_flight_us(self, window_s: float) -> int:
        """Return the write time after which a write may still be on its way.

        The slowest clock may have stamped it, and then it is younger than it looks.
        """
        return self.earliest_us - int(window_s * 1e6)

    def purged_us(self, gc_grace_s: int) -> int:
        """Return the write time before which a write may have been deleted and its delete purged.

        The slowest clock may have stamped the delete and the most advanced one purges it: what may be older than
        gc_grace by any of them is not brought back unasked.
        """
        return self.latest_us + (self.latest_us - self.earliest_us) - gc_grace_s * 1_000_000

    @property
    def writable_us(self) -> int:
        """The newest write time that a write of ours may carry: it lies in no server's future."""
        return self.earliest_us


@dataclass(frozen=True, slots=True)
class ClockReading:
    """How far a server's clock is ahead of a common one, give or take `uncertainty_us`: half of what asking took."""

    node: Node
    offset_us: int
    uncertainty_us: int = 0

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most that the clock is ahead."""
        return self.offset_us - self.uncertainty_us, self.offset_us + self.uncertainty_us


@dataclass(frozen=True, slots=True)
class Astray:
    """A server whose clock is surely away from the others': by how many seconds, below 0 where it is behind."""

    node: Node
    by_s: float

    def __str__(self) -> str:
        return f"{self.node} is {_span(abs(self.by_s))} {'ahead' if self.by_s > 0 else 'behind'}"


def astray(readings: Sequence[ClockReading], tolerated_s: float = TOLERATED_SKEW_S) -> list[Astray]:
    """Return the servers whose clocks are away from the middle one, the worst first; none where all are together.

    What is within the uncertainty of the readings is no skew. Where two clocks are further apart than is
    tolerated, at least one of them is more than half of that away from the middle.
    """
    if len(readings) < 2:
        return []
    surely_us = max(r.bounds[0] for r in readings) - min(r.bounds[1] for r in readings)
    if surely_us <= tolerated_s * 1e6:
        return []
    middle_us = median_low(r.offset_us for r in readings)
    away = [Astray(r.node, (r.offset_us - middle_us) / 1e6) for r in readings]
    return sorted((a for a in away if abs(a.by_s) > tolerated_s / 2), key=lambda a: (-abs(a.by_s), a.node.name))


def skew_sentence(readings: Sequence[ClockReading]) -> str:
    """Say whose clock is away from the others' and by how much; empty where all are together."""
    found = astray(readings)
    if not found:
        return ""
    who = "; ".join(map(str, found[:_NAMED]))
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"the servers' clocks are not together: {who}{more}, against the middle one of {len(readings)}"


_NAMED = 8


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
