"""What a driver and a local worker say to each other over pipes: JSON in frames, compressed, its length in front."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

_LENGTH = struct.Struct(">I")
MOST_BYTES = 1 << 30


async def hear(stream: asyncio.StreamReader) -> dict[str, Any] | None:
    """Return what the other side says next; None once it is gone, or says what nobody can read."""
    try:
        (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        if length > MOST_BYTES:
            return None
        said: dict[str, Any] = json.loads(zlib.decompress(await stream.readexactly(length)))
    except (asyncio.IncompleteReadError, ConnectionError, zlib.error, ValueError):
        return None
    return said


def frame(said: Mapping[str, Any]) -> bytes:
    """Return something to say as a frame."""
    body = zlib.compress(json.dumps(said, separators=(",", ":")).encode(), level=1)
    return _LENGTH.pack(len(body)) + body
