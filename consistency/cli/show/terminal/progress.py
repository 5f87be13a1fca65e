"""Shows a running check: a few live lines on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from consistency.checking.observer import PairObserver, SilentPair
from consistency.cli.show.terminal.console import safe
from consistency.cli.show.terminal.counts import Counts, Lane
from consistency.results.figures import counted, short, span

LINE_EVERY_S = 10.0
_MOST_LANES = 12


class Progress(Protocol):
    """An observer with a display; `tick` is called about once a second, `close` at the end."""

    @property
    def observer(self) -> PairObserver:
        """The observer of the check."""

    def tick(self) -> None:
        """Show the state if it is due."""

    def say(self, text: str) -> None:
        """Show a message that stays."""

    def close(self) -> None:
        """Leave the screen clean."""


class NoProgress:
    """Shows nothing."""

    observer: PairObserver = SilentPair()

    def tick(self) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class LineProgress:
    """Plain lines for logs: at most one every ten seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._counts = Counts(clock)
        self._said = clock()

    @property
    def observer(self) -> PairObserver:
        """The counts shown."""
        return self._counts

    def tick(self) -> None:
        """Print a line if the last one is ten seconds old."""
        now = self._clock()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            self.say(line(self._counts))

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Do nothing: the screen has nothing to clear."""


class LiveProgress:
    """A few lines that are redrawn, and removed at the end."""

    def __init__(self, console: Console) -> None:
        self._counts = Counts()
        self._console = console
        self._live = Live(
            get_renderable=lambda: picture(self._counts, console.width),
            console=console,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    @property
    def observer(self) -> PairObserver:
        """The counts shown."""
        return self._counts

    def tick(self) -> None:
        """Do nothing: a thread draws the lines."""

    def say(self, text: str) -> None:
        """Print above the live lines."""
        self._console.print(Text(text))

    def close(self) -> None:
        """Remove the lines and show the cursor again."""
        with suppress(OSError):
            self._live.stop()


def line(counts: Counts) -> str:
    """Return the state as one plain line."""
    name = safe(counts.table)
    place = f"{name}, table {counts.begun} of {counts.tables}" if counts.begun and counts.tables > 1 else name
    rows = sum(lane.rows for lane in list(counts.lanes.values()))
    parts = [f"{place or 'check'}: {counts.stage}"]
    if counts.settling_now:
        parts = [f"{counts.stage}: {counted(counts.waiting, 'row')} left"]
    elif counts.begun:
        parts[0] += f" {counts.part:.0%}"
        parts.append(f"{short(rows / counts.table_seconds)} rows/s")
    parts.append(counted(counts.findings, "finding"))
    if counts.failed:
        parts.append(f"{counted(counts.failed, 'digest')} failed")
    if counts.seconds_left is not None and not counts.settling_now:
        parts.append(f"{span(counts.seconds_left)} left")
    return ", ".join(parts)


def picture(counts: Counts, width: int) -> RenderableType:
    """Return the state for a terminal."""
    return Group(_title(counts), *_lanes(counts, width), _footer(counts))


def _title(counts: Counts) -> Table:
    left = Text(counts.stage, style="bold")
    if counts.table and not counts.settling_now:
        left = Text.assemble((safe(counts.table), "bold"), ("  " + counts.stage, "dim"))
    right = Text(span(counts.seconds), style="dim")
    if counts.seconds_left is not None and not counts.settling_now:
        here = " in this table" if counts.tables > counts.begun else ""
        right = Text(f"{span(counts.seconds_left)} left{here}", style="dim")
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(left, right)
    return grid


def _lanes(counts: Counts, width: int) -> list[RenderableType]:
    """Draw a bar per replica; of many replicas, the slowest."""
    lanes = list(counts.lanes.items())
    hidden = max(0, len(lanes) - _MOST_LANES)
    if hidden:
        lanes = sorted(sorted(lanes, key=lambda pair: pair[1].part)[:_MOST_LANES])
    if not lanes or counts.settling_now:
        return []
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    grid.add_column(width=max(8, min(40, width - 62)))
    for _ in range(3):
        grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True)
    for name, lane in lanes:
        grid.add_row(*_lane(counts, name, lane))
    return [grid, *([Text(f"and {counted(hidden, 'replica')} further ahead", style="dim")] if hidden else [])]


def _lane(counts: Counts, name: str, lane: Lane) -> list[RenderableType]:
    bar = ProgressBar(
        total=max(1, lane.planned),
        completed=lane.done,
        style="bright_black",
        complete_style="cyan",
        finished_style="green",
    )
    failed = Text(f"{lane.failed} failed", style="yellow") if lane.failed else Text()
    rows, rate = f"{short(lane.rows)} rows", f"{short(counts.rate(lane))} rows/s"
    return [Text(safe(name)), bar, Text(f"{lane.part:.0%}"), Text(rows), Text(rate, style="dim"), failed]


def _footer(counts: Counts) -> Text:
    parts = [(counted(counts.findings, "finding"), "bold red" if counts.findings else "dim")]
    if counts.settling_now:
        parts.append((f"{counted(counts.waiting, 'suspect')} left", "dim"))
    if counts.tables > 1:
        parts.append((f"table {max(1, counts.begun)} of {counts.tables}", "dim"))
    return Text(" · ", style="dim").join(Text(text, style=style) for text, style in parts)
