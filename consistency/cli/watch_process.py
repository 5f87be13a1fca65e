"""The process of a watch: its hooks, its HTTP server, the pulse that /healthz tells, and its end within seconds."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from consistency import __version__
from consistency.cli.interrupt import Interrupt
from consistency.cli.serving import secret_of
from consistency.cluster.setting_values import ENV_PREFIX
from consistency.cluster.waits import left_behind
from consistency.errors import UsageError
from consistency.results.verdict import ExitCode
from consistency.watching.event_log import EventLog
from consistency.watching.hooks import CommandHook, Hook, WebHook
from consistency.watching.metrics import RunEnd

if TYPE_CHECKING:
    from consistency.cli.show.live.state import LiveState
    from consistency.watching.http import Server

_HEARTBEAT_S = 1.0
_LAST_S = 0.3
"""How long what is still under way at the end may take once it is cancelled."""
_DEAD_AFTER_S = 30.0


class Going(Protocol):
    """A watch, of one cluster or of two."""

    @property
    def rounds(self) -> int:
        """The number of complete rounds."""

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until stopped."""


class Pulse:
    """Tells the HTTP thread whether the loop still runs."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beating(self) -> bool:
        """Whether the loop ran within the last half minute."""
        return time.monotonic() - self._last < _DEAD_AFTER_S

    async def beat(self) -> None:
        """Note the time until cancelled."""
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(_HEARTBEAT_S)


def take_hooks(command: str | None, passed_on: tuple[str, ...], url: str | None) -> list[Hook]:
    """Return the hooks that the options and the environment name."""
    hooks: list[Hook] = []
    if command is not None:
        hooks.append(CommandHook.parse(command, passed_on))
    elif passed_on:
        raise UsageError("--hook-env passes a variable on to the command of --hook; give one, or leave it out")
    url = os.environ.get(ENV_PREFIX + "WEBHOOK") or None if url is None else url
    if url is not None:
        hooks.append(WebHook.parse(url, secret_of("WEBHOOK_SECRET")))
    return hooks


def require_folder(folder: Path | None) -> None:
    """Refuse a --findings-dir that cannot be written."""
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        msg = f"--findings-dir {folder}: is not a directory that can be written; create it first"
        raise UsageError(msg)


def live_page(
    run_end: Callable[[], RunEnd | None], html_dir: Path | None, pulse: Pulse
) -> tuple[LiveState, Callable[[str, str], Server]]:
    """Return who is shown the visits, and what serves the page at an address with a token."""
    from consistency.cli.show.live.render import LiveRenderer  # noqa: PLC0415 - loads the templates' engine
    from consistency.cli.show.live.reports import KeptReports  # noqa: PLC0415
    from consistency.cli.show.live.state import LiveState  # noqa: PLC0415
    from consistency.watching.http import Server  # noqa: PLC0415 - loads the HTTP server

    live = LiveState(run_end, KeptReports(html_dir))
    page = LiveRenderer(live, pulse.beating)
    return live, lambda listen, token: Server(listen, run_end, pulse.beating, page, token)


def watch_until_stopped(going: Going, serve: Callable[[], Server], pulse: Pulse, log: EventLog | None) -> None:
    """Serve and watch until a signal comes."""
    asyncio.run(_watch(going, serve, pulse, log))


async def _watch(going: Going, serve: Callable[[], Server], pulse: Pulse, log: EventLog | None) -> None:
    asyncio.get_running_loop().set_default_executor(_LeftBehind())
    server = serve()
    interrupt = Interrupt(lambda: None, lambda: click.echo("interrupted", err=True))
    interrupt.listen()
    interrupt.begun()
    if log is not None:
        log.emit("watch.started", version=__version__, address=server.address, page=server.access.mode.value)
    beating = asyncio.create_task(pulse.beat())
    try:
        await going.run(interrupt.stop)
        if log is not None:
            log.emit("watch.stopped", rounds=going.rounds)
    finally:
        beating.cancel()
        server.close()
    if await left_behind(_LAST_S):  # everything that matters is on disk; the lock ends with the process
        os._exit(ExitCode.CONSISTENT)


class _LeftBehind(ThreadPoolExecutor):
    """Threads that the exit does not wait for: one may be connecting to a silent node."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:  # noqa: ARG002
        """Start nothing more."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
