"""The progress of a command is shown anew while it reads, and says when a pause file holds it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consistency.cli.progress import make_progress, ticking
from consistency.cli.show.terminal.progress import NoProgress
from consistency.cluster.throttle import Politeness
from consistency.cluster.waits import within


class Said(NoProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.ticks = 0

    def tick(self) -> None:
        """Count."""
        self.ticks += 1

    def say(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


async def until(lines: list[str], count: int) -> None:
    """Wait for so many lines."""
    async with within(10):
        while len(lines) < count:  # noqa: ASYNC110 - another task adds them
            await asyncio.sleep(0.001)


def test_a_pause_is_said_when_it_begins_and_when_it_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Once each, however long it lasts; nothing is shown after the command."""
    monkeypatch.setattr("consistency.cli.progress._EVERY_S", 0.001)
    said, pause = Said(), tmp_path / "pause"

    async def read() -> int:
        async with ticking(said, Politeness(pause_file=pause)):
            pause.touch()
            await until(said.lines, 1)
            await asyncio.sleep(0.02)
            pause.unlink()
            await until(said.lines, 2)
        ticks = said.ticks
        await asyncio.sleep(0.02)
        return ticks

    assert asyncio.run(read()) == said.ticks > 1
    assert said.lines == [f"paused while {pause} exists", "going on"]
    assert isinstance(make_progress(quiet=True), NoProgress)
