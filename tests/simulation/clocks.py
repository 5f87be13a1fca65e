"""Clocks that are wrong: the servers', drawn for a seed, and those of the clients that write."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consistency.model.ring import Node


@dataclass(frozen=True)
class Clocks:
    """How far each server's clock is ahead of the true time, in seconds, and how exactly they were read."""

    ahead_s: Mapping[Node, float]
    unsure_s: float = 0.0

    @property
    def earliest_s(self) -> float:
        """How far the slowest is ahead."""
        return min(self.ahead_s.values())

    @property
    def latest_s(self) -> float:
        """How far the most advanced is ahead."""
        return max(self.ahead_s.values())

    def __str__(self) -> str:
        told = ", ".join(f"{node} {ahead:+.2f}" for node, ahead in self.ahead_s.items() if ahead)
        return f"servers' clocks: {told or 'all true'}; read to {self.unsure_s} s"


def draw_clocks(seed: int, nodes: Sequence[Node], unsure_s: float, *, most_s: float | None = None) -> Clocks:
    """Draw the servers' clocks, apart from the rest of a seed's story: together, seconds, minutes or hours apart.

    One of them is true, and none is about an hour ahead, where the histories' future writes are. `most_s` bounds
    them where TTLs run by them.
    """
    rng = random.Random(f"clocks {seed}")
    shape, chosen = rng.random(), rng.choice(list(nodes))
    if shape < 0.4:
        ahead = {node: rng.uniform(-0.3, 0.3) for node in nodes}
    elif shape < 0.7:
        ahead = {node: rng.choice((0.0, rng.uniform(-20.0, 20.0), rng.uniform(-90.0, 90.0))) for node in nodes}
    else:
        hours = (rng.uniform(600.0, 3_000.0), rng.uniform(4_000.0, 20_000.0), -rng.uniform(600.0, 20_000.0))
        ahead = {node: rng.choice((0.0, 0.0, *hours)) for node in nodes}
    if most_s is not None:
        ahead = {node: max(-most_s, min(most_s, by_s)) for node, by_s in ahead.items()}
    return Clocks({**ahead, chosen: 0.0}, unsure_s)


def draw_clients(seed: int, clocks: Clocks, max_skew_s: float) -> tuple[float, ...]:
    """Draw how far the clocks of the clients that write are ahead: two in three seeds have true ones alone.

    Those that are behind are so within what settling allows for, those ahead are about as far as makes a write a
    future one.
    """
    rng = random.Random(f"clients {seed}")
    if rng.random() < 0.66:
        return (0.0,)
    near = clocks.latest_s + clocks.unsure_s + max_skew_s + rng.uniform(-1.0, 5.0)
    return (0.0, clocks.earliest_s - rng.uniform(0.0, 40.0), near, near)
