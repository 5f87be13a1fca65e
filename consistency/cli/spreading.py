"""The options that spread a run over several processes, and the workers that they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from consistency.cli.options import CommandT, with_options
from consistency.errors import UsageError

if TYPE_CHECKING:
    from consistency.cluster.request_counts import RequestCounts
    from consistency.spreading.port import Workers

_ENGINE = re.compile(r"dask:(?P<address>(?:tcp|tls)://\S+)")
_OPTIONS = (
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Read by N processes on this machine, for runs that one processor limits, such as checks with "
        "--route client. They share the limits on the load.",
    ),
    click.option(
        "--engine",
        metavar="dask:ADDRESS",
        help="Read by the workers of a Dask cluster: dask:tcp://SCHEDULER:8786, or tls. They connect with passwords of "
        "their own environment and files; none is sent. Needs the extra 'dask' here and there.",
    ),
)


def spreading_options(command: CommandT) -> CommandT:
    """Add the options to a command; they arrive as `workers` and `engine`."""
    return with_options(command, _OPTIONS)


@dataclass(frozen=True, slots=True)
class Crew:
    """Who reads: so many processes here, or the workers of a Dask scheduler at an address."""

    size: int | None = None
    address: str | None = None

    async def gather(self, hosts: Collection[str], count_with: Callable[[RequestCounts], None]) -> Workers:
        """Return the workers, not yet started; a local crew counts its requests to these nodes together with our own.

        `count_with` takes what counts them.
        """
        if self.address is not None:
            from consistency.spreading.dask_workers import DaskWorkers  # noqa: PLC0415 - needs the extra

            return await DaskWorkers.connected(self.address)
        from consistency.cluster.request_counts import SharedCounts  # noqa: PLC0415 - loads the driver
        from consistency.spreading.local import LocalWorkers  # noqa: PLC0415

        size = self.size or 1
        workers = LocalWorkers(size, hosts)
        count_with(SharedCounts(workers.counts, hosts, size, size + 1))
        return workers


def take_crew(given: dict[str, Any]) -> Crew | None:
    """Return the crew that is asked for, None for this process alone; refuse what workers cannot do."""
    size, engine = given["workers"], given["engine"]
    if size is None and engine is None:
        return None
    option = "--workers" if engine is None else "--engine"
    if size is not None and engine is not None:
        raise UsageError("--workers and --engine: give one of the two")
    for name in ("sample", "within", "run_time", "part"):
        if given.get(name) is not None:
            msg = f"{option} reads whole tables: leave out --{name.replace('_', '-')}"
            raise UsageError(msg)
    if engine is None:
        return Crew(size=size)
    found = _ENGINE.fullmatch(engine)
    if found is None:
        msg = f"--engine {engine}: is not dask:tcp://HOST:PORT or dask:tls://HOST:PORT, the address of a Dask scheduler"
        raise UsageError(msg)
    return Crew(address=found["address"])
