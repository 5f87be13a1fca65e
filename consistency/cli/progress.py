"""How far a command is, on stderr, while it reads; Ctrl-C ends it with what was read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

from consistency.cli.interrupt import Interrupt
from consistency.cli.show.terminal.console import make_console
from consistency.cli.show.terminal.progress import LineProgress, LiveProgress, NoProgress, Progress
from consistency.cluster.throttle import Politeness

_EVERY_S = 1.0


def make_progress(*, quiet: bool) -> Progress:
    """Return what shows on stderr how far a command is."""
    if quiet:
        return NoProgress()
    console = make_console(sys.stderr)
    return LiveProgress(console) if console.is_terminal else LineProgress(console)


@asynccontextmanager
async def ticking(progress: Progress, politeness: Politeness) -> AsyncIterator[None]:
    """Have the progress shown anew each second, and say when the pause file appears and goes."""

    async def tick() -> None:
        paused = False
        while True:
            await asyncio.sleep(_EVERY_S)
            progress.tick()
            if politeness.paused is not paused:
                paused = not paused
                progress.say(f"paused while {politeness.pause_file} exists" if paused else "going on")

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()


def listening(progress: Progress) -> Interrupt:
    """Listen for Ctrl-C and SIGTERM: the first ends the work with what was read so far, the second at once."""

    def abort() -> None:
        progress.close()
        click.echo("interrupted", err=True)

    interrupt = Interrupt(lambda: progress.say("interrupted: ending with what was read so far"), abort)
    interrupt.listen()
    return interrupt
