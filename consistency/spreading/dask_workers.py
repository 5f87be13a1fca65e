"""Workers of a Dask cluster, reached through its scheduler (the extra `dask`).

Dask starts a unit of a worker that it lost on another one by itself; when it gives up, the driver decides.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import uuid
from contextlib import suppress
from typing import Any

from consistency import __version__
from consistency.errors import ConnectError
from consistency.spreading import dask_side
from consistency.spreading.messages import Order
from consistency.spreading.port import Told, UnitFailed, WorkerLost

try:
    from distributed import Client
    from distributed.scheduler import KilledWorker
except ImportError as error:
    msg = (
        f"--engine dask needs more packages ({error.name}): pip install 'cassandra-consistency[dask]', in a clone"
        " '.[dask]'"
    )
    raise ConnectError(msg) from None

_CONNECT_S = 10.0
_LAST_WORDS_S = 5.0


class DaskWorkers:
    """The workers that a scheduler has when the run begins; those that come later help."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: Client | None = None
        self._order = ""
        self._run_id = ""
        self._topic = f"consistency-{uuid.uuid4()}"
        self._numbers: dict[str, int] = {}
        self._threads = 0

    @classmethod
    async def connected(cls, address: str) -> DaskWorkers:
        """Connect to a scheduler; ConnectError if it does not answer, or its workers cannot read for us."""
        found = cls(address)
        try:
            found._client = await Client(address, asynchronous=True, timeout=_CONNECT_S, set_as_default=False)
            await found._meet(found._client)
        except (OSError, asyncio.TimeoutError) as error:
            await found.close()
            msg = f"--engine dask:{address}: no scheduler answers there ({type(error).__name__}); start: dask scheduler"
            raise ConnectError(msg) from None
        except BaseException:
            await found.close()
            raise
        return found

    async def _meet(self, client: Client) -> None:
        info = await client.scheduler.identity(n_workers=-1)
        workers = info["workers"]
        if not workers:
            msg = f"--engine dask:{self._address}: the scheduler has no worker; start some: dask worker {self._address}"
            raise ConnectError(msg)
        self._numbers = {address: number for number, address in enumerate(sorted(workers))}
        self._threads = sum(max(1, int(worker["nthreads"])) for worker in workers.values())
        versions = await client.run(dask_side.version, on_error="return")
        unlike = {str(v) if isinstance(v, str) else type(v).__name__ for v in versions.values()} - {__version__}
        if unlike:
            msg = (
                f"--engine dask:{self._address}: its workers need this package in version {__version__}, as here;"
                f" they have: {', '.join(sorted(unlike))}"
            )
            raise ConnectError(msg)

    @property
    def size(self) -> int:
        """How many processes read the cluster."""
        return max(1, len(self._numbers))

    @property
    def at_once(self) -> int:
        """How many units may be under way: one for each thread, and one more for each worker."""
        return self._threads + self.size

    async def start(self, order: str, told: Told) -> None:
        """Keep the order: workers connect when they read their first unit."""
        self._order, self._run_id = order, Order.from_text(order).run_id
        if self._client is not None:
            self._client.subscribe_topic(self._topic, lambda event: told(event[1]))

    async def read(self, unit: str) -> str:
        """Have a unit read by the worker that the scheduler chooses."""
        client = self._client
        if client is None or client.status != "running":
            raise UnitFailed(self._gone)
        words = (self._order, self._numbers, unit, self._topic)
        future = client.submit(dask_side.read_unit, *words, pure=False)
        try:
            said = json.loads(await future)
        except KilledWorker as error:
            raise WorkerLost(str(error).partition(".")[0]) from None
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            if not future.cancelled():
                raise  # we are to end
            raise UnitFailed(self._gone) from None
        except (OSError, asyncio.TimeoutError):
            raise UnitFailed(self._gone) from None
        if "failed" in said:
            msg = f"a worker could not read it: {said['failed']}"
            raise UnitFailed(msg)
        came: str = said["came"]
        return came

    @property
    def _gone(self) -> str:
        return f"the scheduler {self._address} does not answer any more"

    async def stop(self) -> None:
        """Have units under way end early."""
        await self._tell(dask_side.stop_run)

    async def close(self) -> None:
        """Let go of the workers: they close their connections to the cluster."""
        if self._client is not None:
            await self._tell(dask_side.close_run)
            client, self._client = self._client, None
            with suppress(OSError, asyncio.TimeoutError):
                await client.close(timeout=_LAST_WORDS_S)

    async def _tell(self, what: Any) -> None:
        if self._client is None or self._client.status != "running" or not self._run_id:
            return
        telling = asyncio.ensure_future(self._client.run(what, self._run_id, on_error="ignore"))
        await asyncio.wait({telling}, timeout=_LAST_WORDS_S)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
