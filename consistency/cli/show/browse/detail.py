"""One row's replicas side by side: states, write times, and what differs."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from consistency.cli.show.terminal.problems import key_text
from consistency.model.cqltext import visible
from consistency.results.figures import counted, moment
from consistency.results.findings import Finding, State, WriteTime
from consistency.results.recency import Recency, newest_time, recencies

_STATE = {
    State.CURRENT: ("up to date", "green"),
    State.STALE: ("behind", "red"),
    State.MISSING: ("lacks the row", "red"),
    State.UNREADABLE: ("not read", "yellow"),
}
_STYLE = {Recency.NEWEST: "green", Recency.OLDER: "red", Recency.SAME_TIME: "yellow", Recency.PLAIN: ""}


_NO_LIMIT = 10_000


def row_text(finding: Finding, number: int) -> tuple[RenderableType, int]:
    """Return a finding as it is shown under the list, and the width of its replicas side by side."""
    replicas = _replicas(finding)
    width = Console(width=_NO_LIMIT).measure(replicas).maximum
    kinds = [finding.kind, *(fact for fact in finding.facts if fact is not finding.kind)]
    text = Group(
        Text.assemble((f"#{number:,} ", "bold"), "; also: ".join(kind.sentence for kind in kinds)),
        Text(key_text(finding.key), style="bold", overflow="fold"),
        Text(f"token {finding.token}", style="dim"),
        replicas,
    )
    return text, width


def _replicas(finding: Finding) -> Table:
    cells = {
        name: {column: (times, recency) for column, times, recency in recencies(finding, view)}
        for name, view in finding.replicas.items()
    }
    day = _common_day(finding)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    grid.add_column(Text(f"written (UTC)\n{day}".rstrip(), style="not bold dim"), no_wrap=True)
    for name, view in finding.replicas.items():
        word, style = _STATE[view.state]
        grid.add_column(Text.assemble(visible(name), "\n", (word, f"not bold {style}")), no_wrap=True)
    for column in dict.fromkeys((*finding.columns, *(c for held in cells.values() for c in held))):
        title = Text(visible(column), style="bold" if column in finding.columns else "dim")
        grid.add_row(title, *(_cell(held.get(column), day) for held in cells.values()))
    return grid


def _common_day(finding: Finding) -> str:
    """Return the day on which all cells were written, so that it is shown once; empty if there are several."""
    times = [newest_time(t) for view in finding.replicas.values() for t in view.writetimes.values()]
    days = {moment(time)[:10] for time in times if time is not None}
    return days.pop() if len(days) == 1 else ""


def _cell(held: tuple[WriteTime, Recency] | None, day: str) -> Text:
    if held is None:
        return Text("-", style="dim")
    times, recency = held
    newest = newest_time(times)
    text = "null" if newest is None else moment(newest, micros=True).removeprefix(f"{day} " if day else "")
    if isinstance(times, list) and len(times) > 1:
        text += f" ({counted(len(times), 'cell')})"
    return Text(f"{text} {recency.word}".rstrip(), style=_STYLE[recency])
