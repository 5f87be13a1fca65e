"""How long a difference must last before it is claimed: as long as the servers let a write be under way."""

from __future__ import annotations

from consistency.cluster.port import Clock, ClusterReader
from consistency.model.servertime import skew_sentence

DEFAULT_WINDOW_S = 2.5
"""Where the servers do not tell: a replica drops a write that is older than write_request_timeout, 2 s by default."""
MARGIN_S = 0.5
"""What a window is longer than the write timeout: a write that came in time still has to be applied."""


def window_of(write_timeout_s: float | None) -> float:
    """Return the settle window that fits the servers' write timeout."""
    return DEFAULT_WINDOW_S if write_timeout_s is None else write_timeout_s + MARGIN_S


_WAITED_MOST_S = 60.0
"""How long a difference between the servers' clocks is waited out; beyond it the note about the clocks must do."""


async def settle_window(reader: ClusterReader, chosen_s: float | None) -> tuple[float, str]:
    """Return the window to use, what the operator chose before what fits, and what must be said about it."""
    timeout_s = await reader.write_timeout_s()
    if chosen_s is None:
        return window_of(timeout_s), ""
    if timeout_s is None or chosen_s >= timeout_s:
        return chosen_s, ""
    return chosen_s, (
        f"--settle {chosen_s:g} is shorter than the servers' write timeout ({timeout_s:g} s): a write in flight"
        f" may be taken for a difference; leave it out, or give at least {window_of(timeout_s):g}"
    )


async def settled_how(reader: ClusterReader, clock: Clock, chosen_s: float | None) -> tuple[float, tuple[str, ...]]:
    """Return the window of a check, and notes: what the servers' clocks and timeouts ask to be known of it."""
    window_s, note = await settle_window(reader, chosen_s)
    if not reader.capabilities.timed:
        # Each server expires cells by its own clock then: until the slowest has, its copy differs from the others'.
        now = clock.server_time()
        window_s += min((now.latest_us - now.earliest_us) / 1e6, _WAITED_MOST_S)
    return window_s, tuple(filter(None, (note, skew_sentence(clock.readings))))
