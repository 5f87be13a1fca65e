"""Tells the hooks of a watch, one after the other; a hook that fails is counted and logged, and the watch goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from consistency.watching.event_log import EventLog
from consistency.watching.hooks import Hook, HookFailed, deliver

_LAST_WORD_S = 1.5
"""How long a hook may take after the watch was told to stop."""


class Teller:
    """Passes messages on to all hooks; `failed` is called for each that could not be notified."""

    def __init__(self, hooks: Sequence[Hook], failed: Callable[[], None], log: EventLog | None = None) -> None:
        self._hooks = hooks
        self._failed = failed
        self._log = log

    async def tell(self, message: bytes, stop: asyncio.Event) -> None:
        """Notify every hook; once `stop` is set none may take long."""
        for hook in self._hooks:
            telling = asyncio.ensure_future(self._tell_one(hook, message))
            stopping = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not telling.done():
                    await asyncio.wait({telling}, timeout=_LAST_WORD_S)
            finally:
                stopping.cancel()
                if not telling.done():
                    telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    async def _tell_one(self, hook: Hook, message: bytes) -> None:
        try:
            attempts = await deliver(hook, message)
        except HookFailed as error:
            self._failed()
            if self._log is not None:
                self._log.emit("hook.failed", hook=hook.name, error=type(error).__name__)
            return
        if self._log is not None:
            self._log.emit("hook.delivered", hook=hook.name, attempts=attempts)
