"""Ctrl-C, SIGTERM and SIGHUP: the first ends a run early with a correct partial report, the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from consistency.cli.signals import SIGNALS
from consistency.results.verdict import ExitCode


class Interrupt:
    """Listens within a running event loop. Give `stop` to the work; call `begun` once the work obeys it."""

    def __init__(self, on_stop: Callable[[], None], on_abort: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        self._on_stop = on_stop
        self._on_abort = on_abort
        self._begun = False

    def listen(self) -> None:
        """Handle the signals; a signal that is ignored (nohup) stays ignored.

        Not by the loop's own handlers: once it has ended, a signal would end the process without a word.
        """
        loop = asyncio.get_running_loop()

        def received(*_: object) -> None:
            if not loop.is_running():
                raise KeyboardInterrupt
            loop.call_soon_threadsafe(self._received)

        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, received)

    def begun(self) -> None:
        """Say that the running work now ends when `stop` is set."""
        self._begun = True

    def _received(self) -> None:
        if self._begun and not self.stop.is_set():
            self._on_stop()
            self.stop.set()
            return
        # While connecting, or at a second Ctrl-C, threads of the driver may wait for a node; exit without them.
        self._on_abort()
        os._exit(ExitCode.INTERRUPTED)
