"""The processes of local workers: python -m consistency.cli.worker is what spreading/nursery.py forks them off.

A worker hears frames on standard input: first {"order", "number", "counts", "hosts"}, then {"read": unit} and
{"stop": true}. On another descriptor it says {"ready": true}, {"told": ...}, {"came": ..., "unit": n} and
{"failed": why, "unit": n}. It ends when standard input does: with its driver, however that ends.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from consistency.cluster.request_counts import SharedCounts
from consistency.errors import ConsistencyError
from consistency.spreading.frames import frame, hear
from consistency.spreading.messages import Order
from consistency.spreading.nursery import fork_workers
from consistency.spreading.opening import opened
from consistency.spreading.port import Reads


class _Mouth:
    """Says frames, one after the other; whole ones, or the driver hears none after them."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def say(self, said: Mapping[str, Any]) -> None:
        self._out.write(frame(said))
        self._out.flush()


async def _serve(mouth: _Mouth) -> None:
    stream = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
    first = await hear(stream)
    if first is None:
        return
    order, number = Order.from_text(first["order"]), int(first["number"])
    counts = SharedCounts(Path(first["counts"]), first["hosts"], number, order.readers + 1)
    async with opened(order, number, lambda news: mouth.say({"told": news}), counts) as reader:
        mouth.say({"ready": True})
        await _read_units(stream, mouth, reader)


async def _read_units(stream: asyncio.StreamReader, mouth: _Mouth, reader: Reads) -> None:
    reading: set[asyncio.Task[None]] = set()
    while (said := await hear(stream)) is not None:
        if said.get("stop"):
            reader.stop.set()
        else:
            task = asyncio.create_task(_read(said["read"], mouth, reader))
            reading.add(task)
            task.add_done_callback(reading.discard)
    for task in reading:
        task.cancel()


async def _read(unit: str, mouth: _Mouth, reader: Reads) -> None:
    number = json.loads(unit)["number"]
    try:
        mouth.say({"unit": number, "came": await reader.read(unit)})
    except Exception as error:  # noqa: BLE001 - the driver is told, and the unit is unknown
        why = str(error) if isinstance(error, ConsistencyError) else f"internal error: {type(error).__name__}"
        mouth.say({"unit": number, "failed": why})


def _work(descriptor: int) -> None:
    """Serve a driver until it is gone, as a worker that was just forked."""
    out = os.fdopen(descriptor, "wb")
    mouth = _Mouth(out)
    try:
        asyncio.run(_serve(mouth))
    except ConsistencyError as error:
        mouth.say({"failed": str(error), "exit_code": int(error.exit_code)})
    except Exception as error:  # noqa: BLE001 - the driver says it to the operator
        mouth.say({"failed": f"internal error: {type(error).__name__}: {error}"[:300], "exit_code": 4})
    with suppress(OSError):
        out.close()
    # The driver's threads may wait for a silent node.
    os._exit(0)


def main() -> None:
    """Load what every worker needs, and fork workers until their driver is gone."""
    importlib.import_module("consistency.cluster.session")
    gc.freeze()  # what is loaded stays: workers need not look through it, and share its memory
    fork_workers(_work)


if __name__ == "__main__":
    main()
