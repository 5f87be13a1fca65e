"""What a set of workers can do, whatever starts and reaches them, and what a worker does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from consistency.errors import ConsistencyError

Told = Callable[[Mapping[str, Any]], None]
"""Hears of a worker's progress: `leaves`, or how many rows are `settling` in a `unit`."""


class WorkerLost(ConsistencyError):
    """A worker ended, or cannot be reached any more, while it read a unit: another one may read it."""


class UnitFailed(ConsistencyError):
    """A worker could not read a unit, and says why; another one could not either."""


class Workers(Protocol):
    """Processes that read units of a run, each with connections of its own.

    An order and a unit are texts in JSON; a unit has a `number` that no other one of the run has.
    """

    @property
    def size(self) -> int:
        """How many processes read the cluster: the limits on the load are divided by it."""

    @property
    def at_once(self) -> int:
        """How many units may be under way at once, so that no worker waits."""

    async def start(self, order: str, told: Told) -> None:
        """Have the workers connect as an order says; ConsistencyError if they cannot."""

    async def read(self, unit: str) -> str:
        """Have a unit read by one of them; return what came of it. Raises WorkerLost or UnitFailed."""

    async def stop(self) -> None:
        """Have units that are under way end early, each with a true account of what it read."""

    async def close(self) -> None:
        """End the workers, or let go of them."""


class Reads(Protocol):
    """What a worker does: it reads units, several at once if it is asked to."""

    @property
    def stop(self) -> asyncio.Event:
        """Ends the units that are under way early."""

    async def read(self, unit: str) -> str:
        """Read a unit; what could not be read of it is in what came of it, not raised."""
