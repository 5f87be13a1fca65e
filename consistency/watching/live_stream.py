"""The live page as server-sent events: each section that changed, to every open page, in bounded memory.

A page that does not take what it is sent is let go: nothing is queued for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from consistency.cluster.waits import within

MOST_STREAMS = 64
"""Open pages at a time; each costs a socket and a look a second."""
LOOK_S = 1.0
"""How often it is asked what changed."""
_SIGN_OF_LIFE_S = 15.0
"""After this long without a change a comment is sent, so that nobody on the way closes the connection."""
SLOWEST_S = 20.0
"""How long an open page may take to accept what it is sent."""
RETRY_MS = 3_000

Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Update:
    """The sections that changed, as HTML by their ids, and the version that a page then has."""

    version: str
    sections: Mapping[str, str] = field(default_factory=dict)


class LivePage(Protocol):
    """What people see of a watch; called in the thread that serves, and only if somebody looks."""

    @property
    def policy(self) -> str:
        """The content security policy of the document."""

    def document(self) -> str:
        """Return the whole page as it is now."""

    def update(self, since: str) -> Update:
        """Return what changed after a version; everything if the version is unknown."""

    def run(self, run_id: str) -> str | None:
        """Return the HTML report of a run, if there is one without keys."""


class Streams:
    """All open pages; `close` ends them."""

    def __init__(self, page: LivePage, look_s: float = LOOK_S) -> None:
        self._page = page
        self._look_s = look_s
        self._closing = False
        self.open = 0

    @property
    def full(self) -> bool:
        """Whether no further page may be opened."""
        return self.open >= MOST_STREAMS

    def close(self) -> None:
        """Have every stream end at its next look; any thread may call this."""
        self._closing = True

    async def follow(self, since: str, send: Send, gone: Callable[[], bool]) -> None:
        """Send one page what changes, until it is gone, too slow, or the watch ends."""
        self.open += 1
        try:
            parts = self._parts(since, gone)
            async for part in parts:
                async with within(SLOWEST_S):
                    await send(part)
        except asyncio.TimeoutError:
            return  # the browser opens it again when it can
        finally:
            self.open -= 1

    async def _parts(self, since: str, gone: Callable[[], bool]) -> AsyncIterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        silent_s = 0.0
        while not (self._closing or gone()):
            update = self._page.update(since)
            if update.sections:
                since, silent_s = update.version, 0.0
                yield _event(update)
            elif silent_s >= _SIGN_OF_LIFE_S:
                silent_s = 0.0
                yield b": still here\n\n"
            await self._pause(gone)
            silent_s += self._look_s

    async def _pause(self, gone: Callable[[], bool]) -> None:
        """Wait for the next look, in small steps, because the watch must end within seconds."""
        left_s = self._look_s
        while left_s > 0 and not (self._closing or gone()):
            step_s = min(left_s, 0.2)
            await asyncio.sleep(step_s)
            left_s -= step_s


def _event(update: Update) -> bytes:
    data = json.dumps(dict(update.sections), ensure_ascii=True, separators=(",", ":"))  # one line, whatever is in it
    return f"id: {update.version}\nevent: sections\ndata: {data}\n\n".encode()
